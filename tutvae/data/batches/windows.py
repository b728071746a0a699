"""Minibatches of a corpus of which only a window of documents is in memory at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from tutvae.data.batches.text import Batches, EncodedTexts, TextBatch

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


class WindowedBatches:
    """Batches of a corpus that is larger than memory; else like `Batches`.

    An epoch goes through the corpus window by window. Within a window, documents of about the
    same length share a batch, and each document comes exactly once an epoch.

    Args:
        source: `MappedTexts` or `StreamedTexts` of `tutvae.data.large`.
        window: documents that are in memory at a time, and shuffled among each other.
        shuffle: for training.
        seed: of the draws; that of epoch e depends on `(seed, e)` alone.
        rank: which of the processes this is, from 0.
        world_size: the number of processes; each reads all of the corpus and takes its share.
        **sizes: `batch_size` or `token_budget`; see `Batches`.

    Attributes:
        epoch: the epochs completed so far.

    Raises:
        ValueError: the window is smaller than the number of processes; see also `Batches`.

    Source: chapter 10.
    """

    def __init__(
        self,
        source: WindowSource,
        *,
        window: int = 10_000,
        shuffle: bool = True,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        **sizes: int,
    ) -> None:
        if window < world_size:
            raise ValueError(f"a window of {window} is too small for {world_size} processes")
        self.source = source
        self.window = window
        self.shuffle = shuffle
        self.seed = seed
        self.world_size = world_size
        self.epoch = 0
        self._options: dict[str, Any] = {"shuffle": shuffle, "rank": rank, **sizes}
        self._options["world_size"] = world_size
        self._done = self._resume_at = (0, 0)  # windows, and batches of the next window

    def __iter__(self) -> Iterator[TextBatch]:
        """Yield the batches of the present epoch."""
        first, skip = self._resume_at
        self._resume_at = (0, 0)
        epoch = self.epoch
        random = np.random.default_rng([self.seed, epoch]) if self.shuffle else None
        windows = _without_small_rest(self.source.windows(self.window, first, random), self.window)
        for number, (positions, documents) in enumerate(windows, first):
            texts = EncodedTexts(documents, pad_id=self.source.pad_id)
            batches = Batches(texts, seed=self._seed_of(epoch, number), **self._options)
            for index, batch in enumerate(islice(batches, skip, None), skip + 1):
                self._done = (number, index)
                yield replace(batch, positions=_at(positions, batch))
            skip = 0
        self.epoch, self._done = epoch + 1, (0, 0)

    def __length_hint__(self) -> int:
        """About how many batches an epoch has on this process, where the source knows its size."""
        documents = getattr(self.source, "documents", 0)
        if "batch_size" in self._options:
            return -(-documents // (self._options["batch_size"] * self.world_size))
        tokens = getattr(self.source, "tokens", 0)
        return -(-tokens // (self._options["token_budget"] * self.world_size))

    def state_dict(self) -> dict[str, Any]:
        """Where the epoch stands, ready for JSON: every batch yielded so far counts as done."""
        return {"epoch": self.epoch, "done": list(self._done)} | self._configuration()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Make the next iteration go on where `state` was taken, with identical batches.

        Raises:
            ValueError: the state is of another corpus or other settings.
        """
        for name, value in self._configuration().items():
            if state.get(name) != value:
                raise ValueError(
                    f"these batches have {name} {value}, the saved state has {state.get(name)}: "
                    "resume with the same corpus and settings"
                )
        self.epoch = state["epoch"]
        windows, batches = state["done"]
        self._done = self._resume_at = (windows, batches)

    def _configuration(self) -> dict[str, Any]:
        """What decides which documents are in which batch."""
        options = {name: value for name, value in self._options.items() if name != "rank"}
        own = {"window": self.window, "seed": self.seed}
        return options | own | {"source": self.source.describe()}

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
