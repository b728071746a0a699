"""What of the GPU's benchmark a processor can tell."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import tutvae
from benchmarks import gpu, gpu_checks

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "SECONDS", 0.0)
    monkeypatch.setattr(gpu, "LSTMS", {"LSTM": (4, 8, 2)})
    monkeypatch.setattr(gpu_checks, "SMALL", {"sizes": (4, 8, 2), "V": 50})


@pytest.fixture
def texts() -> tutvae.EncodedTexts:
    return gpu_checks.random_texts(64)


def test_without_a_gpu_it_says_so_in_a_sentence() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    command = [sys.executable, "-m", "benchmarks.gpu"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "benchmarks.gpu needs a CUDA GPU, and there is none.\n"


def test_a_row_that_fails_says_why_and_one_without_time_that_it_was_left_out(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def work() -> gpu.Found:
        raise ZeroDivisionError("by nought")

    failed, fine = gpu.done(iter([({"row": 1}, work), ({"row": 2}, lambda: {"rate": 3.0})]), 60)
    assert failed["error"] == "ZeroDivisionError: by nought"
    assert fine["rate"] == 3
    assert gpu.done(iter([({"row": 3}, work)]), -1) == [{"row": 3, "skipped": True}]
    assert "by nought" in capsys.readouterr().out


def test_fit_and_the_usual_way_are_timed_once_they_are_warm(texts: tutvae.EncodedTexts) -> None:
    timed = gpu.Timed(texts, 32)
    batches = list(timed)
    assert timed.batches == 1
    assert timed.tokens == batches[-1].predicted_tokens
    assert len(batches) == 5  # of each of two shapes, a pair
    for found in (
        gpu.by_fit(gpu.model_called("LSTM"), texts, 32, "fp32", False, "cpu"),
        timed.found(),
    ):
        assert found.keys() == {"rate", "ms", "setup_s"}
        assert min(found.values()) > 0


def test_steps_of_padded_shapes_end_where_plain_ones_do() -> None:
    found = gpu_checks.same_steps(gpu_checks.lstm, "fp32", 4, "cpu")
    assert found["same"][0] == pytest.approx(0, abs=1e-5)  # here of padded ones and plain ones
    assert found["plain"] == [0, 0]
    assert not found["passed"]  # nothing was recorded: this is no GPU


def test_a_run_that_breaks_off_and_goes_on_passes() -> None:
    assert gpu_checks.resumed("fp32", "cpu")["passed"]
