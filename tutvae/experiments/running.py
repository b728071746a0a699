"""Doing what an experiment file describes, whatever its kind."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

from torch import nn

from tutvae.experiments.classification import run_classification
from tutvae.experiments.classification_sections import ClassificationExperiment
from tutvae.experiments.sections import Experiment
from tutvae.experiments.single import run_single
from tutvae.experiments.sweeps import run_sweep
from tutvae.experiments.text_sections import TextExperiment
from tutvae.training.run_folder import locked


def run_experiment(
    experiment: Experiment,
    command: str,
    *,
    folder: str | Path | None = None,
    jobs: int = 1,
    progress: bool | None = None,
) -> tuple[nn.Module | None, dict[str, Any]]:
    """Build, fit and evaluate what an experiment describes.

    With a folder it may be interrupted at any moment: the same call goes on from the last
    checkpoint.

    Args:
        experiment: the description.
        command: what the user typed to start it, for the record.
        folder: the run folder of a single run, or the folder of a sweep, which needs one and
            keeps its runs there; see `run_sweep`. Without it nothing is written.
        jobs: runs of a sweep at a time; see `run_sweep`.
        progress: show a bar; by default only where somebody watches.

    Returns:
        The trained model, None for a sweep, and the record for `write_result`.

    Raises:
        BlockingIOError: another process works in the folder.
        FileNotFoundError: the corpus is not at hand.
        FloatingPointError: training diverged.
        ValueError: the experiment is a sweep and there is no folder, or the folder holds
            another run.

    Chapter 2.
    """
    folder = None if folder is None else Path(folder)
    with nullcontext() if folder is None else locked(folder):  # before hours of training
        if isinstance(experiment, ClassificationExperiment):
            needed = _needed(folder)
            record = run_classification(experiment, command, needed, jobs=jobs, progress=progress)
            return None, record
        if isinstance(experiment, TextExperiment) and experiment.is_sweep:
            record = run_sweep(experiment, command, _needed(folder), jobs=jobs, progress=progress)
            return None, record
        return run_single(experiment, command, folder, progress=progress)


def _needed(folder: Path | None) -> Path:
    """The folder of a sweep."""
    if folder is None:
        raise ValueError("a sweep needs a folder that keeps its finished runs")
    return folder
