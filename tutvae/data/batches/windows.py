"""Minibatches of a corpus of which only a window of documents is in memory at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from tutvae.data.batches.resumable import Resumable
from tutvae.data.batches.text import Batches, EncodedTexts, TextBatch, check_settings

# Where the documents of a window stand in the corpus, and their ids.
Window = tuple[np.ndarray, Sequence[np.ndarray]]


class WindowSource(Protocol):
    """Where `WindowedBatches` gets its documents."""

    pad_id: int

    def windows(self, size: int, skip: int, random: np.random.Generator | None) -> Iterator[Window]:
        """Yield the corpus once, `size` documents at a time, without the first `skip` windows."""
        ...

    def describe(self) -> dict[str, Any]:
        """What tells this corpus from another, ready for JSON."""
        ...


class WindowedBatches(Resumable[TextBatch]):
    """Batches of a corpus that is larger than memory; else like `Batches`.

    An epoch goes through the corpus window by window. Within a window, documents of about the
    same length share a batch, and each document comes exactly once an epoch.

    Args:
        source: `MappedTexts` or `StreamedTexts` of `tutvae.data.large`.
        batch_size: see `Batches`.
        token_budget: see `Batches`.
        window: documents that are in memory at a time, and shuffled among each other.
        shuffle: for training.
        seed: of the draws; that of epoch e depends on `(seed, e)` alone.
        rank: which of the processes this is, from 0.
        world_size: the number of processes; each reads all of the corpus and takes its share.

    Raises:
        ValueError: the window is smaller than the number of processes; see also `Batches`.

    Source: chapter 10.
    """

    _start = (0, 0)  # windows, and batches of the next window

    def __init__(
        self,
        source: WindowSource,
        *,
        batch_size: int | None = None,
        token_budget: int | None = None,
        window: int = 10_000,
        shuffle: bool = True,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        check_settings(batch_size, token_budget, rank, world_size)
        if window < world_size:
            raise ValueError(f"a window of {window} is too small for {world_size} processes")
        super().__init__()
        self.source = source
        self.batch_size = batch_size
        self.token_budget = token_budget
        self.window = window
        self.shuffle = shuffle
        self.seed = seed
        self.rank = rank
        self.world_size = world_size

    def __length_hint__(self) -> int:
        """About how many batches an epoch has on this process, where the source knows its size."""
        if self.batch_size is not None:
            total, size = getattr(self.source, "documents", 0), self.batch_size
        else:
            total, size = getattr(self.source, "tokens", 0), self.token_budget or 1
        return -(-total // (size * self.world_size))

    def _batches_from(self, start: tuple[int, int]) -> Iterator[tuple[tuple[int, int], TextBatch]]:
        first, skip = start
        epoch = self.epoch
        random = np.random.default_rng([self.seed, epoch]) if self.shuffle else None
        windows = _without_small_rest(self.source.windows(self.window, first, random), self.window)
        for number, (positions, documents) in enumerate(windows, first):
            batches = Batches(
                EncodedTexts(documents, pad_id=self.source.pad_id),
                batch_size=self.batch_size,
                token_budget=self.token_budget,
                shuffle=self.shuffle,
                seed=self._seed_of(epoch, number),
                rank=self.rank,
                world_size=self.world_size,
            )
            for index, batch in enumerate(islice(batches, skip, None), skip + 1):
                yield (number, index), replace(batch, positions=_at(positions, batch))
            skip = 0

    def _configuration(self) -> dict[str, Any]:
        return {
            "batch_size": self.batch_size,
            "token_budget": self.token_budget,
            "window": self.window,
            "shuffle": self.shuffle,
            "seed": self.seed,
            "world_size": self.world_size,
            "source": self.source.describe(),
        }

    def _seed_of(self, epoch: int, window: int) -> int:
        """A seed for each window of each epoch."""
        return int(np.random.SeedSequence([self.seed, epoch, window]).generate_state(1)[0])


def _without_small_rest(windows: Iterator[Window], size: int) -> Iterator[Window]:
    """Join the last window to the one before if it is less than half full.

    Few documents make poor batches, and fewer than there are processes make none.
    """
    last = next(windows, None)
    for window in windows:
        assert last is not None
        if 2 * len(window[0]) < size:
            last = np.concatenate([last[0], window[0]]), [*last[1], *window[1]]
        else:
            yield last
            last = window
    if last is not None:
        yield last


def _at(positions: np.ndarray, batch: TextBatch) -> Tensor:
    """Where a window's batch stands in the corpus, `[B]`."""
    assert batch.positions is not None
    return torch.from_numpy(positions)[batch.positions]
