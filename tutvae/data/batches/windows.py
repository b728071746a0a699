"""Minibatches of a corpus of which only a window of documents is in memory at a time."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, Protocol

import numpy as np
import torch

from tutvae.data.batches.text import Batches, Bucketed, EncodedTexts
from tutvae.data.batches.text_batch import TextBatch

# Where the documents of a window stand in the corpus, and their ids.
Window = tuple[np.ndarray, Sequence[np.ndarray]]


class WindowSource(Protocol):
    """Where `WindowedBatches` gets its documents."""

    pad_id: int

    def windows(self, size: int, skip: int, random: np.random.Generator | None) -> Iterator[Window]:
        """Yield the corpus once, `size` documents at a time, without the first `skip` windows."""

    def describe(self) -> dict[str, Any]:
        """What tells this corpus from another, ready for JSON."""


class WindowedBatches(Bucketed):
    """Batches of a corpus that is larger than memory; else like `Batches`.

    An epoch goes through the corpus window by window, each document once. Within a window,
    documents of about the same length share a batch. A window that is smaller than the number of
    processes is a ValueError; see also `Batches`. The page on scaling.

    Args:
        source: `MappedTexts` or `StreamedTexts` of `tutvae.data.large`.
        window: documents that are in memory at a time, and shuffled among each other.
        **settings: those of `Batches`; each process reads all of the corpus.
    """

    _start = (0, 0)  # windows, and batches of the next window

    def __init__(self, source: WindowSource, *, window: int = 10_000, **settings: Any) -> None:
        super().__init__(**settings)
        if window < self.world_size:
            raise ValueError(f"a window of {window} is too small for {self.world_size} processes")
        self.source = source
        self.tokenizer = getattr(source, "tokenizer", None)
        self.window = window
        self.settings = settings

    def __length_hint__(self) -> int:
        """About how many batches an epoch has on this process, where the source knows its size."""
        counted = "tokens" if self.batch_size is None else "documents"
        size = self.batch_size or self.token_budget or 1
        return -(-getattr(self.source, counted, 0) // (size * self.world_size))

    def _batches_from(self, start: tuple[int, int]) -> Iterator[tuple[tuple[int, int], TextBatch]]:
        first, skip = start
        epoch = self.epoch
        random = np.random.default_rng([self.seed, epoch]) if self.shuffle else None
        windows = _without_small_rest(self.source.windows(self.window, first, random), self.window)
        for number, (positions, documents) in enumerate(windows, first):
            encoded = EncodedTexts(documents, pad_id=self.source.pad_id)
            seed = np.random.SeedSequence([self.seed, epoch, number]).generate_state(1)
            batches = Batches(encoded, **self.settings | {"seed": int(seed[0])})
            for index, batch in enumerate(islice(batches, skip, None), skip + 1):
                assert batch.positions is not None
                where = torch.from_numpy(positions)[batch.positions]
                yield (number, index), replace(batch, positions=where)
            skip = 0

    def _configuration(self) -> dict[str, Any]:
        return super()._configuration() | {"window": self.window, "source": self.source.describe()}


def _without_small_rest(windows: Iterator[Window], size: int) -> Iterator[Window]:
    """Join the last window to the one before if it is less than half full."""
    last: Window | None = None
    for window in windows:
        if last is not None and 2 * len(window[0]) < size:
            window = np.concatenate([last[0], window[0]]), [*last[1], *window[1]]
        elif last is not None:
            yield last
        last = window
    if last is not None:
        yield last
