"""Training: one loop for every model of the book."""

import math
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from operator import length_hint
from pathlib import Path
from typing import Any, Literal, cast, get_args

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LRScheduler, ReduceLROnPlateau
from tqdm import tqdm

from tutvae.bounds import FreeBitsPer
from tutvae.evaluation.report import summed_terms
from tutvae.models.protocols import TrainableModel
from tutvae.training.engine import Engine, Precision, release_memory
from tutvae.training.run_folder import RunFolder, locked
from tutvae.training.state import TrainingState, best_record, bound_of
from tutvae.training.step import Stepper, adam, check_loss_options, check_whole

SchedulerName = Literal["plateau", "linear", "cosine"]
STEPS_TO_RELEASE = 500  # in long epochs; each epoch ends with it anyway


class History:
    """What happened in training, one record an epoch. Chapter 1.

    `history["train_kl"]` is a column as a list; `history.records` are the rows. Columns: epoch,
    step, kl_weight, learning_rate; and the terms of the bound in nats an example,
    `train_reconstruction`, `train_kl` and, of a model with labels, `train_label_kl`; the same
    with `valid_` where there is a validation set. `seconds` is the time that all training took.

    >>> history = tutvae.History([{"train_reconstruction": 9.0, "train_kl": 1.0}])
    >>> history, history["train_kl"]
    (History(epochs=1, last bound 10.00, best 10.00), [1.0])
    """

    def __init__(self, records: Iterable[dict[str, float]] = (), seconds: float = 0.0) -> None:
        self.records: list[dict[str, float]] = list(records)
        self.seconds = seconds

    @classmethod
    def from_columns(cls, columns: dict[str, list[float]]) -> "History":
        """Rebuild a history from its columns, as a results file keeps them."""
        rows = zip(*columns.values(), strict=True)
        return cls(dict(zip(columns, row, strict=True)) for row in rows)

    def __len__(self) -> int:
        return len(self.records)

    def __repr__(self) -> str:
        if not self.records:
            return "History(epochs=0)"
        last, best = bound_of(self.records[-1]), bound_of(self.best)
        return f"History(epochs={len(self)}, last bound {last:.2f}, best {best:.2f})"

    def __getitem__(self, column: str) -> list[float]:
        """One column, an entry an epoch; KeyError, with the names there are, for another."""
        if self.records and column not in self.records[0]:
            raise KeyError(f"no column {column!r}; there are {', '.join(self.records[0])}")
        return [record[column] for record in self.records]

    @property
    def best(self) -> dict[str, float]:
        """The record with the best bound, of validation if there is one; ValueError before any."""
        if not self.records:
            raise ValueError("no epoch is complete, so none is the best")
        return best_record(self.records)


