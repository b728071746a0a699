"""Scoring a model at samples of its posterior, each example with a stream of noise of its own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Normal

from tutvae.models.protocols import LatentVariableModel


def noise_streams(seed: int, positions: Iterable[int]) -> list[np.random.Generator]:
    """Start a stream of noise for each example.

    Args:
        seed: of all the streams.
        positions: where each example stands in the caller's list, B numbers.

    Returns:
        B independent generators. What one draws depends on the seed and its position, not on
        the other examples of the batch, nor on how many numbers are drawn at a time.

    Source: Salmon et al. (2011), whose counter-based generator takes any pair as its key.
    """
    return [np.random.Generator(np.random.Philox(key=[seed, position])) for position in positions]


def importance_samples_of(
    model: LatentVariableModel,
    x: Any,
    q: Normal,
    samples: int,
    chunk_size: int,
    noise: Sequence[np.random.Generator],
) -> tuple[Tensor, Tensor]:
    """Score a batch at S samples of its posterior.

    Args:
        model: a `LatentVariableModel`.
        x: the batch.
        q: its posterior, `[B, Z]`.
        samples: how many, S.
        chunk_size: samples that are decoded at a time; changes the memory, not the result.
        noise: a stream of noise for each of the B examples; see `noise_streams`.

    Returns:
        log p(x|z) and log p(x, z) - log q(z|x), both `[S, B]` nats an example.

    Source: Burda et al. (2016), equation 7. Chapter 2, equation `iwae`.
    """
    log_likelihoods, log_weights = [], []
    for start in range(0, samples, chunk_size):
        shape = (min(chunk_size, samples - start), q.loc.shape[1])
        draws = [stream.standard_normal(shape, dtype=np.float32) for stream in noise]
        z = q.loc + q.scale * torch.from_numpy(np.stack(draws, axis=1)).to(q.loc)  # [s, B, Z]
        log_likelihood = model.log_likelihood(x, z)
        log_ratio = (model.prior().log_prob(z) - q.log_prob(z)).sum(-1)
        log_likelihoods.append(log_likelihood)
        log_weights.append(log_likelihood + log_ratio)
    return torch.cat(log_likelihoods), torch.cat(log_weights)
