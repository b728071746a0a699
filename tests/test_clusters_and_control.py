"""The scripts of chapter 9: their parts on texts of a line, and what their records hold."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import tutvae

ROOT = Path(__file__).parents[1]
FOUR = {"accuracy", "majority_accuracy", "nmi", "ari"}


@pytest.fixture(scope="module")
def clusters(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("clusters")


@pytest.fixture(scope="module")
def control(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("control")


def record(*path: str) -> Any:
    return json.loads((ROOT / "results").joinpath(*path).read_text(encoding="utf-8"))


@pytest.fixture
def task(control: ModuleType) -> Any:
    """Six texts, poor (0) or good (1), of which two are to get the other label."""
    texts = ["the soup was awful", "the soup was great", "the bed was awful", "the bed was great"]
    train = tutvae.Texts(texts, [0, 1, 0, 1], label_names=("poor", "good"))
    task = control.Task("yelp", train, ["the soup was awful", "the bed was great"], [0, 1], [1, 0])
    task.stars = lambda label: label
    return task


def test_the_nearest_text_is_taken_from_those_with_the_wanted_label(
    control: ModuleType, task: Any
) -> None:
    assert control.nearest(task) == ["the soup was great", "the bed was awful"]


def test_only_words_that_tell_the_label_are_exchanged(control: ModuleType, task: Any) -> None:
    assert control.exchanged(task) == ["the soup was great", "the bed was awful"]


def test_any_text_that_is_taken_has_the_wanted_label(control: ModuleType, task: Any) -> None:
    task.new = np.repeat([1, 0], 10)
    drawn = [text.split()[-1] for text in control.another(task)]
    assert drawn == 10 * ["great"] + 10 * ["awful"]


def test_what_is_kept_counts_words_once(control: ModuleType, task: Any) -> None:
    assert control.kept(task, ["a a b"], ["a b b b"]) == {"words": 0.5}
    assert control.kept(task, ["a"], ["a"]) == {"words": 1.0}


def test_first_words_are_small_and_without_marks_glued_to_them(control: ModuleType) -> None:
    assert control.first_words("Great SOUP! I'd go.") == "great soup ! i'd go ."


def test_a_model_without_a_code_costs_what_its_decoder_says(control: ModuleType, task: Any) -> None:
    decoder = tutvae.LSTMDecoder(len(task.tokenizer), 4, 4, task.classes)
    elbo = control.ConditionalLanguageModel(decoder)(task.encoded.batch())
    assert elbo.kl.tolist() == [0.0] * 4
    assert (elbo.reconstruction > 0).all()


def test_the_four_numbers_and_the_clusters_in_use(clusters: ModuleType) -> None:
    documents = type("Documents", (), {"labels": np.array([0, 0, 1, 1])})
    found = clusters.compared(documents, np.array([0, 0, 3, 3]))
    assert found == {**dict.fromkeys(FOUR, 1.0), "clusters": 2}


def test_entropy_is_in_nats(clusters: ModuleType) -> None:
    np.testing.assert_allclose(clusters.entropy(np.array([[0.5, 0.5], [1, 0]])), [np.log(2), 0])


def test_no_run_is_planned_twice(clusters: ModuleType) -> None:
    plans = [json.dumps(run) for run in clusters.runs()]
    assert len(set(plans)) == len(plans)


def test_every_row_of_clusters_has_five_seeds() -> None:
    runs = record("clusters", "runs.json")["runs"]
    rows = Counter((x["corpus"], x["method"], json.dumps(x.get("options"))) for x in runs)
    assert set(rows.values()) == {5}
    assert all(run.keys() >= FOUR for run in runs)


def test_each_map_has_a_place_for_each_label() -> None:
    maps = record("clusters", "maps.json")
    for name in ("codes", "lsa", "encoder"):
        assert len(maps[name]["points"]) == 2 * len(maps["labels"])
    assert (ROOT / "results" / "clusters" / "maps.json").stat().st_size < 100_000


def test_every_model_of_control_has_its_seeds(control: ModuleType) -> None:
    for name, codes in control.CODES.items():
        runs = record("control", "control.json")[name]["runs"]
        planned = {(code, seed) for code in codes for seed in control.SEEDS[name]}
        assert {(run["code"], run["seed"]) for run in runs} == planned
