"""`import tutvae` is quick, and every public name is there when it is asked for."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import tutvae

LINES = ast.parse(Path(tutvae.__file__).with_suffix(".pyi").read_text(encoding="utf-8")).body
IMPORTS = [line for line in LINES if isinstance(line, ast.ImportFrom)]


def in_a_fresh_process(program: str) -> str:
    command = [sys.executable, "-c", program]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_importing_the_package_loads_no_other_library_and_no_module_of_its_own() -> None:
    program = (
        "import sys; before = set(sys.modules); import tutvae, tutvae as again; dir(tutvae)\n"
        "loaded = {name.split('.')[0] for name in set(sys.modules) - before - {'tutvae'}}\n"
        "print(sorted(loaded - sys.stdlib_module_names))"
    )
    assert in_a_fresh_process(program) == "[]"


@pytest.mark.parametrize("name", ["generation", "models", "plots", "schedules"])
def test_a_module_is_there_without_an_import_of_its_own(name: str) -> None:
    module = f"tutvae.{name}"
    assert in_a_fresh_process(f"import tutvae; print({module}.__name__)") == module
    assert in_a_fresh_process(f"from tutvae import {name}; print({name}.__name__)") == module


@pytest.mark.parametrize("name", tutvae.__all__)
def test_every_public_name_can_be_had(name: str) -> None:
    assert getattr(tutvae, name) is not None
    assert name in dir(tutvae)


def test_every_public_name_is_listed_once_and_as_it_is_called_in_its_module() -> None:
    listed = [(alias.name, alias.asname) for line in IMPORTS for alias in line.names]
    assert [name for name, alias in listed if name != alias] == []
    assert sorted(name for name, _ in listed) == tutvae.__all__
    functions = [(n, getattr(tutvae, n)) for n in tutvae.__all__ if n not in dir(tutvae.models)]
    assert [n for n, value in functions if value.__name__ not in (n, f"tutvae.{n}")] == []


def test_a_star_import_brings_them_all() -> None:
    assert in_a_fresh_process("from tutvae import *; print(TextVAE.__name__)") == "TextVAE"


def test_a_name_that_does_not_exist_is_an_error_that_names_it() -> None:
    with pytest.raises(AttributeError, match="'tutvae' has no attribute 'TextVEA'"):
        _ = tutvae.TextVEA
    with pytest.raises(ImportError, match="cannot import name 'TextVEA'"):
        exec("from tutvae import TextVEA")


def test_large_libraries_wait_until_they_are_needed() -> None:
    """The command line and a model of the package wait for none of these large libraries."""
    program = (
        "import sys, tutvae, tutvae.cli.main; tutvae.load('sentences').sample(1)\n"
        "print({'sklearn', 'pandas', 'scipy', 'matplotlib'} & set(sys.modules))"
    )
    assert in_a_fresh_process(program) == "set()"
