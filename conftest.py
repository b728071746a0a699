"""The examples in the package's docstrings, which pytest runs as it runs the tests."""

from __future__ import annotations

import os
from typing import Any

import pytest

# The package is imported where it is used: sooner, its coverage would not be measured.


@pytest.fixture(autouse=True)
def imported(doctest_namespace: dict[str, Any]) -> None:
    """An example finds the two modules imported that every user imports first."""
    import torch

    import tutvae

    doctest_namespace.update(tutvae=tutvae, torch=torch)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the example of a corpus that is read from files only where the files are."""
    from tutvae.data.corpora import CORPORA

    of_files = {f"tutvae.data.corpora.{name}" for name, entry in CORPORA.items() if entry.folder}
    for item in items:
        if item.name in of_files and not os.environ.get("TUTVAE_DATA"):
            item.add_marker(pytest.mark.skip(reason="TUTVAE_DATA names no folder of corpora"))
