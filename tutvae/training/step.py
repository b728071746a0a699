"""One step of training, which `fit` and `fit_aggressively` share."""

import math
import numbers
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from tutvae.training.captured import CapturedSteps, can_capture
from tutvae.training.engine import Engine

LOOKED_AT_TOGETHER = 50  # losses on a GPU, because each look waits for it


def adam(parameters: Iterable[nn.Parameter], learning_rate: float = 1e-3) -> Adam:
    """Make an Adam whose step is a single pass over memory, where the device has a kernel for it.

    Source: Kingma & Ba (2015). No chapter defines it: it is torch's.
    """
    parameters = list(parameters)
    fused = all(parameter.device.type in ("cpu", "cuda") for parameter in parameters)
    return Adam(parameters, lr=learning_rate, fused=fused)


@dataclass(eq=False)
class Stepper:
    """Takes an optimizer's steps; stops training at a loss that is NaN or infinite.

    On the CPU that is before the loss reaches the weights, on a GPU before any checkpoint.
    """

    engine: Engine
    optimizer: Optimizer
    max_grad_norm: float | None = None

    def __post_init__(self) -> None:
        self.together = 1 if self.engine.device.type == "cpu" else LOOKED_AT_TOGETHER
        self.losses: list[tuple[int, Tensor]] = []
        self.captured: CapturedSteps | None = None
        if can_capture(self.engine, self.optimizer):
            self.captured = CapturedSteps(self.engine, self.optimizer, self.max_grad_norm)

    def step(
        self, batches: Sequence[Any], number: int, *loss_options: Any
    ) -> tuple[Tensor, list[dict[str, Tensor]]]:
        """Take one step on the union of some batches; `loss_options` are those of `Elbo.loss`.

        Returns the step's loss, and for each batch the terms of its bound, `[B]` each.
        """
        if taken := self.captured and self.captured.step(batches, *loss_options):
            self.watch(taken[0], number)
            return taken[0], [taken[1]]
        self.engine.model.zero_grad()  # of all: what another optimizer left counts in the norm
        total = torch.zeros((), device=self.engine.device)
        terms = []
        for batch, share in self.engine.shares(batches):
            elbo = self.engine.forward(batch)
            loss = share * elbo.loss(*loss_options)
            self.watch(loss, number)
            self.engine.backward(loss)
            total += loss.detach()
            terms.append({name: x.detach() for name, x in elbo.terms.items()})
        self.engine.update(self.optimizer, self.max_grad_norm)
        return total, terms

    def watch(self, loss: Tensor, step: int) -> None:
        """Take a loss into account, and look at the latest if it is time."""
        self.losses.append((step, loss.detach()))
        if len(self.losses) >= self.together:
            self.check()

    def check(self) -> None:
        """Look at all losses that were not looked at yet."""
        seen, self.losses = self.losses, []
        values = torch.stack([loss for _, loss in seen]).tolist() if seen else []
        for (step, _), value in zip(seen, values, strict=True):
            if not math.isfinite(value):
                rate = self.optimizer.param_groups[0]["lr"]
                raise FloatingPointError(
                    f"the loss is {value} at step {step}, with learning rate {rate:g}: look for "
                    "NaN in the data, or try a smaller learning rate, max_grad_norm (5, say) or, "
                    'if it was "fp16", precision "bf16" or "fp32"'
                )


def check_whole(least: int, **options: Any) -> None:
    """Raise ValueError for the first option that is no whole number of at least `least`."""
    for name, value in options.items():
        if not isinstance(value, numbers.Integral) or value < least:
            raise ValueError(f"{name} must be at least {least} and whole, not {value!r}")


def check_loss_options(
    max_grad_norm: float | None, kl_weight: Any, free_bits: float = 0.0, rate: float | None = None
) -> None:
    """Raise ValueError for an option of the loss that makes no sense."""
    if max_grad_norm is not None and not max_grad_norm > 0:
        raise ValueError(f"max_grad_norm must be positive, not {max_grad_norm}")
    given = {"kl_weight": kl_weight, "free_bits": free_bits, "rate": 0 if rate is None else rate}
    for name, value in given.items():
        if not callable(value) and not 0 <= value < math.inf:
            raise ValueError(f"{name} must be a number of at least 0, not {value}")
