"""The page on the command line tells every command and every option."""

import re
import shlex
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import typer

from tutvae.cli.main import app
from tutvae.experiments import load_experiment

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "book" / "command_line.md"
TUTVAE: Any = typer.main.get_command(app)
COMMANDS: dict[str, Any] = TUTVAE.commands


@pytest.fixture(scope="module")
def page() -> str:
    return PAGE.read_text(encoding="utf-8")


def options(command: Any) -> set[str]:
    """The long names of what a command takes besides its arguments."""
    return {name for parameter in command.params for name in parameter.opts if "--" in name}


def test_every_command_stands_in_the_table_and_no_other(page: str) -> None:
    assert re.findall(r"^\| `tutvae (\w+)", page, re.M) == list(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_named(page: str, name: str) -> None:
    missing = {option for option in options(COMMANDS[name]) if f"`{option}" not in page}
    assert missing == set()


def test_the_options_that_are_named_exist(page: str) -> None:
    known = {name for command in (TUTVAE, *COMMANDS.values()) for name in options(command)}
    named = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", page))
    assert named <= known | {"--help", "--nproc-per-node"}  # the last is torchrun's


def test_which_commands_print_json(page: str) -> None:
    told = re.search(r"^(.*)\s+take `--json`", page, re.M)
    assert told is not None
    named = set(re.findall(r"`(\w+)`", told[1]))
    assert named == {name for name, command in COMMANDS.items() if "--json" in options(command)}


def test_every_experiment_that_a_page_tells_to_train_can_be_read() -> None:
    pages = [ROOT / "README.md", *(ROOT / "book").glob("*.md")]
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages).replace("\\\n", " ")
    commands = re.findall(r"^tutvae train (experiments/.+)$", text, re.MULTILINE)
    assert any("--set" in command for command in commands)
    for file, *options in map(shlex.split, commands):
        settings = [b for a, b in pairwise(options) if a == "--set"]
        load_experiment(ROOT / file, settings)
