"""The named corpora, one function each; those of text live in `text_corpora.py`."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from tutvae.data.corpus import Corpus, Images
from tutvae.data.readers.files import (
    DATA_VARIABLE,
    cache_folder,
    check_sha256,
    find_file,
    has_file,
    local_folder,
)
from tutvae.data.readers.idx import read_idx
from tutvae.data.readers.texts import from_files
from tutvae.data.text_corpora import ag_news, ptb, yahoo, yelp

__all__ = ["ag_news", "digits", "from_files", "mnist", "ptb", "yahoo", "yelp"]

MNIST_HUB_NAME = "ylecun/mnist"
MNIST_FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
# SHA-256 of the bytes after the IDX headers, so that files and Hub are held to the same sums.
MNIST_SHA256 = {
    "train": (
        "741c988805d008ac6e4c904b69001ba184c24b2c540a4ef403f4c71b676cf757",
        "1feba77c54802fa5339a11837ea4b2866434b83314ec45192930f1df69120c13",
    ),
    "test": (
        "6d87418db22cc8025d05968bec9bd5c3932904b23485740db143a061a2c9d161",
        "ddeff807876a9661a1110d45c266c86239a3a1b7d37da0c3716a7a683c852ff5",
    ),
}


class Whereabouts(NamedTuple):
    """Where a corpus is looked for before it is fetched, and whether it is there.

    Attributes:
        folder: None where no folder was named.
        found: whether the folder holds its files.
    """

    folder: Path | None
    found: bool


def whereabouts() -> dict[str, Whereabouts]:
    """Say of each corpus that is read from files where they are looked for on this machine.

    Chapter 10.
    """
    named = bool(os.environ.get(DATA_VARIABLE))
    places = {}
    for name, (_, folder, files) in CORPORA.items():
        # Only the Penn Treebank is kept elsewhere, once it was fetched.
        place = cache_folder(folder) if named or name == "ptb" else None
        found = place is not None and any(has_file(place, file) for file in files)
        places[name] = Whereabouts(place, found)
    return places


def digits(seed: int = 0) -> Corpus[Images]:
    """Load 1,797 real handwritten digits of 8 x 8 pixels, which come with scikit-learn.

    Args:
        seed: of the split into 1,297 training, 200 validation and 300 test images.

    Returns:
        Images of 64 pixels in [0, 1], `[N, 64]`, in 17 levels of grey.

    Source: scikit-learn's `load_digits`. Chapter 1.
    """
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(pixels))
    train, valid, test = np.split(order, [1297, 1497])
    return Corpus(
        "digits",
        train=_images(pixels[train] / 16.0, labels[train], 8, 8),
        valid=_images(pixels[valid] / 16.0, labels[valid], 8, 8),
        test=_images(pixels[test] / 16.0, labels[test], 8, 8),
    )


def mnist(folder: str | Path | None = None, *, valid_size: int = 10_000) -> Corpus[Images]:
    """Load MNIST: 60,000 training and 10,000 test digits of 28 x 28 pixels.

    Args:
        folder: where the four IDX files lie, gzipped or not. Without it, `$TUTVAE_DATA/mnist`
            is read if it exists; else the Hugging Face Hub, through the `data` extra.
        valid_size: how many of the last training images become the validation split; 0 leaves
            all 60,000 for training.

    Returns:
        Images of 784 pixels in [0, 1], `[N, 784]`.

    Raises:
        FileNotFoundError: the folder or one of its files is missing, or there is no network.
        ValueError: a file is truncated, corrupt or not MNIST, or `valid_size` is out of range.

    Source: LeCun et al. (1998). Chapter 2.
    """
    if not 0 <= valid_size < 60_000:
        raise ValueError(f"valid_size must lie in 0 ... 59,999, not {valid_size}")
    path = local_folder("mnist", folder)
    read = _mnist_from_hub if path is None else lambda split: _mnist_from_folder(path, split)
    pixels, labels = _checked_mnist("train", *read("train"))
    cut = len(pixels) - valid_size
    test_pixels, test_labels = _checked_mnist("test", *read("test"))
    return Corpus(
        "mnist",
        train=_images(pixels[:cut] / np.float32(255), labels[:cut], 28, 28),
        valid=_images(pixels[cut:] / np.float32(255), labels[cut:], 28, 28),
        test=_images(test_pixels / np.float32(255), test_labels, 28, 28),
    )


def _images(pixels: np.ndarray, labels: np.ndarray, height: int, width: int) -> Images:
    """Wrap `[N, D]` intensities and `[N]` labels as tensors."""
    return Images(
        torch.from_numpy(pixels.astype(np.float32)),
        torch.from_numpy(labels.astype(np.int64)),
        height,
        width,
    )


def _mnist_from_folder(folder: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Read one split's images `[N, 784]` and labels `[N]` from IDX files."""
    images, labels = (read_idx(find_file(folder, name)) for name in MNIST_FILES[split])
    if images.ndim != 3 or images.shape[1:] != (28, 28):
        raise ValueError(f"{folder}: the images have shape {images.shape}, MNIST's are [N, 28, 28]")
    return images.reshape(len(images), -1), labels


def _mnist_from_hub(split: str) -> tuple[np.ndarray, np.ndarray]:
    """Fetch one split's images `[N, 784]` and labels `[N]` from the Hugging Face Hub."""
    advice = (
        f"give mnist(folder) the folder of its IDX files, or set {DATA_VARIABLE} to the folder "
        "that holds mnist/"
    )
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise FileNotFoundError(
            f"MNIST is not here: {advice}, or install tutvae[data] to fetch it"
        ) from error
    try:
        rows = load_dataset(MNIST_HUB_NAME, split=split)
    except (OSError, ValueError) as error:
        raise FileNotFoundError(f"MNIST could not be fetched ({error}): {advice}") from error
    images = np.stack([np.asarray(image, dtype=np.uint8) for image in rows["image"]])
    return images.reshape(len(images), -1), np.asarray(rows["label"], dtype=np.uint8)


def _checked_mnist(
    split: str, pixels: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the arrays if they are MNIST's, byte for byte."""
    for array, expected, what in zip(
        (pixels, labels), MNIST_SHA256[split], ("images", "labels"), strict=True
    ):
        check_sha256(array.tobytes(), expected, f"MNIST's {split} {what}")
    return pixels, labels


class Entry(NamedTuple):
    """A corpus by name: how it is loaded, where it is looked for, and files of which it has one."""

    load: Callable[..., Corpus[Any]]
    folder: str
    files: tuple[str, ...]


# A new corpus is one entry here.
CORPORA = {
    "mnist": Entry(mnist, "mnist", (MNIST_FILES["train"][0],)),
    "ptb": Entry(ptb, "ptb", ("ptb.train.txt",)),
    "yahoo": Entry(yahoo, "yahoo-unlabelled", ("yahoo.train.txt", "val.txt")),
    "yelp": Entry(yelp, "yelp-stars", ("yelp.train.txt", "train.jsonl")),
    "ag_news": Entry(ag_news, "ag-news", ("train.jsonl",)),
}
