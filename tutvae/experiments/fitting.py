"""Training as `[training]` says."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sized
from pathlib import Path
from typing import Any, Protocol

import torch

from tutvae.data.batches.text import TextBatch
from tutvae.experiments.text_sections import AggressiveSection, TrainingSection
from tutvae.models.protocols import TrainableModel
from tutvae.models.text_vae import TextVAE
from tutvae.schedules import Schedule
from tutvae.training.aggressive import AggressiveRound, fit_aggressively
from tutvae.training.loop import History, fit


class TrainingBatches(Sized, Iterable[TextBatch], Protocol):
    """Batches that know how many they are: `Batches` or `MixedBatches`."""


def fit_as_described(
    model: TrainableModel,
    training: TrainingSection,
    train: TrainingBatches,
    *,
    epochs: int | None = None,
    valid: Iterable[TextBatch] | None = None,
    steps_before: int = 0,
    run_folder: Path | None = None,
    configuration: Mapping[str, Any] | None = None,
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
        run_folder: where to keep checkpoints and metrics, so that training may be interrupted.
        configuration: what the run is; see `fit`.
        progress: show a bar; by default only where somebody watches.
    """
    schedule = training.learning_rate_schedule
    return fit(
        model,
        train,
        epochs=epochs or training.epochs,
        valid=valid,
        optimizer=_optimizer(training, model.parameters()),
        scheduler=None if schedule == "constant" else schedule,
        kl_weight=_kl_weight(training, len(train), steps_before),
        free_bits=training.free_bits,
        free_bits_per=training.free_bits_per,
        max_grad_norm=training.max_grad_norm,
        accumulation_steps=training.accumulation_steps,
        patience=training.patience,
        precision=training.precision,
        run_folder=run_folder,
        configuration=configuration,
        progress=progress,
    )


def fit_aggressively_as_described(
    model: TextVAE,
    training: TrainingSection,
    aggressive: AggressiveSection,
    train: TrainingBatches,
    valid: Iterable[TextBatch],
    *,
    run_folder: Path | None = None,
    configuration: Mapping[str, Any] | None = None,
) -> list[AggressiveRound]:
    """Do the phase that comes before `fit_as_described`.

    Args:
        model: changed in place.
        training: the optimiser, its learning rate and the KL weight, which follows the decoder's
            steps.
        aggressive: the phase.
        train: the batches.
        valid: batches to measure the mutual information on.
        run_folder: keeps the finished phase.
        configuration: what the run is; see `fit`.
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
        run_folder=run_folder,
        configuration=configuration,
        **aggressive.model_dump(),
    )


def _kl_weight(
    training: TrainingSection, batches_per_epoch: int, steps_before: int = 0
) -> float | Schedule:
    """The KL weight as `fit` takes it, after some steps of its schedule."""
    if isinstance(training.kl_weight, float):
        return training.kl_weight
    steps_per_epoch = math.ceil(batches_per_epoch / training.accumulation_steps)
    schedule = training.kl_weight.build(steps_per_epoch)
    return lambda step: schedule(steps_before + step)


def _optimizer(
    training: TrainingSection, parameters: Iterator[torch.nn.Parameter]
) -> torch.optim.Optimizer:
    """What changes the weights."""
    if training.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=training.learning_rate)
    return torch.optim.Adam(parameters, lr=training.learning_rate)
