"""Training: real tokens a second, the usual way and ours.

The models are those of published code, on sentences of the Penn Treebank in batches of 32: a small
one of GRUs with Adam, a large one of LSTMs with SGD. The large CNN decoder has no public peer: its
two precisions are compared with each other.

    TUTVAE_DATA=data python -m benchmarks.training
"""

from __future__ import annotations

from copy import deepcopy
from functools import partial

from torch.optim import SGD, Adam, Optimizer

import tutvae
from benchmarks import usual
from benchmarks.common import (
    Row,
    V,
    Work,
    documents,
    file_order,
    forward_gflop,
    large_model,
    measure,
    shown,
    small_model,
    take,
)
from tutvae.models import DilatedConvDecoder, LSTMEncoder, TextVAE
from tutvae.training.engine import Precision

BATCH = 32
SLOW_SGD = partial(SGD, lr=1e-4)  # the time does not depend on what is learnt


def the_usual(model: TextVAE, texts: tutvae.EncodedTexts, optimizer: Optimizer, steps: int) -> Work:
    """A few steps on the batches that come next."""
    batches = file_order(texts, BATCH)

    def work() -> float:
        taken, tokens = take(batches, steps)
        usual.train(model, taken, optimizer)
        return tokens

    return work


def ours(
    model: TextVAE,
    texts: tutvae.EncodedTexts,
    optimizer: Optimizer | None,
    steps: int,
    precision: Precision,
) -> Work:
    """The same number of steps by `fit`."""
    batches = iter(tutvae.Batches(texts, batch_size=BATCH))

    def work() -> float:
        taken, tokens = take(batches, steps)
        tutvae.fit(
            model,
            taken,
            epochs=1,
            optimizer=optimizer,
            precision=precision,
            device="cpu",
            progress=False,
        )
        return tokens

    return work


def both(model: TextVAE, sgd: bool, steps: int) -> dict[str, Work]:
    """The usual way, and ours in both precisions, each with a copy of the model."""
    texts, _ = documents()
    copies = [deepcopy(model) for _ in range(3)]
    sgds = [SLOW_SGD(copy.parameters()) for copy in copies]
    adam = Adam(copies[0].parameters(), lr=1e-3)
    return {
        "usual": the_usual(copies[0], texts, sgds[0] if sgd else adam, steps),
        "fp32": ours(copies[1], texts, sgds[1] if sgd else None, steps, "fp32"),
        "bf16": ours(copies[2], texts, sgds[2] if sgd else None, steps, "bf16"),
    }


def large_cnn() -> TextVAE:
    sizes = (V, 512, 512, 32)
    return TextVAE(LSTMEncoder(*sizes), DilatedConvDecoder(*sizes, dilations="large"))


def rows(steps: int = 3, rounds: int = 3) -> list[Row]:
    """A step's operations are three times those of a forward pass."""
    small, large, cnn = small_model(), large_model(), large_cnn()
    cnn_ways = both(cnn, sgd=False, steps=steps)
    del cnn_ways["usual"]
    tokens = partial(measure, unit="tokens", rounds=rounds)
    small_row = partial(tokens, "training, small GRUs", gflop=3 * forward_gflop(small))
    return [
        small_row(ways=both(small, False, steps), threads=2, published=1_643 / 145),
        small_row(ways=both(small, False, steps), threads=1, published=1_051 / 71),
        tokens(
            "training, large LSTMs",
            ways=both(large, True, steps),
            threads=2,
            gflop=3 * forward_gflop(large),
            published=511 / 145,
        ),
        tokens("training, large CNN", ways=cnn_ways, threads=2, gflop=3 * forward_gflop(cnn)),
    ]


if __name__ == "__main__":
    print(shown(rows()))
