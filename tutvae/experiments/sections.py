"""What is trained and how: `[encoder]`, `[decoder]`, `[model]` and `[training]`."""

import inspect
import math
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal, TypeVar

import torch
from pydantic import BeforeValidator, Discriminator, SerializeAsAny, Tag, model_validator
from torch import nn

from tutvae import schedules
from tutvae.bounds import FreeBitsPer
from tutvae.data.batches.labelled import MixedBatches
from tutvae.data.batches.text import Batches, EncodedTexts
from tutvae.data.tokenization import Tokenizer
from tutvae.experiments.experiment import Section, section_like
from tutvae.experiments.keys import (
    Count,
    CountOrZero,
    Listed,
    NotEmpty,
    NotNegative,
    Positive,
    Rate,
    Share,
)
from tutvae.models import DECODERS, Decoder, Encoder, encoders, tie_weights
from tutvae.models.semi_supervised import Marginal, SemiSupervisedTextVAE
from tutvae.schedules import Schedule, temperature_decay
from tutvae.training.engine import Precision, rank_and_world_size
from tutvae.training.step import adam

MARKS = ("pad_id", "bos_id", "eos_id", "unk_id")
# The keys of `[training]` that are arguments of `Batches`, and those of `fit`.
OF_BATCHES = {"batch_size", "token_budget"}
OF_FIT = {"accumulation_steps", "free_bits", "free_bits_per", "max_grad_norm", "patience"}
OF_FIT |= {"precision", "rate"}
# What a schedule may be told besides its length.
SCHEDULE_OPTIONS = {"linear": "start", "logistic": "slope", "cyclical": "ramp"}
Number = TypeVar("Number")
ScheduleSection = TypeVar("ScheduleSection")
NumberOrSchedule = Annotated[
    Annotated[Number, Tag("a number")] | Annotated[ScheduleSection, Tag("a schedule")],
    Discriminator(lambda x: "a schedule" if isinstance(x, dict | Section) else "a number"),
]


class EncoderSection(Section):
    """`[encoder]`: an `LSTMEncoder` with its `pooling`; or a `BiLSTMEncoder` or a `BagEncoder`."""

    kind: Literal["lstm", "bilstm", "bag"] = "lstm"
    embedding_size: CountOrZero
    hidden_size: Count
    pooling: Literal["last", "max"] = "last"
    dropout: Rate | None = None

    @model_validator(mode="after")
    def _keys_go_together(self) -> "EncoderSection":
        """The encoder of the chapters has no dropout, and needs words to read."""
        if self.kind == "lstm" and self.dropout is not None:
            raise ValueError("dropout goes with the kinds 'bilstm' and 'bag' alone")
        if self.kind != "bag" and self.embedding_size == 0:
            raise ValueError("embedding_size must be at least 1 but for the kind 'bag'")
        return self

    def build(self, tokenizer: Tokenizer, latent_size: int) -> Encoder:
        """Make the encoder, from torch's present random state."""
        sizes = (len(tokenizer), self.embedding_size, self.hidden_size, latent_size)
        if self.kind == "lstm":
            return encoders.LSTMEncoder(*sizes, pooling=self.pooling)
        encoder = encoders.BiLSTMEncoder if self.kind == "bilstm" else encoders.BagEncoder
        return encoder(*sizes, **self.model_dump(include={"dropout"}, exclude_none=True))

    def language_model(self, decoder: "DecoderSection") -> dict[str, Any]:
        """The `[decoder]` of a language model that the encoder can start from."""
        sizes = {"embedding_size": self.embedding_size, "hidden_size": self.hidden_size}
        return {"kind": "lstm", "dropout": getattr(decoder, "dropout", 0.0), **sizes}


