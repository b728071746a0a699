r"""Where training computes: device, precision, and one process or several.

A script that calls `fit` runs as it is on several devices. Each process takes its share of the
data, by `rank_and_world_size`, and builds the same model; `fit` does the rest. For four GPUs (or,
to try it, two processes on a CPU)::

    torchrun --nproc-per-node 4 train.py

On several machines the same command runs on each. With Slurm, and a disk that all of them see::

    #SBATCH --nodes=2 --ntasks-per-node=1 --gpus-per-node=4
    first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
    srun torchrun --nnodes "$SLURM_NNODES" --nproc-per-node 4 --rdzv-id "$SLURM_JOB_ID" \
        --rdzv-backend c10d --rdzv-endpoint "$first:29500" train.py

In a notebook on a machine with two GPUs, where `train()` is a function that calls `fit`::

    accelerate.notebook_launcher(train, num_processes=2)
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import fields, replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from tutvae.bounds import Elbo

Precision = Literal["fp32", "bf16", "fp16"]


def rank_and_world_size() -> tuple[int, int]:
    """Say which of how many processes this is, as torchrun and accelerate tell it: (0, 1) alone.

    `Batches(texts, rank=rank, world_size=world_size, ...)` makes this process's share.
    """
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


class Engine:
    """Runs a model forward and backward on a device, in a precision, in step with all processes.

    However many processes there are, the loss is that of the union of their batches, and so is
    its gradient.

    Args:
        model: moved to the device; with several processes, all start from the first one's
            weights.
        device: with several processes it says only whether to stay on the CPU: each takes the
            GPU of its own number.
        precision: "fp32"; or "bf16" or "fp16", in which the heavy operations then compute.
            Weights, losses and metrics stay in 32 bits.

    Raises:
        ValueError: there is no such precision, or not on this device.

    Source: Micikevicius et al. (2018) for the precision. Chapter 10.
    """

    def __init__(
        self,
        model: nn.Module,
        device: torch.device | str,
        precision: Precision = "fp32",
    ) -> None:
        self.device = torch.device(device)
        self._accelerator = _accelerator(self.device, precision)
        self.processes: int = self._accelerator.num_processes
        self.rank: int = self._accelerator.process_index
        if self.processes > 1:
            self.device = self._accelerator.device
            # Noise of its own for each process, from whatever seed they share.
            torch.manual_seed((torch.initial_seed() + self.rank) % 2**63)
        self.model = model.to(self.device)
        self._forward: nn.Module = self.model
        if self.processes > 1:
            self._forward = nn.parallel.DistributedDataParallel(self.model)
        self._rows: list[int] = []  # of each process's present batch

    @property
    def scaler(self) -> Any:
        """What keeps small gradients above fp16's zero; None in other precisions."""
        return self._accelerator.scaler

    def prepare(self, optimizer: torch.optim.Optimizer) -> Any:
        """Make an optimiser's `step` undo the scaling of gradients in fp16."""
        # accelerate's own step and backward search the disk for packages, each time.
        if self.scaler is None:
            return optimizer
        return self._accelerator.prepare_optimizer(optimizer, device_placement=False)

    def shares(self, batches: Sequence[Any]) -> Iterator[tuple[Any, float]]:
        """Yield a step's batches on the device, each with its share of the step's examples."""
        rows = self.gather([len(batch) for batch in batches])  # [processes, batches]
        total = sum(map(sum, rows))
        for index, batch in enumerate(batches):
            self._rows = [of_process[index] for of_process in rows]
            # The processes exchange gradients once a step, in the last backward pass.
            waits = self.processes > 1 and index < len(batches) - 1
            with self._accelerator.no_sync(self._forward) if waits else nullcontext():
                yield batch.to(self.device), sum(self._rows) / total

    def forward(self, batch: Any) -> Elbo:
        """Bound the union of all processes' present batches; gradients go to this one's rows."""
        with self._accelerator.autocast():
            elbo = self._forward(batch)
        elbo = _each_tensor(elbo, lambda x: x.float() if x.dtype in _HALVES else x)
        return elbo if self.processes == 1 else _each_tensor(elbo, self._union)

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of a loss of the union, from whichever process's rows, to `.grad`."""
        # The processes' gradients are averaged, and what is due is their sum.
        loss = loss * self.processes
        (loss if self.scaler is None else self.scaler.scale(loss)).backward()

    def clip(self, max_norm: float) -> None:
        """Scale a longer gradient down to `max_norm`."""
        self._accelerator.clip_grad_norm_(self.model.parameters(), max_norm)

    def gather(self, value: Any) -> list[Any]:
        """What each process has for `value`, which may be anything small, in their order."""
        if self.processes == 1:
            return [value]
        values: list[Any] = [None] * self.processes
        torch.distributed.all_gather_object(values, value)
        return values

    def wait(self) -> None:
        """Wait for all the processes."""
        self._accelerator.wait_for_everyone()

    def _union(self, rows: Tensor) -> Tensor:
        """Put the other processes' rows before and after this one's, `[B, ...]`."""
        padded = rows.detach().new_zeros(max(self._rows), *rows.shape[1:])
        padded[: len(rows)] = rows.detach()
        gathered = list(self._accelerator.gather(padded).split(max(self._rows)))
        parts = [part[:size] for part, size in zip(gathered, self._rows, strict=True)]
        parts[self.rank] = rows
        return torch.cat(parts)


_HALVES = (torch.bfloat16, torch.float16)


def _each_tensor(elbo: Elbo, change: Callable[[Tensor], Tensor]) -> Elbo:
    """A bound with `change` made to each of its tensors."""
    values = {field.name: getattr(elbo, field.name) for field in fields(elbo)}
    tensors = {name: change(x) for name, x in values.items() if isinstance(x, Tensor)}
    return replace(elbo, **tensors)


def _accelerator(device: torch.device, precision: Precision) -> Any:
    """Start `accelerate` for one training run."""
    if precision not in get_args(Precision):
        raise ValueError(f"precision must be one of {get_args(Precision)}, not {precision!r}")
    if precision == "fp16" and device.type == "cpu":
        raise ValueError('precision "fp16" needs a GPU: take "bf16" on the CPU')
    with warnings.catch_warnings():
        # In a notebook without ipywidgets; the bars of these packages are not used here.
        warnings.filterwarnings("ignore", message="IProgress not found")
        from accelerate import Accelerator
        from accelerate.state import AcceleratorState

    # Its settings hold for a whole process, where a notebook fits one model after another.
    AcceleratorState._reset_state(reset_partial_state=True)
    mixed = "no" if precision == "fp32" else precision
    return Accelerator(cpu=device.type == "cpu", mixed_precision=mixed)
