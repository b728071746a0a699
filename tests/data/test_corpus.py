from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from tutvae.data.corpus import Corpus, Images, Texts
from tutvae.reviews.grammar import ReviewGrammar


def images(pixels: Tensor, labels: Tensor | None = None) -> Images:
    """Images of 2 x 3 pixels."""
    return Images(pixels, torch.zeros(len(pixels)) if labels is None else labels, 2, 3)


def test_intensities_from_black_to_white() -> None:
    pixels = torch.tensor([[0.0, 0.2, 0.4, 0.6, 0.8, 1.0], [1.0] * 6])
    split = images(pixels, torch.tensor([4, 9]))
    assert len(split) == 2
    assert split.pixels is pixels


def test_an_empty_split_is_legal() -> None:
    assert len(images(torch.zeros(0, 6))) == 0


@pytest.mark.parametrize("value", [math.nan, math.inf, -0.01, 1.01, 255.0])
def test_intensities_outside_the_range(value: float) -> None:
    pixels = torch.zeros(4, 6)
    pixels[3, 5] = value
    with pytest.raises(ValueError, match=r"\[0, 1\].*NaN"):
        images(pixels)


def test_bytes_are_no_intensities() -> None:
    with pytest.raises(ValueError, match=r"floats in \[0, 1\], not torch.uint8"):
        images(torch.ones(4, 6, dtype=torch.uint8))


@pytest.mark.parametrize("shape", [(4, 5), (4, 2, 3), (6,)])
def test_pixels_of_another_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"2 x 3 images must be \[N, 6\], not \["):
        images(torch.zeros(shape))


@pytest.mark.parametrize("shape", [(3,), (4, 1), ()])
def test_labels_of_another_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"labels must be \[4\]"):
        images(torch.zeros(4, 6), torch.zeros(shape))


def test_a_part_keeps_the_order_asked_for_and_the_labels() -> None:
    texts = Texts(["a", "b", "c"], [2, 0, 1], label_names=["x", "y", "z"])
    assert texts.part([2, 0]) == Texts(["c", "a"], [1, 2], label_names=["x", "y", "z"])
    assert Texts(["a", "b"]).part(np.array([1])) == Texts(["b"])


def test_a_corpus_is_shown_by_its_sizes() -> None:
    plain = Texts(["a"] * 30)
    named = Texts(["a", "b"], [0, 1], label_names=("x", "y"))
    assert repr(Corpus("own", plain, Texts(["a"], [3]), named)) == (
        "Corpus(name='own', train=Texts(N=30), valid=Texts(N=1, with labels), "
        "test=Texts(N=2, with labels of 2 classes))"
    )
    generated = ReviewGrammar().sample(3, seed=0)
    assert repr(generated) == "Reviews(N=3, with labels of 5 classes)"
    assert repr(images(torch.zeros(4, 6))) == "Images(N=4, 2 x 3)"
