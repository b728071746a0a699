from __future__ import annotations

import json
from pathlib import Path

import pytest
from filelock import FileLock, Timeout
from torch import nn

from tutvae.training.checkpoints import save_weights
from tutvae.training.run_folder import RunFolder, locked


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

    def test_weights_that_do_not_say_whose_they_are(self, tmp_path: Path) -> None:
        """Beside a configuration they are its run's; without one they might be anybody's."""
        folder = RunFolder(tmp_path)
        folder.open({"seed": 3})
        save_weights(nn.Linear(2, 3), folder.weights)
        folder.open({"seed": 3})
        folder.configuration.unlink()
        with pytest.raises(ValueError, match=r"no configuration.json that says which: put that"):
            folder.open({"seed": 3})

    def test_weights_of_another_run(self, tmp_path: Path) -> None:
        folder = RunFolder(tmp_path)
        folder.open({"seed": 3})
        save_weights(nn.Linear(2, 3), folder.weights, configuration={"seed": 3})
        folder.open({"seed": 3})
        folder.configuration.unlink()
        with pytest.raises(ValueError, match=r"weights.safetensors holds another run: its seed"):
            folder.open({"seed": 4})

    def test_a_record_without_a_configuration(self, tmp_path: Path) -> None:
        RunFolder(tmp_path).record.touch()
        with pytest.raises(ValueError, match=r"no configuration.json that says which"):
            RunFolder(tmp_path).open({"seed": 3})

    def test_it_sweeps_up_after_a_kill(self, tmp_path: Path) -> None:
        for name in (".last.safetensors.x1", ".best.safetensors.y", ".metrics.jsonl.z", ".mine"):
            (tmp_path / name).touch()
        RunFolder(tmp_path).open()
        assert sorted(path.name for path in tmp_path.iterdir()) == [".mine", "configuration.json"]

    def test_the_message_names_the_key_inside_a_section(self, tmp_path: Path) -> None:
        RunFolder(tmp_path).open({"training": {"epochs": 3, "rate": 0.1}})
        with pytest.raises(ValueError, match=r"its training\.rate is 0\.1, now it is None\. Go on"):
            RunFolder(tmp_path).open({"training": {"epochs": 3}})


class TestCheckpoints:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> RunFolder:
        """A run folder with every file that there can be, and one of somebody else."""
        folder = RunFolder(tmp_path)
        folder.open({"seed": 3})
        RunFolder(folder.initialisation).open()
        for name in ("last", "best", "weights", "metrics", "tokenizer", "record"):
            getattr(folder, name).touch()
        (tmp_path / "mine").touch()
        return folder

    def test_a_finished_run_needs_no_checkpoints(self, folder: RunFolder) -> None:
        for _ in range(2):
            folder.remove_checkpoints()
            assert sorted(path.name for path in folder.path.iterdir()) == [
                "configuration.json",
                "metrics.jsonl",
                "mine",
                "record.json",
                "tokenizer.json",
                "weights.safetensors",
            ]


class TestLocking:
    def test_one_run_at_a_time_holds_the_lock(self, tmp_path: Path) -> None:
        """Another handle on the file is as good as another process."""
        folder = tmp_path / "runs" / "one"
        with locked(folder):
            other = FileLock(folder / ".lock", timeout=0)
            with pytest.raises(Timeout):
                other.acquire()
        with other, pytest.raises(BlockingIOError, match=r"writing to .*one: wait"), locked(folder):
            pytest.fail("two at a time")
        with locked(folder):
            pass

    def test_who_holds_it_may_take_it_again(self, tmp_path: Path) -> None:
        """And lets go of it once, at the end."""
        other = FileLock(tmp_path / ".lock", timeout=0)
        with locked(tmp_path):
            with locked(tmp_path / "x" / ".."):
                pass
            with pytest.raises(Timeout):
                other.acquire()
        with other:
            pass

    def test_an_error_lets_go_of_the_lock(self, tmp_path: Path) -> None:
        """Even while its traceback is kept, as a notebook does."""
        with pytest.raises(KeyError) as caught, locked(tmp_path):
            raise KeyError
        assert caught.tb is not None
        with FileLock(tmp_path / ".lock", timeout=0):
            pass

    def test_a_folder_that_cannot_be_made(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with (
            pytest.raises(OSError, match=r"file/run could not be written"),
            locked(tmp_path / "file" / "run"),
        ):
            pass


class TestMetrics:
    def test_a_line_an_epoch(self, tmp_path: Path) -> None:
        records = [{"epoch": 1, "train_kl": 0.1 + 0.2}, {"epoch": 2, "train_kl": 1e-17}]
        folder = RunFolder(tmp_path)
        folder.write_metrics(records[:1])
        folder.write_metrics(records)
        lines = folder.metrics.read_text().splitlines()
        assert [json.loads(line) for line in lines] == records
