"""Generated reviews: a corpus whose every probability is known.

A review has four hidden factors, uniform and independent: category, stars, person and tense. To
write one, draw the factors; draw the number of sentences; draw an opening template and as many
different follow-up templates as sentences are left; fill each slot on its own, given the factors.

A slot is one token wide and no two templates share a sentence. So a document tells its templates,
and p(x) is a sum over the 200 combinations of the hidden factors: exact and fast.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import product
from typing import Literal, NamedTuple

import numpy as np

from tutvae.data.corpus import Corpus, Texts
from tutvae.reviews.templates import Floats, Integers, Template, compiled, entropy_of, parse
from tutvae.reviews.words import CATEGORIES, FACTORS, FOLLOW_UPS, OPENINGS, STARS

# How many documents the Monte Carlo estimates of a grammar share.
MONTE_CARLO_DOCUMENTS = 20_000

Label = Literal["category", "stars", "joint"]

_LABEL_NAMES: dict[str, tuple[str, ...]] = {
    "category": CATEGORIES,
    "stars": STARS,
    "joint": tuple(f"{category} {stars}" for category, stars in product(CATEGORIES, STARS)),
}
# How much of the words and templates there is to use; the first four are sizes of lists.
_LIMITS = {"nouns": 40, "verbs": 4, "adjectives": 12, "fillers": 8}
_SIZES = tuple(_LIMITS)
_LIMITS |= {"openings": len(OPENINGS), "follow_ups": len(FOLLOW_UPS), "persons": 4, "tenses": 2}


class Estimate(NamedTuple):
    """A Monte Carlo mean and its standard error, which is 0 where the value is exact."""

    value: float
    standard_error: float


@dataclass(frozen=True, repr=False)
class Reviews(Texts):
    """Generated documents with the truth about each. Chapter 3.

    Attributes:
        texts: the documents, `N` strings of lower-case words with single spaces between them.
        labels: the observed label of each, with the grammar's label noise, `N` integers.
        factors: true values, integers `[N]` each: the hidden "category", "stars" (from 0),
            "person" and "tense", and the visible "opening" (which template) and "sentences".
    """

    factors: Mapping[str, Integers] = field(default_factory=dict, kw_only=True)


@dataclass(frozen=True)
class ReviewGrammar:
    """A probabilistic grammar of short English reviews with exact probabilities. Chapter 3.

    Attributes:
        sentences: least and most sentences of a document; the number is uniform between them.
        openings: templates in use for the first sentence, 1 to 8.
        follow_ups: templates in use for the other sentences, 1 to 16.
        nouns: entries in use of each list of a category's nouns, 1 to 40.
        verbs: entries in use of each list of verbs, 1 to 4.
        adjectives: adjectives in use for each number of stars, 1 to 12.
        fillers: entries in use of each list that neither category nor stars choose, 1 to 8.
        persons: persons in use, 1 to 4; with 1, the factor is fixed.
        tenses: tenses in use, 1 to 2; with 1, the factor is fixed.
        vagueness: probability that a category slot takes a word that suits every category.
        star_noise: probability that a star slot takes a word of a neighbouring number of stars.
        label_noise: probability that an observed label is replaced by another one.

    ValueError if a value is out of its range; the message names both.

    >>> grammar = tutvae.ReviewGrammar(sentences=(1, 2))
    >>> review = grammar.sample(1, seed=0).texts[0]
    >>> grammar.log_prob(review) > grammar.log_prob("no such review")
    True
    """

    sentences: tuple[int, int] = (1, 1)
    openings: int = 8
    follow_ups: int = 16
    nouns: int = 12
    verbs: int = 4
    adjectives: int = 8
    fillers: int = 8
    persons: int = 4
    tenses: int = 2
    vagueness: float = 0.15
    star_noise: float = 0.15
    label_noise: float = 0.0

    def __post_init__(self) -> None:
        for name, limit in _LIMITS.items():
            if not 1 <= getattr(self, name) <= limit:
                raise ValueError(f"{name} must be 1 to {limit}, not {getattr(self, name)}")
        for name in ("vagueness", "star_noise", "label_noise"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be a probability, not {getattr(self, name)}")
        (least, most), limit = self.sentences, self.follow_ups + 1
        if not 1 <= least <= most <= limit:
            must = f"must be (least, most), at least 1 and at most follow_ups + 1 = {limit}"
            raise ValueError(f"sentences {must}, not {self.sentences}")

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """Every word that a document can hold, sorted; V strings."""
        return tuple(sorted(set().union(*(template.words for template in self._templates))))

    def sample(self, count: int, seed: int | Sequence[int], label: Label = "category") -> Reviews:
        """Draw N documents; the same seed gives the same.

        The `labels`, with label noise, are the "category" or the "stars" (0 to 4), or "joint" (0
        to 24: 5 * category + stars). ValueError for a negative `count` or another `label`.
        """
        if count < 0:
            raise ValueError(f"count must not be negative, as {count} is")
        names = _label_names(label)
        rng = np.random.default_rng(seed)
        states = rng.integers(np.prod(self._shape), size=count)
        least, most = self.sentences
        lengths = rng.integers(least, most + 1, size=count)
        templates = self._draw_templates(lengths, rng)
        texts = self._write(states, templates, rng)
        factors = dict(zip(FACTORS, np.unravel_index(states, self._shape), strict=True))
        factors |= {"opening": templates[:, 0], "sentences": lengths}
        true = 5 * factors["category"] + factors["stars"] if label == "joint" else factors[label]
        replaced = rng.random(count) < self.label_noise
        labels = (true + replaced * rng.integers(1, len(names), size=count)) % len(names)
        return Reviews(texts, labels.tolist(), label_names=names, factors=factors)

    def corpus(
        self, train: int, valid: int, test: int, seed: int = 0, label: Label = "category"
    ) -> Corpus[Reviews]:
        """Draw three samples of these sizes, as `sample`; no part depends on another's size."""
        sizes = enumerate((train, valid, test), 1)  # NumPy takes (seed, 0) for seed itself
        parts = (self.sample(count, (seed, part), label) for part, count in sizes)
        return Corpus("reviews", *parts)

    def log_prob(self, document: str) -> float:
        """Return log p(x) in nats, summed over all that is hidden; -inf outside the grammar."""
        return float(self.log_probs([document])[0])

    def log_probs(self, documents: Sequence[str]) -> Floats:
        """Return log p(x) of each document in nats, `[N]`; -inf outside the grammar. Chapter 3."""
        with np.errstate(divide="ignore"):
            return np.log(self._likelihoods(documents).mean(1))

    def posterior(self, document: str) -> Floats:
        """Return p(category, stars | x), `[5, 5]`; ValueError outside the grammar."""
        posterior = self.posteriors([document])[0]
        if np.isnan(posterior).any():
            raise ValueError(f"the grammar cannot write this document: {document!r}")
        return posterior

    def posteriors(self, documents: Sequence[str]) -> Floats:
        """Return p(category, stars | x), `[N, 5, 5]`; NaN outside the grammar. Chapter 9."""
        return self._factor_posteriors(documents).sum((3, 4))

    def entropy(self) -> Estimate:
        """Estimate the entropy of a document in nats: no model's mean NLL can be lower.

        H(x) = H(x, factors) - H(factors | x). The first term is exact; the second, a small one,
        is the mean entropy of the exact posterior over a sample. Chapter 3.
        """
        return _difference(self._joint_entropy(), entropy_of(self._sampled_posteriors(*FACTORS)))

    def factor_entropy(self, *names: str) -> float:
        """Return the joint entropy of some `Reviews.factors` in nats; ValueError for others."""
        least, most = self.sentences
        values = dict(zip(FACTORS, self._shape, strict=True))
        values |= {"opening": self.openings, "sentences": most - least + 1}
        if not names or not set(names) <= set(values):
            raise ValueError(f"factors must be from {', '.join(values)}, not {names}")
        return float(sum(np.log(values[name]) for name in set(names)))

    def mutual_information(self, *names: str) -> Estimate:
        """Estimate I(x; factors) in nats: the most that a code of x can hold of the factors.

        The text shows "opening" and "sentences", so their share is their entropy. ValueError as
        in `factor_entropy`. Chapter 5.
        """
        ceiling = self.factor_entropy(*names)
        return _difference(ceiling, entropy_of(self._sampled_posteriors(*names)))

    def bayes_accuracy(self, label: Label = "category") -> Estimate:
        """Estimate the best classifier's accuracy against the observed labels; see `sample`."""
        classes = len(_label_names(label))
        true = self._sampled_posteriors(*(("category", "stars") if label == "joint" else (label,)))
        observed = (1 - self.label_noise) * true + self.label_noise * (1 - true) / (classes - 1)
        return _difference(0.0, -observed.max(1))

    @property
    def _shape(self) -> tuple[int, int, int, int]:
        """How many values each hidden factor has, in the order of `FACTORS`."""
        return (len(CATEGORIES), len(STARS), self.persons, self.tenses)

    @cached_property
    def _templates(self) -> list[Template]:
        """The openings in use, then the follow-ups in use."""
        follow_ups = FOLLOW_UPS[: self.follow_ups] if self.sentences[1] > 1 else ()
        texts = OPENINGS[: self.openings] + follow_ups
        sizes = {size: getattr(self, size) for size in _SIZES}
        return compiled(texts, sizes, self._shape, self.vagueness, self.star_noise)

    def _sampled_posteriors(self, *names: str) -> Floats:
        """p(factors with these names | x) of many documents, raveled, `[N, states]`."""
        others = tuple(axis for axis, name in enumerate(FACTORS, start=1) if name not in names)
        sampled = _sample_posteriors(self, MONTE_CARLO_DOCUMENTS)
        return sampled.sum(others).reshape(len(sampled), -1)

    def _draw_templates(self, lengths: Integers, rng: np.random.Generator) -> Integers:
        """Indices of each document's templates, `[N, most]`; -1 past its end."""
        most = self.sentences[1]
        openings = rng.integers(self.openings, size=(len(lengths), 1))
        shuffled = rng.random((len(lengths), self.follow_ups)).argsort(1)[:, : most - 1]
        templates = np.concatenate([openings, self.openings + shuffled], axis=1)
        templates[np.arange(most) >= lengths[:, None]] = -1
        return templates

    def _write(self, states: Integers, templates: Integers, rng: np.random.Generator) -> list[str]:
        """Documents with the given factors `[N]` and templates `[N, most]`."""
        written = np.full(templates.shape, "", dtype=object)
        for index, template in enumerate(self._templates):
            rows, columns = np.nonzero(templates == index)
            written[rows, columns] = template.write(states[rows], rng)
        return [" ".join(filter(None, sentences)) for sentences in written]

    def _joint_entropy(self) -> float:
        """H(x, factors) in nats: a plain sum, for the slots are independent given the factors."""
        least, most = self.sentences
        entropies = [template.entropy for template in self._templates]
        words = np.mean(entropies[: self.openings])
        if most > 1:
            words += ((least + most) / 2 - 1) * np.mean(entropies[self.openings :])
        arrangements = -self._log_arrangements()[least:].mean()
        return float(self.factor_entropy(*FACTORS, "sentences") + arrangements + words)

    def _log_arrangements(self) -> Floats:
        """Log probability of a given sequence of templates by its length, `[most + 1]`."""
        left = self.follow_ups - np.arange(self.sentences[1] - 1)
        return -np.log(self.openings) - np.concatenate([[0, 0], np.log(left).cumsum()])

    def _factor_posteriors(self, documents: Sequence[str]) -> Floats:
        """p(factors | x), `[N, 5, 5, persons, tenses]`; NaN outside the grammar."""
        likelihoods = self._likelihoods(documents)
        with np.errstate(invalid="ignore"):
            likelihoods /= likelihoods.sum(1, keepdims=True)
        return likelihoods.reshape(-1, *self._shape)

    def _likelihoods(self, documents: Sequence[str]) -> Floats:
        """p(x | factors), `[N, F]`, far above the smallest float even of the longest documents."""
        openings, follow_ups = self._templates[: self.openings], self._templates[self.openings :]
        prior = np.exp(self._log_arrangements() - self.factor_entropy("sentences"))
        least, most = self.sentences
        result = np.zeros((len(documents), np.prod(self._shape)))
        for row, document in zip(result, documents, strict=True):
            found = parse(document, openings, follow_ups)
            if least <= len(found) <= most:
                row[:] = prior[len(found)] * np.prod(found, axis=0)
        return result


@lru_cache(maxsize=2)  # grammars alike share them; 32 MB each
def _sample_posteriors(grammar: ReviewGrammar, count: int) -> Floats:
    """p(factors | x) of N sampled documents, `[N, 5, 5, persons, tenses]`."""
    return grammar._factor_posteriors(grammar.sample(count, seed=0).texts)


def _label_names(label: str) -> tuple[str, ...]:
    if label not in _LABEL_NAMES:
        raise ValueError(f"label must be one of {', '.join(_LABEL_NAMES)}, not {label!r}")
    return _LABEL_NAMES[label]


def _difference(exact: float, sampled: Floats) -> Estimate:
    """An exact term minus the mean of a sample."""
    error = sampled.std(ddof=1) / np.sqrt(len(sampled))
    return Estimate(exact - float(sampled.mean()), float(error))
