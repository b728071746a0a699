"""Few labels: which documents keep theirs, and batches with and without."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from tutvae.data.batches.text import Batches, EncodedTexts
from tutvae.data.batches.text_batch import TextBatch


def label_subset(labels: Sequence[int] | Tensor | np.ndarray, count: int, seed: int) -> np.ndarray:
    """Draw the documents that keep their label, equally many from each class.

    Of the `labels`, `[N]`, -1 is none. Where the classes do not divide `count`, some give one
    document more. With one seed, a smaller subset is part of a larger one. The positions come in
    ascending order, `[count]`. A class that would get no document, or has too few, is a ValueError.

    >>> labels = [0, 0, 0, 1, 1, 1]
    >>> [labels[position] for position in tutvae.label_subset(labels, count=4, seed=0)]
    [0, 0, 1, 1]

    Source: Kingma et al. (2014), section 4; Yang et al. (2017), section 4. Chapter 8.
    """
    array = np.asarray(labels)
    classes = np.unique(array[array >= 0])
    if not 0 < len(classes) <= count:
        raise ValueError(
            f"{count} labels cannot be spread over {len(classes)} classes: each needs at least one"
        )
    random = np.random.default_rng(seed)
    chosen = []
    for rank, label in enumerate(random.permutation(classes)):
        members = random.permutation(np.flatnonzero(array == label))
        share = (count + len(classes) - 1 - rank) // len(classes)
        if share > len(members):
            raise ValueError(
                f"class {label} has {len(members)} documents, too few to draw {share} of them: "
                f"ask for fewer labels than {count}"
            )
        chosen.append(members[:share])
    return np.sort(np.concatenate(chosen))


class MixedBatches(Batches):
    """One epoch of minibatches with and without labels each time it is iterated over.

    An epoch is one pass over the unlabelled documents, in the batches of `Batches`. Each batch
    gets `labelled_size` labelled documents on top: they are taken in turn, in an order that is
    drawn anew each time all had their turn, across the epochs. `TextBatch.labels` is -1 where
    there is no label; `TextBatch.positions` is None. Without unlabelled documents an epoch is one
    pass over the labelled ones, and `labelled_size` is not used. No documents at all, one of
    `labelled` without a label, or a `labelled_size` below 1 is a ValueError; see also `Batches`.

    Args:
        labelled: documents with labels, or None.
        unlabelled: documents whose labels, if they have any, are hidden; or None.
        labelled_size: labelled documents a batch.
        **settings: those of `Batches`, but `shuffle`; sizes are of the unlabelled documents.

    >>> few, many = tutvae.EncodedTexts([[1, 7, 2]], [4]), tutvae.EncodedTexts([[1, 8, 2]] * 6)
    >>> batches = tutvae.MixedBatches(few, many, labelled_size=1, batch_size=2)
    >>> [batch.labels.tolist() for batch in batches]
    [[4, -1, -1], [4, -1, -1], [4, -1, -1]]

    Source: Kingma et al. (2014); Yang et al. (2017). Chapter 8.
    """

    _kept = ("taken",)

    def __init__(
        self,
        labelled: EncodedTexts | None,
        unlabelled: EncodedTexts | None,
        *,
        labelled_size: int = 8,
        **settings: Any,
    ) -> None:
        if labelled_size < 1:
            raise ValueError(f"labelled_size must be at least 1, not {labelled_size}")
        if labelled is not None and (labelled.labels is None or bool((labelled.labels < 0).any())):
            raise ValueError("every document of `labelled` needs a label: some have none")
        texts = labelled if unlabelled is None else unlabelled
        if texts is None:
            raise ValueError("give labelled documents, unlabelled ones, or both")
        super().__init__(texts, shuffle=True, **settings)
        self.labelled = labelled
        self.unlabelled = unlabelled
        self.labelled_size = labelled_size
        self.taken = 0  # labelled documents in the completed epochs, by all processes

    def _batches_from(self, start: int) -> Iterator[tuple[int, TextBatch]]:
        a_step = self.labelled_size * self.world_size
        in_this_epoch = len(self) * a_step
        for done, batch in super()._batches_from(start):
            first = self.taken + (done - 1) * a_step + self.rank * self.labelled_size
            yield done, self._complete(batch, range(first, first + self.labelled_size))
        self.taken += in_this_epoch

    def _configuration(self) -> dict[str, Any]:
        return super()._configuration() | {
            "labelled_documents": 0 if self.labelled is None else len(self.labelled),
            "unlabelled_documents": 0 if self.unlabelled is None else len(self.unlabelled),
            "labelled_size": self.labelled_size,
        }

    def _complete(self, batch: TextBatch, turns: range) -> TextBatch:
        """Hide the labels of an unlabelled batch, and add the labelled documents of `turns`."""
        if self.unlabelled is None:
            return replace(batch, positions=None)
        hidden = torch.full_like(batch.lengths, -1)
        if self.labelled is None:
            return replace(batch, labels=hidden, positions=None)
        known = self.labelled.batch(self._in_turn(turns, len(self.labelled)))
        assert known.labels is not None
        rows = [*known.tokens, *batch.tokens]
        return TextBatch(
            pad_sequence(rows, batch_first=True, padding_value=self.texts.pad_id),
            torch.cat([known.lengths, batch.lengths]),
            torch.cat([known.labels, hidden]),
        )

    def _in_turn(self, turns: range, N: int) -> np.ndarray:
        """The documents of N whose turn it is: turn t is that of round t // N, place t % N."""
        rounds = range(turns.start // N, (turns.stop - 1) // N + 1)
        orders = [_order(self.seed, i, N) for i in rounds]
        start = turns.start - rounds.start * N
        return np.concatenate(orders)[start : start + len(turns)]


@lru_cache(maxsize=2)  # one batch after another asks for the same
def _order(seed: int, number: int, documents: int) -> np.ndarray:
    """The order in which labelled documents have their turn in one round."""
    return np.random.default_rng([seed, number]).permutation(documents)
