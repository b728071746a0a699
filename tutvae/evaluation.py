"""Measuring a model: bound, importance-weighted likelihood, active units.

Everything here is deterministic: the noise comes from a seed of its own, torch's global random
state is left alone, and the model is in eval mode meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from tutvae.bounds import Elbo, importance_weighted_bound

ACTIVE_UNIT_VARIANCE = 0.01


class LatentVariableModel(Protocol):
    """What an `nn.Module` must offer to be trained and measured; `VAE` does."""

    training: bool

    def prior(self) -> Normal:
        """The prior p(z), a Normal of shape `[Z]`."""
        ...

    def posterior(self, x: Any) -> Normal:
        """The posterior q(z|x) of a batch, a Normal of shape `[B, Z]`."""
        ...

    def log_likelihood(self, x: Any, z: Tensor) -> Tensor:
        """Score a batch at codes `[..., B, Z]`: log p(x|z), `[..., B]` nats an example."""
        ...

    def __call__(self, x: Any) -> Elbo:
        """Bound log p(x) of a batch."""
        ...

    # From nn.Module.
    def to(self, device: torch.device) -> Any: ...  # noqa: D102
    def train(self, mode: bool = True) -> Any: ...  # noqa: D102
    def parameters(self) -> Iterator[nn.Parameter]: ...  # noqa: D102


@dataclass(frozen=True)
class Report:
    """What a model achieves on a set of examples, in nats an example.

    Attributes:
        examples: how many were measured, N.
        reconstruction: mean of -log p(x|z) over samples z of the posterior.
        kl: mean KL of the posterior to the prior.
        importance_weighted_nll: estimate of -log p(x) by `importance_samples` samples.
        importance_samples: S; the estimate is from above, and tighter the larger S.
        active_units: latent dimensions whose posterior mean varies with the data.
        kl_per_dimension: the KL of each of the Z dimensions.

    Source: Burda et al. (2016), section 5. Chapter 2.
    """

    examples: int
    reconstruction: float
    kl: float
    importance_weighted_nll: float
    importance_samples: int
    active_units: int
    kl_per_dimension: tuple[float, ...]

    @property
    def bound(self) -> float:
        """The negative ELBO: reconstruction + KL, an upper bound on the NLL."""
        return self.reconstruction + self.kl

    def to_dict(self) -> dict[str, Any]:
        """The fields and the bound, ready for JSON."""
        return {**asdict(self), "bound": self.bound}

    def __str__(self) -> str:
        latent_size = len(self.kl_per_dimension)
        rows = [
            ("reconstruction", f"{self.reconstruction:.2f}"),
            ("KL", f"{self.kl:.2f}"),
            ("bound", f"{self.bound:.2f}"),
            (f"NLL, {self.importance_samples} samples", f"{self.importance_weighted_nll:.2f}"),
            ("active units", f"{self.active_units} of {latent_size}"),
        ]
        title = f"{self.examples:,} examples, nats an example"
        return "\n".join([title, *(f"  {name:<18} {value:>9}" for name, value in rows)])


def evaluate(
    model: LatentVariableModel,
    batches: Iterable[Any],
    *,
    importance_samples: int = 500,
    chunk_size: int = 50,
    seed: int = 0,
) -> Report:
    """Measure a model on a set of batches.

    Args:
        model: a `LatentVariableModel`, on any device.
        batches: the examples; each batch has `.to(device)`.
        importance_samples: S, the posterior samples an example. The reconstruction is their
            mean; the importance-weighted NLL uses them all.
        chunk_size: samples that are decoded at a time; changes the memory, not the result.
        seed: of the noise.

    Returns:
        The report, over all examples.

    Raises:
        ValueError: there are no batches, or a term is not finite.

    Source: Burda et al. (2016), section 5. Chapter 2.
    """
    generator = torch.Generator().manual_seed(seed)
    rows: list[tuple[Tensor, ...]] = []
    with evaluating(model) as device:
        for batch in batches:
            x = batch.to(device)
            q = model.posterior(x)
            log_likelihoods, log_weights = importance_samples_of(
                model, x, q, importance_samples, chunk_size, generator
            )
            nll = -importance_weighted_bound(log_weights)  # [B]
            kl = kl_divergence(q, model.prior())  # [B, Z]
            rows.append((-log_likelihoods.mean(0), nll, kl, q.loc))
    if not rows:
        raise ValueError("there is nothing to evaluate: no batch came")
    reconstruction, nll, kl, means = (
        torch.cat(column).double().cpu() for column in zip(*rows, strict=True)
    )
    if not (reconstruction.isfinite().all() and kl.isfinite().all()):
        raise ValueError("the bound is not finite: are there NaN in the data or in the weights?")
    return Report(
        examples=len(nll),
        reconstruction=reconstruction.mean().item(),
        kl=kl.sum(1).mean().item(),
        importance_weighted_nll=nll.mean().item(),
        importance_samples=importance_samples,
        active_units=int(active_units(means).sum()),
        kl_per_dimension=tuple(kl.mean(0).tolist()),
    )


def importance_samples_of(
    model: LatentVariableModel,
    x: Any,
    q: Normal,
    samples: int,
    chunk_size: int,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Score a batch at S samples of its posterior.

    Args:
        model: a `LatentVariableModel`.
        x: the batch.
        q: its posterior, `[B, Z]`.
        samples: S.
        chunk_size: samples that are decoded at a time; changes the memory, not the result.
        generator: source of the noise, on the CPU.

    Returns:
        log p(x|z) and log p(x, z) - log q(z|x), both `[S, B]` nats an example.

    Source: Burda et al. (2016), equation 7. Chapter 2, equation `iwae`.
    """
    log_likelihoods, log_weights = [], []
    for start in range(0, samples, chunk_size):
        # A draw a sample, not a draw a chunk: torch's random stream depends on a draw's size.
        draws = [_noise_like(q.loc, generator) for _ in range(min(chunk_size, samples - start))]
        z = q.loc + q.scale * torch.stack(draws)  # [s, B, Z]
        log_likelihood = model.log_likelihood(x, z)
        log_ratio = (model.prior().log_prob(z) - q.log_prob(z)).sum(-1)
        log_likelihoods.append(log_likelihood)
        log_weights.append(log_likelihood + log_ratio)
    return torch.cat(log_likelihoods), torch.cat(log_weights)


