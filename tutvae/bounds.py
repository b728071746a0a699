"""The evidence lower bound, the losses made of it, and its importance-weighted form."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

FreeBitsPer = Literal["dimension", "total", "example"]
# What a nat above a held rate costs. At 1, as in the bound, a KL that the bound wants would stay.
RATE_WEIGHT = 4.0


@dataclass(frozen=True, eq=False)
class Elbo:
    """The terms of the evidence lower bound, one value an example, in nats.

    A term is summed over the example (all pixels, all tokens, all latent dimensions) and never
    averaged over it; only the batch is averaged, by `loss`.

    Attributes:
        reconstruction: -log p(x|z) at a sample z of the posterior, `[B]`.
        kl: KL(q(z|x) || p(z)), `[B]`.
        kl_per_dimension: the same before its sum over dimensions, `[B, Z]`.
        weights: of each example in the batch's means, `[B]`, with sum 1; equal by default.

    >>> elbo = tutvae.Elbo(reconstruction=torch.tensor([3.0, 5.0]), kl=torch.tensor([1.0, 1.0]))
    >>> elbo.value, elbo.loss(kl_weight=0.5)
    (tensor([-4., -6.]), tensor(4.5000))

    Source: Kingma & Welling (2014), equations 3 and 10. Chapter 1, equation `elbo`.
    """

    reconstruction: Tensor
    kl: Tensor
    kl_per_dimension: Tensor | None = None
    weights: Tensor | None = None

    @property
    def value(self) -> Tensor:
        """The bound itself, a lower bound on log p(x), `[B]` nats."""
        return -(self.reconstruction + self.kl)

    @property
    def terms(self) -> dict[str, Tensor]:
        """The costs that add up to the negative bound, by name, `[B]` nats each."""
        return {"reconstruction": self.reconstruction, "kl": self.kl}

    def mean(self, values: Tensor) -> Tensor:
        """Average values `[B, ...]` over the batch: `[...]`."""
        if self.weights is None:
            return values.mean(0)
        return (values.movedim(0, -1) * self.weights).sum(-1)

    def loss(
        self,
        kl_weight: float = 1.0,
        free_bits: float = 0.0,
        free_bits_per: FreeBitsPer = "dimension",
        rate: float | None = None,
    ) -> Tensor:
        """Average over the batch what training minimises, a scalar in nats.

        Args:
            kl_weight: factor of the KL term, often called beta; 1 gives the bound itself.
            free_bits: nats of KL that come at no cost: a smaller KL counts as this much.
            free_bits_per: whose KL that is. "dimension": that of each latent dimension,
                averaged over the batch. "total": the sum over dimensions, averaged over the
                batch. "example": that of each example by itself, so that the KL's gradient
                jumps where one crosses the threshold.
            rate: nats of KL to hold, summed over dimensions and averaged over the batch, in place
                of free bits. Below it the KL comes at no cost, so that the code fills; above it
                a nat costs four, so that the KL comes back.

        ValueError if `free_bits_per` is none of the three, it is "dimension" and the KL per
        dimension is not known, or both a rate and free bits are given.

        Source: Higgins et al. (2017) for a constant weight, chapter 2; Bowman et al. (2016) for
        an annealed one, chapter 5, equation `annealed-elbo`; Kingma et al. (2016) for free bits,
        chapter 5, equation `free-bits`; Alemi et al. (2018) for the rate as what one chooses.
        Chapter 5, equation `rate`.
        """
        if rate is None:
            kl = self._kl_with_free_bits(free_bits, free_bits_per)
        elif free_bits:
            raise ValueError("a rate holds the KL by itself: leave free_bits out")
        else:
            kl = rate + RATE_WEIGHT * (self.mean(self.kl) - rate).clamp(min=0)
        return self.mean(self.reconstruction) + kl_weight * kl

    def _kl_with_free_bits(self, free_bits: float, per: FreeBitsPer) -> Tensor:
        """The batch's mean KL, a scalar, where nothing counts as less than its free bits."""
        if per not in get_args(FreeBitsPer):
            raise ValueError(f"free_bits_per must be one of {get_args(FreeBitsPer)}, not {per!r}")
        if free_bits == 0.0:
            return self.mean(self.kl)
        if per == "total":
            return self.mean(self.kl).clamp(min=free_bits)
        if per == "example":
            return self.mean(self.kl.clamp(min=free_bits))
        if self.kl_per_dimension is None:
            raise ValueError("free_bits needs kl_per_dimension, and this bound has none")
        return self.mean(self.kl_per_dimension).clamp(min=free_bits).sum()


