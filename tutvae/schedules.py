"""Schedules: pure functions from the step (0, 1, 2, ...) to a KL weight or a temperature.

`fit(..., kl_weight=linear(1000))` anneals over the first 1,000 steps. Lengths are positive.
All raise ValueError for an argument outside the range that is given for it.

>>> weight = tutvae.schedules.linear(1000)
>>> [weight(step) for step in (0, 500, 1000, 2000)]
[0.0, 0.5, 1.0, 1.0]
"""

import math
from collections.abc import Callable

Schedule = Callable[[int], float]


def constant(weight: float = 1.0) -> Schedule:
    """Keep one `weight` of the KL, at least 0, throughout; 1 trains on the bound itself.

    Source: Higgins et al. (2017). Chapter 5.
    """
    if weight < 0:
        raise ValueError(f"a KL weight must be at least 0, not {weight}")
    return lambda step: weight


def linear(steps: int, start: float = 0.0) -> Schedule:
    """Rise evenly from `start`, in [0, 1], at step 0 to 1 at step `steps`, and stay there.

    Source: Bowman et al. (2016). Chapter 5.
    """
    _check_positive("steps", steps)
    if not 0 <= start <= 1:
        raise ValueError(f"start must lie in [0, 1], not {start}")
    return lambda step: start + (1 - start) * min(1.0, step / steps)


def logistic(midpoint: float, slope: float | None = None) -> Schedule:
    """Rise along a logistic curve: 1 / (1 + exp(-slope (step - midpoint))).

    The weight is one half at step `midpoint`; the `slope`, per step, is 10 / midpoint by default;
    both are positive. The curve never reaches 0 or 1. It starts at 1 / (1 + exp(slope *
    midpoint)): 0.00005 with the default slope, but 0.27 where `slope * midpoint` is 1.

    Source: Bowman et al. (2016). Chapter 5.
    """
    _check_positive("midpoint", midpoint)
    steepness = 10 / midpoint if slope is None else slope
    _check_positive("slope", steepness)
    # The same function as in the docstring, without its overflow.
    return lambda step: 0.5 + 0.5 * math.tanh(0.5 * steepness * (step - midpoint))


def cosine(steps: int) -> Schedule:
    """Rise along half a cosine wave, from 0 at step 0 to 1 at step `steps`, and stay there.

    Source: Fu et al. (2019). Chapter 5.
    """
    _check_positive("steps", steps)
    return lambda step: 0.5 - 0.5 * math.cos(math.pi * min(1.0, step / steps))


def cyclical(period: int, ramp: float = 0.5) -> Schedule:
    """Start again from 0 every `period` steps: rise evenly for a part of them, then stay at 1.

    That part is `ramp`, in (0, 1]. Fu et al. fit four cycles into a run.

    Source: Fu et al. (2019). Chapter 5.
    """
    _check_positive("period", period)
    if not 0 < ramp <= 1:
        raise ValueError(f"ramp must lie in (0, 1], not {ramp}")
    return lambda step: min(1.0, step % period / (period * ramp))


def temperature_decay(rate: float = 1e-5, floor: float = 0.5) -> Schedule:
    """Lower the temperature of Gumbel-softmax labels: exp(-rate * step), but never below `floor`.

    The `rate` is per step and positive; the `floor` lies in (0, 1].

    Source: Jang et al. (2017); Yang et al. (2017). Chapter 8.
    """
    _check_positive("rate", rate)
    if not 0 < floor <= 1:
        raise ValueError(f"floor must lie in (0, 1], not {floor}")
    return lambda step: max(floor, math.exp(-rate * step))


def _check_positive(name: str, value: float) -> None:
    if not value > 0:
        raise ValueError(f"{name} must be positive, not {value}")
