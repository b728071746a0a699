"""Batches whose shapes do not depend on their documents, for steps that a GPU repeats."""

import torch
from torch import Tensor

from tutvae.data.batches.text_batch import TextBatch

MULTIPLE = 4  # tokens; T is padded to a multiple, so that few shapes occur
IGNORED = -100  # the target that `cross_entropy` gives a cost, and a gradient, of zero


class FixedBatch(TextBatch):
    """A batch in which every position counts as a target, that of padding at no cost.

    Its tensors stay where they are, and any documents of as many rows can be put into them.
    """

    @classmethod
    def for_those_like(cls, batch: TextBatch, device: torch.device) -> "FixedBatch":
        """Make an empty one for batches of as many rows, and of about the same T."""
        tokens = torch.zeros(padded_shape(batch), dtype=torch.int64, device=device)
        return cls(tokens, tokens.new_zeros(len(batch)))

    def hold(self, batch: TextBatch) -> None:
        """Put documents in place of those that are here."""
        # Behind the end of a row, what was there before is as good as any padding.
        self.tokens[:, : batch.tokens.shape[1]] = batch.tokens
        self.lengths.copy_(batch.lengths)
        vars(self)["extremes"] = batch.extremes  # to look them up, the GPU would have to wait

    @property
    def targets(self) -> Tensor:  # noqa: D102
        return super().targets.masked_fill(~self.mask, IGNORED)

    def counting(self, x: Tensor) -> Tensor:  # noqa: D102
        return x.flatten(0, 1)

    def by_document(self, values: Tensor) -> Tensor:  # noqa: D102
        return values.view(len(self), -1).sum(1)


def padded_shape(batch: TextBatch) -> tuple[int, int]:
    """The shape `[B, T]` of a batch's tokens, with T as a multiple of `MULTIPLE`."""
    B, T = batch.tokens.shape
    return B, -(-T // MULTIPLE) * MULTIPLE
