"""MNIST, from its IDX files or from the Hub, byte for byte."""

from pathlib import Path

import numpy as np

from tutvae.data.readers import hub
from tutvae.data.readers.files import SHA256, check_sha256, find_file
from tutvae.data.readers.idx import read_idx

MNIST_HUB_NAME = "ylecun/mnist"
MNIST_FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
MNIST_SHA256 = SHA256["mnist"]


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
