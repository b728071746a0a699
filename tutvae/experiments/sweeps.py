"""Sweeps: every variant of a text experiment with every seed, one at a time or several."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from tutvae.experiments.records import provenance
from tutvae.experiments.resuming import finish_runs
from tutvae.experiments.sections import faults
from tutvae.experiments.text_corpora import EncodedCorpus, load_texts
from tutvae.experiments.text_sections import TextExperiment
from tutvae.experiments.texts import about_data, train_and_measure
from tutvae.training.run_folder import RunFolder, locked

# What all runs of a sweep have in common, or what makes it a sweep.
COMMON = {"name", "kind", "seed", "seeds", "corpus", "variants"}
# A table with another one of these describes another thing.
DESCRIBING = ("kind", "schedule")
# What the only variant of an experiment without variants is called.
ONLY_VARIANT = "all"


class Run(NamedTuple):
    """One run of a sweep, with the description of that run alone."""

    variant: str
    experiment: TextExperiment

    @property
    def label(self) -> str:
        """Variant and seed, as they name the run's file."""
        return f"{self.variant}-{self.experiment.seed}"


def sweep_runs(experiment: TextExperiment) -> list[Run]:
    """Spell out the runs of a sweep: every variant with every seed.

    Raises:
        ValueError: a variant does not describe an experiment; the message names its keys.
    """
    runs: list[Run] = []
    wrong: list[str] = []
    for variant, overrides in (experiment.variants or {ONLY_VARIANT: {}}).items():
        wrong += [
            f"variants.{variant}.{key}: All runs of a sweep have this in common"
            for key in sorted(COMMON & set(overrides))
        ]
        table = merged(experiment.configuration(), overrides)
        for key in COMMON - {"name", "kind", "corpus"}:
            table.pop(key, None)
        try:
            for seed in experiment.seeds or (experiment.seed or 0,):
                runs.append(Run(variant, TextExperiment.model_validate(table | {"seed": seed})))
        except ValidationError as error:
            wrong += [f"variants.{variant}.{fault}" for fault in faults(error, table)]
    if wrong:
        raise ValueError("\n".join(wrong))
    return runs


def merged(table: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    """Merge one parsed file into another, table by table; neither is changed.

    A table that names another `kind` or `schedule` replaces the one it would be merged into.
    """
    result = dict(table)
    for key, value in overrides.items():
        old = table.get(key)
        if isinstance(value, dict) and isinstance(old, dict):
            other = any(name in value and value[name] != old.get(name) for name in DESCRIBING)
            result[key] = value if other else merged(old, value)
        else:
            result[key] = value
    return result


def run_sweep(
    experiment: TextExperiment,
    command: str,
    folder: str | Path,
    *,
    jobs: int = 1,
    progress: bool | None = None,
) -> dict[str, Any]:
    """Do every run of a sweep, or go on where a killed one stopped.

    Args:
        experiment: a description with seeds or variants.
        command: what the user typed to start it, for the record.
        folder: keeps each finished run as `VARIANT-SEED.json`, and its model in the run folder
            `VARIANT-SEED`, where an interrupted one goes on. A run that is there already, with
            the same description and the same data, is not done again; one that has changed is.
        jobs: runs at a time. If more than one, each has a process and a thread of its own.
        progress: show bars, of the runs and, one at a time, of each; by default only where
            somebody watches. In any case each finished run is told in a line on standard error.

    Returns:
        The record of the sweep.

    Raises:
        FileNotFoundError: the corpus is not at hand.
        FloatingPointError: training diverged; the message names variant and seed.

    Source: Yang et al. (2017), section 4, for the sweep over decoders. Chapter 7.
    """
    runs = sweep_runs(experiment)
    corpus = load_texts(experiment.corpus)
    data = about_data(experiment, corpus)
    head = {"name": experiment.name, "command": command, **provenance()}
    if jobs > 1:
        head["hardware"]["threads"] = 1
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    outcomes = finish_runs(
        runs,
        partial(_train, corpus, folder, progress if jobs == 1 else False),
        folder,
        corpus.sha256,
        figures=_figures,
        tidy=lambda run: RunFolder(folder / run.label).remove_checkpoints(),
        jobs=jobs,
        progress=progress,
    )
    return {
        **head,
        "configuration": experiment.configuration(),
        **data,
        "runs": [
            {"variant": run.variant, "seed": run.experiment.seed, **outcome}
            for run, outcome in zip(runs, outcomes, strict=True)
        ],
    }


def _train(corpus: EncodedCorpus, folder: Path, progress: bool | None, run: Run) -> dict[str, Any]:
    """Do one run."""
    kept = RunFolder(folder / run.label)
    # The sweep itself is locked, but not against a run that outlives it.
    with locked(kept.path):
        if kept.is_of_another(run.experiment.identity(corpus.sha256)):
            kept.clear()
        return train_and_measure(run.experiment, corpus, kept.path, progress=progress)[1]


def _figures(outcome: dict[str, Any]) -> str:
    """What a finished run achieved, in a few words."""
    report = outcome["reports"]["test"]
    return (
        f"test bound {report['bound']:.2f}, NLL {report['importance_weighted_nll']:.2f}, "
        f"KL {report['kl']:.2f} ({outcome['train_seconds']:.0f} s of training)"
    )
