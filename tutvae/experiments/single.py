"""A single run, of images or of texts, from its corpus to its record."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from tutvae.experiments.images import ImageExperiment, load_corpus, train_and_measure_images
from tutvae.experiments.records import data_sha256, provenance
from tutvae.experiments.sections import Experiment
from tutvae.experiments.text_corpora import load_texts
from tutvae.experiments.text_sections import TextExperiment
from tutvae.experiments.texts import about_data, train_and_measure
from tutvae.experiments.trained import load_trained
from tutvae.training.checkpoints import write_or_explain
from tutvae.training.run_folder import RunFolder

Task = Callable[[Path | None], tuple[nn.Module, dict[str, Any]]]


def run_single(
    experiment: Experiment,
    command: str,
    folder: Path | None = None,
    *,
    progress: bool | None = None,
) -> tuple[nn.Module, dict[str, Any]]:
    """Do the one run that an experiment describes, or go on where it was interrupted.

    Args:
        experiment: the description, without seeds and variants.
        command: what the user typed to start it, for the record.
        folder: keeps the run; see `RunFolder`. A run that is finished there, with the same
            description and the same data, is not done again. Without it nothing is written.
        progress: show a bar; by default only where somebody watches.

    Returns:
        The trained model and the record of the run.

    Raises:
        FileNotFoundError: the corpus is not at hand.
        FloatingPointError: training diverged.
        ValueError: the folder holds another run.
    """
    head = {"name": experiment.name, "command": command, **provenance()}
    data, train = _prepared(experiment, progress)
    if folder is None:
        model, outcome = train(None)
        return model, _record(head, experiment, data, outcome)
    kept = RunFolder(folder)
    kept.open(experiment.identity(data["data_sha256"]))
    if kept.record.exists():
        model, _ = load_trained(experiment, folder)
        record = json.loads(kept.record.read_text(encoding="utf-8"))
    else:
        model, outcome = train(folder)
        record = _record(head, experiment, data, outcome)
        write_or_explain(kept.record, json.dumps(record, allow_nan=False).encode())
    kept.remove_checkpoints()
    return model, record


def _prepared(experiment: Experiment, progress: bool | None) -> tuple[dict[str, Any], Task]:
    """Load the corpus: what a record tells of it, and what trains on it in a folder."""
    if isinstance(experiment, TextExperiment):
        texts = load_texts(experiment.corpus)
        return (
            about_data(experiment, texts),
            partial(train_and_measure, experiment, texts, progress=progress),
        )
    if isinstance(experiment, ImageExperiment):
        images = load_corpus(experiment.corpus)
        return (
            {"data_sha256": data_sha256(images)},
            partial(train_and_measure_images, experiment, images, progress=progress),
        )
    raise TypeError(f"a {type(experiment).__name__} describes no experiment that can be run")


def _record(
    head: dict[str, Any], experiment: Experiment, data: dict[str, Any], outcome: dict[str, Any]
) -> dict[str, Any]:
    """The record of a run, in the order in which one reads it."""
    return {**head, "configuration": experiment.configuration(), **data, **outcome}
