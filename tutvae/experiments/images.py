"""Experiments with `kind = "image"`: the basic VAE on images."""

from typing import Annotated, Any, Literal

import torch
from pydantic import BeforeValidator, SerializeAsAny, model_serializer
from tqdm import tqdm

from tutvae.data.batches.images import ImageBatches
from tutvae.data.corpora import CORPORA
from tutvae.data.corpus import Corpus, Images
from tutvae.evaluation.report import Report, evaluate
from tutvae.experiments.data import section_named
from tutvae.experiments.experiment import Context, Experiment, Section
from tutvae.experiments.keys import Count, Listed, Positive, Seed
from tutvae.experiments.provenance import data_sha256
from tutvae.models.vae import VAE
from tutvae.training.checkpoints import save_weights
from tutvae.training.loop import fit, is_watched
from tutvae.training.step import adam

CURVE_DECIMALS = 6


class ImageCorpusSection(Section):
    """`[corpus]` with a name of `CORPORA`; what its loader may be told are keys, too."""

    name: str

    @classmethod
    def chosen(cls, table: Any) -> type[Section]:
        """The section of the corpus that a table names."""
        return section_named(table, Images, ImageCorpusSection)

    @model_serializer(mode="wrap")
    def _as_given(self, dump: Any) -> dict[str, Any]:
        """The file's keys alone: a record stays valid when a loader learns an option."""
        return {key: value for key, value in dump(self).items() if key in self.model_fields_set}

    def build(self) -> Corpus[Images]:
        """Load the images."""
        return CORPORA[self.name].load(**self.model_dump(exclude={"name"}))


Checked = BeforeValidator(ImageCorpusSection.checked)
AnyImages = Annotated[SerializeAsAny[ImageCorpusSection], Checked]


class ImageModelSection(Section):
    """`[model]`: the sizes of a `VAE`."""

    latent_size: Count
    hidden_sizes: Annotated[tuple[Count, ...], Listed]


class ImageTrainingSection(Section):
    """`[training]`: Adam with a learning rate that follows a cosine to zero."""

    epochs: Count
    batch_size: Count
    learning_rate: Positive


class ImageEvaluationSection(Section):
    """`[evaluation]`: posterior samples of the importance-weighted NLL."""

    importance_samples: Count


class ImageExperiment(Experiment):
    """An experiment file with `kind = "image"`, or without a kind. Chapter 2."""

    kind: Literal["image"] = "image"
    seed: Seed
    corpus: AnyImages
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
        model = VAE(data.train.pixels.shape[1], **self.model.model_dump())
        history = fit(
            model,
            ImageBatches(data.train, self.training.batch_size, shuffle=True, seed=self.seed),
            valid=self._fixed_batches(data.valid) if len(data.valid) else None,
            epochs=self.training.epochs,
            optimizer=adam(model.parameters(), self.training.learning_rate),
            scheduler="cosine",
            **context.of_fit(),
        )
        save_weights(model, context.folder.weights, configuration=context.identity)
        splits = [split for split in ("valid", "test") if len(getattr(data, split))]
        reports = {x: self.measure(model, data, x, progress=context.progress) for x in splits}
        columns = history.records[0]
        return {
            "train_seconds": round(history.seconds, 1),
            "examples_per_second": round(len(data.train) * len(history) / history.seconds),
            "curves": {x: [round(value, CURVE_DECIMALS) for value in history[x]] for x in columns},
            "reports": {split: report.to_dict() for split, report in reports.items()},
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
        batches, hidden = self._fixed_batches(getattr(data, split)), not is_watched(progress)
        bar = tqdm(batches, "measuring", unit="batch", leave=False, disable=hidden)
        S = importance_samples or self.evaluation.importance_samples
        return evaluate(model, bar, importance_samples=S)

    def _fixed_batches(self, split: Images) -> ImageBatches:
        """The one binarisation that a split is always measured on."""
        return ImageBatches(split, 500, shuffle=False, seed=self.seed)
