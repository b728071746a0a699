"""The models of `price_of_a_code.py`: other priors, and a posterior whose dimensions depend."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import (
    Categorical,
    Distribution,
    Independent,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
    kl_divergence,
)

import tutvae
from tutvae.models import LSTMEncoder, TextVAE
from tutvae.models.text_vae import document_log_likelihood

COMPONENTS = 100


class MixturePrior(nn.Module):
    """A mixture of Normals whose means, scales and weights are learnt."""

    def __init__(self, encoder: LSTMEncoder) -> None:
        super().__init__()
        Z = encoder.latent_size
        self.mean = nn.Parameter(torch.randn(COMPONENTS, Z))
        self.log_scale = nn.Parameter(torch.zeros(COMPONENTS, Z))
        self.weight = nn.Parameter(torch.zeros(COMPONENTS))

    def log_prob(self, z: Tensor, encoder: LSTMEncoder) -> Tensor:
        """Return log p(z), `[...]`, of codes `[..., Z]`."""
        parts = Normal(self.mean, self.log_scale.exp(), validate_args=False)
        return _mixture(self.weight, parts).log_prob(z)


class VampPrior(nn.Module):
    """The mixture of the posteriors of learnt features (Tomczak & Welling, 2018)."""

    def __init__(self, encoder: LSTMEncoder) -> None:
        super().__init__()
        self.features = nn.Parameter(torch.randn(COMPONENTS, encoder.mean.in_features) / 2)

    def log_prob(self, z: Tensor, encoder: LSTMEncoder) -> Tensor:
        """Return log p(z), `[...]`, of codes `[..., Z]`."""
        parts = encoder.posterior(self.features)
        # In half precision its means would be too coarse for scales as small as theirs.
        parts = Normal(parts.loc.float(), parts.scale.float(), validate_args=False)
        return _mixture(parts.loc.new_zeros(COMPONENTS), parts).log_prob(z)


def _mixture(weight: Tensor, parts: Normal) -> Distribution:
    return MixtureSameFamily(Categorical(logits=weight), Independent(parts, 1), validate_args=False)


class FlowPrior(nn.Module):
    """A Normal that affine coupling layers have bent (Dinh et al., 2017)."""

    def __init__(self, encoder: LSTMEncoder, layers: int = 6, hidden: int = 128) -> None:
        super().__init__()
        half = encoder.latent_size // 2
        self.nets = nn.ModuleList(
            nn.Sequential(nn.Linear(half, hidden), nn.ReLU(), nn.Linear(hidden, 2 * half))
            for _ in range(layers)
        )
        for net in self.nets:  # at the start it is a standard Normal
            nn.init.zeros_(net[2].weight)
            nn.init.zeros_(net[2].bias)

    def log_prob(self, z: Tensor, encoder: LSTMEncoder) -> Tensor:
        """Return log p(z), `[...]`, of codes `[..., Z]`: by the change of variables."""
        log_det = z.new_zeros(z.shape[:-1])
        for net in self.nets:
            fixed, moved = z.chunk(2, -1)
            log_scale, shift = net(fixed).chunk(2, -1)
            log_scale = torch.tanh(log_scale)
            z = torch.cat([moved * log_scale.exp() + shift, fixed], -1)
            log_det = log_det + log_scale.sum(-1)
        return log_det - 0.5 * (z.square() + math.log(2 * math.pi)).sum(-1)


class NormalPrior(nn.Module):
    """The usual prior, for a model whose KL is taken at a sample as beside the other priors."""

    def __init__(self, encoder: LSTMEncoder) -> None:
        super().__init__()

    def log_prob(self, z: Tensor, encoder: LSTMEncoder) -> Tensor:
        """Return log p(z), `[...]`, of codes `[..., Z]`."""
        return -0.5 * (z.square() + math.log(2 * math.pi)).sum(-1)


PRIORS = {
    "Normal": NormalPrior,
    "mixture": MixturePrior,
    "VampPrior": VampPrior,
    "flow": FlowPrior,
}


class FreerVAE(TextVAE):
    """A `TextVAE` with one of `PRIORS`, or with a posterior of full covariance."""

    def __init__(
        self, encoder: LSTMEncoder, decoder: Any, prior: str | None = None, full: bool = False
    ) -> None:
        super().__init__(encoder, decoder)
        Z, features = encoder.latent_size, encoder.mean.in_features
        self.own_prior = PRIORS[prior](encoder) if prior else None
        self.below = nn.Linear(features, Z * (Z - 1) // 2) if full else None
        if self.below is not None:  # at the start no dimension depends on another
            nn.init.zeros_(self.below.weight)
            nn.init.zeros_(self.below.bias)

    def forward(self, batch: Any) -> tutvae.Elbo:
        """Bound log p(x) at one sample a document, where the KL is taken, too, if it has to be."""
        q = posterior_of(self, batch)
        z = q.rsample()
        if isinstance(q, MultivariateNormal):
            zero, one = z.new_zeros(z.shape[-1]), torch.eye(z.shape[-1], device=z.device)
            kl = kl_divergence(q, MultivariateNormal(zero, one))
        else:
            kl = q.log_prob(z) - log_prior(self, z)
        return tutvae.Elbo(-document_log_likelihood(self.decoder, batch, z), kl)


def posterior_of(model: TextVAE, batch: Any) -> Distribution:
    """q(z|x): independent dimensions, or a full covariance by its Cholesky factor."""
    encoder: Any = model.encoder
    features = encoder.features(batch).float()
    q = encoder.posterior(features)
    loc, scale = q.loc.float(), q.scale.float()
    below = getattr(model, "below", None)
    if below is None:
        return Independent(Normal(loc, scale, validate_args=False), 1)
    Z = model.latent_size
    factor = torch.diag_embed(scale)
    rows, columns = torch.tril_indices(Z, Z, -1, device=factor.device)
    # Z (Z - 1) / 2 entries move at once: a third of a step each keeps training calm.
    factor[:, rows, columns] = 0.3 * below(features).float()
    return MultivariateNormal(loc, scale_tril=factor, validate_args=False)


def log_prior(model: TextVAE, z: Tensor) -> Tensor:
    """Return log p(z), `[...]`, of codes `[..., Z]`."""
    own: Any = getattr(model, "own_prior", None)
    return model.prior().log_prob(z).sum(-1) if own is None else own.log_prob(z, model.encoder)
