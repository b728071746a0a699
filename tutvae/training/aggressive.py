"""Aggressive training of the encoder: a first phase that keeps it from lagging behind."""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from tutvae.data.batches.resumable import endless
from tutvae.data.batches.text_batch import TextBatch
from tutvae.evaluation.diagnostics import mutual_information
from tutvae.evaluation.report import aggregated, encode
from tutvae.models.protocols import LatentVariableModel
from tutvae.training import checkpoints
from tutvae.training.engine import Engine, Precision
from tutvae.training.loop import pick_device
from tutvae.training.run_folder import RunFolder, locked
from tutvae.training.state import can_resume
from tutvae.training.step import Stepper, check_loss_options, check_whole


@dataclass(frozen=True)
class AggressiveRound:
    """Some updates of the decoder, each after as many of the encoder as it could use.

    `mutual_information`, in nats, is that between validation examples and codes afterwards.
    """

    decoder_steps: int
    encoder_steps: int
    mutual_information: float
    seconds: float = field(default=0.0, compare=False)


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
    run_folder: str | Path | None = None,
    configuration: Mapping[str, Any] | None = None,
) -> list[AggressiveRound]:
    """Train until the code holds what it can, before `fit` trains encoder and decoder together.

    Early in training the encoder lags behind: the posterior of the model moves away from the
    prior before q(z|x) does, so that the decoder learns to do without a code. Here the encoder
    alone is updated until its loss stops falling, and only then, once, the decoder. That ends
    when the mutual information between validation examples and codes stops rising; there is an
    entry for each measurement.

    With a `run_folder` a finished phase is not done again: the same call returns to its end. One
    that is killed meanwhile begins anew. The errors are those of `fit`; several processes are one.

    Args:
        model: with an `encoder` and a `decoder`, such as `TextVAE` or `VAE`.
        train: the batches, iterated over anew as often as needed; those that know their place
            in an epoch are in the end where they were before.
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
        device: see `fit`.
        run_folder: keeps the finished phase; the same folder that `fit` is given.
        configuration: the same that `fit` is given.

    Source: He et al. (2019), algorithm 1.
    """
    check_whole(1, window=window, max_encoder_steps=max_encoder_steps)
    check_whole(1, round_steps=round_steps, max_rounds=max_rounds)
    check_loss_options(max_grad_norm, kl_weight)
    schedule = kl_weight if callable(kl_weight) else lambda step: kl_weight
    network: Any = model  # its protocol does not say that it is a module of two halves
    engine = Engine(network, device or pick_device(), precision)
    if engine.processes > 1:
        raise ValueError("aggressive training runs in one process: start it without torchrun")
    folder = None if run_folder is None else RunFolder(run_folder)
    with locked(folder.path) if folder else nullcontext():
        own = folder.open(configuration) if folder else {}
        if folder and folder.aggressive.exists():
            return _finished_before(folder.aggressive, network)
        feed: Any = train
        place = feed.state_dict() if can_resume(feed) else None
        batches = endless(train)
        of_encoder = Stepper(engine, encoder_optimizer, max_grad_norm)
        of_decoder = Stepper(engine, decoder_optimizer, max_grad_norm)
        encoder = _Turn(network.decoder, of_encoder, batches)
        decoder = _Turn(network.encoder, of_decoder, batches)
        rounds: list[AggressiveRound] = []
        highest, rising = -math.inf, True
        while len(rounds) < max_rounds and rising:
            model.train()
            began, encoder_steps = time.perf_counter(), 0
            for _ in range(round_steps):
                weight = schedule(decoder.steps)
                encoder_steps += _train_until_flat(encoder, weight, window, max_encoder_steps)
                decoder.step(weight)
            information = mutual_information(aggregated(encode(model, valid)))
            seconds = time.perf_counter() - began
            rounds.append(AggressiveRound(round_steps, encoder_steps, information, seconds))
            highest, rising = max(highest, information), information > highest
        if place is not None:
            feed.load_state_dict(place)
        if folder:
            said = [asdict(one) for one in rounds]
            about = {"configuration": own, "random": checkpoints.random_state(), "rounds": said}
            checkpoints.save_tensors(folder.aggressive, network.state_dict(), about)
    return rounds


def _finished_before(path: Path, model: nn.Module) -> list[AggressiveRound]:
    weights, about = checkpoints.load_tensors(path)
    checkpoints.set_weights(model, weights, str(path))
    try:
        checkpoints.set_random_state(about["random"])
        return [AggressiveRound(**done) for done in about["rounds"]]
    except (KeyError, TypeError) as error:
        raise checkpoints.not_ours(path, repr(error)) from error


@dataclass
class _Turn:
    """Updates one half of a model while the other stays as it is."""

    frozen: nn.Module
    stepper: Stepper
    batches: Iterator[Any]
    steps: int = 0

    def step(self, kl_weight: float) -> float:
        """Take one step on the next batch; return its loss in nats a predicted token."""
        batch = next(self.batches)
        self.frozen.requires_grad_(False)  # its gradients would cost time
        try:
            loss, _ = self.stepper.step([batch], self.steps, kl_weight)
        finally:
            self.frozen.requires_grad_(True)
        self.stepper.check()
        self.steps += 1
        tokens = batch.predicted_tokens if isinstance(batch, TextBatch) else len(batch)
        return loss.item() * len(batch) / tokens


def _train_until_flat(encoder: _Turn, kl_weight: float, window: int, max_steps: int) -> int:
    """Update the encoder until a window's mean loss no longer falls; return the updates."""
    previous = math.inf
    for done in range(0, max_steps, window):
        losses = [encoder.step(kl_weight) for _ in range(min(window, max_steps - done))]
        mean = sum(losses) / len(losses)
        if mean >= previous:
            return done + len(losses)
        previous = mean
    return max_steps
