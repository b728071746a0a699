from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutvae.schedules import (
    Schedule,
    constant,
    cosine,
    cyclical,
    linear,
    logistic,
    temperature_decay,
)

EVERY = [constant(0.3), linear(7), linear(7, 0.2), logistic(9), cosine(7), cyclical(7, 0.4)]


@pytest.mark.parametrize(
    ("schedule", "weights"),
    [
        (constant(), {0: 1.0, 1: 1.0, 10**9: 1.0}),
        (constant(0.25), {0: 0.25, 500: 0.25}),
        (linear(100), {0: 0.0, 1: 0.01, 50: 0.5, 99: 0.99, 100: 1.0, 10**9: 1.0}),
        (linear(100, start=0.2), {0: 0.2, 50: 0.6, 75: 0.8, 100: 1.0, 101: 1.0}),
        (linear(1), {0: 0.0, 1: 1.0}),
        (logistic(1000), {0: 4.5397869e-5, 1000: 0.5, 1200: 0.8807971, 2000: 0.9999546}),
        (logistic(2500, 0.0025), {0: 0.0019267347, 2500: 0.5, 2900: 0.7310586, 10**9: 1.0}),
        (logistic(100, 0.01), {0: 0.2689414, 100: 0.5, 200: 0.7310586}),
        (cosine(60), {0: 0.0, 10: 0.0669873, 20: 0.25, 30: 0.5, 40: 0.75, 60: 1.0, 61: 1.0}),
        (cyclical(100), {0: 0, 25: 0.5, 49: 0.98, 50: 1, 99: 1, 100: 0, 125: 0.5, 199: 1, 200: 0}),
        (cyclical(100, ramp=0.25), {0: 0, 10: 0.4, 25: 1, 99: 1, 100: 0, 310: 0.4}),
        (cyclical(100, ramp=1), {0: 0, 50: 0.5, 99: 0.99, 100: 0}),
    ],
)
def test_hand_values(schedule: Schedule, weights: dict[int, float]) -> None:
    for step, weight in weights.items():
        assert schedule(step) == pytest.approx(weight, rel=1e-6, abs=1e-12), step


@pytest.mark.parametrize("schedule", EVERY)
@given(step=st.integers(0, 10**12))
def test_a_weight_lies_between_0_and_1_and_repeats(schedule: Schedule, step: int) -> None:
    assert 0 <= schedule(step) <= 1
    assert schedule(step) == schedule(step)


@pytest.mark.parametrize("schedule", EVERY[:-1])
def test_all_but_the_cyclical_only_rise(schedule: Schedule) -> None:
    weights = [schedule(step) for step in range(40)]
    assert weights == sorted(weights)


def test_cycles_are_alike() -> None:
    schedule = cyclical(13, 0.6)
    cycles = [[schedule(step) for step in range(start, start + 13)] for start in (0, 13, 130)]
    assert cycles[0] == cycles[1] == cycles[2]


@given(step=st.integers(0, 4000))
def test_the_logistic_curve_is_the_formula(step: int) -> None:
    by_hand = 1 / (1 + math.exp(-0.004 * (step - 1500)))
    assert logistic(1500, 0.004)(step) == pytest.approx(by_hand, rel=1e-9)


@pytest.mark.parametrize(
    ("schedule", "temperatures"),
    [
        (temperature_decay(), {0: 1.0, 1: 0.99999, 50_000: 0.6065307, 70_000: 0.5, 10**9: 0.5}),
        (temperature_decay(0.01, 0.2), {0: 1.0, 100: 0.3678794, 150: 0.2231302, 170: 0.2}),
        (temperature_decay(2.0, floor=1.0), {0: 1.0, 1: 1.0}),
    ],
)
def test_temperatures_by_hand(schedule: Schedule, temperatures: dict[int, float]) -> None:
    for step, temperature in temperatures.items():
        assert schedule(step) == pytest.approx(temperature, rel=1e-6), step


@given(step=st.integers(0, 10**12), rate=st.floats(1e-9, 1e3), floor=st.floats(1e-6, 1))
def test_a_temperature_only_falls_and_never_below_its_floor(
    step: int, rate: float, floor: float
) -> None:
    schedule = temperature_decay(rate, floor)
    assert floor <= schedule(step + 1) <= schedule(step) <= schedule(0) == 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: constant(-0.1), "at least 0"),
        (lambda: linear(0), "steps must be positive"),
        (lambda: linear(10, -0.5), r"start must lie in \[0, 1\]"),
        (lambda: linear(10, 1.5), r"start must lie in \[0, 1\]"),
        (lambda: logistic(0), "midpoint must be positive"),
        (lambda: logistic(10, 0), "slope must be positive"),
        (lambda: cosine(-1), "steps must be positive"),
        (lambda: cyclical(0), "period must be positive"),
        (lambda: cyclical(10, 0), r"ramp must lie in \(0, 1\]"),
        (lambda: cyclical(10, 1.1), r"ramp must lie in \(0, 1\]"),
        (lambda: temperature_decay(0), "rate must be positive"),
        (lambda: temperature_decay(0.1, 0), r"floor must lie in \(0, 1\]"),
        (lambda: temperature_decay(0.1, 1.5), r"floor must lie in \(0, 1\]"),
    ],
)
def test_bad_input(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
