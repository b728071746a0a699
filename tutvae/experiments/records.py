"""Results files: what a run achieved, and everything needed to repeat it."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import statistics
import subprocess
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from tutvae.data.corpus import Corpus, Images, Texts
from tutvae.data.readers.files import write_beside

PACKAGE = Path(__file__).parents[1]
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


def data_sha256(corpus: Corpus[Images] | Corpus[Texts]) -> str:
    """Hash every split in order: pixels and labels of images, or documents and labels of texts."""
    digest = hashlib.sha256()
    for split in (corpus.train, corpus.valid, corpus.test):
        if isinstance(split, Images):
            digest.update(split.pixels.numpy().tobytes())
            digest.update(split.labels.numpy().tobytes())
        else:
            # As JSON, a line each: no two lists of documents look the same.
            labels = None if split.labels is None else list(map(int, split.labels))
            for item in (*split.texts, labels):
                digest.update(json.dumps(item).encode() + b"\n")
    return digest.hexdigest()


def significant(value: Any, digits: int) -> Any:
    """Round every float in nested dicts and lists to so many significant digits."""
    if isinstance(value, dict):
        return {key: significant(item, digits) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [significant(item, digits) for item in value]
    return float(f"{value:.{digits}g}") if isinstance(value, float) else value


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
    lines = [f"  {json.dumps(key)}: {_value(value)}" for key, value in record.items()]
    write_beside(path, ("{\n" + ",\n".join(lines) + "\n}\n").encode())
    return path


def _value(value: Any) -> str:
    """A value in one line; the runs of a sweep in a line each."""
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return "[\n" + ",\n".join(f"    {_value(item)}" for item in value) + "\n  ]"
    return json.dumps(value, allow_nan=False)


def read_result(path: str | Path) -> dict[str, Any]:
    """Read a results file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a results file.

    Chapter 2.
    """
    try:
        record = json.loads(Path(path).read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not a results file: {error}") from error
    if not isinstance(record, dict) or not {"reports", "runs"} & set(record):
        raise ValueError(f"{path} is not a results file: it has neither reports nor runs")
    return record


def read_results(folder: str | Path) -> list[dict[str, Any]]:
    """Read all results files of a folder, in the order of their names.

    Raises:
        FileNotFoundError: there is no results file.
        ValueError: a JSON file there is not a results file.
    """
    paths = sorted(Path(folder).glob("*.json"))
    if not paths:
        raise FileNotFoundError(f"there is no results file in {folder}: run `tutvae train` first")
    return [read_result(path) for path in paths]


def recorded_result(name: str) -> dict[str, Any]:
    """Read a results file that comes with the project.

    Args:
        name: of the run, such as "mnist_vae".

    Returns:
        The record, as `read_result` gives it.

    Raises:
        FileNotFoundError: there is none of that name; the message lists those there are.

    Chapter 2.
    """
    # In an installed package the files lie inside it, in a checkout beside it.
    folder = next(
        (f for f in (PACKAGE / "recorded", PACKAGE.parent / "results") if f.is_dir()), None
    )
    names = sorted(path.stem for path in folder.glob("*.json")) if folder else []
    if folder is None or name not in names:
        raise FileNotFoundError(
            f"no recorded run {name!r}; there are: {', '.join(names) or 'none'}"
        )
    return read_result(folder / f"{name}.json")


def summary(record: dict[str, Any], split: str = "test") -> str:
    """Tell in a few lines what a run or a sweep achieved and where it comes from.

    Args:
        record: of the run.
        split: which of its reports to show.

    Returns:
        The command, the provenance and the figures, in nats an example.

    Chapter 2.
    """
    machine, versions = record["hardware"], record["versions"]
    trained = [*record.get("runs", [record]), *record.get("shared", [])]
    seconds = sum(run["train_seconds"] for run in trained)
    return "\n".join(
        [
            record["command"],
            f"  commit {(record['commit'] or 'unknown')[:12]}, started {record['started'][:10]}",
            f"  {machine['accelerator'] or machine['processor']}, {machine['threads']} thread(s), "
            f"torch {versions['torch']}, {seconds / 60:.0f} minutes of training",
            "",
            summary_table(record, split) if "runs" in record else _figures(record, split),
        ]
    )


def _figures(record: dict[str, Any], split: str) -> str:
    """The figures of a single run, a line each."""
    report = record["reports"][split]
    nll, samples = report["importance_weighted_nll"], report["importance_samples"]
    rows = [
        f"  {report['examples']:,} {split} examples, nats an example",
        f"    reconstruction        {report['reconstruction']:8.2f}",
        f"    KL                    {report['kl']:8.2f}",
        f"    bound                 {report['bound']:8.2f}",
        f"    {f'NLL, {samples:,} samples':<22}{nll:8.2f}",
    ]
    if "perplexity" in report:
        rows.append(f"    perplexity            {report['perplexity']:8.2f}")
        rows.append(f"    mutual information    {report['mutual_information']:8.2f}")
    latent_size = len(report["kl_per_dimension"])
    rows.append(f"    active units          {report['active_units']:5} of {latent_size}")
    return "\n".join(rows)


def summary_table(record: dict[str, Any], split: str = "test") -> str:
    """Tell what the variants of a sweep achieved, a line each.

    Args:
        record: of the sweep.
        split: which of the reports to show.

    Returns:
        Mean and standard deviation over the seeds of bound, importance-weighted NLL, KL and
        mutual information, in nats an example, and of the perplexity; or, of classifiers, of
        the accuracy: a line a method, a column a number of labels.
    """
    if "accuracy" in record["runs"][0]:
        return _accuracy_table(record, split)
    columns = {
        "bound": "bound",
        "NLL": "importance_weighted_nll",
        "KL": "kl",
        "MI": "mutual_information",
        "perplexity": "perplexity",
    }
    variants: dict[str, list[dict[str, Any]]] = {}
    for run in record["runs"]:
        variants.setdefault(run["variant"], []).append(run["reports"][split])
    width = max(map(len, ["variant", *variants]))
    lines = [f"{'variant':<{width}}  seeds" + "".join(f"{name:>17}" for name in columns)]
    for variant, reports in variants.items():
        cells = [_mean_and_spread([report[key] for report in reports]) for key in columns.values()]
        lines.append(f"{variant:<{width}}  {len(reports):>5}" + "".join(f"{c:>17}" for c in cells))
    return "\n".join(lines)


def _accuracy_table(record: dict[str, Any], split: str) -> str:
    """Tell the accuracy of every method of every variant at every number of labels."""
    cells: dict[str, dict[int, list[float]]] = {}
    for run in record["runs"]:
        row = cells.setdefault(f"{run['variant']} {run['method']}", {})
        row.setdefault(run["labels"], []).append(run["accuracy"][split])
    columns = sorted({labels for row in cells.values() for labels in row})
    width = max(map(len, ["labels", *cells]))
    lines = [f"{'labels':<{width}}" + "".join(f"{labels:>13}" for labels in columns)]
    for name, row in cells.items():
        shown = [_mean_and_spread(row[labels]) if labels in row else "" for labels in columns]
        lines.append(f"{name:<{width}}" + "".join(f"{cell:>13}" for cell in shown))
    lines.append(f"the largest class alone: {record['majority_accuracy']:.2f} on test")
    if "bayes_accuracy" in record:
        lines.append(f"the best possible: {record['bayes_accuracy']['value']:.2f}")
    return "\n".join(lines)


def _mean_and_spread(values: list[float]) -> str:
    """The mean, and with more than one value their standard deviation."""
    if len(values) == 1:
        return f"{values[0]:.2f}"
    return f"{statistics.mean(values):.2f} \N{PLUS-MINUS SIGN} {statistics.stdev(values):.2f}"


def _commit() -> str | None:
    """The commit of the package's checkout, marked where the sources differ from it."""
    git = ["git", "-C", str(PACKAGE)]
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
