"""Every committed chapter is clean, complete and in its normal form."""

import base64
import io
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from nbformat import NotebookNode
from PIL import Image

import notebooks

MAX_BYTES = 1_500_000
FOLDERS = "home|root|Users|tmp|usr|opt|var|mnt|content"
STAINS = {
    "a progress bar": r"\d+%\||[█▏▎▍▌▋▊▉]|\bit/s\b|s/it\b",
    "an absolute path": rf"(?<![\w.:/])/(?:{FOLDERS})/|[A-Z]:\\|site-packages",
    "a memory address": r"\b0x[0-9a-f]{6,}",
}
EXERCISE = re.compile(r"^(?:`{3,}|:{3,})\{exercise(?:-start)?\}.*\n(?:.*\n)*?:label: (\S+)", re.M)
SOLUTION = re.compile(r"^(?:`{3,}|:{3,})\{solution(-start)?\} (\S+)\n:class: dropdown$", re.M)
ANY_SOLUTION = re.compile(r"^(?:`{3,}|:{3,})\{solution(?:-start)?\}", re.M)
SOLUTION_END = re.compile(r"^(?:`{3,}|:{3,})\{solution-end\}", re.M)


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def prose(notebook: NotebookNode) -> str:
    return "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def outputs(notebook: NotebookNode) -> Iterator[NotebookNode]:
    for cell in code_cells(notebook):
        yield from cell.outputs


def texts(output: NotebookNode) -> Iterator[str]:
    """The text that one output shows, in any of its forms."""
    yield output.get("text", "")
    for kind, content in output.get("data", {}).items():
        if not kind.startswith("image/png"):
            yield str(content)


def images(notebook: NotebookNode) -> Iterator[tuple[NotebookNode, NotebookNode]]:
    """The cells that show a picture, each with the output that holds it."""
    for cell in code_cells(notebook):
        for output in cell.outputs:
            if any(kind.startswith("image/") for kind in output.get("data", {})):
                yield cell, output


def solved_by_code(notebook: NotebookNode) -> set[str]:
    """The labels of exercises whose solution holds a code cell, which CI therefore runs."""
    solved, current = set(), None
    for cell in notebook.cells:
        if cell.cell_type == "code":
            solved |= {current} if current else set()
        elif match := SOLUTION.search(cell.source):
            current = match[2] if match[1] else None
        elif SOLUTION_END.search(cell.source):
            current = None
    return solved


def test_the_table_of_contents_lists_the_chapters(root: Path) -> None:
    contents = yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8"))
    listed = [chapter["file"] for part in contents["parts"] for chapter in part["chapters"]]
    in_book = [name for name in listed if name.startswith("notebooks/")]
    on_disk = [f"notebooks/{path.stem}" for path in sorted((root / "notebooks").glob("*.ipynb"))]
    assert in_book == on_disk


def test_is_in_normal_form(chapter: NotebookNode, chapter_path: Path) -> None:
    text = chapter_path.read_text(encoding="utf-8")
    normal = notebooks.dumps(notebooks.normalise(chapter, chapter_path))
    assert text == normal, f"run 'make notebooks NB=notebooks/{chapter_path.name}'"


def test_opens_with_title_and_colab_link(chapter: NotebookNode, chapter_path: Path) -> None:
    title, link = chapter.cells[:2]
    assert re.fullmatch(r"# \S[^\n]*\n\n([^\n]+\n?)+", title.source), "a title and one paragraph"
    assert notebooks.colab_url(chapter_path) in link.source
    assert notebooks.has_tag(code_cells(chapter)[0], notebooks.SETUP_TAG)


def test_was_run_once_from_top_to_bottom(chapter: NotebookNode) -> None:
    counts = [cell.execution_count for cell in code_cells(chapter)]
    assert counts == list(range(1, len(counts) + 1))


def test_outputs_show_no_error_and_no_warning(chapter: NotebookNode) -> None:
    kinds = {(output.output_type, output.get("name")) for output in outputs(chapter)}
    assert not any(kind == "error" or name == "stderr" for kind, name in kinds)


@pytest.mark.parametrize("stain", STAINS)
def test_outputs_are_free_of(chapter: NotebookNode, stain: str) -> None:
    shown = [text for output in outputs(chapter) for text in texts(output)]
    assert [text for text in shown if re.search(STAINS[stain], text)] == []


def test_outputs_hold_no_widget(chapter: NotebookNode) -> None:
    kinds = {kind for output in outputs(chapter) for kind in output.get("data", {})}
    assert not {kind for kind in kinds if "widget" in kind or "javascript" in kind}


def test_is_small(chapter_path: Path) -> None:
    assert chapter_path.stat().st_size <= MAX_BYTES


def test_checks_its_claims(chapter: NotebookNode) -> None:
    checks = [cell for cell in code_cells(chapter) if re.search(r"^\s*assert ", cell.source, re.M)]
    assert len(checks) >= 3


def test_every_exercise_has_a_hidden_solution(chapter: NotebookNode) -> None:
    text = prose(chapter)
    exercises = EXERCISE.findall(text)
    solutions = [label for _, label in SOLUTION.findall(text)]
    assert len(exercises) >= 3
    assert sorted(solutions) == sorted(exercises)
    assert len(solutions) == len(ANY_SOLUTION.findall(text)), "':class: dropdown' hides a solution"


def test_three_solutions_are_run(chapter: NotebookNode) -> None:
    assert len(solved_by_code(chapter)) >= 3, "solutions need code cells for CI to check them"


def test_every_picture_has_an_alternative_text(chapter: NotebookNode) -> None:
    for cell, _ in images(chapter):
        alt = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
        assert len(alt) >= 20, f"metadata mystnb.image.alt is missing or short: {cell.source}"
    assert not re.search(r"!\[\s*\]\(|<img(?![^>]*\balt=)", prose(chapter))


def test_every_picture_is_opaque(chapter: NotebookNode) -> None:
    for cell, output in images(chapter):
        data = base64.b64decode(output["data"]["image/png"])
        with Image.open(io.BytesIO(data)) as image:
            least_alpha = image.convert("RGBA").getchannel("A").getextrema()[0]
        assert least_alpha == 255, f"transparent background: {cell.source}"


def test_exported_pictures_are_those_of_the_last_run(chapter: NotebookNode, root: Path) -> None:
    for name, picture in notebooks.exported_pictures(chapter).items():
        assert (root / "book" / "figures" / f"{name}.png").read_bytes() == picture, "make notebooks"
