"""Encoded documents, and minibatches of them that are drawn from length buckets."""

import warnings
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import torch

from tutvae.data.batches.buckets import draw_batches
from tutvae.data.batches.resumable import Resumable
from tutvae.data.batches.text_batch import TextBatch
from tutvae.data.corpus import Texts
from tutvae.data.tokenization import Tokenizer


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
