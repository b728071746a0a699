"""What all batches share: an epoch that goes on where it stopped."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any, Generic, TypeVar

Batch = TypeVar("Batch")


class Resumable(ABC, Generic[Batch]):
    """One epoch of batches each time it is iterated over.

    One that is broken off starts again from its first batch at the next iteration; to go on in its
    middle, also in another process, use `state_dict` and `load_state_dict`.
    """

    _start: Any = 0  # where an epoch starts: a number of batches, but for windows
    _kept: tuple[str, ...] = ()  # attributes, fit for JSON, that a state holds besides the place

    def __init__(self) -> None:
        self.epoch = 0  # those completed so far
        self._done = self._start  # where the present epoch stands
        self._resume_at = self._start  # where the next iteration starts

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches of the present epoch."""
        epoch, start = self.epoch, self._resume_at
        self._resume_at = self._start
        for done, batch in self._batches_from(start):
            self._done = done
            yield batch
        self.epoch, self._done = epoch + 1, self._start

    def __repr__(self) -> str:
        known = {key: x for key, x in self._configuration().items() if x is not None}
        return f"{type(self).__name__}({', '.join(f'{key}={x}' for key, x in known.items())})"

    def state_dict(self) -> dict[str, Any]:
        """Where the epoch stands, ready for JSON: every batch yielded so far counts as done."""
        kept = {name: getattr(self, name) for name in self._kept}
        return {"epoch": self.epoch, "batch": self._done} | kept | self._configuration()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Make the next iteration go on where `state` was; ValueError if it is of other batches."""
        for name, value in self._configuration().items():
            if state.get(name) != value:
                raise ValueError(
                    f"these batches have {name} {value}, the saved state has {state.get(name)}: "
                    "resume with the same documents and settings"
                )
        self.epoch = state["epoch"]
        self._done = self._resume_at = state["batch"]
        vars(self).update({name: state[name] for name in self._kept})

    @abstractmethod
    def _batches_from(self, start: Any) -> Iterator[tuple[Any, Batch]]:
        """Yield the present epoch's batches from a position on, each with the position after."""

    @abstractmethod
    def _configuration(self) -> dict[str, Any]:
        """What decides which documents are in which batch, ready for JSON."""


def endless(batches: Iterable[Batch]) -> Iterator[Batch]:
    """Yield the batches of one epoch after another; ValueError for an epoch without any."""
    while True:
        batch = None
        for batch in batches:
            yield batch
        if batch is None:
            raise ValueError("there is nothing to train on: no batch came")
