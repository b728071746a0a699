"""Training: one loop for every model of the book."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from operator import length_hint
from pathlib import Path
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    LambdaLR,
    LRScheduler,
    ReduceLROnPlateau,
)
from tqdm import tqdm

from tutvae.bounds import FreeBitsPer
from tutvae.evaluation.report import mean_terms
from tutvae.models.protocols import TrainableModel
from tutvae.training.engine import Engine, Precision
from tutvae.training.run_folder import RunFolder
from tutvae.training.state import TrainingState, best_record, bound_of

SchedulerName = Literal["plateau", "linear", "cosine"]

# Losses on a GPU that are looked at together, because each look waits for it.
LOOKED_AT_TOGETHER = 50


class History:
    """What happened in training, one record an epoch. Chapter 1.

    `history["train_kl"]` is a column as a list; `history.records` are the rows. Columns:
    epoch, step, kl_weight, learning_rate, train_reconstruction, train_kl and, with a
    validation set, valid_reconstruction and valid_kl; of a model with labels, train_label_kl and
    valid_label_kl as well. Terms are in nats an example.

    Args:
        records: rows to start from.
        seconds: time that training took, all its resumptions together.
    """

    def __init__(self, records: Iterable[dict[str, float]] = (), seconds: float = 0.0) -> None:
        self.records: list[dict[str, float]] = list(records)
        self.seconds = seconds

    @classmethod
    def from_columns(cls, columns: dict[str, list[float]]) -> History:
        """Rebuild a history from its columns, as a results file keeps them."""
        return cls(
            dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)
        )

    def __len__(self) -> int:
        """The number of epochs."""
        return len(self.records)

    def __getitem__(self, column: str) -> list[float]:
        """One column, an entry an epoch.

        Raises:
            KeyError: there is no such column; the message lists those there are.
        """
        if self.records and column not in self.records[0]:
            raise KeyError(f"no column {column!r}; there are {', '.join(self.records[0])}")
        return [record[column] for record in self.records]

    @property
    def best(self) -> dict[str, float]:
        """The record of the epoch with the best bound, on the validation set where there is one.

        Raises:
            ValueError: there was no epoch yet.
        """
        if not self.records:
            raise ValueError("no epoch is complete, so none is the best")
        return best_record(self.records)


def pick_device() -> torch.device:
    """Choose the fastest device at hand: CUDA, else Apple's MPS, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def is_watched(progress: bool | None = None) -> bool:
    """Whether to show a progress bar: as told, else if standard error is a terminal."""
    return sys.stderr.isatty() if progress is None else progress


