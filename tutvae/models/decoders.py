"""Decoders of text, p(x|z), behind one protocol: a model's decoder is changed in one line."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

# What a decoder remembers between two steps: tensors whose first dimension is the batch.
State = tuple[Tensor, ...]


class Decoder(nn.Module, ABC):
    """What every decoder offers: a full pass for training, steps for generation.

    The full pass ends in hidden states; `project` turns those that count into logits. `start`
    and `step` give the same logits one token at a time, at a cost that does not grow with the
    length.

    Args:
        vocabulary_size: size of the vocabulary, V.
        latent_size: dimensions of the code, Z; 0 for a language model, which has none.

    Raises:
        ValueError: the vocabulary is empty, or `latent_size` is negative.

    Source: chapter 4.
    """

    def __init__(self, vocabulary_size: int, latent_size: int) -> None:
        super().__init__()
        if vocabulary_size < 1 or latent_size < 0:
            raise ValueError(
                "a decoder needs a vocabulary_size of at least 1 and a latent_size of at least 0, "
                f"not {vocabulary_size} and {latent_size}"
            )
        self.vocabulary_size = vocabulary_size
        self.latent_size = latent_size

    @abstractmethod
    def forward(self, inputs: Tensor, z: Tensor | None = None) -> Tensor:
        """Read whole documents.

        Args:
            inputs: token ids from the start mark on, `[B, T]`.
            z: codes `[B, Z]`, or None where Z = 0.

        Returns:
            Hidden states `[B, T, H]`; the one at t has seen the inputs up to t.

        Raises:
            ValueError: `z` does not go with the decoder or with the inputs.
        """

    @abstractmethod
    def project(self, hidden: Tensor) -> Tensor:
        """Turn hidden states `[..., H]` into logits of the next token, `[..., V]`."""

    @abstractmethod
    def start(self, z: Tensor | None = None, batch_size: int | None = None) -> State:
        """Get ready for the first step.

        Args:
            z: codes `[B, Z]`, or None where Z = 0.
            batch_size: rows B; needed only where there are no codes to tell it.

        Returns:
            The state before any token.

        Raises:
            ValueError: `z` does not go with the decoder, or B is unknown.
        """

    @abstractmethod
    def step(self, token: Tensor, state: State) -> tuple[Tensor, State]:
        """Read one token, `[B]`; return the logits of the next, `[B, V]`, and the new state."""

    def select(self, state: State, rows: Tensor) -> State:
        """Keep some rows of the batch, `[B']` indices that may repeat: beams follow their words."""
        return tuple(tensor[rows] for tensor in state)

    def check_code(self, z: Tensor | None, batch_size: int | None = None) -> int:
        """Return the number of rows B if the code fits decoder and batch; else explain.

        Raises:
            ValueError: it does not fit, or B is unknown.
        """
        if z is None:
            if self.latent_size > 0:
                raise ValueError(f"this decoder needs a code z [B, {self.latent_size}]: got None")
            if batch_size is None:
                raise ValueError("without a code, give batch_size")
            return batch_size
        if self.latent_size == 0:
            raise ValueError("this decoder has no code (latent_size 0): leave z out")
        rows = len(z) if batch_size is None else batch_size
        if z.shape != (rows, self.latent_size):
            raise ValueError(
                f"the code z must be [B, Z] = [{rows}, {self.latent_size}], not {list(z.shape)}"
            )
        return rows


class WordDropout(nn.Module):
    """Hide words from a decoder, so that it has to ask the code for them.

    In training, each token but the start mark becomes the unknown mark with probability `rate`.
    In eval mode nothing is hidden, except at rate 1: such a decoder, called inputless, never
    learnt to read words, so it gets none in eval mode either.

    Args:
        rate: the probability; 0 hides nothing.
        unk_id: id of the unknown mark; None, if there is none, goes with rate 0 alone.
        bos_id: id of the start mark.

    Raises:
        ValueError: the rate lies outside [0, 1], or there is no unknown mark for it.

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
    of the cell, and it joins the embedding of every input.

    Args:
        vocabulary_size: size of the vocabulary, V.
        embedding_size: width of a word's vector, E.
        hidden_size: width of the LSTM's state, H.
        latent_size: dimensions of the code, Z; 0 makes a language model.
        word_dropout: in training, the share of words that become the unknown mark; 1 makes an
            inputless decoder, in eval mode too. See `WordDropout`.
        dropout: in training, the share of zeroed entries in word vectors and hidden states.
        unk_id: id of the unknown mark, for word dropout.
        bos_id: id of the start mark, which word dropout spares.
        code_to_state: whether the code sets the initial state; otherwise that is zero.
        code_to_inputs: whether the code joins the inputs.

    Raises:
        ValueError: a rate lies outside [0, 1], word dropout has no unknown mark, or the code
            would reach nothing.

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
        self.lstm = nn.LSTM(embedding_size + joined_size, hidden_size, batch_first=True)
        self.output = nn.Linear(hidden_size, vocabulary_size)
        self.code_to_inputs = code_to_inputs
        self.code_to_cell = None
        if latent_size > 0 and code_to_state:
            self.code_to_cell = nn.Linear(latent_size, hidden_size)

    def forward(self, inputs: Tensor, z: Tensor | None = None) -> Tensor:
        """Read inputs `[B, T]` at codes `[B, Z]`; return hidden states `[B, T, H]`."""
        hidden, _ = self._read(inputs, self.start(z, len(inputs)))
        return hidden

    def project(self, hidden: Tensor) -> Tensor:
        """Turn hidden states `[..., H]` into logits of the next token, `[..., V]`."""
        return self.output(hidden)

    def start(self, z: Tensor | None = None, batch_size: int | None = None) -> State:
        """Set the state by the code: hidden state and cell `[B, H]`, and what joins the inputs."""
        rows = self.check_code(z, batch_size)
        zeros = self.output.weight.new_zeros(rows, self.lstm.hidden_size)
        c = zeros if self.code_to_cell is None else self.code_to_cell(z)
        joined = z if z is not None and self.code_to_inputs else zeros[:, :0]
        return torch.tanh(c), c, joined

    def step(self, token: Tensor, state: State) -> tuple[Tensor, State]:
        """Read one token, `[B]`; return the logits of the next, `[B, V]`, and the new state."""
        hidden, state = self._read(token[:, None], state)
        return self.project(hidden[:, 0]), state

    def _read(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """Read tokens `[B, T]` from a state on: hidden states `[B, T, H]` and the new state."""
        h, c, joined = state
        words = self.dropout(self.embedding(self.word_dropout(tokens)))  # [B, T, E]
        codes = joined[:, None].expand(-1, tokens.shape[1], -1)  # [B, T, Z] or [B, T, 0]
        inputs = torch.cat([words, codes], dim=-1)
        hidden, (h, c) = self.lstm(inputs, (h[None], c[None]))
        return self.dropout(hidden), (h[0], c[0], joined)


def tie_weights(decoder: LSTMDecoder) -> None:
    """Make a decoder read and predict words by the same vectors, `[V, E]`, changed in place.

    That takes E = H, leaves a third to a half of the weights and helps where there is little text.

    Args:
        decoder: a new one; its word vectors become the weights of its output layer.

    Raises:
        ValueError: E and H differ.

    Source: Press & Wolf (2017), "Using the Output Embedding to Improve Language Models"; Inan et
    al. (2017). Chapter 10.
    """
    E, H = decoder.embedding.embedding_dim, decoder.output.in_features
    if E != H:
        raise ValueError(
            f"tied weights need an embedding_size equal to hidden_size, not {E} and {H}"
        )
    decoder.embedding.weight = decoder.output.weight
