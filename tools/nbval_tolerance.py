"""Lets a chapter's cell say by how much its numbers may differ from the stored ones.

    python -m pytest -p tools.nbval_tolerance --nbval notebooks/*.ipynb

The numbers in the text of a cell with the tag `tolerance:0.02` may each differ by 0.02. What stands
between them must be the same, up to the number of spaces that align it. Without the tag nbval
compares the outputs exactly.
"""

import functools
import math
import re
from collections.abc import Callable
from typing import Any

import pytest
from nbformat import NotebookNode

TAG = "tolerance:"
NUMBER = re.compile(r"([-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?)")


def tolerance(cell: NotebookNode) -> float | None:
    """Returns by how much a cell's numbers may differ, or None where its tags do not say it.

    Raises:
        ValueError: if the tag holds no number.
    """
    tags = (tag for tag in cell.metadata.get("tags", []) if tag.startswith(TAG))
    return next((float(tag.removeprefix(TAG)) for tag in tags), None)


def agree(text: str, stored: str, allowed: float) -> bool:
    """Tells whether two texts have the same words between numbers that differ by no more."""
    pieces, stored_pieces = NUMBER.split(text), NUMBER.split(stored)
    words, stored_words = ([piece.split() for piece in p[::2]] for p in (pieces, stored_pieces))
    if words != stored_words:
        return False
    pairs = zip(map(float, pieces[1::2]), map(float, stored_pieces[1::2]), strict=True)
    # The last term is for the decimal numbers that a float cannot hold: 0.3 - 0.1 > 0.2.
    return all(math.isclose(a, b, rel_tol=1e-12, abs_tol=allowed * (1 + 1e-9)) for a, b in pairs)


def with_stored_numbers(output: Any, stored: Any, allowed: float) -> Any:
    """Returns an output with the stored text wherever the two agree."""
    if isinstance(output, str) and isinstance(stored, str):
        return stored if agree(output, stored, allowed) else output
    if isinstance(output, dict) and isinstance(stored, dict):
        return NotebookNode(
            {key: with_stored_numbers(x, stored.get(key), allowed) for key, x in output.items()}
        )
    return output


def compare(
    exactly: Callable[..., bool], allowed: float, outputs: list[Any], stored: list[Any]
) -> bool:
    """Compares a cell's outputs with the stored ones as nbval does, which reports what differs."""
    pairs = zip(outputs, stored, strict=False)
    near = [with_stored_numbers(*pair, allowed) for pair in pairs]
    return exactly(near + outputs[len(near) :], stored)


def pytest_itemcollected(item: pytest.Item) -> None:
    """Gives every cell that has the tag its own comparison."""
    if hasattr(item, "cell") and (allowed := tolerance(item.cell)) is not None:
        item.compare_outputs = functools.partial(compare, item.compare_outputs, allowed)
