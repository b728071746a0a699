"""Doing what an experiment file describes: reading it, its runs, and the record of them."""

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, nullcontext
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pydantic import ValidationError
from torch import nn
from tqdm import tqdm

from tutvae.data.readers.files import tomllib
from tutvae.experiments import records
from tutvae.experiments.classification import ClassificationExperiment
from tutvae.experiments.experiment import Context, Experiment, Run, faults
from tutvae.experiments.images import ImageExperiment
from tutvae.experiments.provenance import provenance
from tutvae.experiments.text import TextExperiment
from tutvae.model_folder import read
from tutvae.training.checkpoints import write_or_explain
from tutvae.training.engine import rank_and_world_size
from tutvae.training.loop import is_watched
from tutvae.training.run_folder import RunFolder, locked

# What the top-level key `kind` may say; the first is meant where it is not there.
KINDS: dict[str, type[Experiment]] = {"image": ImageExperiment, "text": TextExperiment}
KINDS["classification"] = ClassificationExperiment
# What a sweep's record tells of each run: its names, and where it was done.
OF_A_LABEL = ("variant", "method", "labels", "seed")
OF_A_RUN = ("commit", "hardware")
Facts = dict[str, Any]
Done = tuple[Run, dict[str, Any]]  # a run and its record
WATCH = "ends with the parent process"


def load_experiment(path: str | Path, settings: Sequence[str] = ()) -> Experiment:
    """Read and check an experiment file, TOML.

    The `settings` change it, each a `section.key=value` with a TOML value.

    FileNotFoundError if there is none; ValueError if it is not TOML, or a key is unknown, missing
    or of an impossible value: the message names each key and what is allowed.
    """
    try:
        table = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not valid TOML: {error}") from error
    for setting in settings:
        apply_setting(setting, table)
    try:
        return validate_experiment(table)
    except ValueError as error:
        raise ValueError(f"{path} does not describe an experiment:\n{error}") from None


def validate_experiment(table: dict[str, Any]) -> Experiment:
    """Check a parsed experiment file, or the `configuration` of a record.

    ValueError if it does not describe an experiment; the message has a line for each fault.
    """
    kind = table.get("kind", next(iter(KINDS)))
    if kind not in list(KINDS):
        raise ValueError(f"kind: Input should be {' or '.join(map(repr, KINDS))}, not {kind!r}")
    try:
        experiment = KINDS[kind].model_validate(table)
        experiment.runs()
    except ValidationError as error:
        raise ValueError("\n".join(faults(error, table, KINDS[kind]))) from None
    except RecursionError:
        raise ValueError("the file: it is nested too deeply") from None
    return experiment


def apply_setting(setting: str, table: dict[str, Any]) -> None:
    """Set one `section.key=value` in a parsed file."""
    keys, equals, value = setting.partition("=")
    if not equals:
        raise ValueError(f"a setting reads section.key=value, not {setting!r}")
    *sections, key = keys.strip().split(".")
    for section in sections:
        table = table.setdefault(section, {})
        if not isinstance(table, dict):
            raise ValueError(f"{setting!r} sets a key in {section!r}, which is not a section")
    try:
        table[key] = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        table[key] = value.strip()
    except RecursionError:
        raise ValueError(f"the setting of {keys.strip()} is nested too deeply") from None


