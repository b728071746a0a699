"""A function applied to every batch, its rows put back into the caller's order."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from tutvae.models.protocols import TrainableModel, evaluating


def columns_of(
    model: TrainableModel | nn.Module,
    batches: Iterable[Any],
    function: Callable[[Any, Tensor], tuple[Tensor, ...]],
) -> list[Tensor]:
    """Apply a function to every batch: its columns `[N, ...]` in the caller's order, on the CPU.

    The function is given a batch, on the device of the model, which is in eval mode meanwhile, and
    the positions of its examples, `[B]` (`TextBatch.positions`, else the order of arrival); it
    returns columns `[B, ...]`. Without batches, which have `.to(device)`, there is a ValueError.
    """
    parts: list[tuple[Tensor, ...]] = []
    positions: list[Tensor] = []
    with evaluating(model) as device:
        for batch in batches:
            here = getattr(batch, "positions", None)
            if here is None:
                seen = sum(map(len, positions))
                here = torch.arange(seen, seen + len(batch))
            positions.append(here.cpu())
            parts.append(function(batch.to(device), positions[-1]))
    if not parts:
        raise ValueError("no batch came: there are no examples to look at")
    order = torch.cat(positions).argsort(stable=True)
    return [torch.cat(column).cpu()[order] for column in zip(*parts, strict=True)]


def rows_of(
    model: TrainableModel | nn.Module, batches: Iterable[Any], function: Callable[[Any], Tensor]
) -> Tensor:
    """Apply a function of one column to every batch, as `columns_of`."""
    return columns_of(model, batches, lambda batch, _: (function(batch),))[0]
