"""What a corpus is: named splits of images or of texts."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Images:
    """Grey images as flat rows of intensities in [0, 1], `[N, D]`, each with a class, `[N]`.

    Each has `height` rows and `width` columns of pixels, so D is their product. Shapes that do not
    fit together, or a pixel that is NaN or outside [0, 1], are a ValueError.

    >>> tutvae.Images(torch.rand(10, 6), torch.zeros(10), height=2, width=3)
    Images(N=10, 2 x 3)

    Chapter 1.
    """

    pixels: Tensor
    labels: Tensor
    height: int
    width: int

    def __post_init__(self) -> None:
        D, shape = self.height * self.width, list(self.pixels.shape)
        if shape[1:] != [D]:
            size = f"{self.height} x {self.width}"
            raise ValueError(f"pixels of {size} images must be [N, {D}], not {shape}")
        if (labels := list(self.labels.shape)) != shape[:1]:
            raise ValueError(f"labels must be {shape[:1]}, one an image, not {labels}")
        if not self.pixels.is_floating_point():
            raise ValueError(f"pixels must be floats in [0, 1], not {self.pixels.dtype}")
        # Comparisons with NaN are False.
        if not ((self.pixels >= 0) & (self.pixels <= 1)).all():
            raise ValueError("pixels must lie in [0, 1]: divide bytes by 255, and look for NaN")

    def __len__(self) -> int:
        return len(self.pixels)

    def __repr__(self) -> str:
        return f"Images(N={len(self)}, {self.height} x {self.width})"


@dataclass(frozen=True)
class Texts:
    """N documents as strings, with a label each, in 0 ... K - 1, where they have one.

    `label_names` are what the K classes are called; they, or all of `labels`, may be None.

    >>> tutvae.Texts(["so good", "so bad"], [1, 0], label_names=["bad", "good"])
    Texts(N=2, with labels of 2 classes)

    Chapter 3.
    """

    texts: Sequence[str]
    labels: Sequence[int] | None = None
    label_names: Sequence[str] | None = field(default=None, kw_only=True)

    def __len__(self) -> int:
        return len(self.texts)

    def part(self, positions: Sequence[int] | np.ndarray) -> "Texts":
        """Take the documents at `positions`, with their labels."""
        labels = None if self.labels is None else [self.labels[i] for i in positions]
        return Texts([self.texts[i] for i in positions], labels, label_names=self.label_names)

    def __repr__(self) -> str:
        size = f"{type(self).__name__}(N={len(self)}"
        if self.labels is None:
            return f"{size})"
        classes = "" if self.label_names is None else f" of {len(self.label_names)} classes"
        return f"{size}, with labels{classes})"


Split = TypeVar("Split", bound="Images | Texts", covariant=True)


@dataclass(frozen=True, eq=False)
class Corpus(Generic[Split]):
    """A named data set in three parts: fit on `train`, choose on `valid`, report on `test`.

    >>> train, valid, test = (tutvae.Texts([f"text {i}"]) for i in range(3))
    >>> tutvae.Corpus("mine", train, valid, test).test.texts
    ['text 2']

    Chapters 1 and 3.
    """

    name: str
    train: Split
    valid: Split
    test: Split
