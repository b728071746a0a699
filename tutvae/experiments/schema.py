"""What a results file holds: the schemas of the records, one a kind of experiment.

They are `ImageRecord`, `TextRecord`, `SweepRecord` and `ClassificationRecord`.
"""

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from tutvae.experiments.keys import CountOrZero, Name, Rate


def _keys(*needed: str) -> AfterValidator:
    def check(found: dict[str, Any]) -> dict[str, Any]:
        if missing := [key for key in needed if key not in found]:
            raise ValueError(f"it has no {' and no '.join(map(repr, missing))}")
        return found

    return AfterValidator(check)


Text = Annotated[str, Field(min_length=1)]
Count = Annotated[int, Field(ge=1)]
Amount = Annotated[float, Field(ge=0)]
Commit = Annotated[str, Field(pattern=r"^[0-9a-f]{40}(\+changes)?$")] | None
CURVES = ("epoch", "step", "kl_weight", "learning_rate", "train_reconstruction", "train_kl")
Curves = Annotated[dict[str, Annotated[list[float], Field(min_length=1)]], _keys(*CURVES)]
Versions = Annotated[dict[str, Text], _keys("python", "tutvae", "torch", "numpy")]
Estimate = Annotated[dict[str, float], _keys("value", "standard_error")]
Probe = Annotated[dict[str, float], _keys("accuracy", "nats", "entropy")]
ABSENT: Any = Field(default=None)  # such a key may be left out, but is never null


class _Part(BaseModel):
    """A part of a record. Strict: neither true nor "3" passes for a number."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)


class _Hardware(_Part):
    accelerator: str | None
    processor: Text
    cores: Count
    threads: Count


class Measures(_Part):
    """A `Report` on one split, of images."""

    examples: Count
    reconstruction: float
    kl: Amount
    bound: float
    importance_weighted_nll: float
    importance_samples: Count
    active_units: Annotated[int, Field(ge=0)]
    kl_per_dimension: list[float]
    mutual_information: Amount = ABSENT
    mutual_information_ceiling: Amount = ABSENT


class TextMeasures(Measures):
    """A `Report` on one split, of texts."""

    mutual_information: Amount
    mutual_information_ceiling: Amount
    tokens: Count
    perplexity: Annotated[float, Field(ge=1)]


class _Aggressive(_Part):
    seconds: Amount
    decoder_steps: Count
    encoder_steps: Count
    mutual_information: list[Amount]


class _Corpus(_Part):
    name: Text
    train_size: Count = ABSENT


class _Configuration(_Part):  # all of it is checked by `validate_experiment`
    corpus: _Corpus


class _Head(_Part):
    name: Name
    command: Text
    started: Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00$")]
    commit: Commit
    hardware: _Hardware
    versions: Versions
    configuration: _Configuration
    data_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class _OfTexts(_Part):
    train_seconds: Amount
    tokens_per_second: Count
    parameters: Count
    curves: Curves
    reports: Annotated[dict[str, TextMeasures], _keys("valid", "test")]
    initialisation_seconds: Amount = ABSENT
    aggressive: _Aggressive = ABSENT
    receptive_field: CountOrZero = ABSENT
    best_epoch: Count = ABSENT
    probes: dict[str, Probe] = ABSENT


class _OneOfMany(_Part):
    variant: Text
    seed: int
    commit: Commit = None
    hardware: _Hardware = ABSENT


class SweepRun(_OneOfMany, _OfTexts):
    """A run of a sweep."""


class ClassifierRun(_OneOfMany):
    """A classifier; `chosen` is of rivals, the last three keys are of the semi-supervised model."""

    method: Text
    labels: Count
    accuracy: Annotated[dict[str, Rate], _keys("valid", "test")]
    train_seconds: Amount
    chosen: dict[str, float] = ABSENT
    parameters: Count = ABSENT
    epochs: Count = ABSENT
    reconstruction: float = ABSENT
    kl: Amount = ABSENT


class ImageRecord(_Head):
    """The record of a run of images."""

    train_seconds: Amount
    examples_per_second: Count
    curves: Curves
    reports: Annotated[dict[str, Measures], _keys("test")]


class TextRecord(_Head, _OfTexts):
    """The record of a run of texts."""

    entropy: Estimate = ABSENT


class SweepRecord(_Head):
    """The record of a sweep."""

    entropy: Estimate = ABSENT
    runs: Annotated[list[SweepRun], Field(min_length=1)]


class ClassificationRecord(_Head):
    """The record of classifiers at several numbers of labels."""

    majority_accuracy: Rate
    bayes_accuracy: Estimate = ABSENT
    runs: Annotated[list[ClassifierRun], Field(min_length=1)]


def schema_of(record: Any) -> type[_Head]:
    """The schema that a record must keep, by the kind of its experiment."""
    configuration = record.get("configuration") if isinstance(record, dict) else None
    kind = configuration.get("kind") if isinstance(configuration, dict) else None
    if kind == "text":
        return SweepRecord if "runs" in record else TextRecord
    return ClassificationRecord if kind == "classification" else ImageRecord
