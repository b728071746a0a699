"""Aggressive training of the encoder: a first phase that keeps it from lagging behind."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn
from torch.optim import Optimizer

from tutvae.data.batches.resumable import endless
from tutvae.data.batches.text import TextBatch
from tutvae.evaluation.diagnostics import mutual_information
from tutvae.evaluation.report import aggregated, encode
from tutvae.models.protocols import LatentVariableModel
from tutvae.training.engine import Engine, Precision
from tutvae.training.loop import pick_device


@dataclass(frozen=True)
class AggressiveRound:
    """Some updates of the decoder, each after as many of the encoder as it could use.

    Attributes:
        decoder_steps: updates of the decoder.
        encoder_steps: updates of the encoder.
        mutual_information: between validation examples and codes afterwards, in nats.
    """

    decoder_steps: int
    encoder_steps: int
    mutual_information: float


def fit_aggressively(
    model: LatentVariableModel,
    train: Iterable[Any],
    *,
    valid: Iterable[Any],
    encoder_optimizer: Optimizer,
    decoder_optimizer: Optimizer,
    kl_weight: float | Callable[[int], float] = 1.0,
    window: int = 10,
    max_encoder_steps: int = 100,
    round_steps: int = 100,
    max_rounds: int = 10,
    max_grad_norm: float | None = None,
    precision: Precision = "fp32",
    device: torch.device | str | None = None,
) -> list[AggressiveRound]:
    """Train until the code holds what it can, before `fit` trains encoder and decoder together.

    Early in training the encoder lags behind: the posterior of the model moves away from the
    prior before q(z|x) does, so that the decoder learns to do without a code. Here the encoder
    alone is updated until its loss stops falling, and only then, once, the decoder. That ends
    when the mutual information between validation examples and codes stops rising.

    The same random state gives the same phase. It keeps no checkpoints: a run that is killed
    meanwhile does it again.

    Args:
        model: with an `encoder` and a `decoder`, such as `TextVAE` or `VAE`. It is moved to
            `device`.
        train: the batches, iterated over anew as often as needed.
        valid: batches to measure the mutual information on, of at most 2,048 of their examples.
        encoder_optimizer: updates the encoder's parameters.
        decoder_optimizer: updates the decoder's.
        kl_weight: factor of the KL term, or a function from the decoder's step to it.
        window: updates of the encoder that are averaged to tell whether its loss, a predicted
            token (or an example, if the data are not text), still falls.
        max_encoder_steps: at most so many of them before each update of the decoder.
        round_steps: updates of the decoder from one measurement to the next.
        max_rounds: at most so many measurements.
        max_grad_norm: see `fit`.
        precision: see `fit`.
        device: the fastest at hand by default.

    Returns:
        What happened, an entry a measurement; only the last one may not have risen.

    Raises:
        FloatingPointError: the loss became NaN or infinite.
        ValueError: a number of steps or rounds is below 1, there is no batch, or several
            processes are at work.

    Source: He et al. (2019), algorithm 1.
    """
    steps = (window, max_encoder_steps, round_steps, max_rounds)
    if min(steps) < 1:
        raise ValueError(
            "window, max_encoder_steps, round_steps and max_rounds must be at least 1, "
            f"not {', '.join(map(str, steps))}"
        )
    schedule = kl_weight if callable(kl_weight) else lambda step: kl_weight
    engine = Engine(cast(nn.Module, model), pick_device() if device is None else device, precision)
    if engine.processes > 1:
        raise ValueError("aggressive training runs in one process: start it without torchrun")
    batches = endless(train)
    encoder = _Turn(engine, "decoder", encoder_optimizer, batches, max_grad_norm)
    decoder = _Turn(engine, "encoder", decoder_optimizer, batches, max_grad_norm)
    rounds: list[AggressiveRound] = []
    while len(rounds) < max_rounds and _still_rising(rounds):
        encoder_steps = 0
        model.train()
        for _ in range(round_steps):
            weight = schedule(decoder.steps)
            encoder_steps += _train_until_flat(encoder, weight, window, max_encoder_steps)
            decoder.step(weight)
        information = mutual_information(aggregated(encode(model, valid)))
        rounds.append(AggressiveRound(round_steps, encoder_steps, information))
    return rounds


class _Turn:
    """Updates one half of a model while the other stays as it is."""

    def __init__(
        self,
        engine: Engine,
        frozen: str,
        optimizer: Optimizer,
        batches: Iterator[Any],
        max_grad_norm: float | None,
    ) -> None:
        self.engine = engine
        self.frozen: nn.Module = getattr(engine.model, frozen)
        self.stepper = engine.prepare(optimizer)
        self.batches = batches
        self.max_grad_norm = max_grad_norm
        self.steps = 0

    def step(self, kl_weight: float) -> float:
        """Take one step on the next batch; return its loss in nats a predicted token."""
        (batch, _), *_ = self.engine.shares([next(self.batches)])
        # The other half's gradients would cost time, and those of its last turn would count in
        # the norm.
        self.engine.model.zero_grad()
        self.frozen.requires_grad_(False)
        try:
            loss = self.engine.forward(batch).loss(kl_weight)
            if not math.isfinite(loss.item()):
                raise FloatingPointError(
                    f"the loss is {loss.item()} in aggressive training, at step {self.steps} of "
                    f"the half other than the {type(self.frozen).__name__}: try a smaller "
                    "learning rate or max_grad_norm"
                )
            self.engine.backward(loss)
        finally:
            self.frozen.requires_grad_(True)
        if self.max_grad_norm is not None:
            self.engine.clip(self.max_grad_norm)
        self.stepper.step()
        self.steps += 1
        tokens = batch.predicted_tokens if isinstance(batch, TextBatch) else len(batch)
        return loss.item() * len(batch) / tokens


def _train_until_flat(encoder: _Turn, kl_weight: float, window: int, max_steps: int) -> int:
    """Update the encoder until a window's mean loss is no better than the one before's.

    Returns:
        The number of updates.
    """
    previous = math.inf
    for done in range(0, max_steps, window):
        losses = [encoder.step(kl_weight) for _ in range(min(window, max_steps - done))]
        mean = sum(losses) / len(losses)
        if mean >= previous:
            return done + len(losses)
        previous = mean
    return max_steps


def _still_rising(rounds: list[AggressiveRound]) -> bool:
    """Whether the last mutual information is the largest so far."""
    values = [done.mutual_information for done in rounds]
    return len(values) < 2 or values[-1] > max(values[:-1])
