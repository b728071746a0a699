"""Minibatches of documents: padded rows of token ids, drawn from length buckets."""

import warnings
from array import array
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tutvae.data.batches.buckets import draw_batches
from tutvae.data.batches.resumable import Resumable
from tutvae.data.corpus import Texts
from tutvae.data.tokenization import Tokenizer


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


class EncodedTexts:
    """Token ids of N documents, end to end in one array, with a label each where they have one.

    Args:
        documents: ids of each document, from start mark to end mark, in lists or in arrays.
        labels: class of each document.
        pad_id: id that fills the shorter rows of a batch.
        max_length: longer documents, marks included, are cut to so many tokens; their end mark is
            then not predicted. A warning says how many.

    Their `lengths` in tokens are `[N]`; `cut` is how many documents were cut; `tokenizer` is what
    encoded them, where `from_texts` did, or else None. A ValueError says that there are no
    documents, one lacks its two marks or its label, an id is no integer in 0 ... 2^31 - 1, or
    `max_length` is below 2.

    >>> texts = tutvae.EncodedTexts([[1, 7, 8, 2], [1, 7, 2]], labels=[0, 1])
    >>> texts.batch([1]).tokens
    tensor([[1, 7, 2]])

    Chapter 8.
    """

    def __init__(
        self,
        documents: Sequence[Sequence[int] | np.ndarray],
        labels: Sequence[int] | None = None,
        *,
        pad_id: int = 0,
        max_length: int | None = None,
    ) -> None:
        lengths = np.fromiter(map(len, documents), dtype=np.int64)
        if len(lengths) == 0:
            raise ValueError("there are no documents to make batches of")
        if lengths.min() < 2:
            raise ValueError(
                f"document {int(lengths.argmin())} has {lengths.min()} tokens: "
                "even an empty one has two, its start and end marks"
            )
        if labels is not None and len(labels) != len(lengths):
            raise ValueError(f"{len(labels)} labels do not go with {len(lengths)} documents")
        if max_length is not None and max_length < 2:
            raise ValueError(f"max_length must be at least 2 (two marks), not {max_length}")
        self._flat = torch.from_numpy(_end_to_end(documents))
        self._starts = torch.from_numpy(np.cumsum(lengths) - lengths)
        self.lengths = lengths if max_length is None else np.minimum(lengths, max_length)
        self.labels = None if labels is None else torch.as_tensor(labels, dtype=torch.int64)
        self.pad_id = pad_id
        self.tokenizer: Tokenizer | None = None
        self.cut = int((self.lengths < lengths).sum())
        if self.cut:
            warnings.warn(
                f"{self.cut} of {len(lengths)} documents have more than {max_length} tokens "
                f"(the longest {lengths.max()}) and were cut to the first {max_length}",
                stacklevel=2,
            )

    @classmethod
    def from_texts(
        cls, texts: Texts | Sequence[str], tokenizer: Tokenizer, *, max_length: int | None = None
    ) -> "EncodedTexts":
        """Encode a corpus's split with its labels, or a list of strings, and keep the tokenizer."""
        strings, labels = (texts.texts, texts.labels) if isinstance(texts, Texts) else (texts, None)
        ids = tokenizer.encode(strings)
        encoded = cls(ids, labels, pad_id=tokenizer.pad_id, max_length=max_length)
        encoded.tokenizer = tokenizer
        return encoded

    def __len__(self) -> int:
        return len(self.lengths)

    def __repr__(self) -> str:
        labels = "" if self.labels is None else ", with labels"
        return f"EncodedTexts(N={len(self)}, tokens={self.lengths.sum()}{labels})"

    def batch(self, positions: Sequence[int] | np.ndarray | None = None) -> TextBatch:
        """Pad the documents at `positions`, in that order, to one batch; all N by default."""
        chosen = np.arange(len(self)) if positions is None else np.asarray(positions)
        rows = torch.from_numpy(chosen)
        lengths = torch.from_numpy(self.lengths)[rows]
        time = torch.arange(int(lengths.max()))
        index = (self._starts[rows, None] + time).clamp(max=len(self._flat) - 1)
        tokens = self._flat[index].long()
        tokens[time >= lengths[:, None]] = self.pad_id
        return TextBatch(tokens, lengths, None if self.labels is None else self.labels[rows], rows)

    def part(self, positions: Sequence[int] | np.ndarray) -> "EncodedTexts":
        """Take the documents at `positions`, with their labels, as they were cut."""
        rows = np.asarray(positions, dtype=np.int64)
        flat, starts = self._flat.numpy(), self._starts.numpy()
        documents = [flat[starts[i] : starts[i] + self.lengths[i]] for i in rows]
        labels = None if self.labels is None else self.labels.numpy()[rows].tolist()
        return EncodedTexts(documents, labels, pad_id=self.pad_id)


