"""Training as `[training]` says."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from typing import Protocol

import torch

from tutvae.aggressive import AggressiveRound, fit_aggressively
from tutvae.data.batching import TextBatch
from tutvae.evaluation import LatentVariableModel
from tutvae.experiments.text_sections import AggressiveSection, TrainingSection
from tutvae.models.text_vae import TextVAE
from tutvae.schedules import Schedule
from tutvae.training import History, fit


class TrainingBatches(Sized, Iterable[TextBatch], Protocol):
    """Batches that know how many they are: `Batches` or `MixedBatches`."""


def fit_as_described(
    model: LatentVariableModel,
    training: TrainingSection,
    train: TrainingBatches,
    *,
    epochs: int | None = None,
    valid: Iterable[TextBatch] | None = None,
    steps_before: int = 0,
    progress: bool | None = None,
) -> History:
    """Fit a model of texts.

    Args:
        model: what `fit` takes.
        training: the optimiser, its learning rate and the loss. The sizes of the batches are
            those of `train`.
        train: the batches.
        epochs: passes over them, where not those of `training`.
        valid: batches to measure after every epoch.
        steps_before: of a first phase; a schedule of the KL weight goes on after them.
        progress: show a bar; by default only where somebody watches.
    """
    epochs = epochs or training.epochs
    optimizer = _optimizer(training, model.parameters())
    return fit(
        model,
        train,
        epochs=epochs,
        valid=valid,
        optimizer=optimizer,
        scheduler=_scheduler(training, optimizer, epochs),
        kl_weight=_kl_weight(training, len(train), steps_before),
        free_bits=training.free_bits,
        free_bits_per=training.free_bits_per,
        max_grad_norm=training.max_grad_norm,
        precision=training.precision,
        progress=progress,
    )


def fit_aggressively_as_described(
    model: TextVAE,
    training: TrainingSection,
    aggressive: AggressiveSection,
    train: TrainingBatches,
    valid: Iterable[TextBatch],
) -> list[AggressiveRound]:
    """Do the phase that comes before `fit_as_described`.

    Args:
        model: changed in place.
        training: the optimiser, its learning rate and the KL weight, which follows the decoder's
            steps.
        aggressive: the phase.
        train: the batches.
        valid: batches to measure the mutual information on.
    """
    return fit_aggressively(
        model,
        train,
        valid=valid,
        encoder_optimizer=_optimizer(training, model.encoder.parameters()),
        decoder_optimizer=_optimizer(training, model.decoder.parameters()),
        kl_weight=_kl_weight(training, len(train)),
        max_grad_norm=training.max_grad_norm,
        precision=training.precision,
        **aggressive.model_dump(),
    )


def _kl_weight(
    training: TrainingSection, steps_per_epoch: int, steps_before: int = 0
) -> float | Schedule:
    """The KL weight as `fit` takes it, after some steps of its schedule."""
    if isinstance(training.kl_weight, float):
        return training.kl_weight
    schedule = training.kl_weight.build(steps_per_epoch)
    return lambda step: schedule(steps_before + step)


def _optimizer(
    training: TrainingSection, parameters: Iterator[torch.nn.Parameter]
) -> torch.optim.Optimizer:
    """What changes the weights."""
    if training.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=training.learning_rate)
    return torch.optim.Adam(parameters, lr=training.learning_rate)


def _scheduler(
    training: TrainingSection, optimizer: torch.optim.Optimizer, epochs: int
) -> torch.optim.lr_scheduler.LRScheduler | None:
    """What changes the learning rate after every epoch."""
    if training.learning_rate_schedule == "cosine":
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    if training.learning_rate_schedule == "linear":
        return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: 1 - epoch / epochs)
    return None
