"""The README's example does what it says, as a newcomer would paste it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from nbformat import NotebookNode

import tutvae

ROW = re.compile(r"^\| \[(\d+) · (.+?)\]\((notebooks/\S+)\) \| \S.*\|$", re.M)


def test_the_example_walks_between_two_sentences(root: Path) -> None:
    """As the output below it says."""
    text = (root / "README.md").read_text("utf-8")
    example, shown = re.search(r"```python\n(.*?)```\n\n```\n(.*?)```", text, re.S).groups()
    assert len([line for line in example.splitlines() if line]) < 15
    run = subprocess.run([sys.executable, "-c", example], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout == shown
    assert len(set(shown.splitlines())) >= 3, "the code is used"
    assert run.stderr == ""


@pytest.mark.filterwarnings("ignore:the code is empty")
def test_the_example_of_own_sentences_saves_a_model_of_them(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    example = re.findall(r"```python\n(.*?)```", (root / "README.md").read_text("utf-8"), re.S)[1]
    texts = tutvae.ReviewGrammar().sample(40, seed=0).texts
    (tmp_path / "sentences.txt").write_text("\n".join(texts), "utf-8")
    monkeypatch.chdir(tmp_path)
    # Two steps in place of thousands: whether it learns is not asked here.
    monkeypatch.setattr("tutvae.estimators.EPOCHS", 1)
    monkeypatch.setattr("tutvae.estimators.STEPS", 1)
    names: dict[str, object] = {}
    exec(example, names)
    assert names["codes"].shape == (40, 32)
    assert len(tutvae.load("my_model").transform(texts)) == 40


def test_the_table_has_every_chapter_by_its_title(
    root: Path, chapters: dict[int, NotebookNode]
) -> None:
    rows = ROW.findall((root / "README.md").read_text("utf-8"))
    titles = {
        number: chapter.cells[0].source.splitlines()[0].removeprefix("# ")
        for number, chapter in chapters.items()
    }
    assert {int(number): title for number, title, _ in rows} == titles
    assert [(root / path).exists() and Path(path).name[:2] for *_, path in rows] == [
        f"{int(number):02}" for number, *_ in rows
    ]
