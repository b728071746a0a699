"""Training as `[training]` says."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sized
from pathlib import Path
from typing import Any, Protocol

import torch

from tutvae.data.batching import TextBatch
from tutvae.experiments.text_sections import TrainingSection
from tutvae.latent import TrainableModel
from tutvae.training import History, fit


class TrainingBatches(Sized, Iterable[TextBatch], Protocol):
    """Batches that know how many they are: `Batches` or `MixedBatches`."""


def fit_as_described(
    model: TrainableModel,
    training: TrainingSection,
    train: TrainingBatches,
    *,
    epochs: int | None = None,
    valid: Iterable[TextBatch] | None = None,
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
        run_folder: where to keep checkpoints and metrics, so that training may be interrupted.
        configuration: what the run is; see `fit`.
        progress: show a bar; by default only where somebody watches.
    """
    kl_weight, schedule = training.kl_weight, training.learning_rate_schedule
    steps_per_epoch = math.ceil(len(train) / training.accumulation_steps)
    return fit(
        model,
        train,
        epochs=epochs or training.epochs,
        valid=valid,
        optimizer=_optimizer(training, model.parameters()),
        scheduler=None if schedule == "constant" else schedule,
        kl_weight=kl_weight if isinstance(kl_weight, float) else kl_weight.build(steps_per_epoch),
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


def _optimizer(
    training: TrainingSection, parameters: Iterator[torch.nn.Parameter]
) -> torch.optim.Optimizer:
    """What changes the weights."""
    if training.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=training.learning_rate)
    return torch.optim.Adam(parameters, lr=training.learning_rate)
