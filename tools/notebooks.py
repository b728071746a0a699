"""Run the chapters in place and bring them into their normal form.

    python tools/notebooks.py notebooks/*.ipynb                 run, then normalise
    python tools/notebooks.py --keep-outputs notebooks/*.ipynb  normalise only

In its normal form a chapter carries the Colab link and the set-up cell that the repository's
address (`[project.urls]` of pyproject.toml) and the package's version imply, ids made from its
cells' text, one kernel name, and nothing that differs from machine to machine: no timings, no
widget state, no editor's metadata.

The picture of a cell with the tag `export:NAME` also goes to `book/figures/NAME.png`, where the
prose pages find it.
"""

import argparse
import base64
import hashlib
import os
import re
import sys
from collections import Counter
from pathlib import Path

import nbformat
import yaml
from nbclient import NotebookClient
from nbformat import NotebookNode

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
COLAB_TAG = "colab-link"
SETUP_TAG = "setup"
EXPORT_TAG = "export:"
FIGURES = ROOT / "book" / "figures"
KEPT_CELL_METADATA = ("mystnb", "tags")
CELL_TIMEOUT = 900  # seconds


def addresses() -> dict[str, str]:
    """Returns the addresses of the project: the one setting that all links derive from."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]


def branch() -> str:
    """Returns the branch whose chapters the book links to."""
    settings = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    return settings["repository"]["branch"]


def version() -> str:
    """Returns the package's version."""
    source = (ROOT / "tutvae" / "__init__.py").read_text(encoding="utf-8")
    return re.search(r'^__version__ = "(.+)"$', source, re.M)[1]


def colab_url(path: Path) -> str:
    """Returns the address that opens the notebook at `path` in Colab."""
    slug = addresses()["Repository"].removeprefix("https://github.com/")
    where = path.resolve().relative_to(ROOT).as_posix()
    return f"https://colab.research.google.com/github/{slug}/blob/{branch()}/{where}"


def colab_cell(path: Path) -> NotebookNode:
    """Returns the cell that links to Colab; no picture, so no request."""
    source = f"[Open this chapter in Colab]({colab_url(path)})"
    return nbformat.v4.new_markdown_cell(source, metadata={"tags": [COLAB_TAG]})


def setup_cell() -> NotebookNode:
    """Returns the cell that installs the package on Colab, and does nothing elsewhere.

    It names a version's tag, so that a reader's copy of the chapter works as long as the tag is
    there. Where the repository cannot be reached, the wheel beside the book will do.
    """
    urls, number = addresses(), version()
    source = (
        "# On Colab, install the book's package beside the torch that is already there: from its\n"
        "# repository or, where that fails, from the book's pages.\n"
        "import sys\n\n"
        'if "google.colab" in sys.modules:\n'
        f'    code = "git+{urls["Repository"]}@v{number}"\n'
        f'    wheel = "{urls["Homepage"]}wheels/tutvae-{number}-py3-none-any.whl"\n'
        '    !pip install --quiet "tutvae @ {code}" || pip install --quiet {wheel}'
    )
    return nbformat.v4.new_code_cell(source, metadata={"tags": [SETUP_TAG, "hide-input"]})


def has_tag(cell: NotebookNode, tag: str) -> bool:
    """Tells whether a cell carries a tag."""
    return tag in cell.metadata.get("tags", [])


def place(notebook: NotebookNode, tag: str, canonical: NotebookNode, default: int) -> None:
    """Refreshes the cell that carries `tag`, or puts the canonical cell at index `default`."""
    for cell in notebook.cells:
        if has_tag(cell, tag):
            cell.source, cell.metadata = canonical.source, canonical.metadata
            return
    notebook.cells.insert(default, canonical)


def place_canonical_cells(notebook: NotebookNode, path: Path) -> None:
    """Gives the notebook its Colab link (below the title) and set-up cell (first code cell)."""
    place(notebook, COLAB_TAG, colab_cell(path), default=1)
    kinds = [cell.cell_type for cell in notebook.cells]
    first_code = kinds.index("code") if "code" in kinds else len(kinds)
    place(notebook, SETUP_TAG, setup_cell(), default=first_code)


