"""What a file with `kind = "classification"` describes: accuracy against the number of labels."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NamedTuple

from pydantic import (
    Discriminator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Tag,
    ValidationError,
    model_validator,
)

from tutvae.experiments.sections import Experiment, Name, Section, faults
from tutvae.experiments.sweeps import ONLY_VARIANT, merged
from tutvae.experiments.text_corpora import NamedCorpusSection, ReviewsSection
from tutvae.experiments.text_sections import (
    ConvDecoderSection,
    EncoderSection,
    LSTMDecoderSection,
    NotEmpty,
    Rate,
    TextExperiment,
    TrainingSection,
)
from tutvae.models.semi_supervised import Marginal
from tutvae.schedules import Schedule, temperature_decay

Method = Literal["bag_of_words", "lstm", "lstm_init", "codes", "semi_supervised"]
# The sections that only some methods need, and those that do.
NEEDED: dict[str, set[Method]] = {
    "classifier": {"lstm", "lstm_init"},
    "initialisation": {"lstm_init"},
    "semi_supervised": {"semi_supervised"},
}
VAES: set[Method] = {"codes", "semi_supervised"}
# What all runs have in common, or what makes them many.
COMMON = {"name", "kind", "corpus", "variants"}
# Of models without labels: their bound says what they learnt, the classifiers what it is good for.
SHARED_EVALUATION = {"importance_samples": 20, "max_examples": 500}


class LatentSection(Section):
    """`[model]`: dimensions of the code, Z."""

    latent_size: PositiveInt


class TemperatureSection(Section):
    """`semi_supervised.temperature` as a schedule: see `temperature_decay`."""

    rate: PositiveFloat
    floor: Annotated[float, Field(gt=0, le=1)] = 0.5

    def build(self) -> Schedule:
        """Make the function from the step to the temperature."""
        return temperature_decay(self.rate, self.floor)


def _number_or_schedule(value: Any) -> str:
    """Which of the two a temperature is meant to be."""
    return "a schedule" if isinstance(value, dict | TemperatureSection) else "a number"


class SemiSupervisedSection(Section):
    """`[semi_supervised]`: a `SemiSupervisedTextVAE` and its batches.

    Every batch of documents without labels, as `[training]` says, comes with `labelled_size`
    labelled ones.
    """

    classification_weight: NonNegativeFloat
    marginal: Marginal = "enumerate"
    temperature: Annotated[
        Annotated[PositiveFloat, Tag("a number")]
        | Annotated[TemperatureSection, Tag("a schedule")],
        Discriminator(_number_or_schedule),
    ] = 1.0
    label_kl_floor: NonNegativeFloat = 0.0
    labelled_size: PositiveInt
    dropout: Rate = 0.0


class ClassifierSection(Section):
    """`[classifier]`: a `TextClassifier` of the encoder's sizes, trained by Adam.

    Attributes:
        steps: updates, so that training is as long with few labels as with many.
        batch_size: labelled documents a step.
        learning_rate: the same at every step.
        dropout: in training, the share of zeroed features.
    """

    steps: PositiveInt
    batch_size: PositiveInt
    learning_rate: PositiveFloat
    dropout: Rate = 0.0


class StartSection(Section):
    """`[initialisation]`: the encoder of "lstm_init" starts from a language model.

    Attributes:
        epochs: passes over the documents in which that is trained, else as `[training]` says.
        vaes: whether the encoders of the VAEs start from it, too: "codes", "semi_supervised".
    """

    epochs: PositiveInt
    vaes: bool = False


class ClassificationExperiment(Experiment):
    """An experiment file with `kind = "classification"`. Chapter 8.

    Every variant is run with every method, number of labels and seed; a variant may have
    methods, labels and seeds of its own. Its table is merged into the rest of the file as in a
    `TextExperiment`.

    The methods are "bag_of_words", logistic regression on the counts of words; "lstm", the
    encoder as a classifier, from scratch; "lstm_init", the same, started from a language model;
    "codes", logistic regression on the codes of a VAE that saw no label; and "semi_supervised".
    """

    kind: Literal["classification"]
    seeds: Annotated[tuple[NonNegativeInt, ...], Field(strict=False), NotEmpty]
    labels: Annotated[tuple[PositiveInt, ...], Field(strict=False), NotEmpty]
    methods: Annotated[tuple[Method, ...], Field(strict=False), NotEmpty]
    corpus: Annotated[ReviewsSection | NamedCorpusSection, Field(discriminator="name")]
    encoder: EncoderSection
    decoder: Annotated[LSTMDecoderSection | ConvDecoderSection, Field(discriminator="kind")]
    model: LatentSection
    training: TrainingSection
    semi_supervised: SemiSupervisedSection | None = None
    classifier: ClassifierSection | None = None
    initialisation: StartSection | None = None
    variants: Annotated[dict[Name, dict[str, Any]], Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _keys_go_together(self) -> ClassificationExperiment:
        """No run twice, the sections that the methods need, and nothing chosen on the way."""
        for key in ("seeds", "labels", "methods"):
            values = getattr(self, key)
            if len(set(values)) < len(values):
                raise ValueError(f"{key} must differ from each other")
        for section, methods in NEEDED.items():
            needing = [method for method in self.methods if method in methods]
            if needing and getattr(self, section) is None:
                raise ValueError(f"the method {needing[0]!r} needs a section [{section}]")
        if self.training.weights != "last" or self.training.patience is not None:
            raise ValueError(
                "all methods are measured as they are after training.epochs epochs: leave out "
                "training.patience and training.weights"
            )
        return self


class ClassificationRun(NamedTuple):
    """One method with some labels and a seed, with the description of that run alone."""

    variant: str
    experiment: ClassificationExperiment

    @property
    def method(self) -> Method:
        """How the documents are classified."""
        return self.experiment.methods[0]

    @property
    def labels(self) -> int:
        """How many documents have a label."""
        return self.experiment.labels[0]

    @property
    def seed(self) -> int:
        """The seed, of the labels that are there as of the rest."""
        return self.experiment.seeds[0]

    @property
    def label(self) -> str:
        """What names the run's file."""
        return f"{self.variant}-{self.method}-{self.labels}-{self.seed}"


