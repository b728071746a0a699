"""Fixtures that several test files share."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import settings

# Random examples would make a run of the tests no proof of the next.
settings.register_profile("tutvae", deadline=None, derandomize=True)
settings.load_profile("tutvae")

DIGITS_EXPERIMENT = """
name = "tiny_digits"
seed = 3

[corpus]
name = "digits"

[model]
latent_size = 4
hidden_sizes = [32]

[training]
epochs = 20
batch_size = 50
learning_rate = 0.005

[evaluation]
importance_samples = 7
"""

REVIEWS_EXPERIMENT = """
name = "tiny_reviews"
kind = "text"

[corpus]
name = "reviews"
documents = [260, 41, 53]
sentences = [1, 2]
openings = 2
nouns = 2

[encoder]
embedding_size = 7
hidden_size = 11

[decoder]
kind = "lstm"
embedding_size = 8
hidden_size = 13

[model]
latent_size = 3

[training]
epochs = 4
batch_size = 32
learning_rate = 0.01
learning_rate_schedule = "cosine"
max_grad_norm = 5
kl_weight = {schedule = "linear", epochs = 1.5}

[evaluation]
importance_samples = 6
factors = true
"""

VARIANTS = """
[variants.vae]

[variants.language_model]
model.latent_size = 0

[variants.cnn]
decoder = {kind = "dilated_cnn", embedding_size = 6, channels = 10, dilations = "small"}
training.epochs = 3
"""

CLASSIFICATION_EXPERIMENT = """
name = "tiny_labels"
kind = "classification"
seeds = [1]
labels = [25, 40]
methods = ["tfidf", "naive_bayes_em", "labels_only", "semi_supervised"]

[corpus]
name = "reviews"
documents = [120, 41, 53]
sentences = [1, 2]
openings = 2
nouns = 2

[encoder]
embedding_size = 7
hidden_size = 11

[decoder]
kind = "lstm"
embedding_size = 8
hidden_size = 13

[model]
latent_size = 3

[training]
epochs = 2
batch_size = 32
learning_rate = 0.01
learning_rate_schedule = "cosine"
max_grad_norm = 5
kl_weight = {schedule = "linear", epochs = 1.5}

[semi_supervised]
classification_weight = 10
labelled_size = 4
dropout = 0.1

[classifier]
steps = 9
batch_size = 6
learning_rate = 0.01
"""


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Draws without a seed are the same in whatever order the tests run."""
    torch.manual_seed(0)


@pytest.fixture
def real_data() -> Path:
    """The folder of the real corpora, or a skip."""
    root = os.environ.get("TUTVAE_DATA")
    if not root or not Path(root).is_dir():
        pytest.skip("the environment variable TUTVAE_DATA names no folder of real corpora")
    return Path(root)


@pytest.fixture(scope="session")
def script() -> Callable[[str], ModuleType]:
    """Load a script of experiments/ by its name."""

    def load(name: str) -> ModuleType:
        path = Path(__file__).parents[1] / "experiments" / f"{name}.py"
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture(scope="session")
def idx_bytes() -> Callable[[np.ndarray], bytes]:
    """A function from an array to the bytes of its IDX file, after the format's description."""

    def pack(array: np.ndarray) -> bytes:
        sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
        return bytes([0, 0, 8, array.ndim]) + sizes + array.astype(np.uint8).tobytes()

    return pack


@pytest.fixture(scope="session")
def mnist_arrays() -> dict[str, np.ndarray]:
    """Images and labels of the shapes of MNIST, by file name: 12 for training and 7 for test."""
    rng = np.random.default_rng(0)
    return {
        "train-images-idx3-ubyte": rng.integers(0, 256, (12, 28, 28), dtype=np.uint8),
        "train-labels-idx1-ubyte": rng.integers(0, 10, 12, dtype=np.uint8),
        "t10k-images-idx3-ubyte": rng.integers(0, 256, (7, 28, 28), dtype=np.uint8),
        "t10k-labels-idx1-ubyte": rng.integers(0, 10, 7, dtype=np.uint8),
    }


@pytest.fixture
def mnist_folder(
    tmp_path: Path,
    mnist_arrays: dict[str, np.ndarray],
    idx_bytes: Callable[[np.ndarray], bytes],
) -> Path:
    """A folder of four tiny IDX files; their SHA-256 are not those of MNIST."""
    folder = tmp_path / "mnist"
    folder.mkdir()
    for name, array in mnist_arrays.items():
        (folder / name).write_bytes(idx_bytes(array))
    return folder


@pytest.fixture(scope="session")
def digits_toml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An experiment file that runs in a second."""
    path = tmp_path_factory.mktemp("experiments") / "tiny_digits.toml"
    path.write_text(DIGITS_EXPERIMENT)
    return path


@pytest.fixture(scope="session")
def digits_run(digits_toml: Path) -> tuple[Any, dict[str, Any]]:
    """The trained model and the record of that experiment."""
    from tutvae.experiments import load_experiment, run_experiment

    return run_experiment(load_experiment(digits_toml), "tutvae train tiny_digits.toml")


@pytest.fixture(scope="session")
def reviews_toml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An experiment file of texts that runs in a second."""
    path = tmp_path_factory.mktemp("experiments") / "tiny_reviews.toml"
    path.write_text(REVIEWS_EXPERIMENT)
    return path


@pytest.fixture(scope="session")
def reviews_run(reviews_toml: Path) -> tuple[Any, dict[str, Any]]:
    """The trained model and the record of that experiment."""
    from tutvae.experiments import load_experiment, run_experiment

    return run_experiment(load_experiment(reviews_toml), "tutvae train tiny_reviews.toml")


@pytest.fixture(scope="session")
def run_folders(
    reviews_toml: Path, digits_toml: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """The folders of three finished runs: "vae", "language_model" and "images"."""
    from tutvae.experiments import load_experiment, run_experiment

    experiments = {
        "vae": load_experiment(reviews_toml),
        "language_model": load_experiment(reviews_toml, ["model.latent_size=0"]),
        "images": load_experiment(digits_toml, ["training.epochs=1"]),
    }
    folder = tmp_path_factory.mktemp("runs")
    for name, experiment in experiments.items():
        run_experiment(experiment, f"tutvae train {name}.toml", folder=folder / name)
    return {name: folder / name for name in experiments}


@pytest.fixture(scope="session")
def sweep_toml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An experiment file of six runs that take a few seconds."""
    path = tmp_path_factory.mktemp("experiments") / "tiny_sweep.toml"
    described = REVIEWS_EXPERIMENT.replace('"tiny_reviews"', '"tiny_sweep"\nseeds = [1, 4]')
    path.write_text(described + VARIANTS)
    return path


@pytest.fixture(scope="session")
def sweep_run(sweep_toml: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The record of that sweep."""
    from tutvae.experiments import load_experiment, run_experiment

    folder = tmp_path_factory.mktemp("runs")
    command = "tutvae train tiny_sweep.toml"
    return run_experiment(load_experiment(sweep_toml), command, folder=folder)[1]


@pytest.fixture(scope="session")
def classification_toml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An experiment file of ten classifiers that take a few seconds."""
    path = tmp_path_factory.mktemp("experiments") / "tiny_labels.toml"
    path.write_text(CLASSIFICATION_EXPERIMENT)
    return path


@pytest.fixture(scope="session")
def classification_run(
    classification_toml: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """The record of that experiment."""
    from tutvae.experiments import load_experiment, run_experiment

    folder = tmp_path_factory.mktemp("runs")
    command = "tutvae train tiny_labels.toml"
    return run_experiment(load_experiment(classification_toml), command, folder=folder)[1]
