"""Scoring a model at samples of its posterior, each example with a stream of noise of its own."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Normal

from tutvae.models.protocols import LatentVariableModel

# The most that torch and NumPy both take as a seed.
LARGEST_SEED = 2**63 - 1


def check_seed(seed: int) -> None:
    """Raise TypeError for a seed that is no integer, ValueError for one outside 0 ... 2^63 - 1."""
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer):
        raise TypeError(f"a seed must be an integer, not {seed!r}")
    if not 0 <= seed <= LARGEST_SEED:
        raise ValueError(f"a seed must lie between 0 and 2^63 - 1, not {seed}")


def standard_noise(like: Tensor, seed: int) -> Tensor:
    """Draw standard Normal noise like a tensor, from a seed (see `check_seed`) of its own."""
    check_seed(seed)
    generator = torch.Generator().manual_seed(int(seed))
    return torch.randn(like.shape, generator=generator).to(like)


def in_single(x: Tensor) -> Tensor:
    """A tensor in at least single precision: half of that is too coarse to add up or to draw."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def normal_in_single(q: Normal) -> Normal:
    """A Normal in at least single precision: bf16 samples are too coarse to be weighed."""
    return Normal(in_single(q.loc), in_single(q.scale), validate_args=False)


def noise_streams(seed: int, positions: Iterable[int]) -> list[np.random.Generator]:
    """Start a stream of noise for each of B examples, by their places in the caller's list.

    What a stream draws depends on the seed and its position, not on the other examples of the
    batch, nor on how many numbers are drawn at a time.

    Source: Salmon et al. (2011), whose counter-based generator takes any pair as its key.
    """
    check_seed(seed)
    return [np.random.Generator(np.random.Philox(key=[seed, position])) for position in positions]


def importance_samples_of(
    model: LatentVariableModel,
    x: Any,
    q: Normal,
    samples: int,
    chunk_size: int,
    noise: Sequence[np.random.Generator],
) -> tuple[Tensor, Tensor]:
    """Score a batch at S samples: log p(x|z) and log p(x, z) - log q(z|x), both `[S, B]` nats.

    The samples are of its posterior q, `[B, Z]`, by a stream of `noise_streams` for each example,
    and decoded `chunk_size` at a time, which changes the memory and not the result.

    Source: Burda et al. (2016), equation 7. Chapter 2, equation `iwae`.
    """
    q, prior = normal_in_single(q), model.prior()
    # Made at once: small results between large chunks would pin the memory that these have freed.
    log_likelihoods = q.loc.new_empty(samples, len(q.loc))
    log_weights = torch.empty_like(log_likelihoods)
    for start in range(0, samples, chunk_size):
        chunk = slice(start, min(start + chunk_size, samples))
        shape = (chunk.stop - start, q.loc.shape[1])
        draws = [stream.standard_normal(shape, dtype=np.float32) for stream in noise]
        z = q.loc + q.scale * torch.from_numpy(np.stack(draws, axis=1)).to(q.loc)  # [s, B, Z]
        z = z.to(prior.loc.dtype)  # what a half-precision model decodes is what is weighed
        log_likelihoods[chunk] = model.log_likelihood(x, z)
        log_ratio = (normal_in_single(prior).log_prob(z) - q.log_prob(z)).sum(-1)
        log_weights[chunk] = log_likelihoods[chunk] + log_ratio
    return log_likelihoods, log_weights
