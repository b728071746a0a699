"""What a file with `kind = "text"` describes: a language model or a text VAE, or many of them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    Discriminator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Tag,
    model_validator,
)

from tutvae import schedules
from tutvae.bounds import FreeBitsPer
from tutvae.experiments.sections import Experiment, Name, Section
from tutvae.experiments.text_corpora import NamedCorpusSection, ReviewsSection
from tutvae.schedules import Schedule
from tutvae.training.engine import Precision

Rate = Annotated[float, Field(ge=0, le=1)]
EvaluationPrecision = Literal["fp32", "bf16"]


def _not_empty(values: tuple[int, ...]) -> tuple[int, ...]:
    """Raise ValueError for an empty list."""
    if not values:
        raise ValueError("List should have at least one number")
    return values


# Pydantic's own check of a length counts the right items only, and so names a fault too many.
NotEmpty = AfterValidator(_not_empty)
# What a schedule may be told besides its length.
SCHEDULE_OPTIONS = {"linear": "start", "logistic": "slope", "cyclical": "ramp"}


class EncoderSection(Section):
    """`[encoder]`: an `LSTMEncoder`."""

    kind: Literal["lstm"] = "lstm"
    embedding_size: PositiveInt
    hidden_size: PositiveInt
    pooling: Literal["last", "max"] = "last"


class LSTMDecoderSection(Section):
    """`[decoder]` with `kind = "lstm"`: an `LSTMDecoder`; if `tied`, by `tie_weights`."""

    kind: Literal["lstm"]
    embedding_size: PositiveInt
    hidden_size: PositiveInt
    tied: bool = False
    dropout: Rate = 0.0
    word_dropout: Rate = 0.0

    @model_validator(mode="after")
    def _tied_weights_have_one_size(self) -> LSTMDecoderSection:
        """As `tie_weights` wants it."""
        if self.tied and self.embedding_size != self.hidden_size:
            raise ValueError("tied needs an embedding_size equal to hidden_size")
        return self


class ConvDecoderSection(Section):
    """`[decoder]` with `kind = "dilated_cnn"`: a `DilatedConvDecoder`."""

    kind: Literal["dilated_cnn"]
    embedding_size: PositiveInt
    channels: Annotated[int, Field(ge=2)]
    dilations: Annotated[
        Annotated[Literal["small", "medium", "large", "very_large"], Tag("a preset")]
        | Annotated[tuple[PositiveInt, ...], Field(strict=False), NotEmpty, Tag("a list")],
        Discriminator(lambda value: "a preset" if isinstance(value, str) else "a list"),
    ] = "medium"
    width: Annotated[int, Field(ge=2)] = 3
    dropout: Rate = 0.0
    word_dropout: Rate = 0.0


class ModelSection(Section):
    """`[model]`: dimensions of the code, Z; 0 makes a language model."""

    latent_size: NonNegativeInt


class KLWeightSection(Section):
    """`training.kl_weight` as a schedule of `tutvae.schedules`.

    Its length is told by `steps` or by `epochs`: of the rise ("linear", "cosine"), up to the
    weight one half ("logistic"), or of a cycle ("cyclical").
    """

    schedule: Literal["linear", "logistic", "cosine", "cyclical"]
    steps: PositiveInt | None = None
    epochs: PositiveFloat | None = None
    start: Rate | None = None
    slope: PositiveFloat | None = None
    ramp: Annotated[float, Field(gt=0, le=1)] | None = None

    @model_validator(mode="after")
    def _keys_go_together(self) -> KLWeightSection:
        """One length, and no option of another schedule."""
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("give either steps or epochs, the length of the schedule")
        for schedule, option in SCHEDULE_OPTIONS.items():
            if schedule != self.schedule and getattr(self, option) is not None:
                raise ValueError(f"{option} goes with the schedule {schedule!r} alone")
        return self

    def build(self, steps_per_epoch: int) -> Schedule:
        """Make the function from the step to the weight."""
        steps = self.steps or max(1, round((self.epochs or 0) * steps_per_epoch))
        values = {option: getattr(self, option) for option in SCHEDULE_OPTIONS.values()}
        options = {option: value for option, value in values.items() if value is not None}
        return getattr(schedules, self.schedule)(steps, **options)


def _number_or_schedule(value: Any) -> str:
    """Which of the two a KL weight is meant to be."""
    return "a schedule" if isinstance(value, dict | KLWeightSection) else "a number"


class TrainingSection(Section):
    """`[training]`: the optimiser, the batches and the loss; see `fit`, `Batches` and `Elbo.loss`.

    Attributes:
        learning_rate_schedule: the rate stays as it is; or falls to zero over the epochs evenly
            ("linear") or along half a cosine wave ("cosine"); or is halved whenever the bound on
            the validation set has not improved for two epochs ("plateau").
        accumulation_steps: batches that make a step.
        patience: training ends after so many epochs in a row without a better bound there.
        weights: those that are measured and kept, of the last epoch or of the one with the best
            bound there.
    """

    epochs: PositiveInt
    batch_size: PositiveInt | None = None
    token_budget: PositiveInt | None = None
    optimizer: Literal["adam", "sgd"] = "adam"
    learning_rate: PositiveFloat
    learning_rate_schedule: Literal["constant", "linear", "cosine", "plateau"] = "constant"
    max_grad_norm: PositiveFloat | None = None
    accumulation_steps: PositiveInt = 1
    patience: PositiveInt | None = None
    precision: Precision = "fp32"
    weights: Literal["last", "best"] = "last"
    kl_weight: Annotated[
        Annotated[NonNegativeFloat, Tag("a number")]
        | Annotated[KLWeightSection, Tag("a schedule")],
        Discriminator(_number_or_schedule),
    ] = 1.0
    free_bits: NonNegativeFloat = 0.0
    free_bits_per: FreeBitsPer = "dimension"

    @model_validator(mode="after")
    def _one_size_of_batches(self) -> TrainingSection:
        """As `Batches` wants it."""
        if (self.batch_size is None) == (self.token_budget is None):
            raise ValueError("give either batch_size or token_budget")
        return self


class AggressiveSection(Section):
    """`[training.aggressive]`: a first phase with `fit_aggressively`, whose arguments these are.

    Each of its steps takes one batch, whatever `accumulation_steps`.
    """

    window: PositiveInt = 10
    max_encoder_steps: PositiveInt = 100
    round_steps: PositiveInt
    max_rounds: PositiveInt


class TextTrainingSection(TrainingSection):
    """`[training]` of a text experiment: a `TrainingSection`, and what may come before."""

    aggressive: AggressiveSection | None = None


class InitialisationSection(Section):
    """`[initialisation]`: the encoder starts from a language model trained for so many epochs."""

    epochs: PositiveInt


class EvaluationSection(Section):
    """`[evaluation]`: what is measured after training.

    Posterior samples of the importance-weighted NLL, and those on the validation set where they
    are others; at most so many documents of a split, spread evenly over it; the precision of the
    heavy operations; with `factors`, what the code holds of the hidden factors of the reviews.
    """

    importance_samples: PositiveInt
    valid_importance_samples: PositiveInt | None = None
    max_examples: PositiveInt | None = None
    precision: EvaluationPrecision = "fp32"
    factors: bool = False

    def samples_of(self, split: str) -> int:
        """Posterior samples on one of the splits."""
        on_valid = self.valid_importance_samples if split == "valid" else None
        return on_valid or self.importance_samples


class TextExperiment(Experiment):
    """An experiment file with `kind = "text"`. Chapter 7.

    With `seeds` or `[variants.NAME]` it is a sweep: every variant is run with every seed. A
    variant's table is merged into the rest of the file; where it names another `kind` or
    `schedule`, it replaces that table.
    """

    kind: Literal["text"]
    seed: NonNegativeInt | None = None
    seeds: Annotated[tuple[NonNegativeInt, ...], Field(strict=False), NotEmpty] | None = None
    corpus: Annotated[ReviewsSection | NamedCorpusSection, Field(discriminator="name")]
    encoder: EncoderSection | None = None
    decoder: Annotated[LSTMDecoderSection | ConvDecoderSection, Field(discriminator="kind")]
    model: ModelSection
    training: TextTrainingSection
    initialisation: InitialisationSection | None = None
    evaluation: EvaluationSection
    variants: Annotated[dict[Name, dict[str, Any]], Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _sections_go_together(self) -> TextExperiment:
        """A code needs an encoder; seeds are told once; factors are the reviews' alone."""
        if self.seed is not None and self.seeds is not None:
            raise ValueError("give either seed or seeds")
        if self.seeds is not None and len(set(self.seeds)) < len(self.seeds):
            raise ValueError("seeds must differ from each other")
        if self.model.latent_size > 0 and self.encoder is None:
            raise ValueError("a model with a code (latent_size above 0) needs an [encoder]")
        if self.model.latent_size == 0 and self.initialisation is not None:
            raise ValueError("initialisation is of an encoder, and latent_size 0 has none")
        if self.model.latent_size == 0 and self.training.aggressive is not None:
            raise ValueError("training.aggressive is of an encoder, and latent_size 0 has none")
        if self.evaluation.factors and not isinstance(self.corpus, ReviewsSection):
            raise ValueError("evaluation.factors goes with the corpus 'reviews' alone")
        return self

    @property
    def is_sweep(self) -> bool:
        """Whether the file describes several runs."""
        return self.seeds is not None or self.variants is not None
