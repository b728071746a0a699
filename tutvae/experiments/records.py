"""Results files: what a run achieved, and everything needed to repeat it.

The schema of a file is `ImageRecord`, `TextRecord`, `SweepRecord` or `ClassificationRecord`.
"""

import hashlib
import json
import os
import platform
import statistics
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timezone
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from tutvae.data.corpus import Corpus, Images, Texts
from tutvae.data.readers.files import write_beside
from tutvae.experiments.experiment import faults
from tutvae.experiments.keys import CountOrZero, Name, Rate
from tutvae.training.checkpoints import difference

PACKAGE = Path(__file__).parents[1]
ADVICE = (
    "give this run another name (--set name=...), keep its record in another folder (--results), "
    "or move that file away"
)


def _keys(*needed: str) -> AfterValidator:
    def check(found: dict[str, Any]) -> dict[str, Any]:
        if missing := [key for key in needed if key not in found]:
            raise ValueError(f"it has no {' and no '.join(map(repr, missing))}")
        return found

    return AfterValidator(check)


Text = Annotated[str, Field(min_length=1)]
Count = Annotated[int, Field(ge=1)]
Amount = Annotated[float, Field(ge=0)]
Commit = Annotated[str, Field(pattern=r"^[0-9a-f]{40}(\+changes)?$")] | None
CURVES = ("epoch", "step", "kl_weight", "learning_rate", "train_reconstruction", "train_kl")
Curves = Annotated[dict[str, Annotated[list[float], Field(min_length=1)]], _keys(*CURVES)]
Versions = Annotated[dict[str, Text], _keys("python", "tutvae", "torch", "numpy")]
Estimate = Annotated[dict[str, float], _keys("value", "standard_error")]
Probe = Annotated[dict[str, float], _keys("accuracy", "nats", "entropy")]
ABSENT: Any = Field(default=None)  # such a key may be left out, but is never null


