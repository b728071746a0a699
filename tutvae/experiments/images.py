"""Recorded runs of the basic VAE on images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator
from tqdm import tqdm

from tutvae.data.batches.images import ImageBatches
from tutvae.data.corpora import digits, mnist
from tutvae.data.corpus import Corpus, Images
from tutvae.evaluation.report import Report, evaluate
from tutvae.experiments.records import data_sha256
from tutvae.experiments.sections import Experiment, Section
from tutvae.models.vae import VAE
from tutvae.training.checkpoints import save_weights
from tutvae.training.loop import History, fit, is_watched
from tutvae.training.run_folder import RunFolder

# How many pixels an image of each corpus has.
PIXELS = {"digits": 8 * 8, "mnist": 28 * 28}


class CorpusSection(Section):
    """`[corpus]`: which corpus; `valid_size` images of MNIST's training set are held out."""

    name: Literal["mnist", "digits"]
    valid_size: NonNegativeInt | None = None

    @model_validator(mode="after")
    def _valid_size_is_for_mnist(self) -> CorpusSection:
        """The digits have a split of their own."""
        if self.name != "mnist" and self.valid_size is not None:
            raise ValueError("valid_size goes with mnist alone")
        return self


class ModelSection(Section):
    """`[model]`: the sizes of a `VAE`."""

    latent_size: PositiveInt
    # A TOML array is a list, which strictness would refuse.
    hidden_sizes: Annotated[tuple[PositiveInt, ...], Field(strict=False)]


class TrainingSection(Section):
    """`[training]`: Adam with a learning rate that follows a cosine to zero."""

    epochs: PositiveInt
    batch_size: PositiveInt
    learning_rate: PositiveFloat


class EvaluationSection(Section):
    """`[evaluation]`: posterior samples of the importance-weighted NLL."""

    importance_samples: PositiveInt


class ImageExperiment(Experiment):
    """An experiment file with `kind = "image"`, or without a kind. Chapter 2."""

    kind: Literal["image"] = "image"
    seed: NonNegativeInt
    corpus: CorpusSection
    model: ModelSection
    training: TrainingSection
    evaluation: EvaluationSection


def train_and_measure_images(
    experiment: ImageExperiment,
    corpus: Corpus[Images],
    folder: Path | None = None,
    *,
    progress: bool | None = None,
) -> tuple[VAE, dict[str, Any]]:
    """Build, fit and evaluate a VAE of images, or go on where an interrupted run stopped.

    Args:
        experiment: the description.
        corpus: what it names, loaded.
        folder: keeps checkpoints and, in the end, the weights; see `RunFolder`. Without it
            nothing is written.
        progress: show a bar; by default only where somebody watches.

    Returns:
        The trained model, and the part of the record that is the run's own.

    Raises:
        FloatingPointError: training diverged.
        ValueError: the folder holds another run.

    Source: Burda et al. (2016), section 5, for the experiment in the project. Chapter 2.
    """
    torch.manual_seed(experiment.seed)
    model = VAE(corpus.train.pixels.shape[1], **experiment.model.model_dump())
    history = _train(experiment, model, corpus, folder, progress)
    if folder is not None:
        save_weights(model, RunFolder(folder).weights)
    return model, {
        "train_seconds": round(history.seconds, 1),
        "examples_per_second": round(len(corpus.train) * len(history) / history.seconds),
        "curves": {
            column: [round(value, 6) for value in history[column]] for column in history.records[0]
        },
        "reports": {
            name: measure_images(model, experiment, split, progress=progress).to_dict()
            for name, split in (("valid", corpus.valid), ("test", corpus.test))
            if len(split)
        },
    }


def measure_images(
    model: VAE,
    experiment: ImageExperiment,
    split: Images,
    *,
    importance_samples: int | None = None,
    progress: bool | None = None,
) -> Report:
    """Measure a model on a split, in the one binarisation that it is always measured on.

    Args:
        model: on any device.
        experiment: what it was trained in.
        split: the images.
        importance_samples: S, where it is not that of the experiment.
        progress: show a bar; by default only where somebody watches.

    Source: Burda et al. (2016), section 5. Chapter 2.
    """
    batches = _fixed_batches(split, experiment)
    return evaluate(
        model,
        tqdm(batches, "measuring", unit="batch", leave=False, disable=not is_watched(progress)),
        importance_samples=importance_samples or experiment.evaluation.importance_samples,
    )


def load_corpus(section: CorpusSection) -> Corpus[Images]:
    """Load the images that an experiment names."""
    if section.name == "digits":
        return digits()
    return mnist() if section.valid_size is None else mnist(valid_size=section.valid_size)


def _train(
    experiment: ImageExperiment,
    model: VAE,
    corpus: Corpus[Images],
    folder: Path | None,
    progress: bool | None,
) -> History:
    """Fit the model as `[training]` says."""
    training = experiment.training
    train = ImageBatches(corpus.train, training.batch_size, shuffle=True, seed=experiment.seed)
    return fit(
        model,
        train,
        epochs=training.epochs,
        valid=_fixed_batches(corpus.valid, experiment) if len(corpus.valid) else None,
        optimizer=torch.optim.Adam(model.parameters(), lr=training.learning_rate),
        scheduler="cosine",
        run_folder=folder,
        configuration=experiment.identity(data_sha256(corpus)),
        progress=progress,
    )


def _fixed_batches(split: Images, experiment: ImageExperiment) -> ImageBatches:
    """The one binarisation that a split is always measured on."""
    return ImageBatches(split, 500, shuffle=False, seed=experiment.seed)
