"""The LSTM decoder of text, p(x|z), and how to hide words from a decoder."""

import torch
from torch import Tensor, nn

from tutvae.models.lstm import LSTM
from tutvae.models.protocols import Decoder, State


class WordDropout(nn.Module):
    """Hide words from a decoder, so that it has to ask the code for them.

    In training, each token but the start mark, `bos_id`, becomes the unknown mark, `unk_id`, with
    probability `rate`. In eval mode nothing is hidden, except at rate 1: such a decoder, called
    inputless, never learnt to read words, so it gets none in eval mode either. A rate outside
    [0, 1], or above 0 with an `unk_id` of None, for no such mark, is a ValueError.

    Source: Bowman et al. (2016). Chapter 5.
    """

    def __init__(self, rate: float, unk_id: int | None = 3, bos_id: int = 1) -> None:
        super().__init__()
        if not 0 <= rate <= 1:
            raise ValueError(f"word_dropout must lie in [0, 1], not {rate}")
        if rate > 0 and unk_id is None:
            raise ValueError("word_dropout needs an unknown mark: train a tokenizer that has one")
        self.rate = rate
        self.unk_id = unk_id
        self.bos_id = bos_id

    def forward(self, tokens: Tensor) -> Tensor:
        """Hide some of the tokens `[B, T]`; the result has the same shape."""
        active = self.rate == 1 or (self.training and self.rate > 0)
        if self.unk_id is None or not active:
            return tokens
        drawn = torch.rand(tokens.shape, device=tokens.device) < self.rate
        return tokens.masked_fill(drawn & (tokens != self.bos_id), self.unk_id)


class LSTMDecoder(Decoder):
    """The likelihood p(x|z), word by word: an LSTM that the code starts and accompanies.

    The code sets the initial state, the cell by a linear map and the hidden state as the tanh
    of the cell, and it joins the embedding of every input. `word_dropout` is the rate of a
    `WordDropout`, with its errors; `unk_id` and `bos_id` are its marks.

    Args:
        vocabulary_size: size of the vocabulary, V.
        embedding_size: width of a word's vector, E.
        hidden_size: width of the LSTM's state, H.
        latent_size: dimensions of the code, Z; 0 makes a language model.
        dropout: in training, the share of zeroed entries in word vectors and hidden states.
        code_to_state: whether the code sets the initial state; otherwise that is zero.
        code_to_inputs: whether the code joins the inputs; to reach neither is a ValueError.

    >>> decoder = tutvae.LSTMDecoder(100, embedding_size=8, hidden_size=16, latent_size=2)
    >>> decoder.project(decoder(torch.tensor([[1, 7, 8]]), torch.zeros(1, 2))).shape
    torch.Size([1, 3, 100])

    Source: Bowman et al. (2016). Chapter 4.
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
        code_to_state: bool = True,
        code_to_inputs: bool = True,
    ) -> None:
        super().__init__(vocabulary_size, latent_size)
        if latent_size > 0 and not (code_to_state or code_to_inputs):
            raise ValueError("the code must reach the decoder: by its state, its inputs or both")
        joined_size = latent_size if code_to_inputs else 0
        self.word_dropout = WordDropout(word_dropout, unk_id, bos_id)
        self.dropout = nn.Dropout(dropout)
        self.embedding = nn.Embedding(vocabulary_size, embedding_size)
        self.lstm = LSTM(embedding_size + joined_size, hidden_size)
        self.output = nn.Linear(hidden_size, vocabulary_size)
        self.code_to_inputs = code_to_inputs
        self.code_to_cell = None
        if latent_size > 0 and code_to_state:
            self.code_to_cell = nn.Linear(latent_size, hidden_size)

    def forward(self, inputs: Tensor, z: Tensor | None = None) -> Tensor:
        """Read inputs `[B, T]` at codes `[B, Z]`; return hidden states `[B, T, H]`."""
        h, c, joined = self.start(z, len(inputs))
        words = self.dropout(self.embedding(self.word_dropout(inputs)))  # [B, T, E]
        codes = joined[:, None].expand(-1, inputs.shape[1], -1)  # [B, T, Z or 0]
        hidden, _ = self.lstm(torch.cat([words, codes], dim=-1), (h[None], c[None]))
        return self._heard(hidden, codes)

    def _heard(self, h: Tensor, joined: Tensor) -> Tensor:
        """What is projected of states `[..., H]` and of the codes that joined their inputs."""
        return self.dropout(h)

    def start(self, z: Tensor | None = None, batch_size: int | None = None) -> State:
        """Set the state by the code: hidden state and cell `[B, H]`, and what joins the inputs."""
        rows = self.check_code(z, batch_size)
        zeros = self.output.weight.new_zeros(rows, self.lstm.hidden_size)
        c = zeros if self.code_to_cell is None else self.code_to_cell(z)
        joined = z if z is not None and self.code_to_inputs else zeros[:, :0]
        return torch.tanh(c), c, joined

    def step(self, token: Tensor, state: State) -> tuple[Tensor, State]:
        """Read one token, `[B]`; return the logits of the next, `[B, V]`, and the new state."""
        h, c, joined = state
        words = self.dropout(self.embedding(self.word_dropout(token)))  # [B, E]
        inputs = torch.cat([words, joined], dim=-1)
        # The LSTM's own cell: a single word is not worth what it takes to read many at once.
        h, c = torch.lstm_cell(inputs, (h, c), *self.lstm.all_weights[0])
        return self.project(self._heard(h, joined)), (h, c, joined)


def tie_weights(decoder: LSTMDecoder) -> None:
    """Make a decoder read and predict words by the same vectors, `[V, E]`, changed in place.

    That takes E = H (else it is a ValueError) or a `ProjectedLSTMDecoder`, leaves a third to a half
    of the weights and helps where there is little text. The word vectors become the weights of the
    output layer, so the decoder should be a new one.

    Source: Press & Wolf (2017), "Using the Output Embedding to Improve Language Models"; Inan et
    al. (2017). Chapter 10.
    """
    E, H = decoder.embedding.embedding_dim, decoder.output.in_features
    if E != H:
        raise ValueError(f"tied weights need embedding_size equal to hidden_size, not {E} and {H}")
    decoder.embedding.weight = decoder.output.weight