@dataclass(kw_only=True, eq=False, repr=False)
class Bucketed(Resumable[TextBatch]):
    """The settings of batches of documents of about the same length; see `Batches`."""

    batch_size: int | None = None
    token_budget: int | None = None
    shuffle: bool = True
    seed: int = 0
    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        sizes = [size for size in (self.batch_size, self.token_budget) if size is not None]
        if len(sizes) != 1 or sizes[0] < 1:
            raise ValueError("give either batch_size or token_budget, a number of at least 1")
        if not 0 <= self.rank < self.world_size:
            raise ValueError(f"rank must lie in 0 ... world_size - 1 = {self.world_size - 1}")
        super().__init__()

    def _configuration(self) -> dict[str, Any]:
        names = ("batch_size", "token_budget", "shuffle", "seed", "world_size")
        return {name: getattr(self, name) for name in names}


@dataclass(eq=False, repr=False)
class Batches(Bucketed):
    """One epoch of minibatches each time it is iterated over.

    Documents of about the same length share a batch, and each comes exactly once an epoch. With
    `shuffle`, lengths are jittered by a few per cent and the batches redrawn and reordered every
    epoch; without, they are the same every time, from the shortest documents to the longest.

    `fit` gives each batch the same weight, so a document counts for more among few: in the one
    smaller batch of a `batch_size`, that of the longest documents, or in a `token_budget`'s batches
    of long ones. On the Penn Treebank, at 1,000 tokens, the shortest fifth of the documents weighs
    0.45 times the mean, and the longest 1.66 times.

    With several processes, each builds the same object but for its `rank`. At every step they
    get neighbouring batches, so of about equal length; all have the same number of batches.

    Args:
        texts: the documents; `fit` keeps their tokenizer, where it is known, in the run folder.
        batch_size: documents a batch; some batch is smaller. Either this or `token_budget` is
            given, and at least 1, or it is a ValueError.
        token_budget: largest B x T of a batch, padding included; a longer document is alone.
        shuffle: for training.
        seed: of the draws; that of epoch e depends on `(seed, e)` alone.
        rank: which of the processes this is, from 0.
        world_size: the number of processes, at most that of the documents, or it is a ValueError.

    >>> texts = tutvae.EncodedTexts([[1, 7, 8, 9, 2], [1, 7, 2], [1, 2]])
    >>> [len(batch) for batch in tutvae.Batches(texts, token_budget=6, shuffle=False)]
    [2, 1]

    Source: chapter 3.
    """

    texts: EncodedTexts

    def __post_init__(self) -> None:
        super().__post_init__()
        documents, processes = len(self.texts), self.world_size
        if documents < processes:
            raise ValueError(f"{documents} documents are too few for {processes} processes")
        self.tokenizer = self.texts.tokenizer
        self._drawn: tuple[int, list[np.ndarray]] | None = None

    @classmethod
    def from_texts(
        cls,
        texts: Texts | Sequence[str],
        tokenizer: Tokenizer,
        *,
        max_length: int | None = None,
        **options: Any,
    ) -> "Batches":
        """Encode documents as `EncodedTexts.from_texts` does, and make batches with `options`."""
        return cls(EncodedTexts.from_texts(texts, tokenizer, max_length=max_length), **options)

    def __len__(self) -> int:
        """The number of batches of the present epoch; a token budget's epochs differ by a few."""
        return len(self._positions())

    @property
    def padding(self) -> float:
        """The fraction of the present epoch's B x T that is padding, on this process."""
        per_batch = [self.texts.lengths[positions] for positions in self._positions()]
        padded = sum(len(lengths) * int(lengths.max()) for lengths in per_batch)
        return 1 - sum(int(lengths.sum()) for lengths in per_batch) / padded

    def _batches_from(self, start: int) -> Iterator[tuple[int, TextBatch]]:
        for done, positions in enumerate(self._positions()[start:], start + 1):
            yield done, self.texts.batch(positions)

    def _configuration(self) -> dict[str, Any]:
        tokens = int(self.texts.lengths.sum())
        return {"documents": len(self.texts), "tokens": tokens} | super()._configuration()

    def _positions(self) -> list[np.ndarray]:
        """The documents of each of this process's batches of the present epoch."""
        if self._drawn is None or (self.shuffle and self._drawn[0] != self.epoch):
            random = np.random.default_rng([self.seed, self.epoch]) if self.shuffle else None
            size, by_tokens = self.batch_size or self.token_budget or 0, self.batch_size is None
            steps = draw_batches(self.texts.lengths, size, by_tokens, self.world_size, random)
            self._drawn = (self.epoch, [step[self.rank] for step in steps])
        return self._drawn[1]


def _end_to_end(documents: Sequence[Sequence[int] | np.ndarray]) -> np.ndarray:
    """Join lists or, faster, arrays of ids into one array, `[total]`."""
    must = "token ids must be integers in 0 ... 2^31 - 1"
    if isinstance(documents[0], np.ndarray):
        ids = np.concatenate(documents)
    else:
        try:
            ids = np.frombuffer(array("i", chain.from_iterable(documents)), dtype=np.int32)
        except (OverflowError, TypeError) as error:
            raise ValueError(f"{must}: {error}") from error
    if ids.dtype.kind not in "iu" or ids.min() < 0 or ids.max() >= 2**31:
        raise ValueError(f"{must}, not {ids.dtype} in {ids.min()} ... {ids.max()}")
    return ids.astype(np.int32, copy=False)