def fit(
    model: TrainableModel,
    train: Iterable[Any],
    *,
    epochs: int,
    valid: Iterable[Any] | None = None,
    optimizer: Optimizer | None = None,
    scheduler: LRScheduler | SchedulerName | None = None,
    kl_weight: float | Callable[[int], float] = 1.0,
    free_bits: float = 0.0,
    free_bits_per: FreeBitsPer = "dimension",
    max_grad_norm: float | None = None,
    accumulation_steps: int = 1,
    patience: int | None = None,
    precision: Precision = "fp32",
    device: torch.device | str | None = None,
    run_folder: str | Path | None = None,
    configuration: Mapping[str, Any] | None = None,
    checkpoint_minutes: float = 5.0,
    tensorboard: bool = False,
    progress: bool | None = None,
) -> History:
    """Maximise a model's bound on the training data.

    With a `run_folder`, training may be killed at any moment: the same call goes on from the
    last checkpoint and, on the CPU, ends with the very weights and metrics of a run that was
    left alone. Several processes, started by torchrun, train on the union of their batches.

    Args:
        model: called with a batch, it returns an `Elbo`. It is moved to `device`.
        train: the batches, iterated over anew each epoch; each batch has `.to(device)`. Of
            several processes, each has its own share, and all have equally many batches; see
            `tutvae.training.engine.rank_and_world_size`.
        epochs: passes over the data.
        valid: batches to measure after every epoch. Of several processes, each may have all of
            them or its share.
        optimizer: Adam with learning rate 0.001 by default.
        scheduler: changes the optimizer's learning rate after every epoch. "linear" and
            "cosine" lower it to zero over all epochs; "plateau" halves it after two epochs in a
            row without a better bound.
        kl_weight: factor of the KL term, or a function from the step (0, 1, ...) to it.
        free_bits: nats of KL that come at no cost; see `Elbo.loss`.
        free_bits_per: whose KL that is: each "dimension", the "total", or each "example".
        max_grad_norm: a longer gradient is scaled down to this norm, which keeps recurrent
            networks steady; None leaves gradients alone.
        accumulation_steps: batches that make one step, as one larger batch would: the loss is
            the mean over their examples. (Free bits count in each batch by itself.)
        patience: stop after so many epochs in a row without a better bound.
        precision: "fp32", "bf16" or "fp16"; see `Engine`.
        device: the fastest at hand by default.
        run_folder: where to keep checkpoints and metrics; see `RunFolder`.
        configuration: what the run is, ready for JSON; kept in the run folder, which belongs to
            runs of this configuration only.
        checkpoint_minutes: longest time between checkpoints. There is one after every epoch.
        tensorboard: write the metrics for TensorBoard, too, into the run folder.
        progress: show a bar; by default only where somebody watches.

    Returns:
        The terms of the bound after every epoch.

    Raises:
        FloatingPointError: the loss became NaN or infinite; the message names the step.
        OSError: the run folder cannot be written to, or the disk is full; its last checkpoint
            is whole.
        ValueError: `train` holds no batch, an option is impossible, or the run folder is that
            of another run.

    Source: Kingma & Welling (2014), algorithm 1. Chapter 1 writes the loop out.
    """
    _check_options(max_grad_norm, accumulation_steps, patience, tensorboard and not run_folder)
    network = cast(nn.Module, model)
    engine = Engine(network, pick_device() if device is None else device, precision)
    optimizer = optimizer or torch.optim.Adam(model.parameters(), lr=1e-3)
    if isinstance(scheduler, str):
        scheduler = _named_scheduler(scheduler, optimizer, epochs)
    schedule = kl_weight if callable(kl_weight) else lambda step: kl_weight
    folder = None if run_folder is None else RunFolder(run_folder, tensorboard=tensorboard)
    state = TrainingState(network, optimizer, scheduler, train, engine, folder, checkpoint_minutes)
    state.resume(configuration)
    stepper = engine.prepare(optimizer)
    losses = _LossWatch(optimizer, engine)
    bar = _bar(state, epochs, is_watched(progress) and engine.rank == 0)
    while len(state.records) < epochs and not _out_of_patience(state.records, patience):
        model.train()
        for batches in state.steps(accumulation_steps):
            weight = schedule(state.step)
            if hasattr(model, "at_step"):
                model.at_step(state.step)
            optimizer.zero_grad()
            for batch, share in engine.shares(batches):
                elbo = engine.forward(batch)
                loss = share * elbo.loss(weight, free_bits, free_bits_per)
                losses.watch(loss, state.step)
                engine.backward(loss)
                state.add_terms(elbo.terms)
            if max_grad_norm is not None:
                engine.clip(max_grad_norm)
            stepper.step()
            state.step += 1
            bar.update(len(batches))
            if state.save_is_due:
                losses.check()
                state.save()
        losses.check()
        record = _record(state, schedule)
        if valid is not None:
            record |= _measure(model, valid, engine)
        _step_scheduler(scheduler, record)
        state.end_epoch(record)
        bar.set_postfix({name: f"{record[name]:.2f}" for name in record if name.endswith("kl")})
    bar.close()
    return History(state.records, state.seconds)