def run_experiment(
    experiment: Experiment,
    command: str,
    *,
    folder: str | Path | None = None,
    results: str | Path | None = None,
    jobs: int = 1,
    progress: bool | None = None,
) -> tuple[nn.Module | None, dict[str, Any]]:
    """Build, fit and evaluate what an experiment describes. Chapter 2.

    With a folder it may be interrupted at any moment: the same call goes on from the last
    checkpoint, and from the runs that are finished. Under torchrun, each process takes its share
    of the batches, and the first one alone writes.

    Args:
        experiment: the description.
        command: what the user typed to start it, for the record.
        folder: of the run, else nothing is kept. A sweep needs one and keeps its runs there, in
            `VARIANT-SEED` or `VARIANT-METHOD-LABELS-SEED`.
        results: where `NAME.json` is written after every finished run. Runs of a sweep that stand
            there are not done again.
        jobs: runs of a sweep at a time. If more than one, each has a process and a thread.
        progress: show bars; by default only where somebody watches.

    Returns:
        The trained model, on the CPU (None for a sweep, or in a later process), and the record.

    Raises:
        BlockingIOError: another process works in the folder.
        FileNotFoundError: the corpus is not at hand.
        FloatingPointError: training diverged; the message names the run of a sweep.
        ValueError: a sweep has no folder, or folder or record are of other settings or data.
    """
    rank, world_size = rank_and_world_size()
    if folder is None and (experiment.is_sweep or world_size > 1):
        raise ValueError("a sweep needs a folder that keeps its finished runs")
    if jobs > 1 and world_size > 1:
        raise ValueError("under torchrun all processes share one run: leave out --jobs")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()) if folder is None else folder)
        if rank == 0:  # before hours of training
            stack.enter_context(locked(folder))
        data = experiment.load()
        path = None if results is None else Path(results) / f"{experiment.name}.json"
        runs = _Progress(experiment, command, folder, path, experiment.facts(data))
        runs.finish(data, jobs, progress)
        if experiment.is_sweep or rank > 0:
            return None, runs.record()
        return read(folder).model_, runs.record()


