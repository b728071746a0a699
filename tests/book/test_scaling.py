"""The scripts of the page on scaling do what it says, and train in one process and in two."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tutvae.reviews.grammar import ReviewGrammar

TORCHRUN = ["-m", "torch.distributed.run", "--nproc-per-node", "2"]


def scripts(root: Path) -> list[str]:
    page = (root / "book" / "scaling.md").read_text(encoding="utf-8")
    return re.findall(r"```python\n(.*?)```", page, re.S)


@pytest.fixture(scope="module")
def prepared(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both scripts and a tokenised corpus."""
    folder = tmp_path_factory.mktemp("scaling")
    _, prepare, train = scripts(root)
    (folder / "train.py").write_text(train, encoding="utf-8")
    reviews = ReviewGrammar().sample(400, seed=0).texts
    (folder / "corpus.txt").write_text("\n".join(reviews) + "\n", encoding="utf-8")
    subprocess.run([sys.executable, "-c", prepare], cwd=folder, check=True)
    return folder


# With 400 documents and batches of 32: 13 steps an epoch alone, half as many for two processes.
@pytest.mark.parametrize(("start", "steps"), [([], 26), (TORCHRUN, 14)], ids=["one", "two"])
def test_they_train(prepared: Path, start: list[str], steps: int) -> None:
    command = [sys.executable, *start, "train.py"]
    script = (prepared / "train.py").read_text(encoding="utf-8")
    folder = f"run_of_{steps}"
    (prepared / "train.py").write_text(re.sub(r"my_run|run_of_\d+", folder, script))
    run = subprocess.run(command, cwd=prepared, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    record = ast.literal_eval(run.stdout.strip())  # the first process alone prints
    assert record["epoch"] == 2
    assert record["step"] == steps
    assert (prepared / folder / "last.safetensors").exists()


def test_a_run_that_is_broken_off_ends_as_one_left_alone(root: Path, tmp_path: Path) -> None:
    broken_off, *_ = scripts(root)
    command = [sys.executable, "-c", broken_off]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines() == [
        *(f"broken off at step {step}" for step in (3, 11, 20)),
        "equal to the last bit: True",
    ]
