"""Recorded runs of the basic VAE on images."""

from __future__ import annotations

import time
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from tutvae.data.corpora import digits, mnist
from tutvae.data.corpus import Corpus, Images
from tutvae.data.images import ImageBatches
from tutvae.evaluation import evaluate
from tutvae.experiments.sections import Experiment, Section
from tutvae.models.vae import VAE
from tutvae.results import data_sha256, provenance
from tutvae.training import History, fit


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


def run_images(
    experiment: ImageExperiment, command: str, progress: bool | None = None
) -> tuple[VAE, dict[str, Any]]:
    """Build, fit and evaluate a VAE of images.

    Args:
        experiment: the description.
        command: what the user typed to start it, for the record.
        progress: show a bar; by default only where somebody watches.

    Returns:
        The trained model, and the record of the run.

    Raises:
        FileNotFoundError: the corpus is not at hand.
        FloatingPointError: training diverged.

    Source: Burda et al. (2016), section 5, for the experiment in the project. Chapter 2.
    """
    record = {"name": experiment.name, "command": command, **provenance()}
    torch.manual_seed(experiment.seed)
    corpus = load_corpus(experiment.corpus)
    model = VAE(corpus.train.pixels.shape[1], **experiment.model.model_dump())
    start = time.perf_counter()
    history = _train(experiment, model, corpus, progress)
    seconds = time.perf_counter() - start
    record |= {
        "configuration": experiment.configuration(),
        "data_sha256": data_sha256(corpus),
        "train_seconds": round(seconds, 1),
        "examples_per_second": round(len(corpus.train) * len(history) / seconds),
        "curves": {
            column: [round(value, 6) for value in history[column]] for column in history.records[0]
        },
        "reports": _reports(experiment, model, corpus),
    }
    return model, record


def load_corpus(section: CorpusSection) -> Corpus[Images]:
    """Load the images that an experiment names."""
    if section.name == "digits":
        return digits()
    return mnist() if section.valid_size is None else mnist(valid_size=section.valid_size)


def _train(
    experiment: ImageExperiment, model: VAE, corpus: Corpus[Images], progress: bool | None
) -> History:
    """Fit the model as `[training]` says."""
    training = experiment.training
    train = ImageBatches(corpus.train, training.batch_size, shuffle=True, seed=experiment.seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=training.learning_rate)
    return fit(
        model,
        train,
        epochs=training.epochs,
        valid=_fixed_batches(corpus.valid, experiment) if len(corpus.valid) else None,
        optimizer=optimizer,
        scheduler=torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, training.epochs),
        progress=progress,
    )


def _reports(
    experiment: ImageExperiment, model: VAE, corpus: Corpus[Images]
) -> dict[str, dict[str, Any]]:
    """Evaluate on the test set, and on the validation set where there is one."""
    samples = experiment.evaluation.importance_samples
    splits = {"valid": corpus.valid, "test": corpus.test}
    return {
        name: evaluate(
            model, _fixed_batches(split, experiment), importance_samples=samples
        ).to_dict()
        for name, split in splits.items()
        if len(split)
    }


def _fixed_batches(split: Images, experiment: ImageExperiment) -> ImageBatches:
    """The one binarisation that a split is always measured on."""
    return ImageBatches(split, 500, shuffle=False, seed=experiment.seed)
