"""Chapters run alone, and the first that fails is named."""

import os
import subprocess
from pathlib import Path
from typing import Any

import colab
import pytest


@pytest.mark.parametrize("returned", [0, 1])
def test_a_chapter_runs_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, returned: int
) -> None:
    (tmp_path / "01_first.ipynb").write_text("{}", encoding="utf-8")
    (tmp_path / "beside.py").touch()
    seen = {}

    def run(command: list[str], cwd: str, env: dict[str, str]) -> Any:
        seen.update(command=command, files=os.listdir(cwd), env=env)
        return subprocess.CompletedProcess(command, returned)

    monkeypatch.setattr(colab.subprocess, "run", run)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    if returned:
        with pytest.raises(SystemExit, match=r"01_first\.ipynb"):
            colab.run_alone("python", tmp_path / "01_first.ipynb")
    else:
        colab.run_alone("python", tmp_path / "01_first.ipynb")
    assert seen["files"] == ["01_first.ipynb"]
    assert seen["command"][-1] == "01_first.ipynb"
    assert "PYTHONPATH" not in seen["env"]
