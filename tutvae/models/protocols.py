"""What a model, an encoder and a decoder must offer."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.distributions import Normal

from tutvae.bounds import Elbo
from tutvae.data.batches.text_batch import TextBatch

# What a decoder remembers between two steps: tensors whose first dimension is the batch.
State = tuple[Tensor, ...]


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
    """What it must offer besides, to be measured: every model of the package does.

    Without a code, as in `LanguageModel`, Z = 0. A label that is latent, too, is summed out of
    p(x|z).
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


class Described(nn.Module):
    """A module that remembers how it was made, so that a file can say it: see `describe`.

    No chapter defines it: it is for saving and loading.
    """

    made_with: tuple[tuple[Any, ...], dict[str, Any]]  # by position, and by name

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """Note the arguments; a copy is made without any, and gets those of its original."""
        module = super().__new__(cls)
        module.made_with = args, kwargs
        return module


class Encoder(Described, ABC):
    """What every encoder of text offers: features of a document, and q(z|x) made of them.

    A model with labels reads q(y|x) from the same features, of width H, the `hidden_size`. The
    code has Z dimensions, the `latent_size`.

    No chapter defines it: chapter 4 says what it is for, chapter 8 uses the features.

    Source: Yang et al. (2017), section 3.3, for features that two posteriors share.
    """

    def __init__(self, vocabulary_size: int, hidden_size: int, latent_size: int) -> None:
        super().__init__()
        self.vocabulary_size = vocabulary_size
        self.hidden_size = hidden_size
        self.latent_size = latent_size

    def forward(self, batch: TextBatch) -> Normal:
        """Map B documents to their posteriors, a Normal of shape `[B, Z]`."""
        return self.posterior(self.features(batch))

    @abstractmethod
    def features(self, batch: TextBatch) -> Tensor:
        """Read B documents: features `[B, H]`."""

    @abstractmethod
    def posterior(self, features: Tensor) -> Normal:
        """Turn features `[B, H]` into q(z|x), a Normal of shape `[B, Z]`."""


class Decoder(Described, ABC):
    """What every decoder offers: a full pass for training, steps for generation.

    The full pass ends in hidden states; `project` turns those that count into logits. `start`
    and `step` give the same logits one token at a time, at a cost that does not grow with the
    length. The code has Z dimensions, the `latent_size`: 0 for a language model, which has none.
    An empty vocabulary, or a negative `latent_size`, is a ValueError.

    No chapter defines it: chapter 4 says what it is for.
    """

    output: nn.Linear

    def __init__(self, vocabulary_size: int, latent_size: int) -> None:
        super().__init__()
        if vocabulary_size < 1 or latent_size < 0:
            raise ValueError(
                "a decoder needs a vocabulary_size of at least 1 and a latent_size of at least 0, "
                f"not {vocabulary_size} and {latent_size}"
            )
        self.vocabulary_size = vocabulary_size
        self.latent_size = latent_size

    @property
    def receptive_field(self) -> int | None:
        """How many tokens back a prediction sees, the last one included; None for all."""
        return None

    @abstractmethod
    def forward(self, inputs: Tensor, z: Tensor | None = None) -> Tensor:
        """Read whole documents, token ids `[B, T]` from the start mark on, at codes `[B, Z]`.

        Returns hidden states `[B, T, H]`: the one at t has seen the inputs up to t. See
        `check_code` for what z may be.
        """

    def project(self, hidden: Tensor) -> Tensor:
        """Turn hidden states `[..., H]` into logits of the next token, `[..., V]`, by `output`."""
        return self.output(hidden)

    @abstractmethod
    def start(self, z: Tensor | None = None, batch_size: int | None = None) -> State:
        """Return the state before any token; see `check_code` for the arguments."""

    @abstractmethod
    def step(self, token: Tensor, state: State) -> tuple[Tensor, State]:
        """Read one token, `[B]`; return the logits of the next, `[B, V]`, and the new state."""

    def select(self, state: State, rows: Tensor) -> State:
        """Keep some rows of the batch, `[B']` indices that may repeat: beams follow their words."""
        return tuple(tensor[rows] for tensor in state)

    def check_code(self, z: Tensor | None, batch_size: int | None = None) -> int:
        """Return the number of rows B if z, `[B, Z]` or None where Z = 0, fits decoder and batch.

        Else a ValueError explains. `batch_size` is needed only where no codes tell B.
        """
        if z is None:
            if self.latent_size > 0:
                raise ValueError(f"this decoder needs a code z [B, {self.latent_size}]: got None")
            if batch_size is None:
                raise ValueError("without a code, give batch_size")
            return batch_size
        if self.latent_size == 0:
            raise ValueError("this decoder has no code (latent_size 0): leave z out")
        B, Z = len(z) if batch_size is None else batch_size, self.latent_size
        if z.shape != (B, Z):
            raise ValueError(f"the code z must be [B, Z] = [{B}, {Z}], not {list(z.shape)}")
        return B


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