def merge_streams(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Joins neighbouring pieces of one stream: where they were cut depends on timing."""
    merged: list[NotebookNode] = []
    for output in outputs:
        last = merged[-1] if merged else None
        is_stream = output.output_type == "stream"
        if is_stream and last and last.output_type == "stream" and last.name == output.name:
            last.text += output.text
        else:
            merged.append(output)
    return merged


def normalise_cell(cell: NotebookNode) -> None:
    """Strips blank edges, foreign metadata and the accidents of a run from one cell."""
    cell.source = "\n".join(line.rstrip() for line in cell.source.split("\n")).strip("\n")
    kept = {key: cell.metadata[key] for key in KEPT_CELL_METADATA if cell.metadata.get(key)}
    cell.metadata = nbformat.from_dict(kept)
    if cell.cell_type == "code":
        cell.outputs = merge_streams(cell.outputs)
    else:
        cell.pop("attachments", None)


def number_cells(notebook: NotebookNode) -> None:
    """Gives every cell an id made from its text, so that it changes only when the text does."""
    seen: Counter[str] = Counter()
    for cell in notebook.cells:
        digest = hashlib.sha256(f"{cell.cell_type}\n{cell.source}".encode()).hexdigest()[:12]
        seen[digest] += 1
        cell.id = digest if seen[digest] == 1 else f"{digest}-{seen[digest]}"


def normalise(notebook: NotebookNode, path: Path) -> NotebookNode:
    """Brings a notebook into its normal form, in place; a second time changes nothing."""
    place_canonical_cells(notebook, path)
    for cell in notebook.cells:
        normalise_cell(cell)
    notebook.cells = [cell for cell in notebook.cells if cell.source]
    number_cells(notebook)
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python", "pygments_lexer": "ipython3"},
        }
    )
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    return notebook


def exported_pictures(notebook: NotebookNode) -> dict[str, bytes]:
    """Returns the PNG files that cells with the tag `export:NAME` show, by NAME."""
    return {
        tag.removeprefix(EXPORT_TAG): base64.b64decode(output.data["image/png"])
        for cell in notebook.cells
        for tag in cell.metadata.get("tags", [])
        if tag.startswith(EXPORT_TAG)
        for output in cell.outputs
        if "image/png" in output.get("data", {})
    }


def execute(notebook: NotebookNode, path: Path) -> None:
    """Runs a notebook from top to bottom in a fresh kernel, from its own folder."""
    NotebookClient(
        notebook,
        timeout=CELL_TIMEOUT,
        kernel_name="python3",
        record_timing=False,
        extra_arguments=["--log-level=ERROR"],
        resources={"metadata": {"path": str(path.parent)}},
    ).execute()


def dumps(notebook: NotebookNode) -> str:
    """Returns the notebook as the text of its file."""
    return nbformat.writes(notebook) + "\n"


def write(path: Path, content: bytes) -> None:
    """Writes a file beside the old one, then puts it in its place."""
    path.parent.mkdir(exist_ok=True)
    unfinished = path.with_name(f"{path.name}.new")
    unfinished.write_bytes(content)
    os.replace(unfinished, path)


def main() -> None:
    """Runs and normalises the notebooks that the command line names."""
    parser = argparse.ArgumentParser(description="Run the chapters in place and normalise them.")
    parser.add_argument("paths", nargs="+", type=Path, metavar="NOTEBOOK")
    parser.add_argument("--keep-outputs", action="store_true", help="normalise without running")
    arguments = parser.parse_args()
    for path in arguments.paths:
        print(path, flush=True)
        notebook = nbformat.read(path, as_version=4)
        place_canonical_cells(notebook, path)
        if not arguments.keep_outputs:
            execute(notebook, path)
        write(path, dumps(normalise(notebook, path)).encode())
        for name, picture in exported_pictures(notebook).items():
            write(FIGURES / f"{name}.png", picture)


if __name__ == "__main__":
    main()
