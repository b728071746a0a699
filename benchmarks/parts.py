"""Where the time goes: matrix products, softmax, optimizer, and the rest.

    TUTVAE_DATA=data python -m benchmarks.parts

PyTorch's profiler takes time itself, most of it for small operations, so that their share is
somewhat too large.
"""

from __future__ import annotations

from collections import Counter
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch.profiler import ProfilerActivity, profile

import tutvae
from benchmarks import machine
from benchmarks.common import Work, documents, large_model, small_model
from benchmarks.evaluation import TOGETHER, scoring
from benchmarks.generation import by_generate, large_cnn_writer, small_writer, writing
from benchmarks.training import SLOW_SGD, large_cnn, ours
from tutvae.experiments.tables import aligned

# The beginnings of operations' names, as the profiler gives them. What fits none is "the rest":
# gates, norms and sums, and what it takes to start an operation.
PARTS = {
    "matrix products": ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm"),
    "recurrent layers": ("aten::mkldnn_rnn_layer",),
    "convolutions": ("aten::mkldnn_convolution", "aten::convolution_backward"),
    "softmax, largest": ("aten::_log_softmax", "aten::nll_loss", "aten::argmax", "aten::amax"),
    "Adam": ("aten::_fused_adam_",),
    "copies, casts, zeros": ("aten::copy_", "aten::fill_", "aten::cat", "aten::index"),
}
REST = "the rest"


@dataclass(frozen=True)
class Parts:
    """Shares of the time of a task, by part; they sum to 1."""

    question: str
    precision: str
    threads: int
    shares: dict[str, float]


def part_of(operation: str) -> str:
    """The part that an operation belongs to."""
    return next((part for part, names in PARTS.items() if operation.startswith(names)), REST)


def profiled(question: str, precision: str, threads: int, work: Work) -> Parts:
    """Do something twice, and look at the second time."""
    times: Counter[str] = Counter()
    with machine.threads(threads):
        work()
        with profile(activities=[ProfilerActivity.CPU]) as seen:
            work()
    for event in seen.key_averages():
        times[part_of(event.key)] += event.self_cpu_time_total
    shares = {part: times[part] / times.total() for part in (*PARTS, REST)}
    return Parts(question, precision, threads, shares)


def of_training(steps: int = 6) -> list[Parts]:
    models = {
        "small GRUs": (small_model, False),
        "large LSTMs": (large_model, True),
        "large CNN": (large_cnn, False),
    }
    found = []
    for name, (make, sgd) in models.items():
        for precision in ("fp32", "bf16"):
            model = make()
            optimizer = SLOW_SGD(model.parameters()) if sgd else None
            work = ours(model, documents()[0], optimizer, steps, precision)
            found.append(profiled(f"training, {name}", precision, 2, work))
    return found


def of_the_likelihood() -> list[Parts]:
    model, texts = large_model(), documents()[0]
    batches = iter(tutvae.Batches(texts, batch_size=TOGETHER))
    return [
        profiled("likelihood", precision, 1, scoring(model, batches, precision))
        for precision in ("fp32", "bf16")
    ]


def of_writing(length: int = 20) -> list[Parts]:
    small, large = small_writer(), large_cnn_writer()
    many, few, one = torch.randn(64, 16), torch.randn(16, 32), torch.randn(1, 32)
    half = deepcopy(small).bfloat16()
    return [
        profiled(name, precision, 1, writing(by_generate, decoder, z, length))
        for name, precision, decoder, z in (
            ("writing 64 texts, GRU", "fp32", small, many),
            ("writing 64 texts, GRU", "bf16", half, many),
            ("writing 16 texts, large CNN", "fp32", large, few),
            ("writing 1 text, large CNN", "fp32", large, one),
        )
    ]


def rows() -> list[Parts]:
    return [*of_training(), *of_the_likelihood(), *of_writing()]


def shown(found: list[Parts]) -> str:
    """A row for each task and precision."""
    table = [["part of the time of", "", *PARTS, REST]]
    table += [
        [row.question, row.precision, *(f"{row.shares[part]:.0%}" for part in (*PARTS, REST))]
        for row in found
    ]
    return "\n".join(aligned(table))


if __name__ == "__main__":
    print(shown(rows()))
