"""The normal form of a chapter: what `tools/notebooks.py` writes, and what it leaves alone."""

import copy
import os
import subprocess
import sys
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
    urls = {"Repository": "https://github.com/a/b", "Homepage": "https://a.github.io/b/"}
    monkeypatch.setattr(notebooks, "addresses", lambda: urls)
    monkeypatch.setattr(notebooks, "branch", lambda: "trunk")
    monkeypatch.setattr(notebooks, "version", lambda: "4.5.6")
    notebooks.normalise(moved, path)
    assert "/github/a/b/blob/trunk/notebooks/99_example.ipynb" in moved.cells[1].source
    assert '"git+https://github.com/a/b@v4.5.6"' in moved.cells[2].source
    assert '"https://a.github.io/b/wheels/tutvae-4.5.6-py3-none-any.whl"' in moved.cells[2].source
    assert len(moved.cells) == len(clean.cells)


@pytest.mark.parametrize("reachable", [True, False])
def test_on_colab_the_setup_cell_takes_the_tag_or_else_the_wheel_beside_the_book(
    tmp_path: Path, reachable: bool
) -> None:
    """A cell, with a `pip` that fails for git where the repository cannot be reached."""
    pip, asked = tmp_path / "pip", tmp_path / "asked"
    fails = "false" if reachable else 'echo "$*" | grep -q git+'
    pip.write_text(f'#!/bin/sh\necho "$*" >>{asked}\n! {fails}\n')
    pip.chmod(0o755)
    program = (
        "import sys; sys.modules['google.colab'] = sys\n"
        "from IPython.core.interactiveshell import InteractiveShell as Shell\n"
        f"Shell.instance().run_cell({notebooks.setup_cell().source!r}).raise_error()"
    )
    path = f"{tmp_path}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "IPYTHONDIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)
    installed = asked.read_text().splitlines()[-1].split()[-1]
    number, urls = notebooks.version(), notebooks.addresses()
    assert installed == (
        f"git+{urls['Repository']}@v{number}"
        if reachable
        else f"{urls['Homepage']}wheels/tutvae-{number}-py3-none-any.whl"
    )


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
