"""Reading and checking experiment files."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tutvae.experiments.classification_sections import (
    ClassificationExperiment,
    classification_runs,
)
from tutvae.experiments.images import ImageExperiment
from tutvae.experiments.sections import Experiment, faults
from tutvae.experiments.sweeps import sweep_runs
from tutvae.experiments.text_sections import TextExperiment

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# What the top-level key `kind` may say; the first is meant where it is not there.
KINDS: dict[str, type[Experiment]] = {
    "image": ImageExperiment,
    "text": TextExperiment,
    "classification": ClassificationExperiment,
}


def load_experiment(path: str | Path, settings: Sequence[str] = ()) -> Experiment:
    """Read and check an experiment file.

    Args:
        path: the TOML file.
        settings: changes to it, each `section.key=value` with a TOML value.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not TOML, or a key is unknown, missing or of an impossible value;
            the message names each key and what is allowed.
    """
    try:
        table = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid TOML: {error}") from error
    for setting in settings:
        _apply(setting, table)
    try:
        return validate_experiment(table)
    except ValueError as error:
        raise ValueError(f"{path} does not describe an experiment:\n{error}") from None


def validate_experiment(table: dict[str, Any]) -> Experiment:
    """Check a parsed experiment file, or the `configuration` of a record.

    Raises:
        ValueError: it does not describe an experiment; the message has a line for each fault.
    """
    kind = table.get("kind", next(iter(KINDS)))
    if kind not in list(KINDS):
        raise ValueError(f"kind: Input should be {' or '.join(map(repr, KINDS))}, not {kind!r}")
    try:
        experiment = KINDS[kind].model_validate(table)
    except ValidationError as error:
        raise ValueError("\n".join(faults(error, table))) from None
    if isinstance(experiment, TextExperiment):
        sweep_runs(experiment)
    if isinstance(experiment, ClassificationExperiment):
        classification_runs(experiment)
    return experiment


def _apply(setting: str, table: dict[str, Any]) -> None:
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
