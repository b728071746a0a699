"""Doing what an experiment file describes, whatever its kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from tutvae.checkpoints import save_tensors
from tutvae.data.tokenization import Tokenizer
from tutvae.experiments.classification import run_classification
from tutvae.experiments.classification_sections import ClassificationExperiment
from tutvae.experiments.images import ImageExperiment, run_images
from tutvae.experiments.sections import Experiment
from tutvae.experiments.sweeps import run_sweep
from tutvae.experiments.text_sections import TextExperiment
from tutvae.experiments.texts import run_texts

WEIGHTS = "weights.safetensors"
TOKENIZER = "tokenizer.json"


def run_experiment(
    experiment: Experiment,
    command: str,
    *,
    folder: str | Path | None = None,
    jobs: int = 1,
    progress: bool | None = None,
) -> tuple[nn.Module | None, dict[str, Any]]:
    """Build, fit and evaluate what an experiment describes.

    Args:
        experiment: the description.
        command: what the user typed to start it, for the record.
        folder: where to keep the weights and, for texts, the tokenizer; or, for a sweep, which
            needs one, its finished runs. Without it nothing is written.
        jobs: runs of a sweep at a time; see `run_sweep`.
        progress: show a bar; by default only where somebody watches.

    Returns:
        The trained model, None for a sweep, and the record for `write_result`.

    Raises:
        FileNotFoundError: the corpus is not at hand.
        FloatingPointError: training diverged.
        ValueError: the experiment is a sweep and there is no folder.

    Chapter 2.
    """
    folder = None if folder is None else Path(folder)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)  # before hours of training, not after
    if isinstance(experiment, ClassificationExperiment):
        needed = _needed(folder)
        return None, run_classification(experiment, command, needed, jobs=jobs, progress=progress)
    if isinstance(experiment, TextExperiment) and experiment.is_sweep:
        return None, run_sweep(experiment, command, _needed(folder), jobs=jobs, progress=progress)
    model, tokenizer, record = _run_one(experiment, command, progress)
    if folder is not None:
        save_tensors(folder / WEIGHTS, model.state_dict())
        if tokenizer is not None:
            tokenizer.save(folder / TOKENIZER)
    return model, record


def _needed(folder: Path | None) -> Path:
    """The folder of a sweep."""
    if folder is None:
        raise ValueError("a sweep needs a folder that keeps its finished runs")
    return folder


def _run_one(
    experiment: Experiment, command: str, progress: bool | None
) -> tuple[nn.Module, Tokenizer | None, dict[str, Any]]:
    """Do a single run, of images or of texts."""
    if isinstance(experiment, ImageExperiment):
        model, record = run_images(experiment, command, progress)
        return model, None, record
    if isinstance(experiment, TextExperiment):
        return run_texts(experiment, command, progress)
    raise TypeError(f"a {type(experiment).__name__} describes no experiment that can be run")
