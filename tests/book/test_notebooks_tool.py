"""The normal form of a chapter: what `tools/notebooks.py` writes, and what it leaves alone."""

import copy
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode

import notebooks


@pytest.fixture
def path(root: Path) -> Path:
    return root / "notebooks" / "99_example.ipynb"


@pytest.fixture
def messy() -> NotebookNode:
    """A chapter as an editor leaves it: run, with everything that does not belong."""
    stream = {"output_type": "stream", "name": "stdout"}
    code = nbformat.v4.new_code_cell(
        "print(1)   \nprint(2)\n\n",
        execution_count=1,
        metadata={
            "execution": {"iopub.status.busy": "2026-01-01T00:00:00Z"},
            "collapsed": True,
            "tags": ["nbval-skip"],
            "mystnb": {"image": {"alt": "kept"}},
        },
        outputs=[nbformat.from_dict({**stream, "text": text}) for text in ("1\n", "2\n")],
    )
    cells = [nbformat.v4.new_markdown_cell("# Title\n\nPromise.\n"), code]
    cells += [nbformat.v4.new_markdown_cell("Twice."), nbformat.v4.new_markdown_cell("Twice.")]
    cells += [nbformat.v4.new_markdown_cell("  \n")]
    return nbformat.v4.new_notebook(
        cells=cells,
        metadata={
            "widgets": {"state": {}},
            "kernelspec": {"name": "my-own", "display_name": "Mine"},
        },
    )


def test_a_second_time_changes_nothing(messy: NotebookNode, path: Path) -> None:
    once = notebooks.dumps(notebooks.normalise(messy, path))
    again = notebooks.normalise(nbformat.reads(once, as_version=4), path)
    assert notebooks.dumps(again) == once
    nbformat.validate(again)


def test_removes_what_an_editor_or_a_run_leaves(messy: NotebookNode, path: Path) -> None:
    clean = notebooks.normalise(messy, path)
    code = next(cell for cell in clean.cells if "print" in cell.source)
    assert code.source == "print(1)\nprint(2)"
    assert code.metadata == {"tags": ["nbval-skip"], "mystnb": {"image": {"alt": "kept"}}}
    assert [output.text for output in code.outputs] == ["1\n2\n"]
    assert clean.metadata.kernelspec.name == "python3"
    assert "widgets" not in clean.metadata
    assert all(cell.source for cell in clean.cells)


def test_puts_link_and_setup_where_they_belong(messy: NotebookNode, path: Path) -> None:
    clean = notebooks.normalise(messy, path)
    tags = [cell.metadata.get("tags", []) for cell in clean.cells]
    assert notebooks.COLAB_TAG in tags[1]
    assert notebooks.SETUP_TAG in tags[2]
    assert "99_example.ipynb" in clean.cells[1].source


def test_refreshes_link_and_setup_where_they_stand(
    messy: NotebookNode, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clean = notebooks.normalise(messy, path)
    moved = copy.deepcopy(clean)
    monkeypatch.setattr(notebooks, "repository", lambda: ("https://github.com/a/b", "trunk"))
    notebooks.normalise(moved, path)
    assert "/github/a/b/blob/trunk/notebooks/99_example.ipynb" in moved.cells[1].source
    assert '"tutvae @ git+https://github.com/a/b@trunk"' in moved.cells[2].source
    assert len(moved.cells) == len(clean.cells)


def test_ids_follow_the_text_and_are_unique(messy: NotebookNode, path: Path) -> None:
    before = [cell.id for cell in notebooks.normalise(copy.deepcopy(messy), path).cells]
    messy.cells.insert(2, nbformat.v4.new_markdown_cell("A new paragraph."))
    after = [cell.id for cell in notebooks.normalise(messy, path).cells]
    assert len(set(after)) == len(after) == len(before) + 1
    assert set(before) < set(after)


def test_exports_the_picture_of_a_tagged_cell() -> None:
    picture = {"output_type": "display_data", "metadata": {}, "data": {"image/png": "iVBORw=="}}
    shown = [nbformat.from_dict(picture)]
    tagged = nbformat.v4.new_code_cell("1", metadata={"tags": ["export:cloud"]}, outputs=shown)
    plain = nbformat.v4.new_code_cell("2", outputs=shown)
    notebook = nbformat.v4.new_notebook(cells=[tagged, plain])
    assert notebooks.exported_pictures(notebook) == {"cloud": b"\x89PNG"}


def test_running_fills_in_the_outputs(path: Path, tmp_path: Path) -> None:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("print(6 * 7)")])
    notebooks.execute(notebook, tmp_path / path.name)
    assert notebook.cells[0].outputs[0].text == "42\n"
    assert notebook.cells[0].execution_count == 1
