"""Where training computes: device, precision, and one process or several."""

import ctypes
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import cache
from typing import Any, Literal, get_args

import torch
from torch import Tensor, distributed, nn

from tutvae.bounds import Elbo

Precision = Literal["fp32", "bf16", "fp16"]

FIRST_WITH_BF16 = (8, 0)  # compute capability, of the A100
_HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def rank_and_world_size() -> tuple[int, int]:
    """Say which of how many processes this is, as torchrun tells it: (0, 1) alone.

    `Batches(texts, rank=rank, world_size=world_size, ...)` makes this process's share. For four
    GPUs, start by `torchrun --nproc-per-node 4 train.py`; see "Long runs and large corpora".
    """
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


class Engine:
    """Runs a model forward and backward on a device, in a precision, in step with all processes.

    However many processes there are, the loss is that of the union of their batches, and so is
    its gradient.

    Args:
        model: moved to the device; several processes all start from the first one's weights.
        device: to several processes it says only whether each takes the GPU of its own number.
        precision: "fp32"; or "bf16" or "fp16", in which the heavy operations then compute.
            Weights, losses and metrics stay in 32 bits. A GPU without bf16, such as Colab's T4,
            computes in fp16 where that is asked for. Another one is a ValueError, as is an
            environment that speaks of several processes and does not say how to find them.

    Source: Micikevicius et al. (2018) for the precision. The page on scaling.
    """

    def __init__(
        self, model: nn.Module, device: torch.device | str, precision: Precision = "fp32"
    ) -> None:
        self.device = torch.device(device)
        if precision not in get_args(Precision):
            raise ValueError(f"precision must be one of {get_args(Precision)}, not {precision!r}")
        if precision == "fp16" and self.device.type == "cpu":
            raise ValueError('precision "fp16" needs a GPU: take "bf16" on the CPU')
        if precision == "bf16" and self.device.type == "cuda":
            has_bf16 = torch.cuda.get_device_capability(self.device) >= FIRST_WITH_BF16
            precision = "bf16" if has_bf16 else "fp16"  # older ones only emulate it, slowly
        self.rank, self.processes = _join_processes(self.device)  # this one, and how many
        if self.processes > 1:
            self.device = _own_device(self.device, self.rank)
            # Noise of its own for each process, from whatever seed they share.
            torch.manual_seed((torch.initial_seed() + self.rank) % 2**63)
        self.model = model.to(self.device)
        self._forward: nn.Module = self.model
        if self.processes > 1:
            self._forward = nn.parallel.DistributedDataParallel(self.model)
        self._half = _HALVES.get(precision)
        # Keeps small gradients above fp16's zero.
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=precision == "fp16")
        self._rows: list[int] = []  # of each process's present batch

    def shares(self, batches: Sequence[Any]) -> Iterator[tuple[Any, float]]:
        """Yield a step's batches on the device, each with its share of the step's examples."""
        rows = self._rows_of_all([len(batch) for batch in batches])  # [processes, batches]
        total = sum(map(sum, rows))
        for index, batch in enumerate(batches):
            self._rows = [of_process[index] for of_process in rows]
            # The processes exchange gradients once a step, in the last backward pass.
            waits = self.processes > 1 and index < len(batches) - 1
            with self._forward.no_sync() if waits else nullcontext():  # type: ignore[operator]
                yield batch.to(self.device), sum(self._rows) / total

    def forward(self, batch: Any) -> Elbo:
        """Bound the union of all processes' present batches; gradients go to this one's rows."""
        with autocast(self.device, self._half) if self._half else nullcontext():
            elbo: Elbo = self._forward(batch)
        terms = {name: x for name, x in vars(elbo).items() if isinstance(x, Tensor)}
        halves = _HALVES.values()
        tensors = {name: x.float() if x.dtype in halves else x for name, x in terms.items()}
        return replace(elbo, **(tensors if self.processes == 1 else self._union(tensors)))

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of a loss of the union, from whichever process's rows, to `.grad`."""
        # The processes' gradients are averaged, and what is due is their sum.
        self.scaler.scale(loss * self.processes).backward()

    def update(self, optimizer: torch.optim.Optimizer, max_grad_norm: float | None = None) -> None:
        """Take an optimizer's step, along a gradient that is no longer than `max_grad_norm`."""
        self.scaler.unscale_(optimizer)
        if max_grad_norm is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), max_grad_norm)
        self.scaler.step(optimizer)
        self.scaler.update()

    def gather(self, value: Any) -> list[Any]:
        """What each process has for `value`, which may be anything small, in their order."""
        if self.processes == 1:
            return [value]
        values: list[Any] = [None] * self.processes
        distributed.all_gather_object(values, value)
        return values

    def _rows_of_all(self, rows: list[int]) -> list[list[int]]:
        if self.processes == 1:
            return [rows]
        on = "cpu" if "gloo" in distributed.get_backend_config() else self.device
        table = torch.zeros(self.processes, len(rows), dtype=torch.int64, device=on)
        table[self.rank] = torch.tensor(rows, device=on)
        distributed.all_reduce(table)
        return table.tolist()

    def _union(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Put the other processes' rows before and after this one's, `[B, ...]` each."""
        # They travel as one tensor [B, columns], in a type that holds all others' values.
        flat = torch.cat([x.detach().double().reshape(len(x), -1) for x in tensors.values()], 1)
        padded = flat.new_zeros(max(self._rows), flat.shape[1])
        padded[: len(flat)] = flat
        gathered = [torch.empty_like(padded) for _ in range(self.processes)]
        distributed.all_gather(gathered, padded)
        widths = [x[0].numel() for x in tensors.values()]
        rows = zip(gathered, self._rows, strict=True)
        parts = [of_process[:count].split(widths, 1) for of_process, count in rows]
        union = {}
        for index, (name, own) in enumerate(tensors.items()):
            all_rows = [part[index].to(own.dtype).reshape(-1, *own.shape[1:]) for part in parts]
            all_rows[self.rank] = own
            union[name] = torch.cat(all_rows)
        return union


@contextmanager
def autocast(device: torch.device, dtype: torch.dtype) -> Iterator[None]:
    """Compute the heavy operations in `dtype`, also where oneDNN has no LSTM in it.

    PyTorch asks oneDNN for one on a CPU that has the instructions, even if oneDNN may not use them.
    """
    enabled = torch.backends.mkldnn.enabled
    if device.type == "cpu":
        torch.backends.mkldnn.set_flags(_enabled=enabled and _onednn_has_lstm(dtype))
    try:
        with torch.autocast(device.type, dtype):
            yield
    finally:
        torch.backends.mkldnn.set_flags(_enabled=enabled)


@cache
def _onednn_has_lstm(dtype: torch.dtype) -> bool:
    """Whether an LSTM can be computed in a precision by oneDNN."""
    with torch.autocast("cpu", dtype), torch.random.fork_rng(devices=[]):
        try:
            nn.LSTM(1, 1)(torch.zeros(1, 1, 1))
        except RuntimeError:
            return False
    return True


def _join_processes(device: torch.device) -> tuple[int, int]:
    """Meet the processes that torchrun started beside this one; its rank, and their number."""
    rank, processes = rank_and_world_size()
    if processes > 1 and not distributed.is_initialized():
        variables = ("RANK", "MASTER_ADDR", "MASTER_PORT")
        if missing := [name for name in variables if name not in os.environ]:
            raise ValueError(
                f"WORLD_SIZE is {processes}, but {', '.join(missing)} is not set: start several "
                "processes with torchrun, or unset WORLD_SIZE to train in one"
            )
        # gloo also carries what the processes agree on in CPU memory.
        distributed.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    return rank, processes


def _own_device(device: torch.device, rank: int) -> torch.device:
    """The GPU of this process, if GPUs are wanted."""
    if device.type != "cuda":
        return torch.device("cpu")
    number = int(os.environ.get("LOCAL_RANK", rank % torch.cuda.device_count()))
    torch.cuda.set_device(number)
    return torch.device("cuda", number)


def release_memory() -> None:
    """Give the system back what freed arrays left with the C library, where that is glibc.

    Batches of many shapes leave gaps that nothing fills: gigabytes over fifty epochs.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)
