"""The evidence lower bound, the losses made of it, and its importance-weighted form."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

FreeBitsPer = Literal["dimension", "total", "example"]


@dataclass(frozen=True, eq=False)
class Elbo:
    """The terms of the evidence lower bound, one value an example, in nats.

    A term is summed over the example (all pixels, all tokens, all latent dimensions) and never
    averaged over it; only the batch is averaged, by `loss`.

    Attributes:
        reconstruction: -log p(x|z) at a sample z of the posterior, `[B]`.
        kl: KL(q(z|x) || p(z)), `[B]`.
        kl_per_dimension: the same before its sum over dimensions, `[B, Z]`.

    Source: Kingma & Welling (2014), equations 3 and 10. Chapter 1, equation `elbo`.
    """

    reconstruction: Tensor
    kl: Tensor
    kl_per_dimension: Tensor | None = None

    @property
    def value(self) -> Tensor:
        """The bound itself, a lower bound on log p(x), `[B]` nats."""
        return -(self.reconstruction + self.kl)

    def loss(
        self,
        kl_weight: float = 1.0,
        free_bits: float = 0.0,
        free_bits_per: FreeBitsPer = "dimension",
    ) -> Tensor:
        """Average over the batch what training minimises, a scalar in nats.

        Args:
            kl_weight: factor of the KL term, often called beta; 1 gives the bound itself.
            free_bits: nats of KL that come at no cost: a smaller KL counts as this much.
            free_bits_per: whose KL that is. "dimension": that of each latent dimension,
                averaged over the batch. "total": the sum over dimensions, averaged over the
                batch. "example": that of each example by itself, so that the KL's gradient
                jumps, example by example, where one crosses the threshold.

        Raises:
            ValueError: `free_bits_per` is none of the three, or it is "dimension" and the KL
                per dimension is not known.

        Source: Higgins et al. (2017) for a constant weight, chapter 2; Bowman et al. (2016) for
        an annealed one, chapter 5, equation `annealed-elbo`; Kingma et al. (2016) for free bits,
        chapter 5, equation `free-bits`.
        """
        kl = self._kl_with_free_bits(free_bits, free_bits_per)
        return self.reconstruction.mean() + kl_weight * kl

    def _kl_with_free_bits(self, free_bits: float, per: FreeBitsPer) -> Tensor:
        """The batch's mean KL, a scalar, where nothing counts as less than its free bits."""
        if per not in get_args(FreeBitsPer):
            raise ValueError(f"free_bits_per must be one of {get_args(FreeBitsPer)}, not {per!r}")
        if free_bits == 0.0:
            return self.kl.mean()
        if per == "total":
            return self.kl.mean().clamp(min=free_bits)
        if per == "example":
            return self.kl.clamp(min=free_bits).mean()
        if self.kl_per_dimension is None:
            raise ValueError("free_bits needs kl_per_dimension, and this bound has none")
        return self.kl_per_dimension.mean(0).clamp(min=free_bits).sum()


def importance_weighted_bound(log_weights: Tensor) -> Tensor:
    """Bound log p(x) by the log of the mean of S importance weights.

    Args:
        log_weights: log p(x, z) - log q(z|x) at S samples z of q(z|x), `[S, B]` nats.

    Returns:
        The bound, `[B]` nats; S = 1 is the ELBO, and its mean rises with S towards log p(x).

    Source: Burda et al. (2016), equation 8. Chapter 2, equation `iwae`.
    """
    return torch.logsumexp(log_weights, dim=0) - math.log(len(log_weights))
