"""Encoders of text: from a document to its posterior q(z|x)."""

from __future__ import annotations

import torch
from torch import nn
from torch.distributions import Normal

from tutvae.data.batching import TextBatch


class LSTMEncoder(nn.Module):
    """The approximate posterior q(z|x): an LSTM reads the document, its last state tells z.

    Args:
        vocabulary_size: V.
        embedding_size: width of a word's vector, E.
        hidden_size: width of the LSTM's state, H.
        latent_size: dimensions of the code, Z.

    Source: Bowman et al. (2016), section 3. Chapter 4.
    """

    def __init__(
        self, vocabulary_size: int, embedding_size: int, hidden_size: int, latent_size: int
    ) -> None:
        super().__init__()
        self.vocabulary_size = vocabulary_size
        self.latent_size = latent_size
        self.embedding = nn.Embedding(vocabulary_size, embedding_size)
        self.lstm = nn.LSTM(embedding_size, hidden_size, batch_first=True)
        self.mean = nn.Linear(hidden_size, latent_size)
        self.log_variance = nn.Linear(hidden_size, latent_size)

    def forward(self, batch: TextBatch) -> Normal:
        """Map B documents to their posteriors, a Normal of shape `[B, Z]`."""
        states, _ = self.lstm(self.embedding(batch.tokens))  # [B, T, H]
        # The state at the last token: padding comes after it, so has no say in it.
        rows = torch.arange(len(batch), device=states.device)
        h = states[rows, batch.lengths - 1]  # [B, H]
        scale = torch.exp(0.5 * self.log_variance(h))
        return Normal(self.mean(h), scale, validate_args=False)  # [B, Z]
