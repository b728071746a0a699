"""The README's example does what it says, as a newcomer would paste it."""

import re
import subprocess
import sys
from pathlib import Path

from nbformat import NotebookNode

ROW = re.compile(r"^\| \[(\d+) · (.+?)\]\((notebooks/\S+)\) \| \S.*\|$", re.M)


def test_the_example_walks_between_two_sentences(root: Path) -> None:
    example = re.search(r"```python\n(.*?)```", (root / "README.md").read_text("utf-8"), re.S)[1]
    assert len([line for line in example.splitlines() if line]) < 15
    run = subprocess.run([sys.executable, "-c", example], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    walk = run.stdout.splitlines()
    assert len(walk) == 5
    assert len(set(walk)) >= 3, "the code is used"
    assert run.stderr == ""


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
