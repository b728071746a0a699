"""Evaluation: the likelihood by importance samples, and the mutual information.

TUTVAE_DATA=data python -m benchmarks.evaluation
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from statistics import median
from typing import Literal

import torch
from torch.distributions import Normal

import tutvae
from benchmarks import usual
from benchmarks.common import (
    Row,
    Work,
    alone,
    documents,
    forward_gflop,
    large_model,
    measure,
    shown,
)
from tutvae.data.batches.text_batch import TextBatch
from tutvae.models import TextVAE
from tutvae.training.engine import autocast

SAMPLES = 100
TOGETHER = 4  # documents that we score at once


def scoring(
    model: TextVAE, batches: Iterable[TextBatch], precision: Literal["fp32", "bf16"]
) -> Work:
    """Score the next batch by `evaluate`; token-samples."""
    coming = iter(batches)

    def score() -> float:
        batch, half = next(coming), autocast(torch.device("cpu"), torch.bfloat16)
        with half if precision == "bf16" else nullcontext():
            tutvae.evaluate(model, [batch], importance_samples=SAMPLES)
        return SAMPLES * batch.predicted_tokens

    return score


def importance_weighted(rounds: int = 3) -> Row:
    """Token-samples a second of the large model's decoder: all samples of a document count."""
    texts, _ = documents()
    model = large_model()
    alone_in_file = (texts.batch([row]) for row in range(len(texts)))
    batches = iter(tutvae.Batches(texts, batch_size=TOGETHER))

    def one_by_one() -> float:
        batch = next(alone_in_file)
        usual.importance_weighted_nll(model, batch, SAMPLES, block=SAMPLES)
        return SAMPLES * batch.predicted_tokens

    return measure(
        f"likelihood by {SAMPLES} samples",
        "token-samples",
        {
            "usual": one_by_one,
            "fp32": scoring(model, batches, "fp32"),
            "bf16": scoring(model, batches, "bf16"),
        },
        threads=1,
        rounds=rounds,
        gflop=forward_gflop(model.decoder),
        published=1_922 / 71,
    )


def posteriors(N: int, Z: int = 32) -> Normal:
    torch.manual_seed(0)
    return Normal(torch.randn(N, Z), 0.1 + torch.rand(N, Z))


def broadcast(N: int) -> float:
    """The usual way, for the twentieth part of the codes."""
    q = posteriors(N)
    usual.mutual_information(q, q.sample()[: N // 20])
    return N // 20


def by_products(N: int) -> float:
    tutvae.mutual_information(posteriors(N))
    return N


def mutual_information(N: int = 10_000, rounds: int = 3) -> Row:
    """Codes a second, each beside N posteriors, and the most memory; a process each."""
    ways = {"usual": broadcast, "fp32": by_products}
    measured = {name: [alone(way, N) for _ in range(rounds)] for name, way in ways.items()}
    rates = {name: median(found for found, _ in pairs) for name, pairs in measured.items()}
    megabytes = {name: median(taken for _, taken in pairs) for name, pairs in measured.items()}
    question = f"mutual information, {N:,} codes"
    return Row(question, "codes", threads=1, rates=rates, whole=N, megabytes=megabytes)


def rows() -> list[Row]:
    return [importance_weighted(), mutual_information()]


if __name__ == "__main__":
    print(shown(rows()))
