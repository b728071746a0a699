"""Encoders of text: from a document to its posterior q(z|x)."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.distributions import Normal

from tutvae.data.batches.text_batch import TextBatch
from tutvae.models.lstm import LSTM
from tutvae.models.protocols import Encoder


class LSTMEncoder(Encoder):
    """The approximate posterior q(z|x): an LSTM reads the document, its states tell z.

    Args:
        vocabulary_size: size of the vocabulary, V.
        embedding_size: width of a word's vector, E.
        hidden_size: width of the LSTM's state, H.
        latent_size: dimensions of the code, Z.
        pooling: "last" takes the state after the last token; "max" the largest value that each
            unit has in the document, so that no word is far from the code. Else a ValueError.

    >>> encoder = tutvae.LSTMEncoder(100, embedding_size=8, hidden_size=16, latent_size=2)
    >>> encoder(tutvae.EncodedTexts([[1, 7, 8, 2], [1, 7, 2]]).batch()).loc.shape
    torch.Size([2, 2])

    Source: Bowman et al. (2016); Long et al. (2019) for pooling. Chapters 4 and 5.
    """

    def __init__(
        self,
        vocabulary_size: int,
        embedding_size: int,
        hidden_size: int,
        latent_size: int,
        *,
        pooling: Literal["last", "max"] = "last",
    ) -> None:
        super().__init__(vocabulary_size, hidden_size, latent_size)
        if pooling not in ("last", "max"):
            raise ValueError(f'pooling must be "last" or "max", not {pooling!r}')
        self.pooling = pooling
        self.embedding = nn.Embedding(vocabulary_size, embedding_size)
        self.lstm = LSTM(embedding_size, hidden_size)
        self.mean = nn.Linear(hidden_size, latent_size)
        self.log_variance = nn.Linear(hidden_size, latent_size)

    def features(self, batch: TextBatch) -> Tensor:
        """Read B documents: what the pooled states of the LSTM say of each, `[B, H]`."""
        states, _ = self.lstm(self.embedding(batch.tokens))  # [B, T, H]
        # Padding comes after a document's tokens and must not change its code.
        if self.pooling == "last":
            rows = torch.arange(len(batch), device=states.device)
            return states[rows, batch.lengths - 1]
        time = torch.arange(states.shape[1], device=states.device)
        padding = time >= batch.lengths[:, None]  # [B, T]
        return states.masked_fill(padding[..., None], -torch.inf).amax(1)

    def posterior(self, features: Tensor) -> Normal:
        """Turn features `[B, H]` into posteriors, a Normal of shape `[B, Z]`."""
        scale = torch.exp(0.5 * self.log_variance(features))
        return Normal(self.mean(features), scale, validate_args=False)


class BiLSTMEncoder(LSTMEncoder):
    """An encoder that reads each document from both ends, and pools the states of both LSTMs.

    The sizes are those of `LSTMEncoder`, but the features are twice as wide as a state. `dropout`
    is, in training, the share of zeroed entries in word vectors. These begin small, with a
    standard deviation of 0.05, which makes a code cheaper.
    No chapter defines it; chapter 10 uses a model of it, and chapter 11 measures its parts.

    Source: Graves & Schmidhuber (2005), "Framewise Phoneme Classification with Bidirectional LSTM".
    """

    def __init__(
        self,
        vocabulary_size: int,
        embedding_size: int,
        hidden_size: int,
        latent_size: int,
        *,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(vocabulary_size, embedding_size, hidden_size, latent_size, pooling="max")
        self.hidden_size = 2 * hidden_size
        self.dropout = nn.Dropout(dropout)
        # A rare word keeps about the vector that it began with. A large one, drawn by chance, would
        # move the code of every text that has the word.
        nn.init.normal_(self.embedding.weight, std=0.05)
        self.backward_lstm = LSTM(embedding_size, hidden_size)
        self.mean = nn.Linear(2 * hidden_size, latent_size)
        self.log_variance = nn.Linear(2 * hidden_size, latent_size)

    def features(self, batch: TextBatch) -> Tensor:
        """Read B documents both ways: the largest value of each unit, `[B, 2H]`."""
        words = self.dropout(self.embedding(batch.tokens))  # [B, T, E]
        time = torch.arange(words.shape[1], device=words.device)
        # Each document is turned round by itself, so that padding still comes last.
        order = (batch.lengths[:, None] - 1 - time).clamp(min=0)  # [B, T]
        turned = words.gather(1, order[..., None].expand_as(words))
        states = torch.cat([self.lstm(words)[0], self.backward_lstm(turned)[0]], dim=-1)
        padding = time >= batch.lengths[:, None]  # [B, T]
        return states.masked_fill(padding[..., None], -torch.inf).amax(1)


class BagEncoder(Encoder):
    """The approximate posterior q(z|x) from how often each word occurs, in whatever order.

    The logarithms of the counts, log(1 + n), weigh the words' vectors, E wide; a tanh layer, H
    wide, reads their sum. A word that is new, or rare in training, says next to nothing, so that
    few texts go further than with an LSTM. No chapter defines it.

    The sizes are V, E, H and Z, as in `LSTMEncoder`. E = 0 leaves the vectors out, and the counts
    go into one layer of H rectified units: it learns more from labels, and finds worse groups.
    `dropout` is, in training, the share of the words that are left out, and of zeroed features.

    Source: Miao et al. (2016), "Neural Variational Inference for Text Processing", section 3.
    """

    def __init__(
        self,
        vocabulary_size: int,
        embedding_size: int,
        hidden_size: int,
        latent_size: int,
        *,
        dropout: float = 0.5,
    ) -> None:
        super().__init__(vocabulary_size, hidden_size, latent_size)
        two_layers = embedding_size > 0
        self.words = nn.Linear(vocabulary_size, embedding_size or hidden_size, bias=not two_layers)
        self.hidden = nn.Linear(embedding_size, hidden_size) if two_layers else None
        self.dropout = nn.Dropout(dropout)
        self.mean = nn.Linear(hidden_size, latent_size)
        self.log_variance = nn.Linear(hidden_size, latent_size)

    def features(self, batch: TextBatch) -> Tensor:
        """Count the words of B documents: a layer's view of them, `[B, H]`."""
        time = torch.arange(batch.tokens.shape[1], device=batch.tokens.device)
        ones = (time < batch.lengths[:, None]).to(self.words.weight.dtype)  # [B, T], 0 at padding
        counts = ones.new_zeros(len(batch), self.vocabulary_size)
        counts.scatter_add_(1, batch.tokens, ones)
        read = self.words(self.dropout(counts.log1p()))  # [B, E], or [B, H]
        return self.dropout(read.relu() if self.hidden is None else self.hidden(read).tanh())

    def posterior(self, features: Tensor) -> Normal:
        """Turn features `[B, H]` into posteriors, a Normal of shape `[B, Z]`."""
        scale = torch.exp(0.5 * self.log_variance(features))
        return Normal(self.mean(features), scale, validate_args=False)
