"""Exact likelihoods of generated reviews: the documents' words looked up in the templates."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from tutvae.reviews.templates import Floats, Integers, Table, Template

_CHUNK = 2_000  # documents at once, which bounds the memory


class Parser:
    """Computes p(x | factors) of documents, far above the smallest float even of the longest.

    Args:
        templates: no two have a sentence in common.
        prior: probability of a number of sentences and one given sequence of different templates
            for them, by that number, `[most + 1]`.
    """

    def __init__(self, templates: Sequence[Template], prior: Floats) -> None:
        self._templates = templates
        self._prior = prior
        tables = {table for template in templates for table in template.slots.values()}
        self._states = len(next(iter(tables)).probabilities)
        words = {word for template in templates for word in template.literals.values()}
        words.update(chain.from_iterable(table.words for table in tables))
        self.vocabulary = tuple(sorted(words))
        self._ids = {word: i for i, word in enumerate(self.vocabulary)}
        self._by_word = {table: self._rows_by_word(table) for table in tables}

    def likelihoods(self, documents: Sequence[str]) -> Floats:
        """Return p(x | factors) of each document, `[N, F]`; 0 outside the grammar."""
        result = np.zeros((len(documents), self._states))
        for start in range(0, len(documents), _CHUNK):
            words = [document.split(" ") for document in documents[start : start + _CHUNK]]
            counts = np.array([row.count(".") if row[-1] == "." else 0 for row in words])
            kept = np.flatnonzero((counts > 0) & (counts < len(self._prior)))
            if len(kept):
                result[start + kept] = self._parse([words[i] for i in kept], counts[kept])
        return result

    def _parse(self, documents: list[list[str]], counts: Integers) -> Floats:
        """`likelihoods` of documents of `counts [N]` sentences, 1 to `most`."""
        firsts = counts.cumsum() - counts
        opens = np.zeros(counts.sum(), dtype=bool)
        opens[firsts] = True
        likelihoods, templates = self._parse_sentences(chain.from_iterable(documents), opens)
        uses = np.zeros((len(counts), len(self._templates)))
        np.add.at(uses, (np.repeat(np.arange(len(counts)), counts), templates), 1)
        # No document uses a template twice.
        prior = np.where((uses > 1).any(1), 0, self._prior[counts])
        return prior[:, None] * np.multiply.reduceat(likelihoods, firsts, axis=0)

    def _parse_sentences(
        self, words: Iterable[str], opens: NDArray[np.bool_]
    ) -> tuple[Floats, Integers]:
        """Parse a stream of words, M sentences; `opens [M]` says which are first in a document.

        Returns:
            p(sentence | factors, template), `[M, F]`, and the index of the template, `[M]`; 0
            where none fits.
        """
        unknown = len(self.vocabulary)
        ids = np.array([self._ids.get(word, unknown) for word in words])
        ends = np.flatnonzero(ids == self._ids["."]) + 1
        starts = np.concatenate([[0], ends[:-1]])
        likelihoods = np.zeros((len(opens), self._states))
        found = np.zeros(len(opens), dtype=int)
        for index, template in enumerate(self._templates):
            length = len(template.tokens)
            rows = np.flatnonzero((ends - starts == length) & (opens == template.opening))
            sentences = ids[starts[rows, None] + np.arange(length)]
            for place, word in template.literals.items():
                fits = sentences[:, place] == self._ids[word]
                rows, sentences = rows[fits], sentences[fits]
            product = np.ones((len(rows), self._states))
            for place, table in template.slots.items():
                product *= self._by_word[table][sentences[:, place]]
            possible = product.any(1)
            likelihoods[rows[possible]] = product[possible]
            found[rows[possible]] = index
        return likelihoods, found

    def _rows_by_word(self, table: Table) -> Floats:
        """p(word | factors) of a slot, `[V + 1, F]`; the last row is the unknown word's, 0."""
        result = np.zeros((len(self.vocabulary) + 1, self._states))
        result[[self._ids[word] for word in table.words]] = table.probabilities.T
        return result
