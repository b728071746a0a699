"""What the benchmarks share: the corpus, the models' sizes, and ways that take turns."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import islice
from multiprocessing import get_context
from resource import RUSAGE_SELF, getrusage
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import torch.nn.functional as F
from torch import nn

import tutvae
from benchmarks import machine
from benchmarks.usual import LONGEST
from tutvae.data.batches.text_batch import TextBatch
from tutvae.experiments.tables import aligned
from tutvae.models import GRUDecoder, LSTMDecoder, LSTMEncoder, TextVAE

V = 10_000
DOCUMENTS = 8_000
Work = Callable[[], float]  # does it, and says how much it was


class GRUEncoder(LSTMEncoder):
    """The encoder with the cell of published code's small models."""

    def __init__(self, V: int, E: int, H: int, Z: int) -> None:
        super().__init__(V, E, H, Z)
        self.lstm = nn.GRU(E, H, batch_first=True)


def small_model(V: int = V) -> TextVAE:
    sizes = (V, 300, 256, 16)
    return TextVAE(GRUEncoder(*sizes), GRUDecoder(*sizes))


def large_model(V: int = V) -> TextVAE:
    sizes = (V, 512, 1024, 32)
    return TextVAE(LSTMEncoder(*sizes), LSTMDecoder(*sizes))


def documents() -> tuple[tutvae.EncodedTexts, str]:
    """Sentences of the Penn Treebank; generated ones of such lengths where it is not at hand."""
    try:
        texts = tutvae.ptb().train.texts
    except (OSError, ValueError):
        random = np.random.default_rng(0)
        lengths = random.gamma(4.3, 21 / 4.3, DOCUMENTS).clip(1, LONGEST - 1).astype(int)
        words = (random.zipf(1.2, length) % (V - 4) + 4 for length in lengths)
        return tutvae.EncodedTexts([[1, *ids, 2] for ids in words]), "generated"
    tokenizer = tutvae.Tokenizer.train(texts, max_vocabulary=V)
    short = [text for text in texts if len(text.split()) < LONGEST]
    return tutvae.EncodedTexts.from_texts(short[:DOCUMENTS], tokenizer), "Penn Treebank"


def file_order(texts: tutvae.EncodedTexts, batch_size: int) -> Iterator[TextBatch]:
    """Batches of neighbours in the file, padded to 60 tokens besides the start mark."""
    for rows in np.arange(len(texts)).reshape(-1, batch_size):
        batch = texts.batch(rows)
        room = LONGEST + 1 - batch.tokens.shape[1]
        yield TextBatch(F.pad(batch.tokens, (0, room)), batch.lengths)


def take(batches: Iterator[TextBatch], count: int) -> tuple[list[TextBatch], int]:
    """The next few batches, and how many tokens they have to predict."""
    taken = list(islice(batches, count))
    return taken, sum(batch.predicted_tokens for batch in taken)


def forward_gflop(module: nn.Module) -> float:
    """What a token's forward pass takes at the least: two operations a weight of each matrix."""
    layers = [layer for layer in module.modules() if not isinstance(layer, nn.Embedding)]
    weights = [p for layer in layers for p in layer.parameters(recurse=False) if p.dim() > 1]
    return 2e-9 * sum(p.numel() for p in weights)


@dataclass(frozen=True)
class Row:
    """An answer: how much of something each way does in a second.

    Attributes:
        question: what is done.
        unit: what is counted.
        threads: of the processor.
        rates: units a second, of the "usual" way and of ours, "fp32" and "bf16".
        matrices: what the machine made of matrix products meanwhile, GFLOP/s, by precision.
        gflop: operations that a unit takes at the least, in billions; None where it says little.
        published: public code's units a second over the matrix rate of its machine, in GFLOP/s.
        whole: units of the whole task, where its seconds are asked for.
        megabytes: the most memory that each way took besides, where that was measured.
    """

    question: str
    unit: str
    threads: int
    rates: dict[str, float]
    matrices: dict[str, float] | None = None
    gflop: float | None = None
    published: float | None = None
    whole: int | None = None
    megabytes: dict[str, float] | None = None


def rate(work: Work) -> float:
    start = perf_counter()
    return work() / (perf_counter() - start)


def medians(ways: dict[str, Work], rounds: int) -> dict[str, float]:
    """Units a second of each way: the medians over rounds in which each has its turn."""
    for work in ways.values():  # the first calls set things up
        work()
    measured = [[rate(work) for work in ways.values()] for _ in range(rounds)]
    return dict(zip(ways, map(median, zip(*measured, strict=True)), strict=True))


def measure(
    question: str, unit: str, ways: dict[str, Work], *, threads: int, rounds: int = 3, **row: Any
) -> Row:
    """Measure some ways and, in turn with them, what the machine makes of matrix products."""
    products = {name: machine.matrix_product(dtype) for name, dtype in machine.PRECISIONS.items()}
    beside = {f"{name} matrices": product for name, product in products.items()}
    with machine.threads(threads):
        found = medians(ways | beside, rounds)
    rates = {name: found[name] for name in ways}
    matrices = {name: found[f"{name} matrices"] for name in products}
    return Row(question, unit, threads, rates, matrices, **row)


def alone(work: Callable[..., float], *arguments: Any) -> tuple[float, float]:
    """Rate of some work in a process of its own with one thread, and the megabytes that it took."""
    # A process that is started anew would begin with the peak of the one that starts it.
    with ProcessPoolExecutor(1, mp_context=get_context("forkserver")) as pool:
        return pool.submit(_with_memory, work, *arguments).result()


def _with_memory(work: Callable[..., float], *arguments: Any) -> tuple[float, float]:
    with machine.threads(1):
        before = getrusage(RUSAGE_SELF).ru_maxrss
        found = rate(lambda: work(*arguments))
    return found, (getrusage(RUSAGE_SELF).ru_maxrss - before) / 1024  # kilobytes on Linux


def shown(rows: list[Row]) -> str:
    """The rows as a table: each way's rate, and how many times the first one's that is."""
    ways = list(dict.fromkeys(way for row in rows for way in row.rates))
    table = [["", "a second", "threads", *ways]]
    for row in rows:
        first = next(iter(row.rates.values()))
        cells = [
            f"{row.rates[way]:,.0f} ({row.rates[way] / first:.2f}x)" if way in row.rates else ""
            for way in ways
        ]
        table.append([row.question, row.unit, str(row.threads), *cells])
    return "\n".join(aligned(table))
