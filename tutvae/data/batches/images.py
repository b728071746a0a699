"""Minibatches of binary images."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from tutvae.data.batches.resumable import Resumable
from tutvae.data.corpus import Images


def binarise(pixels: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Draw each pixel as 0 or 1, its intensity in [0, 1] the probability of 1, in any shape.

    Source: Salakhutdinov & Murray (2008). Chapter 2.
    """
    return torch.bernoulli(pixels, generator=generator)


class ImageBatches(Resumable[Tensor]):
    """One epoch of minibatches `[B, D]` of binary images each time it is iterated over.

    With `shuffle`, every epoch has a new order and a new binarisation. Without, the order is
    the corpus's and the binarisation is always the same draw: a fixed test set.

    The last batch may be smaller; the `seed` is that of the order and of the binarisation. No
    images, or a `batch_size` below 1, are a ValueError.

    >>> images = tutvae.digits().test
    >>> [len(batch) for batch in tutvae.ImageBatches(images, 128, shuffle=True)]
    [128, 128, 44]

    Source: Burda et al. (2016), section 5 for stochastic binarisation. Chapter 2.
    """

    _kept = ("epoch_start",)

    def __init__(self, images: Images, batch_size: int, *, shuffle: bool, seed: int = 0) -> None:
        if len(images) == 0:
            raise ValueError("there are no images to make batches of")
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}")
        super().__init__()
        self.images = images
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.generator = torch.Generator().manual_seed(seed)
        self.epoch_start = self.generator.get_state().tolist()

    def __len__(self) -> int:
        return -(-len(self.images) // self.batch_size)

    def _batches_from(self, start: int) -> Iterator[tuple[int, Tensor]]:
        self.generator.set_state(torch.tensor(self.epoch_start, dtype=torch.uint8))
        yield from islice(enumerate(self._epoch(), 1), start, None)
        self.epoch_start = self.generator.get_state().tolist()

    def _epoch(self) -> Iterator[Tensor]:
        pixels = self.images.pixels
        if not self.shuffle:
            self.generator.manual_seed(self.seed)
            yield from binarise(pixels, self.generator).split(self.batch_size)
            return
        order = torch.randperm(len(pixels), generator=self.generator)
        for rows in order.split(self.batch_size):
            yield binarise(pixels[rows], self.generator)

    def _configuration(self) -> dict[str, Any]:
        settings = {name: getattr(self, name) for name in ("batch_size", "shuffle", "seed")}
        return {"images": len(self.images)} | settings
