"""How the cost grows with the length, the vocabulary, the depth and the corpus.

An exponent of 1 says that twice as much takes twice as long, one below 1 that it takes less.

    python -m benchmarks.growth
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

import tutvae
from benchmarks import machine
from benchmarks.common import Work, medians, small_model
from tutvae.data.batches.text_batch import TextBatch
from tutvae.experiments.tables import aligned
from tutvae.models import DilatedConvDecoder, LanguageModel

ROUNDS = 5


@dataclass(frozen=True)
class Growth:
    """What grows, the seconds at each of its sizes, and the exponent that fits them best."""

    question: str
    seconds: dict[str, float]
    exponent: float


def once(work: Callable[[], object]) -> Work:
    """The work as one unit."""

    def counted() -> float:
        work()
        return 1.0

    return counted


def growth(question: str, works: dict[int, Callable[[], object]]) -> Growth:
    """Measure some work at several sizes, on one thread, in turns."""
    with machine.threads(1):
        found = medians({str(size): once(work) for size, work in works.items()}, ROUNDS)
    seconds = {size: 1 / rate for size, rate in found.items()}
    exponent, _ = np.polyfit(np.log(list(works)), np.log(list(seconds.values())), 1)
    return Growth(question, seconds, float(exponent))


def gradient_of(model: nn.Module, T: int, B: int = 16) -> Callable[[], object]:
    """Bound documents of T random words, and go back."""
    tokens = torch.randint(4, 1_000, (B, T + 1))
    batch = TextBatch(tokens, torch.full((B,), T + 1))
    return lambda: model(batch).loss().backward()


def convolutions(blocks: int) -> nn.Module:
    return LanguageModel(DilatedConvDecoder(1_000, 64, 128, dilations=[1, 2] * (blocks // 2)))


def epoch_of(documents: int) -> Callable[[], object]:
    """Draw and pad all batches of an epoch."""
    lengths = np.random.default_rng(0).integers(3, 40, documents)
    texts = tutvae.EncodedTexts([np.full(length, 5) for length in lengths])
    return lambda: list(tutvae.Batches(texts, batch_size=32))


def rows() -> list[Growth]:
    model = small_model(1_000)
    return [
        growth("words in a text", {T: gradient_of(model, T) for T in (16, 32, 64, 128)}),
        growth(
            "words in the vocabulary",
            {V: gradient_of(small_model(V), 20) for V in (5_000, 10_000, 20_000, 40_000)},
        ),
        growth("blocks of the CNN", {n: gradient_of(convolutions(n), 30) for n in (4, 8, 16, 32)}),
        growth("texts in the corpus", {N: epoch_of(N) for N in (10_000, 30_000, 90_000)}),
    ]


def shown(found: list[Growth]) -> str:
    table = [["twice as many", "exponent", "seconds"]]
    for row in found:
        seconds = ", ".join(f"{size}: {taken:.3f}" for size, taken in row.seconds.items())
        table.append([row.question, f"{row.exponent:.2f}", seconds])
    return "\n".join(aligned(table))


if __name__ == "__main__":
    print(shown(rows()))