class _Progress:
    """The runs of an experiment, and those that are finished: by its record or by their folders.

    `folders`, and in `done` what the record tells of the finished ones, are by their labels.
    """

    def __init__(
        self, experiment: Experiment, command: str, folder: Path, path: Path | None, facts: Facts
    ) -> None:
        self.experiment, self.facts, self.path = experiment, facts, path
        self.is_first = rank_and_world_size()[0] == 0
        self.head = {"name": experiment.name, "command": command, **provenance()}
        self.runs = experiment.runs()
        labels = [run.label for run in self.runs]
        self.folders = {x: RunFolder(folder / x if experiment.is_sweep else folder) for x in labels}
        self.done = {} if path is None or not path.exists() else self._recorded(path)
        self.written = set(self.done)
        for run in self.runs:
            if run.label not in self.done:
                self._look_into_folder(run)

    def record(self) -> dict[str, Any]:
        """The record of what is finished so far, in the order in which one reads it."""
        record = {**self.head, "configuration": self.experiment.configuration(), **self.facts}
        if not self.experiment.is_sweep:
            return record | self.done[self.runs[0].label]
        done = (run for run in self.runs if run.label in self.done)
        return record | {"runs": [{**run.about, **self.done[run.label]} for run in done]}

    def finish(self, data: Any, jobs: int, progress: bool | None) -> None:
        """Do every run that is not done yet; after each, write the record."""
        todo = [run for run in self.runs if run.label not in self.done]
        if todo and jobs > 1:
            self.head["hardware"]["threads"] = 1
        self._write()
        shown = self.is_first and is_watched(progress) and self.experiment.is_sweep
        do = partial(self._do, data, progress if self.is_first and jobs == 1 else False)
        total, before = len(self.runs), len(self.done)
        if before:
            self._tell(f"[{before}/{total}] finished before")
        outcomes = map(do, todo) if jobs == 1 else _in_parallel(do, todo, jobs)
        with tqdm(total=total, initial=before, unit="run", disable=not shown) as bar:
            for run, record in outcomes:
                self.done[run.label] = self._entry(record)
                self._write()
                bar.update()
                done, achieved = len(self.done), run.experiment.figures(record)
                self._tell(f"[{done}/{total}] {run.label}: {achieved}")

    def _do(self, data: Any, progress: bool | None, run: Run) -> Done:
        """Do one run, or go on with it, and keep its record in its folder."""
        folder, of_sweep = self.folders[run.label], self.experiment.is_sweep
        head = self.head | provenance()
        context = Context(folder, _identity(run.experiment, self.facts), progress)
        # The sweep itself is locked, but not against a run that outlives it.
        with locked(folder.path) if of_sweep and self.is_first else nullcontext():
            if self.is_first:
                folder.open(context.identity)
            try:
                outcome = run.experiment.train(data, context)
            except FloatingPointError as error:
                where = f"{run.label}: " if of_sweep else ""
                raise FloatingPointError(f"{where}{error}") from error
            said = {"configuration": run.experiment.configuration()}
            record = {**head, **said, **self.facts, **outcome}
            if self.is_first:
                write_or_explain(folder.record, json.dumps(record, allow_nan=False).encode())
                folder.remove_checkpoints()
        return run, record

    def _entry(self, record: dict[str, Any]) -> dict[str, Any]:
        """What the record of all takes from the record of a run."""
        if not self.experiment.is_sweep:
            return record
        common = {*self.head, "configuration", *self.facts} - {*OF_A_RUN}
        return {key: value for key, value in record.items() if key not in common}

    def _write(self) -> None:
        """Write what is new to the results file, once there is a run to tell of."""
        new = set(self.done) - self.written
        if self.path and self.is_first and new:
            records.write_result(self.record(), self.path.parent)
            self.written |= new

    def _tell(self, line: str) -> None:
        if self.is_first and self.experiment.is_sweep:
            tqdm.write(line, file=sys.stderr)

    def _look_into_folder(self, run: Run) -> None:
        """Note a run that its folder says is finished; refuse a folder of another one."""
        folder = self.folders[run.label]
        if self.is_first and (folder.configuration.exists() or folder.record.exists()):
            folder.open(_identity(run.experiment, self.facts))
        if not folder.record.exists():
            return
        try:
            record = json.loads(folder.record.read_text(encoding="utf-8"))
            run.experiment.figures(record)
            self.done[run.label] = self._entry(record)
        except (ValueError, AttributeError, KeyError, TypeError) as error:
            fault = f"{folder.record} is no record of a run ({type(error).__name__})"
            raise ValueError(f"{fault}: remove {folder.path} to do the run anew") from error
        if self.is_first:
            folder.remove_checkpoints()  # a kill may have come between

    def _recorded(self, path: Path) -> dict[str, dict[str, Any]]:
        """What a results file tells of finished runs; refuse one of another configuration."""
        record, new = records.read_result(path), self.experiment
        try:
            old = validate_experiment(record["configuration"])
        except ValueError as error:
            raise ValueError(f"{path} is the record of something else: {records.ADVICE}") from error
        if not (old.is_sweep and new.is_sweep and old.kind == new.kind):
            records.check_same(path, _identity(old, record), _identity(new, self.facts))
            return {}
        was, now = ({run.label: run for run in x.runs()} for x in (old, new))
        done = {}
        for entry in record["runs"]:
            label = "-".join(str(entry[key]) for key in OF_A_LABEL if key in entry)
            if label not in now:
                unknown = f"{path} tells of a run {label} that is not described"
                raise ValueError(f"{unknown}: {records.ADVICE}")
            before = _identity(was[label].experiment, record)
            after = _identity(now[label].experiment, self.facts)
            records.check_same(path, before, after, f"the run {label}: ")
            outcome = {key: x for key, x in entry.items() if key not in OF_A_LABEL}
            done[label] = {key: record[key] for key in OF_A_RUN} | outcome
        if set(done) == set(now):
            self.head = {key: record[key] for key in self.head}
        return done


def _identity(experiment: Experiment, facts: dict[str, Any]) -> dict[str, Any]:
    """What a run is: its description, and the hash of the data it is given."""
    return {**experiment.configuration(), "data_sha256": facts["data_sha256"]}


def _in_parallel(do: Callable[[Run], Done], runs: Sequence[Run], jobs: int) -> Iterator[Done]:
    """Do runs in several processes, with one thread each; yield them as they are finished."""
    from joblib import Parallel, delayed, parallel_config

    with parallel_config(backend="loky", inner_max_num_threads=1):
        parallel = Parallel(n_jobs=jobs, return_as="generator_unordered")
        yield from parallel(delayed(_do_beside)(os.getpid(), do, run) for run in runs)


def _do_beside(parent: int, do: Callable[[Run], Done], run: Run) -> Done:
    """Do a run in a process that ends when its parent does, however that happens."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    if all(thread.name != WATCH for thread in threading.enumerate()):
        threading.Thread(target=watch, name=WATCH, daemon=True).start()
    return do(run)
