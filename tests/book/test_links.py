"""Links, addresses and references to equations all lead somewhere.

Code and chapters name each other. A docstring says "Chapter 2, equation `iwae`"; chapter 2 labels
that equation, `$$ ... $$ (iwae)`, and names in the prose that follows it what computes it, as
`tutvae.bounds.importance_weighted_bound`.
"""

import ast
import importlib
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from nbformat import NotebookNode

import notebooks

FENCE = re.compile(r"^(`{3,}|~{3,}).*?^\1\s*$", re.M | re.S)
CODE = re.compile(r"`+[^`\n]+`+")
LINK = re.compile(r"\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)|\b(?:href|src)=\"([^\"]+)\"")
TARGET = re.compile(r"^\(([^)\n]+)\)=$", re.M)
EQUATION = re.compile(r"\$\$\s*\(([\w:.-]+)\)")
CITED_EQUATION = re.compile(r"chapter (\d+), equation `([\w:.-]+)`", re.I)
ANY_CITED_EQUATION = re.compile(r"equations? `([\w:.-]+)`", re.I)
NAMED_CODE = re.compile(r"`(tutvae(?:\.(?!NAME)\w+)+)(?:\(\))?`")  # tutvae.NAME is any name


def documents(root: Path) -> list[Path]:
    pages = [root / "README.md", root / "CONTRIBUTING.md", *sorted((root / "book").rglob("*.md"))]
    return [page for page in pages if page.exists()] + sorted((root / "notebooks").glob("*.ipynb"))


def text_of(path: Path) -> str:
    """The Markdown of a page or a chapter."""
    if path.suffix != ".ipynb":
        return path.read_text(encoding="utf-8")
    cells = notebooks.nbformat.read(path, as_version=4).cells
    return "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


def links(text: str) -> Iterator[str]:
    """The targets of the links and pictures in a page, code left out."""
    for match in LINK.finditer(CODE.sub("", FENCE.sub("", text))):
        yield match[1] or match[2]


