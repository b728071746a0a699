"""What a corpus is: named splits of images or of texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from torch import Tensor


@dataclass(frozen=True)
class Images:
    """Grey images as flat rows of intensities.

    Attributes:
        pixels: intensities in [0, 1], `[N, D]` with `D = height * width`.
        labels: class of each image, `[N]`.
        height: rows of an image.
        width: columns of an image.
    """

    pixels: Tensor
    labels: Tensor
    height: int
    width: int

    def __len__(self) -> int:
        """The number of images N."""
        return len(self.pixels)


@dataclass(frozen=True)
class Texts:
    """Documents as strings, with a label each where they have one.

    Attributes:
        texts: the documents, `N` strings.
        labels: class of each document, `N` integers, or None.
    """

    texts: Sequence[str]
    labels: Sequence[int] | None = None

    def __len__(self) -> int:
        """The number of documents N."""
        return len(self.texts)


Split = TypeVar("Split", Images, Texts)


@dataclass(frozen=True)
class Corpus(Generic[Split]):
    """A named data set in three parts: fit on `train`, choose on `valid`, report on `test`."""

    name: str
    train: Split
    valid: Split
    test: Split