class DecoderSection(Section):
    """`[decoder]`: the decoder that `kind` names in `DECODERS`; its constructor's options are keys.

    With `tied`, words are read and predicted by the same vectors; see `tie_weights`.
    """

    # The constructor's parameters that the file does not choose.
    hidden: ClassVar[set[str]] = {"vocabulary_size", "latent_size", *MARKS}
    kind: str
    tied: bool = False

    @classmethod
    def chosen(cls, table: Any) -> type[Section]:
        """The section of the decoder that a table names."""
        kind = table.get("kind") if isinstance(table, dict) else None
        if kind not in list(DECODERS):
            names = " or ".join(map(repr, DECODERS))
            raise ValueError(f"kind should be {names}, not {kind!r}")
        return section_like(DECODERS[kind], DecoderSection)

    @model_validator(mode="after")
    def _can_be_built(self) -> "DecoderSection":
        """The decoder itself says what is impossible; on "meta" it takes no memory."""
        try:
            with torch.random.fork_rng(devices=[]), torch.device("meta"):
                decoder = self._made(vocabulary_size=8, latent_size=1)  # any size will do
        except (RuntimeError, OverflowError, TypeError) as error:
            raise ValueError(f"no such decoder can be built: {error}") from error
        if self.tied and not (hasattr(decoder, "embedding") and hasattr(decoder, "output")):
            raise ValueError(f"tied goes with decoders that have word vectors, not {self.kind!r}")
        if self.tied and decoder.embedding.embedding_dim != decoder.output.in_features:
            raise ValueError("tied needs an embedding_size equal to hidden_size")
        return self

    def build(self, tokenizer: Tokenizer, latent_size: int) -> Decoder:
        """Make the decoder, from torch's present random state."""
        known = set(inspect.signature(DECODERS[self.kind]).parameters)
        marks = {mark: getattr(tokenizer, mark) for mark in MARKS if mark in known}
        decoder = self._made(len(tokenizer), latent_size, **marks)
        if self.tied:
            tie_weights(decoder)
        return decoder

    def _made(self, vocabulary_size: int, latent_size: int, **marks: int | None) -> Any:
        options: dict[str, Any] = self.model_dump(exclude={"kind", "tied"}) | marks
        options |= {"vocabulary_size": vocabulary_size, "latent_size": latent_size}
        return DECODERS[self.kind](**options)


AnyDecoder = Annotated[SerializeAsAny[DecoderSection], BeforeValidator(DecoderSection.checked)]


class ModelSection(Section):
    """`[model]`: dimensions of the code, Z; 0 makes a language model."""

    latent_size: CountOrZero


class KLWeightSection(Section):
    """`training.kl_weight` as a schedule of `tutvae.schedules`.

    Its length is told by `steps` or by `epochs`: of the rise ("linear", "cosine"), up to the
    weight one half ("logistic"), or of a cycle ("cyclical").
    """

    schedule: Literal["linear", "logistic", "cosine", "cyclical"]
    steps: Count | None = None
    epochs: Positive | None = None
    start: Rate | None = None
    slope: Positive | None = None
    ramp: Share | None = None

    @model_validator(mode="after")
    def _keys_go_together(self) -> "KLWeightSection":
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
        options = self.model_dump(include=set(SCHEDULE_OPTIONS.values()), exclude_none=True)
        return getattr(schedules, self.schedule)(steps, **options)


