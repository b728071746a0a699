"""The folder of a training run.

It holds `configuration.json`, `metrics.jsonl` (a line an epoch), `last.safetensors` (weights,
optimiser, schedule, random states, position in the epoch) and `best.safetensors` (weights alone).
Each is written beside and renamed, so each is whole at any moment.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tutvae.checkpoints import BEST, LAST, not_written, write_or_explain


class RunFolder:
    """The files of one training run.

    Args:
        path: the folder; it is made where it does not exist.
        tensorboard: write the metrics for TensorBoard too.

    Attributes:
        last: the checkpoint from which training goes on.
        best: the weights of the epoch with the best bound.
        metrics: the history, a JSON object a line.
        configuration: what the run is.

    Source: chapter 10.
    """

    def __init__(self, path: str | Path, *, tensorboard: bool = False) -> None:
        self.path = Path(path)
        self.last = self.path / LAST
        self.best = self.path / BEST
        self.metrics = self.path / "metrics.jsonl"
        self.configuration = self.path / "configuration.json"
        self._tensorboard = tensorboard
        self._writer: Any = None

    def open(self, configuration: Mapping[str, Any] | None = None) -> None:
        """Make the folder, sweep away what a killed run left half written, and note what it is.

        Args:
            configuration: what the run is, ready for JSON; a run that goes on must have the same.

        Raises:
            ImportError: TensorBoard is wanted and not installed.
            OSError: the folder cannot be made or written to.
            ValueError: the folder holds a run of another configuration.
        """
        if self._tensorboard:
            _summary_writer()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            for file in (self.last, self.best, self.metrics, self.configuration):
                for partial in self.path.glob(f".{file.name}.*"):
                    partial.unlink()
        except OSError as error:
            raise not_written(self.path, error) from error
        wanted = json.loads(json.dumps(dict(configuration or {})))
        if self.configuration.exists():
            _check_same(self.path, json.loads(self.configuration.read_text("utf-8")), wanted)
        else:
            write_or_explain(self.configuration, (json.dumps(wanted, indent=2) + "\n").encode())

    def write_metrics(self, records: list[dict[str, float]]) -> None:
        """Write the records of all epochs so far; the last of them is new."""
        lines = "".join(json.dumps(record) + "\n" for record in records)
        write_or_explain(self.metrics, lines.encode())
        if self._tensorboard:
            epoch = len(records)
            if self._writer is None:
                # A killed run may have left records of epochs that are now done again.
                self._writer = _summary_writer()(str(self.path / "tensorboard"), purge_step=epoch)
            for name, value in records[-1].items():
                self._writer.add_scalar(name, value, epoch)
            self._writer.flush()


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


def _check_same(folder: Path, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Raise ValueError where a run folder's configuration is not the wanted one."""
    different = [key for key in {**found, **wanted} if found.get(key) != wanted.get(key)]
    if different:
        key = different[0]
        raise ValueError(
            f"{folder} holds another run: its {key} is {found.get(key)}, now it is "
            f"{wanted.get(key)}. Go on with the same configuration, or choose another folder"
        )
