"""Models of `tutvae train`, measured again as their runs measured them."""

from typing import Any, Literal

from tutvae.evaluation.report import Report
from tutvae.experiments.images import ImageExperiment
from tutvae.experiments.provenance import data_sha256
from tutvae.experiments.sweeps import validate_experiment
from tutvae.experiments.text import TextExperiment
from tutvae.model_folder import TrainedModel


def evaluate_run(
    trained: TrainedModel,
    split: Literal["valid", "test"] = "test",
    *,
    importance_samples: int | None = None,
    progress: bool | None = None,
) -> Report:
    """Measure a run's model as the run itself did: on its corpus, on the same documents.

    Args:
        trained: what `tutvae.load` gave for the folder of a run of `tutvae train`, or for its
            export; the model may be on any device.
        split: the part of the corpus.
        importance_samples: S, where they are not the run's own on that split.
        progress: show a bar; by default only where somebody watches.

    FileNotFoundError if the corpus is not at hand; ValueError if the model is of no such run, the
    data at hand are not those of the run, or there is no such split.

    Source: Burda et al. (2016), section 5. Chapter 10.
    """
    experiment, sha256 = _described(trained)
    tokenizer = trained.tokenizer_
    data = experiment.load() if tokenizer is None else experiment.load(tokenizer)
    if sha256 not in (None, data_sha256(getattr(data, "texts", data))):
        raise ValueError(
            f"the data at hand are not those of {trained.folder}, by their SHA-256: figures on "
            "them would not compare. To measure the model on texts of your own, use tutvae.evaluate"
        )
    if split not in ("valid", "test") or len(getattr(data, split)) == 0:
        raise ValueError(f"the run's corpus has no split {split!r} to measure on")
    options = {"importance_samples": importance_samples, "progress": progress}
    return experiment.measure(trained.model_, data, split, **options)


def _described(trained: TrainedModel) -> tuple[Any, str | None]:
    """The experiment that a model was trained for, and the hash of its data."""
    table = dict(trained.configuration)
    sha = table.pop("data_sha256", None)
    try:
        experiment = validate_experiment(table)
    except ValueError as error:
        fault = f"describes no run of an experiment file ({str(error).splitlines()[0]})"
        remedy = "measure its model on texts of your own by tutvae.evaluate"
        raise ValueError(f"the configuration of {trained.folder} {fault}: {remedy}") from error
    if experiment.is_sweep or not isinstance(experiment, ImageExperiment | TextExperiment):
        raise ValueError(f"the configuration of {trained.folder} describes many models, not one")
    return experiment, sha
