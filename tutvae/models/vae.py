"""The basic variational autoencoder, for binary images. Chapter 1 defines it cell by cell."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Normal, kl_divergence

from tutvae.bounds import Elbo


def mlp(sizes: Sequence[int]) -> nn.Sequential:
    """Stack linear layers, each followed by a tanh, from `[..., sizes[0]]` to `[..., sizes[-1]]`.

    Source: Kingma & Welling (2014), appendix C. Chapter 1.
    """
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), nn.Tanh()]
    return nn.Sequential(*layers)


class GaussianEncoder(nn.Module):
    """The approximate posterior q(z|x): a diagonal Normal whose parameters a network computes.

    An image has `data_size` pixels, D, and its code `latent_size` dimensions, Z.

    Source: Kingma & Welling (2014), appendix C.2. Chapter 1.
    """

    def __init__(self, data_size: int, hidden_sizes: Sequence[int], latent_size: int) -> None:
        super().__init__()
        sizes = [data_size, *hidden_sizes]
        self.hidden = mlp(sizes)
        self.mean = nn.Linear(sizes[-1], latent_size)
        self.log_variance = nn.Linear(sizes[-1], latent_size)

    def forward(self, x: Tensor) -> Normal:
        """Map images `[B, D]` to their posteriors, a Normal of shape `[B, Z]`."""
        h = self.hidden(x)  # [B, H]
        scale = torch.exp(0.5 * self.log_variance(h))
        return Normal(self.mean(h), scale, validate_args=False)  # [B, Z]


class BernoulliDecoder(nn.Module):
    """The likelihood p(x|z): an independent coin for every pixel.

    Like `GaussianEncoder`, with the hidden layers from the code outwards.

    Source: Kingma & Welling (2014), appendix C.1. Chapter 1.
    """

    def __init__(self, latent_size: int, hidden_sizes: Sequence[int], data_size: int) -> None:
        super().__init__()
        sizes = [latent_size, *hidden_sizes]
        self.hidden = mlp(sizes)
        self.logits = nn.Linear(sizes[-1], data_size)

    def forward(self, z: Tensor) -> Bernoulli:
        """Map codes `[..., Z]` to a Bernoulli of shape `[..., D]`."""
        return Bernoulli(logits=self.logits(self.hidden(z)), validate_args=False)


class VAE(nn.Module):
    """A latent-variable model p(x|z) p(z) with the encoder q(z|x) that makes it trainable.

    The sizes are those of `GaussianEncoder`; the decoder mirrors its hidden layers.

    >>> model = tutvae.VAE(data_size=64, latent_size=2)
    >>> model(tutvae.digits().test.pixels.round()).kl_per_dimension.shape
    torch.Size([300, 2])

    Source: Kingma & Welling (2014), section 3. Chapter 1.
    """

    def __init__(
        self, data_size: int, latent_size: int, hidden_sizes: Sequence[int] = (200, 200)
    ) -> None:
        super().__init__()
        self.data_size = data_size
        self.latent_size = latent_size
        self.encoder = GaussianEncoder(data_size, hidden_sizes, latent_size)
        self.decoder = BernoulliDecoder(latent_size, hidden_sizes[::-1], data_size)

    def prior(self) -> Normal:
        """The prior p(z): a standard Normal of shape `[Z]`."""
        mean = torch.zeros_like(self.encoder.mean.bias)
        return Normal(mean, torch.ones_like(mean), validate_args=False)

    def posterior(self, x: Tensor) -> Normal:
        """Encode images `[B, D]` to q(z|x), a Normal `[B, Z]`; ValueError for another D."""
        if x.shape[-1] != self.data_size:
            raise ValueError(f"this VAE takes [B, {self.data_size}] images, not {list(x.shape)}")
        return self.encoder(x)

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        """Score images `[B, D]` at codes `[..., B, Z]`: log p(x|z), `[..., B]` nats an image."""
        return self.decoder(z).log_prob(x).sum(-1)

    def forward(self, x: Tensor) -> Elbo:
        """Bound log p(x) for images `[B, D]`, at one sample of the posterior an image."""
        q = self.posterior(x)
        z = q.rsample()  # [B, Z]
        kl = kl_divergence(q, self.prior())  # [B, Z]
        return Elbo(-self.log_likelihood(x, z), kl.sum(-1), kl)