def anchors(text: str) -> set[str]:
    """What `#...` may point to: headings, as GitHub spells them, and explicit targets."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", text), re.M)
    slugs = {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in headings}
    return slugs | set(TARGET.findall(text))


def broken(path: Path) -> Iterator[str]:
    """The relative links of a page that lead nowhere."""
    text = text_of(path)
    for link in links(text):
        name, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", link):
            continue
        target = path.parent / name if name else path
        found = target.exists() and (not anchor or anchor in anchors(text_of(target)))
        if not found:
            yield link


def docstrings(root: Path) -> Iterator[tuple[str, str]]:
    """Every docstring of the package on one line, with a name to report."""
    for path in sorted((root / "tutvae").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                where = f"{path.name}:{getattr(node, 'name', 'module')}"
                yield where, " ".join((ast.get_docstring(node) or "").split())


def equations(notebook: NotebookNode) -> list[tuple[str, str]]:
    """The labelled equations of a chapter, each with the prose from there to the next one."""
    text = "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    pieces = EQUATION.split(text)
    return list(zip(pieces[1::2], pieces[2::2], strict=True))


def exists(name: str) -> bool:
    """Tells whether a dotted name leads to a module of the package or into one."""
    parts = name.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for part in parts[cut:]:
            found = getattr(found, part, None)
        return found is not None
    return False


def test_relative_links_resolve(root: Path) -> None:
    dead = {path.name: list(broken(path)) for path in documents(root)}
    assert {name: found for name, found in dead.items() if found} == {}


def test_a_dead_link_is_seen(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# A title\n\n[here](#a-title) [gone](#gone) [file](no.md) [page](page.md#a-title)\n"
        "![picture](no.svg) [far](https://example.org) `[code](no)`\n\n```\n[fence](no)\n```\n",
        encoding="utf-8",
    )
    assert list(broken(page)) == ["#gone", "no.md", "no.svg"]


def addresses(text: str, name: str) -> Iterator[tuple[str, str]]:
    """The owner and, where it is told, the branch of every address of a repository and its pages.

    A tag is no branch: it stays where it is.
    """
    spelled = rf"(?:github\.com|githubusercontent\.com|/github)/([\w.-]+)/{name}\b"
    branch = r"(?:(?:/blob|/tree|/raw)/|(?:\.git)?@)(?!v\d)([\w.-]+)"
    yield from re.findall(f"{spelled}(?:{branch})?", text)
    yield from re.findall(rf"([\w-]+)\.github\.io/{name}()\b", text)


def test_every_address_in_the_repository_is_the_one_in_the_settings(root: Path) -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, check=True)
    owner, name = notebooks.addresses()["Repository"].split("/")[-2:]
    found = {
        path: set(addresses((root / path).read_text(encoding="utf-8", errors="ignore"), name))
        for path in filter(None, listed.stdout.decode().split("\0"))
        if (root / path).exists()
    }
    allowed = {(owner, ""), (owner, notebooks.branch())}
    assert {path: others - allowed for path, others in found.items() if others - allowed} == {}
    chapters = {path for path in found if path.endswith(".ipynb")}
    assert {path for path in found if found[path]} >= chapters | {
        "README.md",
        "CITATION.cff",
        "_config.yml",
        "book/how_to_use.md",
        "pyproject.toml",
    }


def test_another_address_is_seen() -> None:
    text = (
        "https://github.com/me/book.git https://colab.org/github/me/book/blob/main/a.ipynb "
        "git+https://github.com/you/book@v1.2.0 git+https://github.com/me/book@old "
        "https://they.github.io/book/ https://github.com/you/other"
    )
    assert list(addresses(text, "book")) == [
        ("me", ""),
        ("me", "main"),
        ("you", ""),
        ("me", "old"),
        ("they", ""),
    ]


def test_equations_named_in_docstrings_exist(root: Path, chapters: dict[int, NotebookNode]) -> None:
    labels = {number: dict(equations(chapter)) for number, chapter in chapters.items()}
    for where, docstring in docstrings(root):
        cited = CITED_EQUATION.findall(docstring)
        assert [label for _, label in cited] == ANY_CITED_EQUATION.findall(docstring), (
            f"{where}: write 'Chapter N, equation `label`'"
        )
        for number, label in cited:
            if int(number) in labels:
                assert label in labels[int(number)], f"{where}: chapter {number} has no ({label})"


@pytest.mark.browser
def test_in_the_built_book_docstrings_lead_to_equations(
    root: Path, build: Path, chapters: dict[int, NotebookNode]
) -> None:
    pages = [path.read_text("utf-8") for path in (build / "book" / "api").glob("*.html")]
    links = re.findall(
        r'href="../../notebooks/0?(\d+)\w+[.]html(?:#equation-([^"]+))?"', "".join(pages)
    )
    cited = {
        pair for _, docstring in docstrings(root) for pair in CITED_EQUATION.findall(docstring)
    }
    assert cited
    assert cited | {(number, "") for number, _ in cited} <= set(links)


@pytest.mark.browser
def test_in_the_built_book_every_labelled_equation_leads_to_the_reference(
    chapter: NotebookNode, chapter_path: Path, build: Path
) -> None:
    page = (build / "notebooks" / f"{chapter_path.stem}.html").read_text("utf-8")
    for label, _ in equations(chapter):
        below = page.partition(f'id="equation-{label}"')[2].partition('id="equation-')[0]
        line = re.search(r'<p class="equation-code">(.*?)</p>', below, re.S)[1]
        found = re.findall(r'href="\.\./(book/api/\w+\.html)#([\w.]+)"', line)
        assert found, label
        for address, name in found:
            assert f'id="{name}"' in (build / address).read_text("utf-8")


def test_every_labelled_equation_names_the_code_that_computes_it(chapter: NotebookNode) -> None:
    for label, prose in equations(chapter):
        names = NAMED_CODE.findall(prose)
        assert names, f"no `tutvae. ...` follows equation ({label})"
        assert all(exists(name) for name in names), f"after ({label}): {names}"


def test_names_of_code_in_the_prose_exist(root: Path) -> None:
    named = {name for path in documents(root) for name in NAMED_CODE.findall(text_of(path))}
    assert sorted(name for name in named if not exists(name)) == []


@pytest.mark.parametrize(
    ("name", "there"),
    [
        ("tutvae", True),
        ("tutvae.bounds.Elbo.loss", True),
        ("tutvae.no", False),
        ("tutvae.Elbo.no", False),
    ],
)
def test_a_name_that_does_not_exist_is_seen(name: str, there: bool) -> None:
    assert exists(name) is there


def test_the_public_names_say_which_chapter_introduces_them() -> None:
    package = importlib.import_module("tutvae")
    public = {name: getattr(package, name) for name in package.__all__}
    silent = [
        name
        for name, value in public.items()
        if callable(value) and not re.search(r"chapters? \d", value.__doc__ or "", re.I)
    ]
    assert silent == []
