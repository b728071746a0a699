"""The page's tables say what the record says, and what was made of it is right."""

import json
from pathlib import Path

import pytest

from benchmarks import page

ROW = {
    "question": "training",
    "unit": "tokens",
    "threads": 2,
    "rates": {"usual": 100.0, "fp32": 250.0, "bf16": 400.0},
    "matrices": {"fp32": 50.0, "bf16": 160.0},
    "gflop": 0.1,
    "published": 1.6,
    "whole": None,
    "megabytes": None,
}


def test_the_tables_are_those_of_the_record() -> None:
    record = json.loads(page.RECORD.read_text(encoding="utf-8"))
    assert page.TABLES.read_text(encoding="utf-8") == page.tables(record)


def test_gains_are_over_the_first_way() -> None:
    assert page.gains(ROW) == {"usual": 1.0, "fp32": 2.5, "bf16": 4.0}


def test_shares_are_of_the_matrix_rate_in_the_same_precision() -> None:
    assert page.shares(ROW) == pytest.approx({"usual": 0.2, "fp32": 0.5, "bf16": 0.25})


def test_public_code_is_compared_by_the_matrix_rates() -> None:
    assert page.beside_published(ROW) == pytest.approx(1.25)


def test_the_page_includes_every_table() -> None:
    text = (page.ROOT / "book" / "speed.md").read_text(encoding="utf-8")
    names = [line[5:-4] for line in page.TABLES.read_text().splitlines() if line[:5] == "<!-- "]
    assert all(f":start-after: <!-- {name} -->" in text for name in names)


def test_the_figure_is_drawn(tmp_path: Path) -> None:
    page.draw({"rows": [ROW]}, tmp_path / "speed.png")
    assert (tmp_path / "speed.png").stat().st_size > 0
