from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
import typer

from tutvae.cli import console
from tutvae.cli.console import readable_errors, show


def raise_module_not_found() -> None:
    import_module("datasets_of_another_world.sub")


def raise_bad_import() -> None:
    import_module("tutvae.no_such_module")


def raise_no_name() -> None:
    raise ImportError("needs the package datasets: pip install datasets")


def recurse() -> None:
    recurse()


class TestReadableErrors:
    @pytest.mark.parametrize(
        ("fail", "words"),
        [
            (lambda: torch.empty(10**15), "a number is too large for this computer ("),
            (lambda: torch.empty(10**18, 10**3), "a number is too large for this computer ("),
            (lambda: torch.empty(2**70), "a number is too large for this computer ("),
            (lambda: np.empty(10**16), "a number is too large for this computer ("),
            (lambda: torch.zeros(3).add_(1, alpha=1e300), "too large for this computer (value"),
            (lambda: 2.0**5000, "a number is too large for this computer ("),
            (lambda: json.loads("[" * 100_000), "a file is nested too deeply to be read ("),
            (raise_module_not_found, "another_world'): pip install datasets_of_another_world"),
            (raise_no_name, "needs the package datasets: pip install datasets"),
        ],
    )
    def test_what_a_person_can_mend_is_one_line(
        self, capsys: pytest.CaptureFixture[str], fail: object, words: str
    ) -> None:
        with pytest.raises(typer.Exit) as caught, readable_errors(debug=False):
            fail()  # type: ignore[operator]
        assert caught.value.exit_code == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ")
        assert words.replace("another_world')", "another_world'") in line

    @pytest.mark.parametrize(
        ("fail", "kind"),
        [
            (recurse, RecursionError),
            (raise_bad_import, ModuleNotFoundError),
            (lambda: 1 // 0, ZeroDivisionError),
            (lambda: {}["key"], KeyError),
            (lambda: torch.zeros(2) @ torch.zeros(3), RuntimeError),
            (lambda: None.attribute, AttributeError),
        ],
    )
    def test_a_bug_keeps_its_traceback(self, fail: object, kind: type[Exception]) -> None:
        with pytest.raises(kind), readable_errors(debug=False):
            fail()  # type: ignore[operator]

    def test_debug_keeps_every_traceback(self) -> None:
        with pytest.raises(ValueError, match="mend me"), readable_errors(debug=True):
            raise ValueError("mend me")


class TestShow:
    def test_half_a_character_is_no_error(self, capsys: pytest.CaptureFixture[str]) -> None:
        show(os.fsdecode(b"runs/\xff"), None, False)
        assert capsys.readouterr().out == "runs/\\udcff\n"

    @pytest.mark.parametrize("is_terminal", [True, False])
    def test_a_text_commands_no_terminal(
        self,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
        is_terminal: bool,
    ) -> None:
        monkeypatch.setattr(console, "is_terminal", lambda stream: is_terminal)
        text = "\x1b]0;owned\x07 café \u4e16\ttab\nnext\x9b"
        show(text, None, False)
        shown = r"\x1b]0;owned\x07" + " café \u4e16\ttab\nnext" + r"\x9b"
        assert capsys.readouterr().out == (shown if is_terminal else text) + "\n"

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is of Linux")
    def test_a_full_disk(self) -> None:
        with open("/dev/full", "w") as full:
            command = [sys.executable, "-m", "tutvae", "info"]
            done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
        assert done.returncode == 1
        (line,) = done.stderr.splitlines()
        assert line.startswith("error: standard output cannot be written (")
