"""What is public is `tutvae.NAME` and `tutvae.models`: chapters use it, API pages document it."""

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from nbformat import NotebookNode

import tutvae

PUBLIC = ("tutvae", "tutvae.models")
DIRECTIVE = re.compile(r"^\.\. (auto\w+|py:data):: ([\w.]+)(.*(?:\n   .*)*)", re.M)


def foreign_imports(source: str) -> Iterator[str]:
    """What a cell imports of the package beyond its public names."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
            yield from (name for name in names if name.startswith("tutvae."))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tutvae"):
            public = importlib.import_module(node.module).__all__ if node.module in PUBLIC else ()
            yield from (f"{node.module}.{a.name}" for a in node.names if a.name not in public)


def without_magics(source: str) -> str:
    return re.sub(r"^(\s*)[%!].*$", r"\1pass", source, flags=re.M)


def documented(root: Path) -> set[str]:
    """The full names that the API pages document, those of a whole module included."""
    found = set()
    for page in [root / "book" / "api.md", *(root / "book" / "api").glob("*.md")]:
        for kind, name, options in DIRECTIVE.findall(page.read_text(encoding="utf-8")):
            found.add(name)
            if kind == "automodule" and ":members:" in options:
                left_out = re.findall(r"\w+", options.partition(":exclude-members:")[2])
                names = getattr(importlib.import_module(name), "__all__", [])
                found |= {f"{name}.{member}" for member in names if member not in left_out}
    return found


def test_a_chapter_imports_public_names_only(chapter: NotebookNode) -> None:
    cells = [without_magics(c.source) for c in chapter.cells if c.cell_type == "code"]
    assert [name for source in cells for name in foreign_imports(source)] == []


@pytest.mark.parametrize(
    ("source", "foreign"),
    [
        ("import tutvae", []),
        ("from tutvae import Elbo, plots", []),
        ("from tutvae.models import TextVAE", []),
        ("import tutvae.bounds", ["tutvae.bounds"]),
        ("from tutvae.bounds import Elbo", ["tutvae.bounds.Elbo"]),
        ("from tutvae.models import _rows", ["tutvae.models._rows"]),
        ("from tutvae import bounds", ["tutvae.bounds"]),
    ],
)
def test_an_import_of_what_is_not_public_is_seen(source: str, foreign: list[str]) -> None:
    assert list(foreign_imports(source)) == foreign


@pytest.mark.parametrize("name", tutvae.__all__)
def test_every_public_name_shows_an_example(name: str) -> None:
    assert ">>> " in getattr(tutvae, name).__doc__


def test_every_public_name_is_documented_under_it(root: Path) -> None:
    top, models = (importlib.import_module(name).__all__ for name in PUBLIC)
    public = {f"tutvae.{name}" for name in top}
    public |= {f"tutvae.models.{name}" for name in models if name not in top}
    assert sorted(public - documented(root)) == []
