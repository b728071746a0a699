"""Results files: what a run achieved, and everything needed to repeat it."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from tutvae.data.corpus import Corpus, Images

RECORDED_VERSIONS = ("tutvae", "torch", "numpy")


def provenance() -> dict[str, Any]:
    """Describe where and when a run happens.

    Returns:
        `started` (UTC), `commit` of the package's sources (None outside a git checkout; with
        "+changes" where they differ from it), `hardware` and `versions`.
    """
    return {
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": _commit(),
        "hardware": hardware(),
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in RECORDED_VERSIONS},
    }


def hardware() -> dict[str, Any]:
    """Describe the machine: the accelerator if there is one, the processor and its threads."""
    accelerator = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "accelerator": accelerator,
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }


def data_sha256(corpus: Corpus[Images]) -> str:
    """Hash the pixels and labels of every split, in order."""
    digest = hashlib.sha256()
    for split in (corpus.train, corpus.valid, corpus.test):
        digest.update(split.pixels.numpy().tobytes())
        digest.update(split.labels.numpy().tobytes())
    return digest.hexdigest()


def write_result(record: dict[str, Any], folder: str | Path) -> Path:
    """Write a record to `folder/NAME.json`: beside it first, then renamed over it.

    Args:
        record: what `run_experiment` returns; its `name` names the file.
        folder: made if it does not exist.

    Returns:
        The file.
    """
    path = Path(folder) / f"{record['name']}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".json.partial")
    # A line a key: short enough to read, and a changed value changes one line.
    lines = [f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in record.items()]
    partial.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    partial.replace(path)
    return path


def read_result(path: str | Path) -> dict[str, Any]:
    """Read a results file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a results file.
    """
    try:
        record = json.loads(Path(path).read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not a results file: {error}") from error
    if not isinstance(record, dict) or "reports" not in record:
        raise ValueError(f"{path} is not a results file: it has no reports")
    return record


def _commit() -> str | None:
    """The commit of the package's checkout, marked where the sources differ from it."""
    folder = Path(__file__).parent
    git = ["git", "-C", str(folder)]
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True)
        status = subprocess.run(
            [*git, "status", "--porcelain", "--", "."], capture_output=True, text=True
        )
    except OSError:
        return None
    if head.returncode != 0:
        return None
    return head.stdout.strip() + ("+changes" if status.stdout.strip() else "")
