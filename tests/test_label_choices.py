"""The script that chooses chapter 8's settings looks at no label that a model would not have."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from tutvae.data.batches.labelled import label_subset
from tutvae.experiments.data import labels_of

EXPERIMENTS = Path(__file__).parents[1] / "experiments"


@pytest.fixture
def choices(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("label_choices")


def test_each_label_is_told_once_by_a_model_that_was_not_given_it(
    choices: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    known: list[np.ndarray] = []

    def told(name: str, data: Any, choice: Any, rows: np.ndarray) -> np.ndarray:
        known.append(rows)
        guesses = labels_of(data.train).copy()
        guesses[rows] = -1  # no one asks for these
        return guesses

    monkeypatch.setattr(choices, "told", told)
    data = choices.load_experiment(EXPERIMENTS / "few_labels.toml").load()
    assert choices.accuracy("few_labels", data, {}) == 1.0
    for draw in range(choices.DRAWS["few_labels"]):
        chosen = label_subset(labels_of(data.train), choices.LABELS["few_labels"], draw)
        folds = [set(x) for x in known[choices.FOLDS * draw : choices.FOLDS * (draw + 1)]]
        assert set.union(*folds) == set(chosen)
        for row in chosen:
            assert sum(row not in fold for fold in folds) == 1


def test_a_setting_is_compared_beside_the_best_of_those_before(
    choices: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def accuracy(name: str, data: Any, choice: dict[str, float]) -> float:
        weight, alpha, dropout = choice.values()
        return 0.5 + 0.1 * (weight == 1.0) + 0.1 * (alpha == 4.0) + 0.1 * (dropout == 0.2)

    monkeypatch.setattr(choices, "accuracy", accuracy)
    tried = [list(x.values()) for x in choices.compared("few_labels")]
    assert [x[:3] for x in tried] == [
        [0.1, 4.0, 0.5],
        [1.0, 4.0, 0.5],
        [1.0, 20.0, 0.5],
        [1.0, 4.0, 0.2],
    ]
    assert tried[-1][3] == pytest.approx(0.8)
