"""The texts that the package had never seen, and what recorded runs made of them."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter, defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
KINDS = ROOT / "experiments" / "three_kinds.csv"
RECORD = ROOT / "results" / "own_data" / "three_kinds.json"


@pytest.fixture(scope="module")
def rows() -> list[dict[str, str]]:
    with KINDS.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_there_are_three_kinds_of_at_least_300_texts(rows: list[dict[str, str]]) -> None:
    assert len({row["text"] for row in rows}) == len(rows)
    counts = Counter(row["kind"] for row in rows)
    assert len(counts) == 3
    assert min(counts.values()) >= 300


def test_no_template_is_behind_more_than_three_texts(rows: list[dict[str, str]]) -> None:
    texts_with = defaultdict(set)
    for number, row in enumerate(rows):
        found = re.findall(r"\w+", row["text"].lower())
        for start in range(len(found) - 4):
            texts_with[tuple(found[start : start + 5])].add(number)
    assert max(map(len, texts_with.values())) <= 3


def test_codes_of_bags_tell_the_kinds_apart_where_tf_idf_does() -> None:
    accuracies = json.loads(RECORD.read_text(encoding="utf-8"))["accuracies"]
    means = {name: sum(values) / len(values) for name, values in accuracies.items()}
    assert means["SentenceVAE of bags"] >= means["TF-IDF + SVD"] - 0.03
    assert means["SentenceVAE of bags"] > means["SentenceVAE"]