class _LossWatch:
    """Stops training at a loss that is NaN or infinite.

    On the CPU that is before the loss reaches the weights. On a GPU it is up to
    `LOOKED_AT_TOGETHER` batches later, but before any checkpoint.
    """

    def __init__(self, optimizer: Optimizer, engine: Engine) -> None:
        self.optimizer = optimizer
        self.together = 1 if engine.device.type == "cpu" else LOOKED_AT_TOGETHER
        self.losses: list[tuple[int, Tensor]] = []

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


def _record(state: TrainingState, schedule: Callable[[int], float]) -> dict[str, float]:
    """One row of the history."""
    if not state.terms:
        raise ValueError("there is nothing to train on: no batch came")
    *sums, count = torch.cat(state.terms).double().sum(0).tolist()
    means = {f"train_{name}": x / count for name, x in zip(state.term_names, sums, strict=True)}
    return {
        "epoch": len(state.records) + 1,
        "step": state.step,
        "kl_weight": schedule(state.step - 1),
        "learning_rate": state.optimizer.param_groups[0]["lr"],
        **means,
    }


def _measure(model: TrainableModel, valid: Iterable[Any], engine: Engine) -> dict[str, float]:
    """The validation columns: means over the examples of all processes."""
    examples = 0

    def counted() -> Iterator[Any]:
        nonlocal examples
        for batch in valid:
            examples += len(batch)
            yield batch

    means = mean_terms(model, counted())
    parts = engine.gather((examples, means))
    if len(parts) > 1:
        total = sum(size for size, _ in parts)
        means = {name: sum(size * m[name] for size, m in parts) / total for name in means}
    return {f"valid_{name}": value for name, value in means.items()}


def _named_scheduler(name: str, optimizer: Optimizer, epochs: int) -> LRScheduler:
    """Build one of the learning-rate schedules that have a name."""
    if name == "plateau":
        return ReduceLROnPlateau(optimizer, factor=0.5, patience=1)
    if name == "linear":
        return LambdaLR(optimizer, lambda epoch: 1 - epoch / epochs)
    if name == "cosine":
        return CosineAnnealingLR(optimizer, T_max=epochs)
    raise ValueError(f"scheduler must be one of {get_args(SchedulerName)}, not {name!r}")


def _step_scheduler(scheduler: LRScheduler | None, record: dict[str, float]) -> None:
    """Set the next epoch's learning rate."""
    if isinstance(scheduler, ReduceLROnPlateau):
        scheduler.step(bound_of(record))
    elif scheduler is not None:
        scheduler.step()


def _out_of_patience(records: list[dict[str, float]], patience: int | None) -> bool:
    """Whether the best epoch is `patience` epochs ago."""
    if patience is None or not records:
        return False
    return records[-1]["epoch"] - best_record(records)["epoch"] >= patience


def _check_options(
    max_grad_norm: float | None,
    accumulation_steps: int,
    patience: int | None,
    homeless_tensorboard: bool,
) -> None:
    """Raise ValueError for an option that makes no sense."""
    if max_grad_norm is not None and not max_grad_norm > 0:
        raise ValueError(f"max_grad_norm must be positive, not {max_grad_norm}")
    if accumulation_steps < 1:
        raise ValueError(f"accumulation_steps must be at least 1, not {accumulation_steps}")
    if patience is not None and patience < 1:
        raise ValueError(f"patience must be at least 1 epoch, not {patience}")
    if homeless_tensorboard:
        raise ValueError("tensorboard=True writes into the run folder: give run_folder as well")


def _bar(state: TrainingState, epochs: int, shown: bool) -> tqdm:
    """A progress bar over the batches of all epochs."""
    if not shown:
        return tqdm(disable=True)
    an_epoch = length_hint(state.train)
    total = epochs * an_epoch or None
    done = len(state.records) * an_epoch + state.batches
    return tqdm(total=total, initial=done, unit="batch", leave=False)
