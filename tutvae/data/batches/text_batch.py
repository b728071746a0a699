"""A minibatch of documents: padded rows of token ids, and which of them count."""

from copy import copy
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class TextBatch:
    """A minibatch of documents.

    Attributes:
        tokens: ids from start mark to end mark, padded on the right, `[B, T]`.
        lengths: how many of each row's tokens are not padding, `[B]`.
        labels: class of each document, `[B]`, or None.
        positions: where each document stood in the caller's list, `[B]`: results come back in
            its order by `results[batch.positions] = values`. None for a batch made by hand.

    >>> batch = tutvae.EncodedTexts([[1, 7, 8, 2], [1, 7, 2]]).batch()
    >>> batch.targets.tolist(), batch.mask.sum(1).tolist()
    ([[7, 8, 2], [7, 2, 0]], [3, 2])

    Source: chapter 3.
    """

    tokens: Tensor
    lengths: Tensor
    labels: Tensor | None = None
    positions: Tensor | None = None

    @property
    def inputs(self) -> Tensor:
        """What a decoder reads, everything but the last token, `[B, T - 1]`."""
        return self.tokens[:, :-1]

    @property
    def targets(self) -> Tensor:
        """What a decoder predicts, everything but the start mark, `[B, T - 1]`."""
        return self.tokens[:, 1:]

    @property
    def mask(self) -> Tensor:
        """Which targets count, by the lengths and not by the padding's id, `[B, T - 1]`."""
        time = torch.arange(1, self.tokens.shape[1], device=self.tokens.device)
        return time < self.lengths[:, None]

    @property
    def predicted_tokens(self) -> int:
        """How many targets count over all documents, words and end marks."""
        return int(self.lengths.sum()) - len(self)

    @cached_property
    def words(self) -> Tensor:
        """Rows and times of the targets that count, one row after another, `[2, words]`.

        Each is a word or an end mark. A GPU indexes by these without a wait, by the mask with one.
        """
        return self.mask.nonzero().T.contiguous()

    def counting(self, x: Tensor) -> Tensor:
        """Take from `[B, T - 1, ...]` what stands at the targets that count: `[words, ...]`."""
        rows, times = self.words
        return x[rows, times]

    def by_document(self, values: Tensor) -> Tensor:
        """Sum values of the targets that count, `[words]`, over each document: `[B]`."""
        rows, times = self.words
        padded = values.new_zeros(len(self), self.tokens.shape[1] - 1)
        return padded.index_put((rows, times), values).sum(1)

    @cached_property
    def unlabelled(self) -> Tensor:
        """Rows of the documents without a label, `[U]`."""
        if self.labels is None:
            return torch.arange(len(self), device=self.tokens.device)
        return (self.labels < 0).nonzero()[:, 0]

    @cached_property
    def unlabelled_words(self) -> Tensor:
        """Which of the `words` are in documents without a label, as their places there."""
        if self.labels is None:
            return torch.arange(self.words.shape[1], device=self.tokens.device)
        return (self.labels < 0)[self.words[0]].nonzero()[:, 0]

    @cached_property
    def label_extremes(self) -> tuple[int, int]:
        """The lowest and the largest label; -1 is no label."""
        if self.labels is None:
            return -1, -1
        lowest, largest = torch.stack(self.labels.aminmax()).tolist()
        return lowest, largest

    @cached_property
    def extremes(self) -> tuple[int, int, int, int]:
        """The lowest and the largest token id, the shortest and the longest length.

        Tokens or lengths of another shape, or that are no integers, are a ValueError.
        """
        tokens, lengths = self.tokens, self.lengths
        if tokens.dim() != 2 or len(tokens) == 0 or lengths.shape != tokens.shape[:1]:
            raise ValueError(
                "a batch has tokens [B, T] and lengths [B] of at least one document, "
                f"not {list(tokens.shape)} and {list(lengths.shape)}"
            )
        kinds = tokens.dtype, lengths.dtype
        if any(kind.is_floating_point for kind in kinds):
            raise ValueError(f"tokens and lengths are integers, not {kinds[0]}, {kinds[1]}")
        extremes = [*tokens.aminmax(), *lengths.aminmax()]
        # One look at the device for all four.
        lowest, largest, shortest, longest = torch.stack([x.long() for x in extremes]).tolist()
        return lowest, largest, shortest, longest

    def with_copies(self, copies: int) -> "tuple[TextBatch, Tensor]":
        """Add copies of the documents without a label, all of them `copies` times in turn.

        Returns P documents without their labels, and the row `[P]` that each of them is here.
        """
        B, U, device = len(self), len(self.unlabelled), self.tokens.device
        rows = torch.cat([torch.arange(B, device=device), self.unlabelled.repeat(copies)])
        copied = TextBatch(self.tokens[rows], self.lengths[rows])
        words, times = self.words[:, self.unlabelled_words]
        first = B + U * torch.arange(copies, device=device)[:, None]
        places = (first + torch.searchsorted(self.unlabelled, words)).flatten()
        # Known without a look at the copies, which would make a GPU wait.
        new = torch.stack([places, times.repeat(copies)])
        vars(copied)["words"] = torch.cat([self.words, new], 1)
        return copied, rows

    def to(self, device: torch.device | str) -> "TextBatch":
        """Copy every tensor to a device, with what to look up there would make a GPU wait."""
        _ = self.extremes, self.words
        if self.labels is not None:
            _ = self.label_extremes, self.unlabelled, self.unlabelled_words
        wait = torch.device(device).type != "cuda"
        moved = copy(self)
        for name, x in vars(self).items():
            if isinstance(x, Tensor):
                here = x if wait or x.is_cuda else x.pin_memory()
                vars(moved)[name] = here.to(device, non_blocking=not wait)
        return moved

    def __len__(self) -> int:
        return len(self.tokens)

    def __repr__(self) -> str:
        B, T = self.tokens.shape
        return f"TextBatch(B={B}, T={T}{'' if self.labels is None else ', with labels'})"
