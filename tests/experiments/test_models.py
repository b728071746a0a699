from __future__ import annotations

import math
from typing import Any

import pytest

from tutvae.experiments.models import KLWeightSection


class TestKLWeights:
    @pytest.mark.parametrize(
        ("section", "weights"),
        [
            # Hand values at steps 0, 5, 10, 20 and 25 with 10 steps an epoch.
            ({"schedule": "linear", "steps": 20}, [0, 0.25, 0.5, 1, 1]),
            ({"schedule": "linear", "epochs": 2, "start": 0.5}, [0.5, 0.625, 0.75, 1, 1]),
            ({"schedule": "cosine", "epochs": 2}, [0, 0.5 - 0.5**1.5, 0.5, 1, 1]),
            ({"schedule": "cyclical", "epochs": 2}, [0, 0.5, 1, 0, 0.5]),
            ({"schedule": "cyclical", "steps": 20, "ramp": 0.25}, [0, 1, 1, 0, 1]),
            ({"schedule": "logistic", "epochs": 1}, [1 / (1 + math.exp(10)), None, 0.5]),
            (
                {"schedule": "logistic", "steps": 10, "slope": 0.2},
                [1 / (1 + math.exp(2)), None, 0.5],
            ),
            ({"schedule": "linear", "epochs": 0.01}, [0, 1, 1, 1, 1]),
        ],
    )
    def test_every_schedule_in_steps_and_in_epochs(
        self, section: dict[str, Any], weights: list[float | None]
    ) -> None:
        schedule = KLWeightSection.model_validate(section).build(steps_per_epoch=10)
        for step, weight in zip((0, 5, 10, 20, 25), weights, strict=False):
            assert weight is None or schedule(step) == pytest.approx(weight, abs=1e-12)
