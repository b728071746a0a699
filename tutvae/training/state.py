"""What changes while a model trains: saved, and restored as if training had never stopped."""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import islice
from operator import length_hint
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tutvae.training import checkpoints
from tutvae.training.engine import Engine
from tutvae.training.run_folder import RunFolder

JOINED_AT = 1_000  # so many small tensors of a long epoch are kept before they become one
ASKED_EVERY = 10  # steps after which several processes agree on whether to save


@dataclass(eq=False)
class TrainingState:
    """Everything that decides how a training run goes on: what a checkpoint holds.

    If the batches have `state_dict` and `load_state_dict`, as `Batches` has, an epoch goes on in
    its middle by these; otherwise its first batches are drawn again, from the epoch's first
    random state, and left out. Without a folder nothing is saved.
    """

    engine: Engine
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler | None
    train: Any
    folder: RunFolder | None
    checkpoint_minutes: float  # longest time between two

    def __post_init__(self) -> None:
        # What a checkpoint holds as it is:
        self.configuration: dict[str, Any] = {}  # what the run is
        self.hyperparameters = _hyperparameters(self.optimizer)  # when the run began
        self.records: list[dict[str, float]] = []  # of the epochs completed
        self.step = 0  # steps taken so far
        self.batches = 0  # those of the present epoch that were handed out
        self.exhausted = False  # whether the batches have moved on to the next epoch already
        self.term_names: list[str] = []  # the terms of the model's bound
        # The present epoch's sums over the examples of a batch: of each of these terms, and of
        # the examples, `[batches, terms + 1]` all together.
        self.terms: list[Tensor] = []
        given = {field.name for field in fields(self)}
        self._kept = [name for name in vars(self) if name not in given]
        self._epoch_start: dict[str, Any] = {}  # the random states there, if they matter
        self._started = self._saved = time.monotonic()

    @property
    def seconds(self) -> float:
        """Time spent training so far, that before a resumption included."""
        return time.monotonic() - self._started

    def steps(self, batches_a_step: int) -> Iterator[list[Any]]:
        """Yield what is left of the present epoch, a list of batches for each step."""
        if self.engine.processes > 1:
            self._check_shares()
        iterator = self._rest_of_epoch()
        while batches := list(islice(iterator, batches_a_step)):
            self.batches += len(batches)
            self.exhausted = len(batches) < batches_a_step
            yield batches

    def add_step(self, terms: Sequence[Mapping[str, Tensor]]) -> None:
        """Note a step, with the terms of the bound of each of its batches, `[B]` each."""
        self.step += 1
        for of_batch in terms:
            self.term_names = list(of_batch)
            rows = torch.stack([*of_batch.values(), torch.ones_like(next(iter(of_batch.values())))])
            self.terms.append(rows.sum(1)[None])
        if len(self.terms) >= JOINED_AT:
            self.terms = [torch.cat(self.terms)]

    def end_epoch(self, record: dict[str, float]) -> None:
        """Note a completed epoch and save: the metrics, the weights if they are the best, all.

        A kill between two files does no harm: the epoch is done again, with the same result.
        """
        self.records.append(record)
        self.terms, self.batches, self.exhausted = [], 0, False
        if self.folder is None:
            return
        if self.engine.rank == 0:
            self.folder.write_metrics(self.records)
            if best_record(self.records) is record:
                about: dict[str, Any] = {"configuration": self.configuration, "record": record}
                checkpoints.save_weights(self.engine.model, self.folder.best, **about)
        self.save()

    @property
    def save_is_due(self) -> bool:
        """Whether it is time for a checkpoint within the epoch; the first process decides."""
        if self.folder is None or (self.engine.processes > 1 and self.step % ASKED_EVERY):
            return False
        due = time.monotonic() - self._saved >= 60 * self.checkpoint_minutes
        return self.engine.gather(due)[0]

    def save(self) -> None:
        """Write the last checkpoint; all processes take part, the first one writes."""
        if self.folder is None:
            return
        weights = self.engine.model.state_dict()
        if not all(bool(x.isfinite().all()) for x in weights.values()):
            raise FloatingPointError(
                f"the weights became NaN or infinite by step {self.step}: go back to the last "
                "checkpoint with a smaller learning rate, or set max_grad_norm"
            )
        feed = self.train.state_dict() if can_resume(self.train) else None
        random = checkpoints.random_state()
        of_process = {"random": random, "epoch_start": self._epoch_start, "feed": feed}
        of_processes = self.engine.gather(of_process)
        if self.engine.rank > 0:
            return
        if self.terms:
            self.terms = [torch.cat(self.terms)]
        about = {name: getattr(self, name) for name in self._kept} | {
            "model": checkpoints.described(self.engine.model),
            "seconds": self.seconds,
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict() if self.scheduler else None,
            "scaler": self.engine.scaler.state_dict(),
            "processes": of_processes,
        }
        checkpoints.save_tensors(self.folder.last, weights, about)
        self._saved = time.monotonic()

    def resume(self, configuration: Mapping[str, Any] | None) -> None:
        """Open the folder for a run and return to its last checkpoint, if it has one.

        Batches that were made of texts have a tokenizer, which the model is of no use without.
        """
        if self.folder is None:
            return
        if self.engine.rank == 0:
            self.configuration = self.folder.open(configuration)
        self.engine.gather(None)  # the others wait for it
        if self.folder.last.exists():
            weights, about = checkpoints.load_tensors(self.folder.last)
            try:
                self._restore(self.folder.last, weights, about)
            except (AttributeError, IndexError, KeyError, TypeError) as error:
                raise checkpoints.not_ours(self.folder.last, repr(error)) from error
        if self.engine.rank == 0 and (tokenizer := getattr(self.train, "tokenizer", None)):
            tokenizer.save(self.folder.tokenizer)

    def _restore(self, path: Path, weights: dict[str, Tensor], about: Any) -> None:
        if len(about["processes"]) != self.engine.processes:
            raise ValueError(
                f"{path} was written by {len(about['processes'])} processes, and now there "
                f"are {self.engine.processes}: resume with as many"
            )
        checkpoints.set_weights(self.engine.model, weights, str(path), about.get("model"))
        self._check_optimizer(path, about)
        # How a step is computed is this optimizer's choice, not that of the one which began.
        groups = zip(about["optimizer"]["param_groups"], self.optimizer.param_groups, strict=True)
        for kept, own in groups:
            kept |= {name: own[name] for name in ("foreach", "fused") if name in own}
        self.optimizer.load_state_dict(about["optimizer"])
        if self.scheduler:
            self.scheduler.load_state_dict(about["scheduler"])
        if about["scaler"]:
            self.engine.scaler.load_state_dict(about["scaler"])
        vars(self).update({name: about[name] for name in self._kept})
        self.terms = [rows.to(self.engine.device) for rows in self.terms]
        self._started -= about["seconds"]
        of_process = about["processes"][self.engine.rank]
        if can_resume(self.train):
            self.train.load_state_dict(of_process["feed"])
        self._epoch_start = of_process["epoch_start"]
        checkpoints.set_random_state(of_process["random"])

    def _check_optimizer(self, path: Path, about: Any) -> None:
        """Raise ValueError where the optimizer, or its learning rate, say, is not the run's."""
        begun, present = about["hyperparameters"], about["optimizer"]["param_groups"]
        for own, first, last in zip(self.hyperparameters, begun, present, strict=False):
            for name in own.keys() & first.keys():
                # The very optimizer that a scheduler changed since is welcome, too.
                if own[name] not in (first[name], last[name]):
                    raise ValueError(
                        f"{path} is of a run whose optimizer began with {name} {first[name]}, now "
                        f"it has {own[name]}: give it the same, or choose another folder"
                    )
        if self.scheduler and about["scheduler"] is None:
            raise ValueError(f"{path} is of a run without a scheduler: go on without one")
        if [set(group) for group in self.optimizer.param_groups] != list(map(set, present)):
            raise ValueError(f"{path} is of another optimizer: resume with the run's own")

    def _check_shares(self) -> None:
        """Raise ValueError where processes would wait for each other for ever, or do the same."""
        shares = getattr(self.train, "world_size", 1)
        lengths = self.engine.gather(length_hint(self.train))
        if shares != self.engine.processes or len(set(lengths)) > 1:
            raise ValueError(
                f"there are {self.engine.processes} processes, for {shares} shares of the data, "
                f"and their shares have {lengths} batches: give each its own, of equal length, by "
                "rank, world_size = tutvae.training.engine.rank_and_world_size(); "
                "Batches(..., rank=rank, world_size=world_size). Batches of another kind say by "
                "an attribute world_size that they are one share of so many"
            )

    def _rest_of_epoch(self) -> Iterator[Any]:
        """The batches of the present epoch that are still to come."""
        if self.exhausted:
            return iter(())
        if can_resume(self.train):
            return iter(self.train)
        now = checkpoints.random_state()
        if self.batches == 0:
            self._epoch_start = now
            return iter(self.train)
        checkpoints.set_random_state(self._epoch_start)
        iterator = iter(self.train)
        drawn = sum(1 for _ in islice(iterator, self.batches))
        if drawn < self.batches:
            raise ValueError(
                f"the epoch broke off after {self.batches} batches and has only {drawn} now: "
                "resume with the same data"
            )
        checkpoints.set_random_state(now)
        return iterator


def _hyperparameters(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    """What was chosen for each group of an optimizer's parameters, as JSON gives it back."""
    other = ("params", "initial_lr", "foreach", "fused", "capturable", "differentiable")
    return [
        {k: list(v) if isinstance(v, tuple) else v for k, v in group.items() if k not in other}
        for group in optimizer.param_groups
    ]


def can_resume(train: Any) -> bool:
    """Whether batches know their place in the epoch."""
    return hasattr(train, "state_dict") and hasattr(train, "load_state_dict")


def bound_of(record: Mapping[str, float]) -> float:
    """The bound after an epoch, on the validation set if there is one; nats an example.

    Where a rate is held, a smaller KL counts as that: an empty code is not what was asked for.
    """
    split = "valid" if "valid_kl" in record else "train"
    terms = {term: record.get(f"{split}_{term}", 0.0) for term in ("reconstruction", "label_kl")}
    return sum(terms.values()) + max(record.get(f"{split}_kl", 0.0), record.get("rate", 0.0))


def best_record(records: Sequence[dict[str, float]]) -> dict[str, float]:
    """The first of the epochs with the best bound, which is not NaN."""
    return min(records, key=lambda record: (math.isnan(bound_of(record)), bound_of(record)))
