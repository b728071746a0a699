"""What a chapter defines is what the package runs: the same syntax tree, node for node.

A cell with the tag `tutvae:NAME` holds a class or function NAME. Docstrings and comments may
differ. Where two modules define NAME, the tag names the module too: `tutvae:vae.NAME`.

A cell with the tag `behaves-as:NAME` holds a shorter class, without guards and fast paths; a test
of its chapter compares what the two compute.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from nbformat import NotebookNode

Definition = ast.ClassDef | ast.FunctionDef
TAG = "tutvae:"
SHORTER = "behaves-as:"


def definitions(tree: ast.Module) -> Iterator[Definition]:
    yield from (node for node in tree.body if isinstance(node, Definition))


def package_definitions(root: Path) -> dict[str, Definition]:
    """Every class and function at the top of a module, by its full name."""
    found = {}
    for path in sorted((root / "tutvae").rglob("*.py")):
        module = ".".join(path.relative_to(root).with_suffix("").parts)
        tree = ast.parse(path.read_text(encoding="utf-8"))
        found |= {f"{module}.{node.name}": node for node in definitions(tree)}
    return found


def resolve(name: str, package: dict[str, Definition]) -> Definition:
    full_names = [full_name for full_name in package if full_name.endswith(f".{name}")]
    assert len(full_names) == 1, f"{TAG}{name} names {full_names or 'nothing'} in the package"
    return package[full_names[0]]


def without_docstrings(node: ast.AST) -> str:
    """The node as plain source, without comments and the docstrings of anything in it."""
    tree = ast.parse(ast.unparse(node))
    for child in ast.walk(tree):
        if isinstance(child, Definition) and ast.get_docstring(child) is not None:
            child.body = child.body[1:] or [ast.Pass()]
    return ast.unparse(tree)


def taught(notebook: NotebookNode, prefix: str = TAG) -> Iterator[tuple[str, str]]:
    """The names that a chapter defines for the package, each with its cell's source."""
    for cell in notebook.cells:
        for tag in cell.metadata.get("tags", []):
            if tag.startswith(prefix):
                yield tag.removeprefix(prefix), cell.source


def is_a_model(node: Definition) -> bool:
    """A public class that is no protocol: protocols say what is asked, and teach nothing."""
    if not isinstance(node, ast.ClassDef) or node.name.startswith("_"):
        return False
    return not any(isinstance(base, ast.Name) and base.id == "Protocol" for base in node.bases)


def chapter_named(docstring: str) -> int | None:
    """The first chapter that a docstring names; None where it says that no chapter defines it."""
    if re.search(r"\bno chapter\b", docstring, re.I):
        return None
    chapter = re.search(r"chapters? (\d+)", docstring, re.I)
    assert chapter, f"this docstring names no chapter, nor says that there is none: {docstring}"
    return int(chapter[1])


def untaught(models: dict[str, str], taught: dict[int, set[str]]) -> list[str]:
    """The models, by name and docstring, that the chapter they name does not define."""
    chapters = {name: chapter_named(docstring) for name, docstring in models.items()}
    return [
        f"{name} in chapter {chapter}"
        for name, chapter in chapters.items()
        if chapter is not None and name not in taught.get(chapter, set())
    ]


def docstrings_of_models(root: Path) -> dict[str, str]:
    """The classes of `tutvae.models` with their docstrings."""
    return {
        node.name: ast.get_docstring(node) or ""
        for path in sorted((root / "tutvae" / "models").rglob("*.py"))
        for node in definitions(ast.parse(path.read_text(encoding="utf-8")))
        if is_a_model(node)
    }


def test_a_chapter_defines_what_the_package_holds(chapter: NotebookNode, root: Path) -> None:
    package = package_definitions(root)
    for name, source in taught(chapter):
        local_name = name.rpartition(".")[2]
        here = [node for node in definitions(ast.parse(source)) if node.name == local_name]
        assert len(here) == 1, f"the cell tagged {TAG}{name} defines {len(here)} of that name"
        assert without_docstrings(here[0]) == without_docstrings(resolve(name, package)), name


def test_every_model_is_defined_in_the_chapter_that_it_names(
    root: Path, chapters: dict[int, NotebookNode]
) -> None:
    tagged = {
        number: {
            name.rpartition(".")[2]
            for prefix in (TAG, SHORTER)
            for name, _ in taught(chapter, prefix)
        }
        for number, chapter in chapters.items()
    }
    assert untaught(docstrings_of_models(root), tagged) == []


@pytest.mark.parametrize(
    ("docstring", "missing"),
    [
        ("A model. Chapter 4.", []),
        ("A model. Chapters 5 and 4.", ["Model in chapter 5"]),
        ("A model. Chapter 99.", ["Model in chapter 99"]),
        ("A model. No chapter defines it: it shows how to add one.", []),
    ],
)
def test_a_model_is_taught_where_it_says_or_says_that_no_chapter_does(
    docstring: str, missing: list[str]
) -> None:
    assert untaught({"Model": docstring}, {4: {"Model"}, 5: {"Other"}}) == missing


def test_a_model_that_does_not_mention_chapters_is_an_error() -> None:
    with pytest.raises(AssertionError, match="names no chapter"):
        untaught({"Model": "A model."}, {4: {"Model"}})


@pytest.mark.parametrize(
    ("left", "right", "equal"),
    [
        ("def f(x):\n    return x", 'def f(x):\n    """Doc."""\n    return x  # why', True),
        (
            "class A:\n    def f(self):\n        'Doc.'",
            "class A:\n    def f(self):\n        pass",
            True,
        ),
        ("def f(x):\n    return x", "def f(x):\n    return -x", False),
        ("def f(x: int):\n    return x", "def f(x):\n    return x", False),
        ("def f(x):\n    return x", "@cache\ndef f(x):\n    return x", False),
    ],
)
def test_the_comparison_sees_code_and_only_code(left: str, right: str, equal: bool) -> None:
    assert (without_docstrings(ast.parse(left)) == without_docstrings(ast.parse(right))) is equal
