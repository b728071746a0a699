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
from tutvae.data.files import write_beside

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
    """Write a record to `folder/NAME.json`, whole or not at all.

    Args:
        record: what `run_experiment` returns; its `name` names the file.
        folder: made if it does not exist.

    Returns:
        The file.

    Raises:
        ValueError: a value is NaN or infinite, which JSON cannot hold.
    """
    path = Path(folder) / f"{record['name']}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    # A line a key: short enough to read, and a changed value changes one line.
    lines = [
        f"  {json.dumps(key)}: {json.dumps(value, allow_nan=False)}"
        for key, value in record.items()
    ]
    write_beside(path, ("{\n" + ",\n".join(lines) + "\n}\n").encode())
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


def recorded_result(name: str) -> dict[str, Any]:
    """Read a results file that comes with the project.

    Args:
        name: of the run, such as "mnist_vae".

    Returns:
        The record, as `read_result` gives it.

    Raises:
        FileNotFoundError: there is none of that name; the message lists those there are.
    """
    package = Path(__file__).parent
    # In an installed package the files lie inside it, in a checkout beside it.
    folder = next(
        (f for f in (package / "recorded", package.parent / "results") if f.is_dir()), None
    )
    names = sorted(path.stem for path in folder.glob("*.json")) if folder else []
    if folder is None or name not in names:
        raise FileNotFoundError(
            f"no recorded run {name!r}; there are: {', '.join(names) or 'none'}"
        )
    return read_result(folder / f"{name}.json")


def summary(record: dict[str, Any], split: str = "test") -> str:
    """Tell in a few lines what a run achieved and where it comes from.

    Args:
        record: of the run.
        split: which of its reports to show.

    Returns:
        The command, the provenance and the figures, in nats an example.
    """
    report, machine, versions = record["reports"][split], record["hardware"], record["versions"]
    nll, samples = report["importance_weighted_nll"], report["importance_samples"]
    kl_per_dimension = report["kl_per_dimension"]
    return "\n".join(
        [
            record["command"],
            f"  commit {(record['commit'] or 'unknown')[:12]}, started {record['started'][:10]}",
            f"  {machine['accelerator'] or machine['processor']}, {machine['threads']} thread(s), "
            f"torch {versions['torch']}, {record['train_seconds'] / 60:.0f} minutes of training",
            "",
            f"  {report['examples']:,} {split} examples, nats an example",
            f"    reconstruction        {report['reconstruction']:8.2f}",
            f"    KL                    {report['kl']:8.2f}",
            f"    bound                 {report['bound']:8.2f}",
            f"    {f'NLL, {samples:,} samples':<22}{nll:8.2f}",
            f"    active units          {report['active_units']:5} of {len(kl_per_dimension)}",
        ]
    )


def _commit() -> str | None:
    """The commit of the package's checkout, marked where the sources differ from it."""
    folder = Path(__file__).parent
    git = ["git", "-C", str(folder)]
    try:
        # `HEAD:./` fails where the checkout around is not the package's, but one whose .venv
        # the package is installed in.
        head = subprocess.run(
            [*git, "rev-parse", "HEAD", "HEAD:./"], capture_output=True, text=True
        )
        status = subprocess.run(
            [*git, "status", "--porcelain", "--", "."], capture_output=True, text=True
        )
    except OSError:
        return None
    if head.returncode != 0:
        return None
    return head.stdout.split()[0] + ("+changes" if status.stdout.strip() else "")
