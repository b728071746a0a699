"""A release of a copy of the repository: what is written, tagged and packed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
VERSION = "97.8.9"
BUILT = shutil.ignore_patterns(".git", ".venv", "_build", "dist", "runs", "vendor", ".*_cache")
PERSON = {
    f"GIT_{role}_{key}": value
    for role in ("AUTHOR", "COMMITTER")
    for key, value in (("NAME", "A"), ("EMAIL", "a@example.org"))
}


def git(folder: Path, *command: str) -> str:
    environment = {**os.environ, **PERSON}
    called = ["git", "-C", folder, *command]
    done = subprocess.run(called, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def release(folder: Path, version: str = VERSION) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, folder / "tools" / "release.py", version]
    environment = {**os.environ, **PERSON}
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def entries(changes: Path) -> list[str]:
    """The headings of a changelog, from the newest on."""
    lines = changes.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line.startswith("## ")]


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of one commit, that of the working tree, with something to release."""
    folder = tmp_path_factory.mktemp("repository") / "tutvae"
    shutil.copytree(ROOT, folder, ignore=BUILT)
    changes = "# Changelog\n\n## [Unreleased]\n\n- News.\n\n## [0.1.0]\n"
    (folder / "CHANGELOG.md").write_text(changes)
    git(folder.parent, "init", "--quiet", "tutvae")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "All")
    return folder


@pytest.fixture
def clone(repository: Path, tmp_path: Path) -> Path:
    git(tmp_path, "clone", "--quiet", str(repository), "clone")
    return tmp_path / "clone"


@pytest.fixture(scope="module")
def released(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone that was released, as `VERSION`."""
    folder = tmp_path_factory.mktemp("released")
    git(folder, "clone", "--quiet", str(repository), "clone")
    done = release(folder / "clone")
    assert done.returncode == 0, done.stderr
    return folder / "clone"


@pytest.fixture(scope="module")
def wheel(released: Path) -> zipfile.ZipFile:
    return zipfile.ZipFile(released / "dist" / f"tutvae-{VERSION}-py3-none-any.whl")


def test_the_version_stands_everywhere_in_the_tagged_commit(released: Path) -> None:
    assert git(released, "status", "--porcelain") == ""
    assert git(released, "describe") == f"v{VERSION}", "an annotated tag of the last commit"
    changed = git(released, "diff", "--name-only", "HEAD~1").splitlines()
    chapters = [path for path in changed if path.startswith("notebooks/")]
    assert len(chapters) == len(list((ROOT / "notebooks").glob("*.ipynb")))
    assert set(changed) - set(chapters) == {"CHANGELOG.md", "CITATION.cff", "tutvae/__init__.py"}
    assert f"tutvae@v{VERSION}" in (released / chapters[0]).read_text(encoding="utf-8")
    assert f'\n__version__ = "{VERSION}"\n' in (released / "tutvae/__init__.py").read_text()
    assert f"\nversion: {VERSION}\n" in (released / "CITATION.cff").read_text()


def test_the_entry_gets_the_version_and_the_date(released: Path) -> None:
    newest, older = entries(released / "CHANGELOG.md")
    day = re.fullmatch(rf"## \[{VERSION}\] - (\d{{4}}-\d\d-\d\d)", newest)[1]
    assert f"date-released: {day}\n" in (released / "CITATION.cff").read_text()
    assert older == "## [0.1.0]"


def test_the_wheel_holds_the_package_its_records_and_its_model(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    recorded = {f"tutvae/recorded/{path.name}" for path in (ROOT / "results").glob("*.json")}
    assert len(recorded) > 5
    assert names >= recorded | {
        "tutvae/__init__.pyi",
        "tutvae/experiments/published.toml",
        "tutvae/pretrained/sentences-8/weights.safetensors",
        "tutvae/py.typed",
    }
    assert {name.split("/")[0] for name in names} == {"tutvae", f"tutvae-{VERSION}.dist-info"}
    assert not [name for name in names if name.endswith((".ipynb", ".pyc"))]


def test_the_metadata_are_complete(wheel: zipfile.ZipFile) -> None:
    told = Parser().parsestr(wheel.read(f"tutvae-{VERSION}.dist-info/METADATA").decode())
    assert told["Version"] == VERSION
    assert all(told[key] for key in ("Summary", "Author", "License", "Keywords", "Requires-Python"))
    urls = {url.split(", ")[0] for url in told.get_all("Project-URL")}
    assert urls == {"Homepage", "Documentation", "Repository", "Changelog", "Issues"}
    kinds = {kind.split(" :: ")[0] for kind in told.get_all("Classifier")}
    assert kinds >= {"Development Status", "Operating System", "Programming Language"}


def test_the_sdist_builds_the_same_wheel(
    released: Path, wheel: zipfile.ZipFile, tmp_path: Path
) -> None:
    with tarfile.open(released / "dist" / f"tutvae-{VERSION}.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    source = tmp_path / f"tutvae-{VERSION}"
    assert not {"notebooks", "tests"} & {path.name for path in source.iterdir()}
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path]
    subprocess.run(build, cwd=source, check=True, capture_output=True)
    with zipfile.ZipFile(tmp_path / Path(str(wheel.filename)).name) as again:
        assert sorted(again.namelist()) == sorted(wheel.namelist())


def test_an_installed_wheel_shows_its_records(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    wheel.extractall(tmp_path / "installed")
    (tmp_path / "elsewhere").mkdir()
    shown = subprocess.run(
        [sys.executable, "-m", "tutvae", "results"],
        cwd=tmp_path / "elsewhere",
        env={**os.environ, "PYTHONPATH": str(tmp_path / "installed")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "ptb_remedies" in shown.stdout
    assert str(tmp_path / "installed" / "tutvae" / "recorded") in shown.stderr


def change(clone: Path) -> None:
    (clone / "README.md").write_text("changed")


def tell_nothing(clone: Path) -> None:
    (clone / "CHANGELOG.md").write_text("# Changelog\n\n## [0.1.0]\n")
    git(clone, "commit", "--quiet", "--all", "--message", "No news")


def tag(clone: Path) -> None:
    git(clone, "tag", f"v{VERSION}")


@pytest.mark.parametrize(
    ("prepare", "version", "message"),
    [
        (lambda clone: None, "next", "'next' is no version"),
        (change, VERSION, "the tree is not clean"),
        (tell_nothing, VERSION, "CHANGELOG.md has no entry"),
        (tag, VERSION, f"there is a tag v{VERSION} already"),
    ],
    ids=["no version", "changes", "no entry", "a tag"],
)
def test_nothing_is_done_where_it_would_be_wrong(
    clone: Path, prepare: Callable[[Path], None], version: str, message: str
) -> None:
    prepare(clone)
    before = git(clone, "rev-parse", "HEAD"), git(clone, "status", "--porcelain")
    done = release(clone, version)
    assert done.returncode == 1
    assert message in done.stderr
    assert (git(clone, "rev-parse", "HEAD"), git(clone, "status", "--porcelain")) == before
    assert not (clone / "dist").exists()