def classification_runs(experiment: ClassificationExperiment) -> list[ClassificationRun]:
    """Spell out the runs: every variant with every method, number of labels and seed.

    Raises:
        ValueError: a variant does not describe an experiment; the message names its keys.
    """
    runs: list[ClassificationRun] = []
    wrong: list[str] = []
    for variant, overrides in (experiment.variants or {ONLY_VARIANT: {}}).items():
        wrong += [
            f"variants.{variant}.{key}: All runs have this in common"
            for key in sorted(COMMON & set(overrides))
        ]
        table = merged(experiment.configuration(), overrides)
        table.pop("variants", None)
        try:
            described = ClassificationExperiment.model_validate(table)
        except ValidationError as error:
            wrong += [f"variants.{variant}.{fault}" for fault in faults(error, table)]
        else:
            runs += _runs_of(variant, described)
    if wrong:
        raise ValueError("\n".join(wrong))
    return runs


def _runs_of(variant: str, experiment: ClassificationExperiment) -> list[ClassificationRun]:
    """The runs of a variant."""
    return [
        ClassificationRun(variant, _alone(experiment, method, labels, seed))
        for method in experiment.methods
        for labels in experiment.labels
        for seed in experiment.seeds
    ]


def _alone(
    experiment: ClassificationExperiment, method: Method, labels: int, seed: int
) -> ClassificationExperiment:
    """The description of a single run, without the sections that it does not use."""
    unused = {section for section, methods in NEEDED.items() if method not in methods}
    start = experiment.initialisation
    if method in VAES and start is not None and start.vaes:
        unused.remove("initialisation")
    only: dict[str, Any] = {"methods": (method,), "labels": (labels,), "seeds": (seed,)}
    return experiment.model_copy(update=only | dict.fromkeys(unused))


class SharedRun(NamedTuple):
    """A model without labels that several runs of a variant and a seed start from."""

    variant: str
    model: Literal["language_model", "vae"]
    experiment: TextExperiment

    @property
    def label(self) -> str:
        """What names the run's file and that of its weights."""
        return f"{self.variant}-{self.model}-{self.experiment.seed}"


def shared_runs(run: ClassificationRun) -> list[SharedRun]:
    """The models without labels that a run starts from."""
    experiment = run.experiment
    encoder, start = experiment.encoder, experiment.initialisation
    table = experiment.model_dump(include={"name", "corpus", "encoder", "training"})
    table |= {"kind": "text", "seed": run.seed, "evaluation": SHARED_EVALUATION}
    shared = []
    if start is not None:
        language_model = {
            "decoder": {
                "kind": "lstm",
                "embedding_size": encoder.embedding_size,
                "hidden_size": encoder.hidden_size,
                "dropout": experiment.decoder.dropout,
            },
            "model": {"latent_size": 0},
            "training": table["training"] | {"epochs": start.epochs},
        }
        described = TextExperiment.model_validate(table | language_model)
        shared.append(SharedRun(run.variant, "language_model", described))
    if run.method == "codes":
        vae = experiment.model_dump(include={"decoder", "model"})
        if start is not None:
            vae["initialisation"] = {"epochs": start.epochs}
        shared.append(SharedRun(run.variant, "vae", TextExperiment.model_validate(table | vae)))
    return shared
