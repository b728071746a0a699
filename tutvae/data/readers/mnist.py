"""MNIST, from its IDX files or from the Hub, byte for byte."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tutvae.data.readers import hub
from tutvae.data.readers.files import check_sha256, find_file
from tutvae.data.readers.idx import read_idx

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


def read_mnist(folder: Path | None, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Read images, `[N, 784]` in [0, 1], and labels, `[N]`, from IDX files or else the Hub."""
    pixels, labels = _from_hub(split) if folder is None else _from_folder(folder, split)
    images_sha256, labels_sha256 = MNIST_SHA256[split]
    check_sha256(pixels.tobytes(), images_sha256, f"MNIST's {split} images")
    check_sha256(labels.tobytes(), labels_sha256, f"MNIST's {split} labels")
    return pixels / np.float32(255), labels


def _from_folder(folder: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Read one split's images `[N, 784]` and labels `[N]` from IDX files."""
    images, labels = (read_idx(find_file(folder, name)) for name in MNIST_FILES[split])
    if images.ndim != 3 or images.shape[1:] != (28, 28):
        raise ValueError(f"{folder}: the images have shape {images.shape}, MNIST's are [N, 28, 28]")
    return images.reshape(len(images), -1), labels


def _from_hub(split: str) -> tuple[np.ndarray, np.ndarray]:
    """Fetch one split's images `[N, 784]` and labels `[N]` from the Hugging Face Hub."""
    rows = hub.fetch(MNIST_HUB_NAME, "mnist", "mnist", split=split)
    images = np.stack([np.asarray(image, dtype=np.uint8) for image in rows["image"]])
    return images.reshape(len(images), -1), np.asarray(rows["label"], dtype=np.uint8)
