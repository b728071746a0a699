"""An LSTM decoder whose states may be wider than its word vectors."""

import torch
from torch import Tensor, nn

from tutvae.models.lstm_decoder import LSTMDecoder


class ProjectedLSTMDecoder(LSTMDecoder):
    """An `LSTMDecoder` whose states, joined by the code, come back to E numbers before the logits.

    So `tie_weights` goes with any width of the state, and the code has a short way to each word.
    The arguments and errors are those of `LSTMDecoder`; `dropout` is of the projections, too.
    No chapter defines it; chapter 10 uses a model of it.

    Source: Press & Wolf (2017), "Using the Output Embedding to Improve Language Models", for the
    projection; Dieng et al. (2019), "Avoiding Latent Variable Collapse With Generative Skip
    Models", for the code's way.
    """

    def __init__(
        self,
        vocabulary_size: int,
        embedding_size: int,
        hidden_size: int,
        latent_size: int = 0,
        *,
        word_dropout: float = 0.0,
        dropout: float = 0.0,
        unk_id: int | None = 3,
        bos_id: int = 1,
    ) -> None:
        sizes = (vocabulary_size, embedding_size, hidden_size, latent_size)
        super().__init__(
            *sizes, word_dropout=word_dropout, dropout=dropout, unk_id=unk_id, bos_id=bos_id
        )
        self.to_output = nn.Linear(hidden_size + latent_size, embedding_size)
        self.output = nn.Linear(embedding_size, vocabulary_size)

    def _heard(self, h: Tensor, joined: Tensor) -> Tensor:
        """States and codes, `[..., H + Z]`."""
        return torch.cat([self.dropout(h), joined], dim=-1)

    def project(self, hidden: Tensor) -> Tensor:
        """Turn states and codes `[..., H + Z]` into logits of the next token, `[..., V]`."""
        return self.output(self.dropout(self.to_output(hidden)))