class _Part(BaseModel):
    """A part of a record. Strict: neither true nor "3" passes for a number."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)


class _Hardware(_Part):
    accelerator: str | None
    processor: Text
    cores: Count
    threads: Count


class Measures(_Part):
    """A `Report` on one split, of images."""

    examples: Count
    reconstruction: float
    kl: Amount
    bound: float
    importance_weighted_nll: float
    importance_samples: Count
    active_units: Annotated[int, Field(ge=0)]
    kl_per_dimension: list[float]
    mutual_information: Amount = ABSENT
    mutual_information_ceiling: Amount = ABSENT


class TextMeasures(Measures):
    """A `Report` on one split, of texts."""

    mutual_information: Amount
    mutual_information_ceiling: Amount
    tokens: Count
    perplexity: Annotated[float, Field(ge=1)]


class _Aggressive(_Part):
    seconds: Amount
    decoder_steps: Count
    encoder_steps: Count
    mutual_information: list[Amount]


class _Corpus(_Part):
    name: Text
    train_size: Count = ABSENT


class _Configuration(_Part):  # all of it is checked by `validate_experiment`
    corpus: _Corpus


class _Head(_Part):
    name: Name
    command: Text
    started: Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00$")]
    commit: Commit
    hardware: _Hardware
    versions: Versions
    configuration: _Configuration
    data_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class _OfTexts(_Part):
    train_seconds: Amount
    tokens_per_second: Count
    parameters: Count
    curves: Curves
    reports: Annotated[dict[str, TextMeasures], _keys("valid", "test")]
    initialisation_seconds: Amount = ABSENT
    aggressive: _Aggressive = ABSENT
    receptive_field: CountOrZero = ABSENT
    best_epoch: Count = ABSENT
    probes: dict[str, Probe] = ABSENT


class _OneOfMany(_Part):
    variant: Text
    seed: int
    commit: Commit = None
    hardware: _Hardware = ABSENT


class SweepRun(_OneOfMany, _OfTexts):
    """A run of a sweep."""


class ClassifierRun(_OneOfMany):
    """A classifier; `chosen` is of rivals, the last three keys are of the semi-supervised model."""

    method: Text
    labels: Count
    accuracy: Annotated[dict[str, Rate], _keys("valid", "test")]
    train_seconds: Amount
    chosen: dict[str, float] = ABSENT
    parameters: Count = ABSENT
    epochs: Count = ABSENT
    reconstruction: float = ABSENT
    kl: Amount = ABSENT


class ImageRecord(_Head):
    """The record of a run of images."""

    train_seconds: Amount
    examples_per_second: Count
    curves: Curves
    reports: Annotated[dict[str, Measures], _keys("test")]


class TextRecord(_Head, _OfTexts):
    """The record of a run of texts."""

    entropy: Estimate = ABSENT


class SweepRecord(_Head):
    """The record of a sweep."""

    entropy: Estimate = ABSENT
    runs: Annotated[list[SweepRun], Field(min_length=1)]


class ClassificationRecord(_Head):
    """The record of classifiers at several numbers of labels."""

    majority_accuracy: Rate
    bayes_accuracy: Estimate = ABSENT
    runs: Annotated[list[ClassifierRun], Field(min_length=1)]


def provenance() -> dict[str, Any]:
    """Describe where and when a run happens: `started` (UTC), `commit`, `hardware`, `versions`.

    The commit is None outside a git checkout, with "+changes" where the sources differ from it.
    """
    versions = {name: version(name) for name in ("tutvae", "torch", "numpy")}
    return {
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": _commit(),
        "hardware": hardware(),
        "versions": {"python": platform.python_version(), **versions},
    }


def hardware() -> dict[str, Any]:
    """Describe the machine: the accelerator if there is one, the processor and its threads."""
    return {
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
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


def check_writable(record: dict[str, Any], folder: str | Path) -> None:
    """Raise where `write_result` could not write a record: to be called before the training.

    Of the record only the `name` must be known; the folder is made. OSError if that cannot be
    written to, or the name is too long for a file; ValueError if the file is there, and of another
    configuration or other data (but a sweep may grow).
    """
    path = Path(folder) / f"{record['name']}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}."):
        pass
    if path.exists():
        _check_kept(path, read_result(path), json.loads(json.dumps(record)))


def _check_kept(path: Path, old: dict[str, Any], new: dict[str, Any]) -> None:
    """Raise ValueError where the new record would lose what the old one tells."""
    from tutvae.experiments import validate_experiment  # it imports this module

    new_runs = [run.items() for run in new.get("runs", [])]
    if "runs" in old and all(any(x.items() <= run for run in new_runs) for x in old["runs"]):
        return  # a sweep has grown
    wanted: dict[str, Any] = {x: new[x] for x in ("configuration", "data_sha256") if x in new}
    found = {key: old[key] for key in wanted}
    with suppress(KeyError, ValueError):  # one from before a key was added has the key's default
        found["configuration"] = validate_experiment(found["configuration"]).configuration()
    check_same(path, found, wanted)


def check_same(path: Path, old: dict[str, Any], new: dict[str, Any], of: str = "") -> None:
    """Raise ValueError where a results file, or the part `of` it, is of another configuration."""
    if found := difference(old, new):
        fault = f"is the record of another configuration: {of}{found}"
        raise ValueError(f"{path} holds results, and {fault}. Nothing was written: {ADVICE}")


def write_result(record: dict[str, Any], folder: str | Path) -> Path:
    """Write what `run_experiment` returned to `folder/NAME.json`, whole or not at all.

    OSError if that is impossible; ValueError if a value is NaN or infinite, or the file is of
    another run (`check_writable`).
    """
    path = Path(folder) / f"{record['name']}.json"
    # A line a key: short enough to read, and a changed value changes one line.
    lines = [f"  {json.dumps(key)}: {_value(value)}" for key, value in record.items()]
    check_writable(record, folder)
    for unfinished in path.parent.glob(f".{path.name}.*"):  # what a killed process left
        unfinished.unlink(missing_ok=True)
    write_beside(path, ("{\n" + ",\n".join(lines) + "\n}\n").encode())
    return path


def _value(value: Any) -> str:
    """A value in one line; the runs of a sweep in a line each."""
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return "[\n" + ",\n".join(f"    {_value(item)}" for item in value) + "\n  ]"
    return json.dumps(value, allow_nan=False)


def read_result(path: str | Path) -> dict[str, Any]:
    """Read a results file. Chapter 2.

    FileNotFoundError if there is none; ValueError if it is not a results file, and the message
    names the file and its first fault.

    >>> tutvae.read_result("results/mnist_vae.json")["reports"]["test"]["examples"]
    10000
    """
    try:
        record = json.loads(Path(path).read_text(encoding="utf-8"))
        _schema(record).model_validate(record)
    except (ValueError, RecursionError) as error:
        fault, more = str(error), []
        if isinstance(error, ValidationError):
            fault, *more = faults(error, record, _schema(record))
        fault += f", and {len(more)} more" if more else ""
        remedy = "Move it elsewhere, or write it anew with `tutvae train`"
        found = f"{path} is not a results file of this version: {fault}"
        raise ValueError(f"{found}. {remedy}") from error
    return record


def _schema(record: Any) -> type[_Head]:
    configuration = record.get("configuration") if isinstance(record, dict) else None
    kind = configuration.get("kind") if isinstance(configuration, dict) else None
    if kind == "text":
        return SweepRecord if "runs" in record else TextRecord
    return ClassificationRecord if kind == "classification" else ImageRecord


def read_results(folder: str | Path) -> list[dict[str, Any]]:
    """Read all results files of a folder, by name; FileNotFoundError if there is none.

    ValueError if a JSON file there is not a results file.
    """
    if paths := sorted(Path(folder).glob("*.json")):
        return [read_result(path) for path in paths]
    raise FileNotFoundError(f"there is no results file in {folder}: run `tutvae train` first")


def recorded_folder() -> Path:
    """Return the folder of the results files that come with the project.

    >>> (tutvae.recorded_folder() / "mnist_vae.json").exists()
    True

    Chapter 11.
    """
    inside = PACKAGE / "recorded"  # in an installed package; in a checkout they lie beside it
    return inside if inside.is_dir() else PACKAGE.parent / "results"


def recorded_result(name: str) -> dict[str, Any]:
    """Read the results file of a run of the project. Chapter 2.

    FileNotFoundError if there is none of that name; the message lists those there are.

    >>> tutvae.recorded_result("mnist_vae")["configuration"]["model"]["latent_size"]
    50
    """
    paths = {path.stem: path for path in sorted(recorded_folder().glob("*.json"))}
    if name in paths:
        return read_result(paths[name])
    known = ", ".join(paths) or "none"
    raise FileNotFoundError(f"no recorded run {name!r}; there are: {known}")


def summary(record: dict[str, Any], split: str = "test") -> str:
    """Tell what a run or a sweep achieved on a split, and how, in nats an example. Chapter 2.

    >>> print(tutvae.summary(tutvae.recorded_result("mnist_vae")).splitlines()[0])
    tutvae train experiments/mnist_vae.toml
    """
    machine = record["hardware"]
    seconds = sum(run["train_seconds"] for run in record.get("runs", [record]))
    return (
        f"{record['command']}\n"
        f"  commit {(record['commit'] or 'unknown')[:12]}, started {record['started'][:10]}\n"
        f"  {machine['accelerator'] or machine['processor']}, {machine['threads']} thread(s), "
        f"torch {record['versions']['torch']}, {seconds / 60:.0f} minutes of training\n\n"
        + (summary_table if "runs" in record else _figures)(record, split)
    )


def _figures(record: dict[str, Any], split: str) -> str:
    report = record["reports"][split]
    figures = {"reconstruction": report["reconstruction"], "KL": report["kl"]}
    figures["bound"] = report["bound"]
    figures[f"NLL, {report['importance_samples']:,} samples"] = report["importance_weighted_nll"]
    if "perplexity" in report:
        figures["L, tokens a document"] = _tokens_per_document(report)
        figures["perplexity"] = report["perplexity"]
        figures["mutual information"] = report["mutual_information"]
    lines = [f"  {report['examples']:,} {split} examples, nats an example"]
    lines += [f"    {name:<22}{value:8.2f}" for name, value in figures.items()]
    units = f"{report['active_units']:5} of {len(report['kl_per_dimension'])}"
    return "\n".join([*lines, f"    active units          {units}"])


def summary_table(record: dict[str, Any], split: str = "test") -> str:
    """Tell what the variants of a sweep achieved on a split, a line each.

    Means and standard deviations over the seeds, in nats an example, and L, the predicted tokens
    a document that a perplexity counts; of classifiers, accuracies.
    """
    if "accuracy" in record["runs"][0]:
        return _accuracy_table(record, split)
    keys = ("bound", "kl", "mutual_information", "importance_weighted_nll", "perplexity")
    rows = [["variant", "seeds", "bound", "KL", "MI", "NLL", "L", "perplexity"]]
    for variant, runs in of_variants(record).items():
        reports = [run["reports"][split] for run in runs]
        cells = [_mean_and_spread([report[key] for report in reports]) for key in keys]
        cells.insert(-1, f"{statistics.mean(map(_tokens_per_document, reports)):.2f}")
        rows.append([variant, str(len(runs)), *cells])
    return "\n".join(aligned(rows))


def _tokens_per_document(report: dict[str, Any]) -> float:
    """L, what a perplexity divides the nats by."""
    return report["tokens"] / report["examples"]


def of_variants(record: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The runs of a record that have reports, by variant; a single run is of the variant ""."""
    variants = defaultdict(list)
    for run in record.get("runs", [record]):
        if "reports" in run:
            variants[run.get("variant", "")].append(run)
    return variants


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lay out a table, a line a row: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    layout = "  ".join([f"{{:<{widths[0]}}}", *(f"{{:>{width}}}" for width in widths[1:])])
    return [layout.format(*row) for row in rows]


