"""Experiments with `kind = "image"`: the basic VAE on images."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from pydantic import model_validator
from tqdm import tqdm

from tutvae.data import corpora
from tutvae.data.batches.images import ImageBatches
from tutvae.data.corpus import Corpus, Images
from tutvae.evaluation.report import Report, evaluate
from tutvae.experiments.experiment import (
    Context,
    Count,
    CountOrZero,
    Experiment,
    Listed,
    Positive,
    Section,
    Seed,
)
from tutvae.experiments.records import data_sha256
from tutvae.models.vae import VAE
from tutvae.training.checkpoints import save_weights
from tutvae.training.loop import fit, is_watched

# How many pixels an image of each corpus has.
PIXELS = {"digits": 8 * 8, "mnist": 28 * 28}
CURVE_DECIMALS = 6


class ImageCorpusSection(Section):
    """`[corpus]`: which corpus; `valid_size` images of MNIST's training set are held out."""

    name: Literal["mnist", "digits"]
    valid_size: CountOrZero | None = None

    @model_validator(mode="after")
    def _valid_size_is_for_mnist(self) -> ImageCorpusSection:
        """The digits have a split of their own."""
        if self.name != "mnist" and self.valid_size is not None:
            raise ValueError("valid_size goes with mnist alone")
        return self

    def build(self) -> Corpus[Images]:
        """Load the images."""
        options = self.model_dump(include={"valid_size"}, exclude_none=True)
        return getattr(corpora, self.name)(**options)


class ImageModelSection(Section):
    """`[model]`: the sizes of a `VAE`."""

    latent_size: Count
    hidden_sizes: Annotated[tuple[Count, ...], Listed]

    def build(self, pixels: int) -> VAE:
        """Make the model, from torch's present random state."""
        return VAE(pixels, **self.model_dump())


class ImageTrainingSection(Section):
    """`[training]`: Adam with a learning rate that follows a cosine to zero."""

    epochs: Count
    batch_size: Count
    learning_rate: Positive

    def build(self, model: VAE) -> dict[str, Any]:
        """Make the optimizer and its schedule, as the arguments of `fit`."""
        optimizer = torch.optim.Adam(model.parameters(), lr=self.learning_rate)
        return {"epochs": self.epochs, "optimizer": optimizer, "scheduler": "cosine"}


class ImageEvaluationSection(Section):
    """`[evaluation]`: posterior samples of the importance-weighted NLL."""

    importance_samples: Count


class ImageExperiment(Experiment):
    """An experiment file with `kind = "image"`, or without a kind. Chapter 2."""

    kind: Literal["image"] = "image"
    seed: Seed
    corpus: ImageCorpusSection
    model: ImageModelSection
    training: ImageTrainingSection
    evaluation: ImageEvaluationSection

    def load(self) -> Corpus[Images]:
        """Load the images that the file names."""
        return self.corpus.build()

    def facts(self, data: Corpus[Images]) -> dict[str, Any]:
        """The hash of the images."""
        return {"data_sha256": data_sha256(data)}

    def train(self, data: Corpus[Images], context: Context) -> dict[str, Any]:
        """Build, fit and evaluate the model, or go on where an interrupted run stopped.

        Source: Burda et al. (2016), section 5, for the experiment in the project. Chapter 2.
        """
        torch.manual_seed(self.seed)
        model = self.model.build(data.train.pixels.shape[1])
        history = fit(
            model,
            ImageBatches(data.train, self.training.batch_size, shuffle=True, seed=self.seed),
            valid=self._fixed_batches(data.valid) if len(data.valid) else None,
            **self.training.build(model),
            **context.of_fit(),
        )
        save_weights(model, context.folder.weights, configuration=context.identity)
        return {
            "train_seconds": round(history.seconds, 1),
            "examples_per_second": round(len(data.train) * len(history) / history.seconds),
            "curves": {
                column: [round(value, CURVE_DECIMALS) for value in history[column]]
                for column in history.records[0]
            },
            "reports": {
                split: self.measure(model, data, split, progress=context.progress).to_dict()
                for split in ("valid", "test")
                if len(getattr(data, split))
            },
        }

    def measure(
        self,
        model: VAE,
        data: Corpus[Images],
        split: str,
        *,
        importance_samples: int | None = None,
        progress: bool | None = None,
    ) -> Report:
        """Measure a model on a split, with the arguments of `TextExperiment.measure`.

        Source: Burda et al. (2016), section 5. Chapter 2.
        """
        batches = self._fixed_batches(getattr(data, split))
        return evaluate(
            model,
            tqdm(batches, "measuring", unit="batch", leave=False, disable=not is_watched(progress)),
            importance_samples=importance_samples or self.evaluation.importance_samples,
        )

    def _fixed_batches(self, split: Images) -> ImageBatches:
        """The one binarisation that a split is always measured on."""
        return ImageBatches(split, 500, shuffle=False, seed=self.seed)
