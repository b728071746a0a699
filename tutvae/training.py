"""Training: one loop for every model of the book."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from tutvae.bounds import Elbo, FreeBitsPer
from tutvae.evaluation import LatentVariableModel, mean_terms


class History:
    """What happened in training, one record an epoch. Chapter 1.

    `history["train_kl"]` is a column as a list; `history.records` are the rows. Columns:
    epoch, step, kl_weight, learning_rate, train_reconstruction, train_kl and, with a
    validation set, valid_reconstruction and valid_kl. Terms are in nats an example.

    Args:
        records: rows to start from.
    """

    def __init__(self, records: Iterable[dict[str, float]] = ()) -> None:
        self.records: list[dict[str, float]] = list(records)

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


def pick_device() -> torch.device:
    """Choose the fastest device at hand: CUDA, else Apple's MPS, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def fit(
    model: LatentVariableModel,
    train: Iterable[Any],
    *,
    epochs: int,
    valid: Iterable[Any] | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    scheduler: torch.optim.lr_scheduler.LRScheduler | None = None,
    kl_weight: float | Callable[[int], float] = 1.0,
    free_bits: float = 0.0,
    free_bits_per: FreeBitsPer = "dimension",
    max_grad_norm: float | None = None,
    device: torch.device | str | None = None,
    progress: bool | None = None,
) -> History:
    """Maximise a model's bound on the training data.

    Args:
        model: called with a batch, it returns an `Elbo`. It is moved to `device`.
        train: the batches, iterated over anew each epoch; each batch has `.to(device)`.
        epochs: passes over the data.
        valid: batches to measure after every epoch.
        optimizer: Adam with learning rate 0.001 by default.
        scheduler: changes the optimizer's learning rate after every epoch.
        kl_weight: factor of the KL term, or a function from the step (0, 1, ...) to it.
        free_bits: nats of KL that come at no cost; see `Elbo.loss`.
        free_bits_per: whose KL that is: each "dimension", the "total", or each "example".
        max_grad_norm: a longer gradient is scaled down to this norm, which keeps recurrent
            networks steady; None leaves gradients alone.
        device: the fastest at hand by default.
        progress: show a bar; by default only where somebody watches.

    Returns:
        The terms of the bound after every epoch.

    Raises:
        FloatingPointError: the loss became NaN or infinite; the message names the step.
        ValueError: `train` holds no batch, or `max_grad_norm` is not positive.

    Source: Kingma & Welling (2014), algorithm 1. Chapter 1 writes the loop out.
    """
    if max_grad_norm is not None and not max_grad_norm > 0:
        raise ValueError(f"max_grad_norm must be positive, not {max_grad_norm}")
    device = torch.device(device) if device is not None else pick_device()
    model.to(device)
    optimizer = optimizer or torch.optim.Adam(model.parameters(), lr=1e-3)
    schedule = kl_weight if callable(kl_weight) else lambda step: kl_weight
    history = History()
    step = 0
    bar = tqdm(range(1, epochs + 1), unit="epoch", disable=not _watched(progress), leave=False)
    for epoch in bar:
        model.train()
        seen: list[Tensor] = []
        for batch in train:
            elbo = model(batch.to(device))
            loss = elbo.loss(schedule(step), free_bits, free_bits_per)
            _check_finite(loss, step, optimizer)
            optimizer.zero_grad()
            loss.backward()
            if max_grad_norm is not None:
                torch.nn.utils.clip_grad_norm_(model.parameters(), max_grad_norm)
            optimizer.step()
            seen.append(_terms(elbo))
            step += 1
        record = _record(epoch, step, schedule, optimizer, seen)
        if valid is not None:
            record |= {f"valid_{name}": value for name, value in mean_terms(model, valid).items()}
        history.records.append(record)
        bar.set_postfix({name: f"{record[name]:.2f}" for name in record if name.endswith("kl")})
        if scheduler is not None:
            scheduler.step()
    return history


def _terms(elbo: Elbo) -> Tensor:
    """A batch's sums and its size, `[3]`."""
    count = torch.full_like(elbo.kl[0], len(elbo.kl))
    return torch.stack([elbo.reconstruction.sum(), elbo.kl.sum(), count]).detach()


def _record(
    epoch: int,
    step: int,
    schedule: Callable[[int], float],
    optimizer: torch.optim.Optimizer,
    seen: list[Tensor],
) -> dict[str, float]:
    """One row of the history."""
    if not seen:
        raise ValueError("there is nothing to train on: no batch came")
    reconstruction, kl, count = torch.stack(seen).double().sum(0).tolist()
    return {
        "epoch": epoch,
        "step": step,
        "kl_weight": schedule(step - 1),
        "learning_rate": optimizer.param_groups[0]["lr"],
        "train_reconstruction": reconstruction / count,
        "train_kl": kl / count,
    }


def _check_finite(loss: Tensor, step: int, optimizer: torch.optim.Optimizer) -> None:
    """Stop before a bad loss reaches the weights."""
    if not torch.isfinite(loss):
        rate = optimizer.param_groups[0]["lr"]
        raise FloatingPointError(
            f"the loss is {loss.item()} at step {step}, with learning rate {rate:g}: "
            "look for NaN in the data, or try a smaller learning rate"
        )


def _watched(progress: bool | None) -> bool:
    """Whether to show a progress bar: as told, else if standard error is a terminal."""
    return sys.stderr.isatty() if progress is None else progress