def _accuracy_table(record: dict[str, Any], split: str) -> str:
    cells: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for run in record["runs"]:
        cells[f"{run['variant']} {run['method']}"][run["labels"]].append(run["accuracy"][split])
    columns = sorted({labels for row in cells.values() for labels in row})
    rows = [["labels", *map(str, columns)]]
    rows += [[name, *(_mean_and_spread(row[x]) for x in columns)] for name, row in cells.items()]
    lines = aligned(rows)
    lines.append(f"the largest class alone: {record['majority_accuracy']:.2f} on test")
    if "bayes_accuracy" in record:
        lines.append(f"the best possible: {record['bayes_accuracy']['value']:.2f}")
    return "\n".join(lines)


def _mean_and_spread(values: list[float]) -> str:
    """The mean, and with more than one value their standard deviation; "" without values."""
    if len(values) < 2:
        return "".join(f"{value:.2f}" for value in values)
    return f"{statistics.mean(values):.2f} \N{PLUS-MINUS SIGN} {statistics.stdev(values):.2f}"


def _commit() -> str | None:
    """The commit of the package's checkout, marked where the sources differ from it."""
    run: Any = partial(subprocess.check_output, cwd=PACKAGE, stderr=subprocess.DEVNULL)
    try:
        # `HEAD:./` fails in a checkout around that is not the package's, such as with a .venv.
        head = run(["git", "rev-parse", "HEAD", "HEAD:./"]).split()[0].decode()
        return head + ("+changes" if run(["git", "status", "--porcelain", "--", "."]) else "")
    except (OSError, subprocess.CalledProcessError):
        return None
