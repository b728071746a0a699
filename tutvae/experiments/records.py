"""Results files: what a run achieved, and everything needed to repeat it.

What such a file holds is described in `tutvae.experiments.schema`.
"""

import json
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tutvae.data.readers.files import write_beside
from tutvae.experiments.experiment import faults
from tutvae.experiments.schema import schema_of
from tutvae.training.checkpoints import difference

PACKAGE = Path(__file__).parents[1]
ADVICE = (
    "give this run another name (--set name=...), keep its record in another folder (--results), "
    "or move that file away"
)


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
        schema_of(record).model_validate(record)
    except (ValueError, RecursionError) as error:
        fault, more = str(error), []
        if isinstance(error, ValidationError):
            fault, *more = faults(error, record, schema_of(record))
        fault += f", and {len(more)} more" if more else ""
        remedy = "Move it elsewhere, or write it anew with `tutvae train`"
        found = f"{path} is not a results file of this version: {fault}"
        raise ValueError(f"{found}. {remedy}") from error
    return record


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


def significant(value: Any, digits: int) -> Any:
    """Round every float in nested dicts and lists to so many significant digits."""
    if isinstance(value, dict):
        return {key: significant(item, digits) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [significant(item, digits) for item in value]
    return float(f"{value:.{digits}g}") if isinstance(value, float) else value
