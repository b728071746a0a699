"""What the tests of the book share: where things are, and the chapters' cells."""

import re
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

CHAPTERS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def chapter_number(path: Path) -> int:
    return int(re.match(r"\d+", path.name).group())


def read_chapter(path: Path) -> NotebookNode:
    return nbformat.read(path, as_version=4)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that asks for `chapter_path` runs once for every chapter."""
    if "chapter_path" in metafunc.fixturenames:
        metafunc.parametrize("chapter_path", CHAPTERS, ids=lambda path: path.stem)


@pytest.fixture
def chapter(chapter_path: Path) -> NotebookNode:
    return read_chapter(chapter_path)


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def chapters() -> dict[int, NotebookNode]:
    """Every chapter that exists, by its number."""
    return {chapter_number(path): read_chapter(path) for path in CHAPTERS}
