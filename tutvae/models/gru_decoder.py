"""A decoder of text with a gated recurrent unit: a smaller cell than the LSTM's."""

import torch
from torch import Tensor, nn

from tutvae.models.lstm_decoder import WordDropout
from tutvae.models.protocols import Decoder, State


class GRUDecoder(Decoder):
    """The likelihood p(x|z), word by word: a GRU that the code starts and accompanies.

    The code sets the initial state, as the tanh of a linear map, and joins the embedding of every
    input. The sizes, the options and the errors are those of `LSTMDecoder`. No chapter defines it:
    it shows what it takes to add a decoder.

    Source: Cho et al. (2014), "Learning Phrase Representations using RNN Encoder-Decoder".
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
        super().__init__(vocabulary_size, latent_size)
        self.word_dropout = WordDropout(word_dropout, unk_id, bos_id)
        self.dropout = nn.Dropout(dropout)
        self.embedding = nn.Embedding(vocabulary_size, embedding_size)
        self.gru = nn.GRU(embedding_size + latent_size, hidden_size, batch_first=True)
        self.code_to_state = nn.Linear(latent_size, hidden_size) if latent_size > 0 else None
        self.output = nn.Linear(hidden_size, vocabulary_size)

    def forward(self, inputs: Tensor, z: Tensor | None = None) -> Tensor:
        """Read inputs `[B, T]` at codes `[B, Z]`; return hidden states `[B, T, H]`."""
        h, code = self.start(z, len(inputs))
        words = self.dropout(self.embedding(self.word_dropout(inputs)))  # [B, T, E]
        codes = code[:, None].expand(-1, inputs.shape[1], -1)  # [B, T, Z or 0]
        hidden, _ = self.gru(torch.cat([words, codes], dim=-1), h[None])
        return self.dropout(hidden)

    def start(self, z: Tensor | None = None, batch_size: int | None = None) -> State:
        """Set the state `[B, H]` by the code, and keep the code, `[B, Z]`, for the inputs."""
        rows = self.check_code(z, batch_size)
        if z is None or self.code_to_state is None:
            zeros = self.output.weight.new_zeros(rows, self.gru.hidden_size)
            return zeros, zeros[:, :0]
        return torch.tanh(self.code_to_state(z)), z

    def step(self, token: Tensor, state: State) -> tuple[Tensor, State]:
        """Read one token, `[B]`; return the logits of the next, `[B, V]`, and the new state."""
        h, code = state
        words = self.dropout(self.embedding(self.word_dropout(token)))  # [B, E]
        h = torch.gru_cell(torch.cat([words, code], dim=-1), h, *self.gru.all_weights[0])
        return self.project(self.dropout(h)), (h, code)