def pick_device() -> torch.device:
    """Choose the fastest device at hand: CUDA, else Apple's MPS, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def is_watched(progress: bool | None = None) -> bool:
    """Whether to show a progress bar: if asked for, or else if standard error is a terminal."""
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
    rate: float | None = None,
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
    """Maximise a model's bound on the training data; return its terms after every epoch.

    With a `run_folder`, training may be killed at any moment: the same call goes on from the
    last checkpoint and, on the CPU, ends as a run that was left alone. Several processes, started
    by torchrun, train on the union of their batches.

    Args:
        model: called with a batch, it returns an `Elbo`. It is moved to `device`.
        train: the batches, iterated over anew each epoch; each batch has `.to(device)`. Of
            several processes, each has its own share of equal length; see
            `tutvae.training.engine.rank_and_world_size`.
        epochs: passes over the data.
        valid: batches to measure after every epoch; all of them, or a process's share.
        optimizer: Adam with learning rate 0.001 by default.
        scheduler: changes the learning rate after every epoch. "linear" and "cosine" lower it to
            zero over all epochs; "plateau" halves it after two without a better bound.
        kl_weight: factor of the KL term, or a function from the step (0, 1, ...) to it. A model
            with a method `at_step` is told the same step before its batches.
        free_bits: nats of KL that come at no cost; see `Elbo.loss`.
        free_bits_per: whose KL that is: each "dimension", the "total", or each "example".
        rate: nats of KL to hold instead, a document; see `Elbo.loss`. In the bound that tells
            the best epoch, a smaller KL then counts as this much.
        max_grad_norm: a longer gradient is scaled down to this norm; None leaves gradients alone.
        accumulation_steps: batches that make one step: the loss is the mean over their
            examples, but free bits, and means over labelled documents, are of each batch.
        patience: stop after so many epochs in a row without a better bound.
        precision: "fp32", "bf16" or "fp16"; see `Engine`.
        device: the fastest at hand by default.
        run_folder: keeps checkpoints, metrics and the tokenizer of `train`, if it has one; see
            `RunFolder`. `tutvae.load` reads the best model from there.
        configuration: what the run is, ready for JSON; the run folder is for no other.
        checkpoint_minutes: longest time between checkpoints. There is one after every epoch.
        tensorboard: write the metrics for TensorBoard, too, into the run folder.
        progress: show a bar; by default only where somebody watches.

    Raises:
        BlockingIOError: another process trains in the run folder.
        FloatingPointError: the loss, or a bound on the validation set, became NaN or infinite.
        OSError: the run folder cannot be written to; its last checkpoint is whole.
        ValueError: `train` holds no batch, an option is impossible, or the run folder is that
            of another run, or of one with another optimizer or learning rate.

    >>> images = tutvae.digits().train.pixels.round().split(50)
    >>> history = tutvae.fit(tutvae.VAE(data_size=64, latent_size=2), images, epochs=2)
    >>> history["epoch"]
    [1, 2]

    Source: Kingma & Welling (2014), algorithm 1. Chapter 1 writes the loop out.
    """
    check_whole(0, epochs=epochs)
    check_whole(1, accumulation_steps=accumulation_steps)
    if patience is not None:
        check_whole(1, patience=patience)
    check_loss_options(max_grad_norm, kl_weight, free_bits, rate)
    if tensorboard and run_folder is None:
        raise ValueError("tensorboard=True writes into the run folder: give run_folder as well")
    engine = Engine(cast(nn.Module, model), device or pick_device(), precision)
    optimizer = optimizer or adam(model.parameters())
    if isinstance(scheduler, str):
        scheduler = _named_scheduler(scheduler, optimizer, epochs)
    held = (free_bits, free_bits_per) if rate is None else (free_bits, free_bits_per, rate)
    schedule = kl_weight if callable(kl_weight) else lambda step: kl_weight
    folder = None if run_folder is None else RunFolder(run_folder, tensorboard=tensorboard)
    state = TrainingState(engine, optimizer, scheduler, train, folder, checkpoint_minutes)
    stepper = Stepper(engine, optimizer, max_grad_norm)
    with locked(folder.path) if folder and engine.rank == 0 else nullcontext():
        state.resume(configuration)
        bar = _bar(state, epochs, is_watched(progress) and engine.rank == 0)
        while len(state.records) < epochs and not _out_of_patience(state.records, patience):
            model.train()
            for batches in state.steps(accumulation_steps):
                if hasattr(model, "at_step"):
                    model.at_step(state.step)
                _, terms = stepper.step(batches, state.step, schedule(state.step), *held)
                state.add_step(terms)
                bar.update(len(batches))
                if state.save_is_due:
                    stepper.check()
                    state.save()
                if state.step % STEPS_TO_RELEASE == 0:
                    release_memory()
            stepper.check()
            record = _record(state, schedule, valid)
            if rate is not None:
                record["rate"] = rate
            if isinstance(scheduler, ReduceLROnPlateau):
                scheduler.step(bound_of(record))
            elif scheduler is not None:
                scheduler.step()
            state.end_epoch(record)
            release_memory()
            bar.set_postfix({k: f"{x:.2f}" for k, x in record.items() if k.endswith("kl")})
        bar.close()
    return History(state.records, state.seconds)


def _record(
    state: TrainingState, schedule: Callable[[int], float], valid: Iterable[Any] | None
) -> dict[str, float]:
    """One row of the history; raise FloatingPointError where the bound in it is not finite."""
    if not state.terms:
        raise ValueError("there is nothing to train on: no batch came")
    *sums, count = torch.cat(state.terms).double().sum(0).tolist()
    terms = {f"train_{name}": x / count for name, x in zip(state.term_names, sums, strict=True)}
    if valid is not None:
        terms |= _measure(state.engine, valid)
    epoch, rate = len(state.records) + 1, state.optimizer.param_groups[0]["lr"]
    for name, value in terms.items():
        if not math.isfinite(value):
            raise FloatingPointError(
                f"{name} is {value} after epoch {epoch}, at step {state.step}: look for NaN in "
                "the data, or try a smaller learning rate or max_grad_norm (5, say)"
            )
    row = {"epoch": epoch, "step": state.step, "kl_weight": schedule(state.step - 1)}
    return {**row, "learning_rate": rate, **terms}


def _measure(engine: Engine, valid: Iterable[Any]) -> dict[str, float]:
    """The validation columns: means over the examples of all processes."""
    parts = engine.gather(summed_terms(engine.model, valid))
    examples = sum(count for _, count in parts)
    names = parts[0][0]
    return {f"valid_{x}": sum(sums[x] for sums, _ in parts) / examples for x in names}


def _named_scheduler(name: str, optimizer: Optimizer, epochs: int) -> LRScheduler:
    if name == "plateau":
        return ReduceLROnPlateau(optimizer, factor=0.5, patience=1)
    if epochs < 1:
        raise ValueError(f"scheduler {name!r} lowers the rate over all epochs: there are none")
    if name == "linear":
        return LambdaLR(optimizer, lambda epoch: 1 - epoch / epochs)
    if name == "cosine":
        return CosineAnnealingLR(optimizer, T_max=epochs)
    raise ValueError(f"scheduler must be one of {get_args(SchedulerName)}, not {name!r}")


def _out_of_patience(records: list[dict[str, float]], patience: int | None) -> bool:
    """Whether the best epoch is `patience` epochs ago."""
    since_best = len(records) - best_record(records)["epoch"] if records else 0
    return patience is not None and since_best >= patience


def _bar(state: TrainingState, epochs: int, shown: bool) -> tqdm:
    an_epoch = length_hint(state.train)
    total = epochs * an_epoch or None
    done = len(state.records) * an_epoch + state.batches
    return tqdm(total=total, initial=done, unit="batch", leave=False, disable=not shown)
