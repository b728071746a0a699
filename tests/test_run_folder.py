from __future__ import annotations

import json
from pathlib import Path

import pytest

from tutvae.run_folder import RunFolder


class TestOpen:
    def test_it_makes_the_folder_and_keeps_the_configuration(self, tmp_path: Path) -> None:
        folder = RunFolder(tmp_path / "runs" / "one")
        folder.open({"seed": 3, "sizes": (4, 5)})
        assert json.loads(folder.configuration.read_text()) == {"seed": 3, "sizes": [4, 5]}
        folder.open({"sizes": (4, 5), "seed": 3})

    @pytest.mark.parametrize("other", [{"seed": 4}, {"seed": 3, "rate": 0.1}, {}, None])
    def test_a_folder_of_another_run(self, tmp_path: Path, other: dict[str, float]) -> None:
        RunFolder(tmp_path).open({"seed": 3})
        with pytest.raises(ValueError, match=r"holds another run: its (seed|rate) is"):
            RunFolder(tmp_path).open(other)

    def test_it_sweeps_up_after_a_kill(self, tmp_path: Path) -> None:
        for name in (".last.safetensors.x1", ".best.safetensors.y", ".metrics.jsonl.z", ".mine"):
            (tmp_path / name).touch()
        RunFolder(tmp_path).open()
        assert sorted(path.name for path in tmp_path.iterdir()) == [".mine", "configuration.json"]


class TestMetrics:
    def test_a_line_an_epoch(self, tmp_path: Path) -> None:
        records = [{"epoch": 1, "train_kl": 0.1 + 0.2}, {"epoch": 2, "train_kl": 1e-17}]
        folder = RunFolder(tmp_path)
        folder.write_metrics(records[:1])
        folder.write_metrics(records)
        lines = folder.metrics.read_text().splitlines()
        assert [json.loads(line) for line in lines] == records