class TrainingSection(Section):
    """`[training]`: the optimizer, the batches and the loss; see `fit`, `Batches` and `Elbo.loss`.

    `weights` are those that are measured and kept, of the last epoch or of the one with the best
    bound on the validation set.
    """

    epochs: Count
    batch_size: Count | None = None
    token_budget: Count | None = None
    optimizer: Literal["adam", "sgd"] = "adam"
    learning_rate: Positive
    learning_rate_schedule: Literal["constant", "linear", "cosine", "plateau"] = "constant"
    max_grad_norm: Positive | None = None
    accumulation_steps: Count = 1
    patience: Count | None = None
    precision: Precision = "fp32"
    weights: Literal["last", "best"] = "last"
    kl_weight: NumberOrSchedule[NotNegative, KLWeightSection] = 1.0
    free_bits: NotNegative = 0.0
    free_bits_per: FreeBitsPer = "dimension"
    rate: Positive | None = None

    @model_validator(mode="after")
    def _one_size_of_batches(self) -> "TrainingSection":
        if (self.batch_size is None) == (self.token_budget is None):
            raise ValueError("give either batch_size or token_budget")
        if self.rate is not None and self.free_bits:
            raise ValueError("give either rate or free_bits")
        return self

    def batches(self, texts: EncodedTexts, seed: int) -> Batches:
        """Make this process's share of the training batches."""
        rank, world_size = rank_and_world_size()
        sizes = self.model_dump(include=OF_BATCHES)
        return Batches(texts, **sizes, seed=seed, rank=rank, world_size=world_size)

    def build(
        self, model: nn.Module, train: Batches, *, epochs: int | None = None, steps_before: int = 0
    ) -> dict[str, Any]:
        """Make the optimizer, its schedule and the loss, as the arguments of `fit`.

        Where there is a first phase, a schedule of the KL weight goes on after its steps.
        """
        schedule = self.learning_rate_schedule
        return {
            "epochs": epochs or self.epochs,
            "optimizer": self.build_optimizer(model.parameters()),
            "scheduler": None if schedule == "constant" else schedule,
            "kl_weight": self.build_kl_weight(train, steps_before),
            **self.model_dump(include=OF_FIT),
        }

    def build_optimizer(self, parameters: Iterator[nn.Parameter]) -> torch.optim.Optimizer:
        """Make the optimizer of some parameters."""
        make = adam if self.optimizer == "adam" else torch.optim.SGD
        return make(parameters, self.learning_rate)

    def build_kl_weight(self, train: Batches, steps_before: int = 0) -> float | Schedule:
        """Make the KL weight, after some steps of its schedule."""
        if isinstance(self.kl_weight, float):
            return self.kl_weight
        schedule = self.kl_weight.build(math.ceil(len(train) / self.accumulation_steps))
        return lambda step: schedule(steps_before + step)


class TemperatureSection(Section):
    """`semi_supervised.temperature` as a schedule: see `temperature_decay`."""

    rate: Positive
    floor: Share = 0.5

    def build(self) -> Schedule:
        """Make the function from the step to the temperature."""
        return temperature_decay(self.rate, self.floor)


class SemiSupervisedSection(Section):
    """`[semi_supervised]`: a `SemiSupervisedTextVAE` and its batches.

    Every batch of documents without labels, as `[training]` says, comes with `labelled_size`
    labelled ones.
    """

    classification_weight: NotNegative
    marginal: Marginal = "enumerate"
    temperature: NumberOrSchedule[Positive, TemperatureSection] = 1.0
    label_kl_floor: NotNegative = 0.0
    labelled_weight: NotNegative = 1.0
    label_prior: Annotated[tuple[Positive, ...], Listed, NotEmpty] | None = None
    labelled_size: Count
    dropout: Rate = 0.0

    def build(
        self, encoder: EncoderSection, decoder: DecoderSection, tokenizer: Tokenizer, Z: int, K: int
    ) -> SemiSupervisedTextVAE:
        """Make the model of Z dimensions and K classes, from torch's present random state."""
        at, prior = self.temperature, self.label_prior
        return SemiSupervisedTextVAE(
            encoder.build(tokenizer, Z),
            decoder.build(tokenizer, Z + K),
            K,
            temperature=at if isinstance(at, float) else at.build(),
            label_prior=None if prior is None else torch.tensor(prior),
            **self.model_dump(exclude={"temperature", "label_prior", "labelled_size"}),
        )

    def batches(
        self, labelled: EncodedTexts, texts: EncodedTexts, training: TrainingSection, seed: int
    ) -> MixedBatches:
        """Make batches of all documents, their labels hidden, each with some labelled ones."""
        sizes = training.model_dump(include=OF_BATCHES)
        return MixedBatches(labelled, texts, labelled_size=self.labelled_size, seed=seed, **sizes)


class AggressiveSection(Section):
    """`[training.aggressive]`: a first phase with `fit_aggressively`, whose arguments these are.

    Each of its steps takes one batch, whatever `accumulation_steps`.
    """

    window: Count = 10
    max_encoder_steps: Count = 100
    round_steps: Count
    max_rounds: Count


class TextTrainingSection(TrainingSection):
    """`[training]` of a text experiment: a `TrainingSection`, and what may come before."""

    aggressive: AggressiveSection | None = None


class InitialisationSection(Section):
    """`[initialisation]`: the encoder starts from a language model trained for so many epochs."""

    epochs: Count