def _noise_like(mean: Tensor, generator: torch.Generator) -> Tensor:
    """Standard Normal noise of the same shape, the same on every device."""
    return torch.randn(mean.shape, generator=generator).to(mean)


def mean_terms(
    model: LatentVariableModel, batches: Iterable[Any], seed: int = 0
) -> dict[str, float]:
    """Average a model's reconstruction and KL over a set, at one posterior sample an example.

    Cheaper than `evaluate`: it is what `fit` follows on the validation set.

    Args:
        model: a `LatentVariableModel`, on any device.
        batches: the examples.
        seed: of the noise.

    Returns:
        `reconstruction` and `kl`, in nats an example.

    Source: Kingma & Welling (2014), equation 10. Chapter 1, equation `elbo`.
    """
    generator = torch.Generator().manual_seed(seed)
    reconstruction = kl = 0.0
    examples = 0
    with evaluating(model) as device:
        for batch in batches:
            x = batch.to(device)
            q = model.posterior(x)
            z = q.loc + q.scale * _noise_like(q.loc, generator)
            reconstruction -= model.log_likelihood(x, z).sum().item()
            kl += kl_divergence(q, model.prior()).sum().item()
            examples += len(x)
    return {"reconstruction": reconstruction / examples, "kl": kl / examples}


def encode(model: LatentVariableModel, batches: Iterable[Any]) -> Normal:
    """Encode a set of examples.

    Args:
        model: a `LatentVariableModel`, on any device.
        batches: the examples.

    Returns:
        The posteriors of all N examples in their order, a Normal of shape `[N, Z]` on the CPU.

    Source: Kingma & Welling (2014), section 2. Chapter 2.
    """
    with evaluating(model) as device:
        posteriors = [model.posterior(batch.to(device)) for batch in batches]
    return Normal(
        torch.cat([q.loc for q in posteriors]).cpu(), torch.cat([q.scale for q in posteriors]).cpu()
    )


def active_units(means: Tensor, threshold: float = ACTIVE_UNIT_VARIANCE) -> Tensor:
    """Tell which latent dimensions respond to the data.

    Args:
        means: posterior means of N examples, `[N, Z]`.
        threshold: least variance over the examples.

    Returns:
        True for each active dimension, `[Z]`.

    Source: Burda et al. (2016), section 5.2. Chapter 2.
    """
    return means.var(0, correction=0) > threshold


@contextmanager
def evaluating(model: LatentVariableModel) -> Iterator[torch.device]:
    """Put a model in eval mode without gradients, and back afterwards; yields its device."""
    was_training = model.training
    model.train(False)
    try:
        with torch.no_grad():
            yield next(model.parameters()).device
    finally:
        model.train(was_training)
