"""Outputs are compared as numbers, with the tolerance that a cell's tag states."""

import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbval_tolerance import agree

STORED = "NELBO 40.12 nats, KL -0.50 (12 units)"


@pytest.mark.parametrize(
    "text",
    [
        STORED,
        "NELBO 40.13 nats, KL -0.49 (12 units)",
        "NELBO 40.14 nats, KL -0.52 (12 units)",
        "NELBO  40.12 nats,\nKL -0.50 (12 units)",
    ],
    ids=["the same", "near", "at the tolerance", "aligned otherwise"],
)
def test_text_that_agrees(text: str) -> None:
    assert agree(text, STORED, 0.02)


@pytest.mark.parametrize(
    "text",
    [
        "NELBO 40.15 nats, KL -0.50 (12 units)",
        "NELBO 40.12 nats, KL 0.50 (12 units)",
        "NELBO 40.12 nats, KL -0.50 (13 units)",
        "NELBO 40.12 bits, KL -0.50 (12 units)",
        "NELBO 40.12 nats, KL -0.50",
        "NELBO 40.12 nats, KL -0.50 12 (12 units)",
        "NELBO nan nats, KL -0.50 (12 units)",
    ],
    ids=["too far", "sign", "count", "words", "a number less", "a number more", "not a number"],
)
def test_text_that_does_not_agree(text: str) -> None:
    assert not agree(text, STORED, 0.02)


def test_numbers_with_an_exponent_are_compared_whole() -> None:
    assert agree("1.2e-05", "1.1e-05", 1e-5)
    assert not agree("1.2e-05", "1.2e-03", 1e-5)


@pytest.fixture(scope="module")
def failed(root: Path, tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The cells that fail in a notebook, all of which stored "1.00 a"."""
    near, far, word, two = "print('1.01 a')", "print('1.03 a')", "print('1.00 b')", "print(1.0, 1)"
    result = "from IPython.display import HTML\nHTML('<b>1.01</b>')"
    stream = nbformat.v4.new_output("stream", name="stdout", text="1.00 a\n")
    html = nbformat.v4.new_output("execute_result", {"text/html": "<b>1.00</b>"})
    html.data["text/plain"] = "<IPython.core.display.HTML object>"
    cells = [
        nbformat.v4.new_code_cell(
            source, outputs=[output], execution_count=1, metadata={"tags": tags}
        )
        for source, output, tags in [
            *((source, stream, ["tolerance:0.02"]) for source in (near, far, word, two)),
            (near, stream, []),
            (result, html, ["tolerance:0.02"]),
        ]
    ]
    path = tmp_path_factory.mktemp("notebook") / "example.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    options = ["-p", "tools.nbval_tolerance", "-p", "no:randomly", "-p", "no:cacheprovider"]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "--nbval", "--nbval-current-env", "-rA", path],
        cwd=root,
        capture_output=True,
        text=True,
    )
    assert len(re.findall(r"^(?:PASSED|FAILED) ", run.stdout, re.M)) == len(cells), run.stdout
    return set(re.findall(r"^FAILED .*::Cell (\d)", run.stdout, re.M))


def test_a_cell_fails_where_its_output_differs_by_more_than_its_tag_allows(
    failed: set[str],
) -> None:
    assert failed == {"1", "2", "3", "4"}
