"""Minibatches of binary images."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from tutvae.data.corpus import Images


def binarise(pixels: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Draw each pixel as 0 or 1, with its intensity as the probability of 1.

    Args:
        pixels: intensities in [0, 1], any shape.
        generator: source of randomness; torch's global one by default.

    Returns:
        Zeros and ones of the same shape.

    Source: Salakhutdinov & Murray (2008). Chapter 2.
    """
    return torch.bernoulli(pixels, generator=generator)


class ImageBatches:
    """Minibatches `[B, D]` of binary images, to iterate over once an epoch.

    With `shuffle`, every epoch has a new order and a new binarisation. Without, the order is
    the corpus's and the binarisation is always the same draw: a fixed test set.

    Args:
        images: the split to draw from.
        batch_size: images a batch; the last batch may be smaller.
        shuffle: for training.
        seed: of the order and of the binarisation.

    Raises:
        ValueError: there are no images, or `batch_size` is below 1.

    Source: Burda et al. (2016), section 5 for stochastic binarisation. Chapter 2.
    """

    def __init__(self, images: Images, batch_size: int, *, shuffle: bool, seed: int = 0) -> None:
        if len(images) == 0:
            raise ValueError("there are no images to make batches of")
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}")
        self.images = images
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.generator = torch.Generator().manual_seed(seed)
        self._epoch_start = self.generator.get_state()
        self._done = 0  # batches of the present epoch that were handed out
        self._resume_at = 0  # where the next iteration starts

    def __len__(self) -> int:
        """The number of batches an epoch."""
        return -(-len(self.images) // self.batch_size)

    def __iter__(self) -> Iterator[Tensor]:
        """Yield one epoch's batches, `[B, D]`."""
        start, self._resume_at = self._resume_at, 0
        self._epoch_start = self.generator.get_state()
        for index, batch in enumerate(self._epoch(), 1):
            if index > start:
                self._done = index
                yield batch
        self._epoch_start, self._done = self.generator.get_state(), 0

    def _epoch(self) -> Iterator[Tensor]:
        """Draw all of an epoch's batches."""
        pixels = self.images.pixels
        if not self.shuffle:
            self.generator.manual_seed(self.seed)
            yield from binarise(pixels, self.generator).split(self.batch_size)
            return
        order = torch.randperm(len(pixels), generator=self.generator)
        for rows in order.split(self.batch_size):
            yield binarise(pixels[rows], self.generator)

    def state_dict(self) -> dict[str, Any]:
        """Where the epoch stands, ready for JSON: every batch yielded so far counts as done."""
        return {"epoch_start": self._epoch_start.tolist(), "batch": self._done}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Make the next iteration go on where `state` was taken, with identical batches."""
        self.generator.set_state(torch.tensor(state["epoch_start"], dtype=torch.uint8))
        self._epoch_start = self.generator.get_state()
        self._done = self._resume_at = state["batch"]
