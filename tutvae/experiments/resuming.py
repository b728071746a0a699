"""Doing many runs, one at a time or several, and going on where a killed sweep stopped."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

from pydantic import ValidationError
from tqdm import tqdm

from tutvae.data.readers.files import write_beside
from tutvae.experiments.records import provenance
from tutvae.experiments.sections import Experiment
from tutvae.training.loop import is_watched

Result = TypeVar("Result")


class Run(Protocol):
    """One run of a sweep."""

    @property
    def label(self) -> str:
        """What names the run's file."""
        ...

    @property
    def experiment(self) -> Experiment:
        """The description of that run alone."""
        ...


AnyRun = TypeVar("AnyRun", bound=Run)


def finish_runs(
    runs: Sequence[AnyRun],
    work: Callable[[AnyRun], dict[str, Any]],
    folder: Path,
    data_sha256: str,
    *,
    figures: Callable[[dict[str, Any]], str],
    tidy: Callable[[AnyRun], None] = lambda run: None,
    jobs: int = 1,
    progress: bool | None = None,
) -> list[dict[str, Any]]:
    """Do every run that is not done yet, and keep its outcome at once.

    Args:
        runs: the runs, each with a label of its own.
        work: does one and returns its outcome, ready for JSON.
        folder: keeps each finished run as `LABEL.json`. A run that is there already, with the
            same description and the same data, is not done again.
        data_sha256: of the data.
        figures: says in a few words what an outcome achieved; each finished run is told in a
            line on standard error.
        tidy: removes what an unfinished run needs, once its outcome is kept.
        jobs: runs at a time; see `in_parallel`.
        progress: show a bar; by default only where somebody watches.

    Returns:
        The outcome of each run, in the order of the runs.

    Raises:
        FloatingPointError: training diverged; the message names the run.
    """
    kept = {run.label: _kept(run, folder, data_sha256) for run in runs}
    outcomes = {label: outcome for label, outcome in kept.items() if outcome is not None}
    todo: dict[str, AnyRun] = {}
    for run in runs:
        if run.label in outcomes:
            tidy(run)  # a kill may have come between
        else:
            todo[run.label] = run
    if outcomes:
        line = f"[{len(outcomes)}/{len(runs)}] finished before, and kept in {folder}"
        tqdm.write(line, file=sys.stderr)
    tasks = [partial(_finish, run, work, folder, data_sha256) for run in todo.values()]
    hidden = not is_watched(progress)
    with tqdm(total=len(runs), initial=len(outcomes), unit="run", disable=hidden) as bar:
        for label, outcome in in_parallel(tasks, jobs):
            outcomes[label] = outcome
            tidy(todo[label])
            bar.update()
            line = f"[{len(outcomes)}/{len(runs)}] {label}: {figures(outcome)}"
            tqdm.write(line, file=sys.stderr)
    return [outcomes[run.label] for run in runs]


def in_parallel(tasks: Sequence[Callable[[], Result]], jobs: int) -> Iterator[Result]:
    """Yield the result of each task as it is finished.

    Args:
        tasks: functions without arguments.
        jobs: tasks at a time. If more than one, each has a process and a thread of its own.
    """
    if jobs == 1:
        for task in tasks:
            yield task()
        return
    from joblib import Parallel, delayed, parallel_config

    with parallel_config(backend="loky", inner_max_num_threads=1):
        parallel = Parallel(n_jobs=jobs, return_as="generator_unordered")
        yield from parallel(delayed(task)() for task in tasks)


def _finish(
    run: AnyRun, work: Callable[[AnyRun], dict[str, Any]], folder: Path, data_sha256: str
) -> tuple[str, dict[str, Any]]:
    """Do one run and keep its outcome."""
    try:
        outcome = work(run)
    except FloatingPointError as error:
        raise FloatingPointError(f"{run.label}: {error}") from error
    # A sweep that goes on later may do so with other sources.
    outcome = {"commit": provenance()["commit"], **outcome}
    kept = {
        "configuration": run.experiment.configuration(),
        "data_sha256": data_sha256,
        "outcome": outcome,
    }
    write_beside(folder / f"{run.label}.json", json.dumps(kept, allow_nan=False).encode())
    return run.label, outcome


def _kept(run: Run, folder: Path, data_sha256: str) -> dict[str, Any] | None:
    """The outcome of a run that was finished before, if it was this very run."""
    try:
        kept = json.loads((folder / f"{run.label}.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    try:
        # As experiments: one that was kept before a key was added has the key's default.
        same = type(run.experiment).model_validate(kept.get("configuration")) == run.experiment
    except ValidationError:
        return None
    return kept["outcome"] if same and kept["data_sha256"] == data_sha256 else None
