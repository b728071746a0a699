"""Sentence templates of the generated reviews, as tables of probabilities that write and parse.

Arrays over the hidden factors have an axis of F states: category, stars, person and tense, raveled
in this order; F = 5 x 5 x 4 x 2 = 200 where all of them are in use.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from tutvae.reviews.words import SLOTS, STARS, Slot, inflect

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

# How many categories, stars, persons and tenses are in use.
Shape = tuple[int, int, int, int]


def entropy_of(probabilities: Floats) -> Floats:
    """Return the entropy in nats along the last axis; 0 log 0 counts as 0."""
    logs = np.log(probabilities, out=np.zeros_like(probabilities), where=probabilities > 0)
    return -(probabilities * logs).sum(-1)


@dataclass(frozen=True, eq=False)
class Table:
    """One slot: p(word | factors), `probabilities [F, W]` over W `words`."""

    words: tuple[str, ...]
    probabilities: Floats

    @cached_property
    def entropy(self) -> float:
        """The entropy given the factors, averaged over them, in nats."""
        return float(entropy_of(self.probabilities).mean())

    @cached_property
    def by_word(self) -> dict[str, Floats]:
        """p(word | factors), `[F]`, of each word."""
        return dict(zip(self.words, np.ascontiguousarray(self.probabilities.T), strict=True))

    @cached_property
    def _cumulative(self) -> Floats:
        """`[F, W]`; ends in exactly 1, so that a uniform number in [0, 1) finds a word."""
        cumulative = self.probabilities.cumsum(1)
        return cumulative / cumulative[:, -1:]

    def draw(self, states: Integers, rng: np.random.Generator) -> list[str]:
        """Draw a word for each of N `states [N]`."""
        columns = (self._cumulative[states] <= rng.random((len(states), 1))).sum(1)
        return [self.words[column] for column in columns]


@dataclass(frozen=True, eq=False)
class Template:
    """A sentence, word by word: fixed ones, and slots."""

    parts: tuple[str | Table, ...]

    @property
    def words(self) -> set[str]:
        """All that it can hold."""
        return set().union(*(x.words if isinstance(x, Table) else [x] for x in self.parts))

    @property
    def entropy(self) -> float:
        """H(sentence | template, factors) in nats: the slots are independent."""
        return sum(part.entropy for part in self.parts if isinstance(part, Table))

    def likelihood(self, words: Sequence[str]) -> Floats | None:
        """Return p(sentence | template, factors), `[F]`; None if it is not of the template."""
        if len(words) != len(self.parts):
            return None
        factors = []
        for part, word in zip(self.parts, words, strict=True):
            if isinstance(part, Table) and word in part.by_word:
                factors.append(part.by_word[word])
            elif word != part:
                return None
        product = np.prod(factors, axis=0)
        return product if product.any() else None

    def write(self, states: Integers, rng: np.random.Generator) -> list[str]:
        """Draw a sentence for each of N `states [N]`."""
        columns = [
            part.draw(states, rng) if isinstance(part, Table) else [part] * len(states)
            for part in self.parts
        ]
        return [" ".join(words) for words in zip(*columns, strict=True)]


def compiled(
    texts: Iterable[str], sizes: Mapping[str, int], shape: Shape, *noise: float
) -> list[Template]:
    """Turn strings into templates: entries of each list by `Slot.size`, vagueness, star noise."""
    tables = {
        f"{{{name}}}": _table(slot, sizes[slot.size], shape, _list_weights(slot, shape, *noise))
        for name, slot in SLOTS.items()
    }
    return [Template(tuple(tables.get(word, word) for word in text.split())) for text in texts]


def _list_weights(slot: Slot, shape: Shape, vagueness: float, star_noise: float) -> Floats:
    """p(list | category, stars), `[5, 5, lists]`."""
    weights = np.zeros((*shape[:2], len(slot.lists)))
    for category, stars in np.ndindex(*shape[:2]):
        row = weights[category, stars]
        if slot.chooser == "category":
            row[category], row[-1] = 1 - vagueness, vagueness
        elif slot.chooser == "stars":
            neighbours = [s for s in (stars - 1, stars + 1) if 0 <= s < len(STARS)]
            row[stars], row[neighbours] = 1 - star_noise, star_noise / len(neighbours)
        else:
            row[0] = 1
    return weights


def _table(slot: Slot, size: int, shape: Shape, weights: Floats) -> Table:
    """Category and stars choose the list, person and tense the form."""
    columns: dict[str, Floats] = {}
    for number, entries in enumerate(slot.lists):
        used = entries[:size]
        for i, person, tense in np.ndindex(len(used), *shape[2:]):
            word = inflect(used[i], slot.inflection, person, tense)
            column = columns.setdefault(word, np.zeros(shape))
            column[:, :, person, tense] += weights[:, :, number] / len(used)
    possible = {word: column for word, column in columns.items() if column.any()}
    probabilities = np.stack([column.ravel() for column in possible.values()], axis=1)
    return Table(tuple(possible), probabilities)


def parse(
    document: str, openings: Sequence[Template], follow_ups: Sequence[Template]
) -> list[Floats]:
    """Return p(sentence | template, factors), `[F]`, of each sentence; [] where one has none.

    No two templates share a sentence, and no document uses a template twice.
    """
    if not document.endswith(" ."):
        return []
    sentences = document.removesuffix(" .").split(" . ")
    found: dict[Template, Floats] = {}
    for number, sentence in enumerate(sentences):
        words = f"{sentence} .".split(" ")
        for template in follow_ups if number else openings:
            if (likelihood := template.likelihood(words)) is not None:
                found[template] = likelihood
    return list(found.values()) if len(found) == len(sentences) else []
