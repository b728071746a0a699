"""What this machine can do: multiply matrices, and take the step that times are told in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from time import perf_counter

import torch
from torch import nn

MATRIX = 1024  # rows and columns: enough for the full rate
PRODUCTS = 12
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Compute with so many threads, and with as many as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def matrix_product(dtype: torch.dtype) -> Callable[[], float]:
    """Products of two square matrices, some tenths of a second; returns billions of operations."""
    a, b = torch.randn(2, MATRIX, MATRIX).to(dtype)

    def multiply() -> float:
        for _ in range(PRODUCTS):
            torch.mm(a, b)
        return PRODUCTS * 2e-9 * MATRIX**3

    return multiply


def reference_step(steps: int = 40) -> float:
    """Time the step of a small language model with two threads: milliseconds, the median.

    An LSTM from 64 to 128 and a linear layer to 500 words, 64 documents of 16 words, cross
    entropy, Adam, single precision. In plain PyTorch, so that it stays what it is.
    """
    lstm, output = nn.LSTM(64, 128, batch_first=True), nn.Linear(128, 500)
    optimizer = torch.optim.Adam([*lstm.parameters(), *output.parameters()])
    x, targets = torch.randn(64, 16, 64), torch.randint(500, (64 * 16,))
    seconds = []
    with threads(2):
        for _ in range(steps):
            start = perf_counter()
            optimizer.zero_grad()
            logits = output(lstm(x)[0]).flatten(0, 1)
            nn.functional.cross_entropy(logits, targets).backward()
            optimizer.step()
            seconds.append(perf_counter() - start)
    return 1000 * median(seconds)
