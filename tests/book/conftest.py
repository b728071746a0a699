"""What the tests of the book share: where things are, the chapters' cells, a browser."""

import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

CHAPTERS = sorted((ROOT / "notebooks").glob("*.ipynb"))
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
# A closed network must not be asked for anything, not even by the browser itself.
BROWSER_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


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


def skip_or_fail(reason: str) -> None:
    """A newcomer's machine may lack what a page test needs; CI may not."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def build() -> Path:
    """The folder of the built book."""
    folder = ROOT / "_build" / "html"
    if not (folder / "index.html").exists():
        skip_or_fail("the book is not built: run 'make book'")
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api")
    executable = next(filter(None, map(shutil.which, BROWSERS)), None)
    if executable is None:
        skip_or_fail("no Chromium found: install it (on Debian, the package chromium)")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=executable, args=BROWSER_ARGUMENTS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def phone(request: pytest.FixtureRequest, browser: Any, build: Path) -> Iterator[Any]:
    """A module's PAGE, opened as a file on a phone; complaints are kept in `phone.complaints`."""
    page = browser.new_page(viewport={"width": 375, "height": 800})
    page.complaints = []
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.goto((build / request.module.PAGE).as_uri())
    yield page
    page.close()


@pytest.fixture
def without_scripts(request: pytest.FixtureRequest, browser: Any, build: Path) -> Iterator[Any]:
    """A module's PAGE in a browser that runs no JavaScript."""
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((build / request.module.PAGE).as_uri())
    yield page
    context.close()