@dataclass(frozen=True, eq=False, kw_only=True)
class LabelElbo(Elbo):
    """The terms of the bound of a model with labels, one value a document, in nats.

    A document with a label bounds log p(x, y), one without bounds log p(x): then `reconstruction`
    and the KL of z are means over the labels that q(y|x) gives.

    Attributes:
        label_kl: KL(q(y|x) || p(y)) without a label, -log p(y) with one, `[B]`; chapter 9,
            equation `label-kl-parts`, says what a large one can mean.
        classification: -log q(y|x) with a label, 0 without, `[B]`. It is no part of the bound.
        labelled: which documents have a label, `[B]`.
        classification_weight: factor of the classification term in the loss.
        label_kl_floor: nats of the label's KL that come at no cost.
        labelled_weight: factor in the loss of the labelled documents' mean bound.

    >>> three, one, yes = torch.tensor([3.0]), torch.tensor([1.0]), torch.tensor([True])
    >>> elbo = tutvae.LabelElbo(three, one, label_kl=one, classification=one, labelled=yes)
    >>> elbo.value, elbo.loss()
    (tensor([-5.]), tensor(6.))

    Source: Kingma et al. (2014), equations 6 to 9. Chapter 8, equation `labelled-bound`, and
    chapter 8, equation `unlabelled-bound`.
    """

    label_kl: Tensor
    classification: Tensor
    labelled: Tensor
    classification_weight: float = 1.0
    label_kl_floor: float = 0.0
    labelled_weight: float = 1.0

    @property
    def value(self) -> Tensor:
        """The bound itself, a lower bound on log p(x, y) or log p(x), `[B]` nats."""
        return super().value - self.label_kl

    @property
    def terms(self) -> dict[str, Tensor]:
        """The costs that add up to the negative bound, by name, `[B]` nats each."""
        return super().terms | {"label_kl": self.label_kl}

    def loss(
        self,
        kl_weight: float = 1.0,
        free_bits: float = 0.0,
        free_bits_per: FreeBitsPer = "dimension",
        rate: float | None = None,
    ) -> Tensor:
        """Average what training minimises, a scalar in nats.

        The sum of three means, of which those over no document count as 0: that of the bound's
        cost over the documents with a label, `labelled_weight` times; that of the bound's cost
        over those without; and, `classification_weight` times, that of the classification term
        over those with one. So neither the number of labels in a batch nor that of other
        documents sets their weight.

        The arguments and errors are those of `Elbo.loss`. `kl_weight` is also the factor of the
        label's KL; free bits, or the rate, are of the KL of z, in each of the two means by itself.

        Source: Kingma et al. (2014), equations 8 and 9, chapter 8, equation
        `semi-supervised-loss`; Yang et al. (2017) for the floor of the label's KL, which is taken
        of the mean over the documents without a label, chapter 9, equation `label-floor`.
        """
        loss = self.reconstruction.new_zeros(())
        parts = (self.labelled, 0.0, self.labelled_weight), (~self.labelled, self.label_kl_floor, 1)
        for rows, floor, factor in parts:
            # Weights instead of a choice of rows, whose number a GPU would have to tell.
            weights = rows.to(self.reconstruction) / rows.sum().clamp(min=1)
            part = Elbo(self.reconstruction, self.kl, self.kl_per_dimension, weights)
            bound = part.loss(kl_weight, free_bits, free_bits_per, rate)
            label_kl = part.mean(self.label_kl).clamp(min=floor)
            classification = part.mean(self.classification)
            cost = factor * (bound + kl_weight * label_kl)
            loss = loss + rows.any() * (cost + self.classification_weight * classification)
        return loss


def importance_weighted_bound(log_weights: Tensor) -> Tensor:
    """Bound log p(x), `[B]` nats, by the log of the mean of S importance weights.

    Their logarithms are log p(x, z) - log q(z|x) at S samples z of q(z|x), `[S, B]` nats. With
    S = 1 the bound is the ELBO, and its mean rises with S towards log p(x).

    >>> log_weights = torch.tensor([[-100.0], [-90.0]])  # S = 2, B = 1
    >>> tutvae.importance_weighted_bound(log_weights) > log_weights.mean(0)
    tensor([True])

    Source: Burda et al. (2016), equation 8. Chapter 2, equation `iwae`.
    """
    return torch.logsumexp(log_weights, dim=0) - math.log(len(log_weights))
