"""The folder of a training run. Each file in it is whole at any moment, or not there."""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from tutvae.training import checkpoints


class RunFolder:
    """The files of one training run, and metrics for TensorBoard if wanted. The page on scaling.

    Attributes:
        configuration: `configuration.json`: what the run is. Checkpoints and weights say it, too.
        metrics: `metrics.jsonl`: the history, a JSON object an epoch.
        last: `last.safetensors`: the checkpoint from which training goes on. When a run of an
            experiment file ends, it is removed, as are `best`, `aggressive` and `initialisation`.
        best: the weights of the epoch with the best bound.
        aggressive: what `fit_aggressively` achieved, and the weights then.
        initialisation: the run folder of a model that this run's model starts from.
        weights: of an experiment file's run, those that are measured, as the `record` says.
    """

    def __init__(self, path: str | Path, *, tensorboard: bool = False) -> None:
        self.path = Path(path)
        self.last = self.path / checkpoints.LAST
        self.best = self.path / checkpoints.BEST
        self.weights = self.path / checkpoints.WEIGHTS
        self.metrics = self.path / "metrics.jsonl"
        self.configuration = self.path / "configuration.json"
        self.tokenizer = self.path / "tokenizer.json"
        self.record = self.path / "record.json"
        self.initialisation = self.path / "initialisation"
        self.aggressive = self.path / "aggressive.safetensors"
        self._checkpoints = (self.last, self.best, self.aggressive)
        self._tensorboard = tensorboard
        self._writer: Any = None

    def open(self, configuration: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Make the folder, sweep away what a killed run left half written, and note what it is.

        That is its configuration, ready for JSON; a run that goes on must have the same. It comes
        back as JSON gives it back, for checkpoints to carry.

        A folder that is of another configuration, or damaged, is a ValueError; one that cannot be
        written to an OSError. No TensorBoard, where it is wanted, is an ImportError.
        """
        if self._tensorboard:
            _summary_writer()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            others = (self.weights, self.metrics, self.tokenizer, self.record, self.configuration)
            for file in (*self._checkpoints, *others):
                for partial in self.path.glob(f".{file.name}.*"):
                    partial.unlink()
        except OSError as error:
            raise checkpoints.not_written(self.path, error) from error
        said = json.dumps(dict(configuration or {}), indent=2)
        wanted: dict[str, Any] = json.loads(said)
        there = [file for file in (*self._checkpoints, self.weights) if file.exists()]
        owners = {file: checkpoints.said_of(file, "configuration") for file in there}
        found = {self.path: self.read_configuration()} if self.configuration.exists() else {}
        for path, owner in (found | owners).items():
            if owner is not None and (different := checkpoints.difference(owner, wanted)):
                raise ValueError(
                    f"{path} holds another run: {different}. Go on with the same configuration, "
                    "choose another folder, or remove this one to begin anew"
                )
        if not found:
            if None in owners.values() or (self.record.exists() and not owners):
                raise ValueError(
                    f"{self.path} holds a run, and no {self.configuration.name} that says which: "
                    "put that back, choose another folder, or remove this one to begin anew"
                )
            checkpoints.write_or_explain(self.configuration, f"{said}\n".encode())
        return wanted

    def read_configuration(self) -> dict[str, Any]:
        """What the folder says that the run is; ValueError where that is no JSON object."""
        try:
            return dict(json.loads(self.configuration.read_text(encoding="utf-8")))
        except (RecursionError, TypeError, ValueError) as error:
            raise ValueError(f"{self.configuration} is no JSON object: put it back") from error

    def remove_checkpoints(self) -> None:
        """Remove what only an unfinished run needs."""
        for file in self._checkpoints:
            file.unlink(missing_ok=True)
        shutil.rmtree(self.initialisation, ignore_errors=True)

    def write_metrics(self, records: list[dict[str, float]]) -> None:
        """Write the records of all epochs so far; the last of them is new."""
        lines = "".join(json.dumps(record) + "\n" for record in records)
        checkpoints.write_or_explain(self.metrics, lines.encode())
        if self._tensorboard:
            epoch = len(records)
            if self._writer is None:
                # A killed run may have left records of epochs that are now done again.
                self._writer = _summary_writer()(str(self.path / "tensorboard"), purge_step=epoch)
            for name, value in records[-1].items():
                self._writer.add_scalar(name, value, epoch)
            self._writer.flush()


@contextmanager
def locked(folder: str | Path) -> Iterator[None]:
    """Keep every other run out of a folder, until this process lets go of it or ends.

    The folder is made if it does not exist. The thread that holds it may take it again; another
    one, or another process, gets a BlockingIOError. One that cannot be written to is an OSError.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # One object for each file, which counts how often it was taken.
        lock = FileLock(folder.resolve() / ".lock", is_singleton=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise BlockingIOError(
            f"another process is writing to {folder}: wait until it is done, or stop it; or "
            "choose another folder"
        ) from None
    except OSError as error:
        raise checkpoints.not_written(folder, error) from error
    try:
        yield
    finally:
        lock.release()


def _summary_writer() -> Any:
    """TensorBoard's writer, or a word on where to get it."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ImportError(
            "tensorboard=True needs the package tensorboard: pip install tensorboard, or leave "
            "it out; metrics.jsonl holds the metrics all the same"
        ) from error
    return SummaryWriter
