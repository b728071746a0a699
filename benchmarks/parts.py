"""Where a training step's time goes: matrix products, softmax, optimizer, and the rest.

    TUTVAE_DATA=data python -m benchmarks.parts

PyTorch's profiler takes time itself, most of it for small operations, so that their share is
somewhat too large.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from torch.profiler import ProfilerActivity, profile

from benchmarks import machine
from benchmarks.common import documents, large_model, small_model
from benchmarks.training import SLOW_SGD, large_cnn, ours
from tutvae.experiments.tables import aligned
from tutvae.models import TextVAE
from tutvae.training.engine import Precision

# The beginnings of operations' names, as the profiler gives them. What fits none is "the rest":
# gates, norms and sums, and what it takes to start an operation.
PARTS = {
    "matrix products": ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm"),
    "recurrent layers": ("aten::mkldnn_rnn_layer",),
    "convolutions": ("aten::mkldnn_convolution", "aten::convolution_backward"),
    "softmax": ("aten::_log_softmax", "aten::nll_loss"),
    "Adam": ("aten::_fused_adam_",),
    "copies, casts, zeros": ("aten::copy_", "aten::fill_", "aten::cat", "aten::index"),
}
REST = "the rest"


@dataclass(frozen=True)
class Parts:
    """Shares of a step's time, by part; they sum to 1."""

    question: str
    precision: Precision
    shares: dict[str, float]


def part_of(operation: str) -> str:
    """The part that an operation belongs to."""
    return next((part for part, names in PARTS.items() if operation.startswith(names)), REST)


def profiled(question: str, model: TextVAE, sgd: bool, precision: Precision, steps: int) -> Parts:
    """Train for some steps twice, and look at the second time."""
    optimizer = SLOW_SGD(model.parameters()) if sgd else None
    work = ours(model, documents()[0], optimizer, steps, precision)
    work()
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        work()
    times: Counter[str] = Counter()
    for event in seen.key_averages():
        times[part_of(event.key)] += event.self_cpu_time_total
    whole = times.total()
    return Parts(question, precision, {part: times[part] / whole for part in (*PARTS, REST)})


def rows(steps: int = 6) -> list[Parts]:
    models = {
        "small GRUs": (small_model, False),
        "large LSTMs": (large_model, True),
        "large CNN": (large_cnn, False),
    }
    with machine.threads(2):
        return [
            profiled(name, make(), sgd, precision, steps)
            for name, (make, sgd) in models.items()
            for precision in ("fp32", "bf16")
        ]


def shown(found: list[Parts]) -> str:
    """A row for each model and precision."""
    table = [["a step of", "", *PARTS, REST]]
    table += [
        [row.question, row.precision, *(f"{row.shares[part]:.0%}" for part in (*PARTS, REST))]
        for row in found
    ]
    return "\n".join(aligned(table))


if __name__ == "__main__":
    print(shown(rows()))
