"""What a model must offer to be trained and to be measured."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.distributions import Normal

from tutvae.bounds import Elbo


class TrainableModel(Protocol):
    """What an `nn.Module` must offer to be trained: every model of the package does."""

    training: bool

    def __call__(self, x: Any) -> Elbo:
        """Bound log p(x) of a batch."""
        ...

    # From nn.Module.
    def to(self, device: torch.device) -> Any: ...  # noqa: D102
    def train(self, mode: bool = True) -> Any: ...  # noqa: D102
    def parameters(self) -> Iterator[nn.Parameter]: ...  # noqa: D102


class LatentVariableModel(TrainableModel, Protocol):
    """What it must offer besides, to be measured.

    `VAE`, `TextVAE` and, with Z = 0, `LanguageModel` do.
    """

    def prior(self) -> Normal:
        """The prior p(z), a Normal of shape `[Z]`."""
        ...

    def posterior(self, x: Any) -> Normal:
        """The posterior q(z|x) of a batch, a Normal of shape `[B, Z]`."""
        ...

    def log_likelihood(self, x: Any, z: Tensor) -> Tensor:
        """Score a batch at codes `[..., B, Z]`: log p(x|z), `[..., B]` nats an example."""
        ...


@contextmanager
def evaluating(model: TrainableModel | nn.Module) -> Iterator[torch.device]:
    """Put a model in eval mode without gradients, and back afterwards; yields its device."""
    was_training = model.training
    model.train(False)
    try:
        with torch.no_grad():
            yield next(model.parameters()).device
    finally:
        model.train(was_training)
