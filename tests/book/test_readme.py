"""The first screen of README and book: its code does what it says, its figures are recorded."""

import json
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from statistics import mean
from typing import Any

import pytest
from nbformat import NotebookNode

import tutvae

ROW = re.compile(r"^\| \[(\d+) · (.+?)\]\((notebooks/\S+)\) \| \S.*\|$", re.M)
EXAMPLE = re.compile(r"```python\n(.*?)```(?:\n\n```(?:text)?\n(.*?)```)?", re.S)
FIRST_SCREENS = ("README.md", "book/intro.md")


@pytest.fixture(scope="module")
def examples(root: Path) -> list[tuple[str, str]]:
    """The README's Python, block by block, each with the output that is shown below it, or ''."""
    return EXAMPLE.findall((root / "README.md").read_text("utf-8"))


@pytest.fixture(params=FIRST_SCREENS)
def first_screen(root: Path, request: pytest.FixtureRequest) -> str:
    return (root / request.param).read_text("utf-8")


def record(root: Path, name: str) -> Any:
    return json.loads((root / "results" / name).read_text("utf-8"))


def test_it_begins_with_a_picture_three_links_and_five_lines(root: Path) -> None:
    lines = (root / "README.md").read_text("utf-8").splitlines()
    first = "\n".join(lines[:12])
    for needed in (
        "github.io/",
        "colab.research",
        "pip install ",
        "<img src=",
        'alt="',
        "```python",
    ):
        assert needed in first
    for picture in re.findall(r'(?:src|srcset)="(\S+)"', first):
        assert (root / picture).stat().st_size < 150_000


def test_the_first_example_is_the_recorded_run(root: Path, first_screen: str) -> None:
    run = record(root, "own_data/readme.json")
    code, shown = EXAMPLE.search(first_screen).groups()
    assert (code, shown) == (run["code"], run["output"])
    assert len([line for line in code.splitlines() if line]) == 5
    said = re.search(r"with ([\d,]+) everyday .+ and (\d+) seconds of one processor", first_screen)
    told = (run["sentences"], run["processor_seconds"])
    assert tuple(int(number.replace(",", "")) for number in said.groups()) == told


def test_the_rivals_are_as_strong_as_recorded(root: Path, first_screen: str) -> None:
    def of_100(runs: Iterable[dict[str, Any]], method: str, **where: Any) -> int:
        chosen = [run for run in runs if where.items() | {("method", method)} <= plain(run).items()]
        return round(100 * mean(run["accuracy"] for run in chosen))

    def plain(run: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in run.items() if isinstance(value, str | int)}

    labelled = [
        run | {"accuracy": run["accuracy"]["test"]}
        for run in record(root, "ag_news_labels.json")["runs"]
    ]
    few = [
        of_100(labelled, method, labels=100)
        for method in ("semi_supervised", "naive_bayes_em", "frozen_encoder")
    ]
    clusters = record(root, "clusters/runs.json")["runs"]
    none = [
        of_100(clusters, method, corpus="ag_news") for method in ("mixture_codes", "kmeans_encoder")
    ]
    told = re.search(r"News topics from 100 labels: (.+)", first_screen)[1]
    assert [int(n) for n in re.findall(r"\d+", told.replace("of 100", ""))] == few + none


def test_the_example_walks_between_two_sentences(examples: list[tuple[str, str]]) -> None:
    """As the output below it says."""
    example, shown = next(pair for pair in examples if "tutvae.load(" in pair[0] and pair[1])
    assert len([line for line in example.splitlines() if line]) < 15
    run = subprocess.run([sys.executable, "-c", example], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout == shown
    assert len(set(shown.splitlines())) >= 3, "the code is used"
    assert run.stderr == ""


@pytest.mark.filterwarnings("ignore:the code is empty")
def test_the_example_of_own_sentences_saves_a_model_of_them(
    examples: list[tuple[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = tutvae.ReviewGrammar().sample(40, seed=0).texts
    (tmp_path / "sentences.txt").write_text("\n".join(texts), "utf-8")
    monkeypatch.chdir(tmp_path)
    # Two steps in place of thousands: whether it learns is not asked here.
    monkeypatch.setattr("tutvae.estimators.EPOCHS", 1)
    monkeypatch.setattr("tutvae.estimators.STEPS", 1)
    names: dict[str, object] = {}
    for example, _ in examples[:2]:
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
