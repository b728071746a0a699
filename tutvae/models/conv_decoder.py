"""The decoder made of dilated causal convolutions: how much context it sees is a choice."""

from collections.abc import Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutvae.models.lstm_decoder import WordDropout
from tutvae.models.protocols import Decoder, State

Preset = Literal["small", "medium", "large", "very_large"]

# The dilations of the paper's four decoders, one number a block.
DILATIONS: dict[Preset, tuple[int, ...]] = {
    "small": (1, 2, 4),
    "medium": (1, 2, 4, 8, 16),
    "large": (1, 2, 4, 8, 16) * 2,
    "very_large": (1, 2, 4, 8, 16) * 3,
}


class CausalConv1d(nn.Module):
    """A convolution over time that looks back only: at t, t - dilation, t - 2 dilation, ...

    Its inputs and its outputs have C channels; an output sees `width` inputs. A width below 2, or
    a dilation below 1, is a ValueError.

    Source: van den Oord et al. (2016). Chapter 6.
    """

    def __init__(self, channels: int, width: int = 3, dilation: int = 1) -> None:
        super().__init__()
        if width < 2:
            raise ValueError(f"width must be at least 2, to see a token before, not {width}")
        if dilation < 1:
            raise ValueError(f"a dilation must be at least 1, not {dilation}")
        self.dilation = dilation
        self.memory = (width - 1) * dilation
        self.conv = nn.Conv1d(channels, channels, width, dilation=dilation)

    def forward(self, x: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """Read inputs `[B, T, C]` after the last `memory` of the past, `[B, memory, C]`.

        Returns the outputs `[B, T, C]` and the past of what follows; at the start it is zeros.
        """
        seen = torch.cat([past, x], dim=1)
        # A new tensor, not a ring written in place: whoever keeps the old past may go on from it.
        past = seen[:, -self.memory :]
        length = x.shape[1]
        if length > 1 and x.device.type != "cpu":
            return self.conv(seen.transpose(1, 2)).transpose(1, 2), past
        # The same sum as one matrix product: for a single step several times as fast, on the CPU
        # faster for small networks and about as fast for large ones. oneDNN's convolution prepares
        # itself anew for each length, and returns channels far apart, which are slow to read.
        if length == 1:
            windows = seen[:, None, :: self.dilation].transpose(2, 3)  # [B, 1, C, width]
        else:
            shifted = [seen[:, k : k + length] for k in range(0, self.memory + 1, self.dilation)]
            windows = torch.stack(shifted, dim=-1)  # [B, T, C, width]
        return F.linear(windows.flatten(2), self.conv.weight.flatten(1), self.conv.bias), past


class ResidualBlock(nn.Module):
    """Adds to each position what a causal convolution finds before it.

    A 1x1 convolution, a linear layer at every position, narrows the channels to half; the dilated
    convolution looks back; another 1x1 widens them again. The normalisation is over the channels of
    one position, so that it looks neither across time nor across the batch. `dropout` zeroes a
    share of what is added. Fewer than 2 channels, or no width for `CausalConv1d`, are a ValueError.

    Source: Yang et al. (2017), after van den Oord et al. (2016). Chapter 6.
    """

    def __init__(
        self, channels: int, width: int = 3, dilation: int = 1, dropout: float = 0.0
    ) -> None:
        super().__init__()
        if channels < 2:
            raise ValueError(f"channels must be at least 2, to be halved, not {channels}")
        self.norm = nn.LayerNorm(channels)
        self.down = nn.Linear(channels, channels // 2)
        self.conv = CausalConv1d(channels // 2, width, dilation)
        self.up = nn.Linear(channels // 2, channels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """Read inputs `[B, T, C]` after the past `[B, memory, C // 2]`; return such a pair."""
        narrow = F.gelu(self.down(self.norm(x)))
        seen, past = self.conv(narrow, past)
        return x + self.dropout(self.up(F.gelu(seen))), past


class DilatedConvDecoder(Decoder):
    """The likelihood p(x|z) by dilated causal convolutions: it sees the last words, and the code.

    The code joins every input. A word further back than the receptive field can reach a
    prediction through the code alone, so that a smaller field leaves more for the code to say.
    Arguments that are not named here, and the errors, are those of `LSTMDecoder`.

    Args:
        vocabulary_size: size of the vocabulary, V.
        embedding_size: width of a word's vector, E.
        channels: width of the hidden states, C; the convolutions work on half of it.
        latent_size: dimensions of the code, Z; 0 makes a language model.
        dilations: one a block, from the inputs upwards: a name in `DILATIONS`, or numbers.
        width: how many inputs each convolution sees at once.
        dropout: in training, the share of zeroed entries in word vectors and in what blocks add.

    >>> decoder = tutvae.DilatedConvDecoder(100, 8, 16, latent_size=2, dilations=[1, 2, 4])
    >>> decoder.receptive_field
    15

    Source: Yang et al. (2017), who call the receptive field of "small" 16; with a width of 3 it
    is odd: 15. Chapter 6.
    """

    def __init__(
        self,
        vocabulary_size: int,
        embedding_size: int,
        channels: int,
        latent_size: int = 0,
        *,
        dilations: Preset | Sequence[int] = "medium",
        width: int = 3,
        dropout: float = 0.0,
        word_dropout: float = 0.0,
        unk_id: int | None = 3,
        bos_id: int = 1,
    ) -> None:
        super().__init__(vocabulary_size, latent_size)
        self.dilations = _dilations(dilations)
        self.width = width
        # Made first, since they know which sizes will do.
        blocks = [ResidualBlock(channels, width, d, dropout) for d in self.dilations]
        self.word_dropout = WordDropout(word_dropout, unk_id, bos_id)
        self.dropout = nn.Dropout(dropout)
        self.embedding = nn.Embedding(vocabulary_size, embedding_size)
        # Together they are one 1x1 convolution of a word's vector joined with the code.
        self.word_to_channels = nn.Linear(embedding_size, channels)
        self.code_to_channels = None
        if latent_size > 0:
            self.code_to_channels = nn.Linear(latent_size, channels, bias=False)
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(channels)
        self.output = nn.Linear(channels, vocabulary_size)

    @property
    def receptive_field(self) -> int:
        """Tokens from the first that a prediction sees to the last, the one just read."""
        return 1 + (self.width - 1) * sum(self.dilations)

    def forward(self, inputs: Tensor, z: Tensor | None = None) -> Tensor:
        """Read inputs `[B, T]` at codes `[B, Z]`; return hidden states `[B, T, C]`."""
        hidden, _ = self._read(inputs, self.start(z, len(inputs)))
        return hidden

    def project(self, hidden: Tensor) -> Tensor:
        """Turn hidden states `[..., C]` into logits of the next token, `[..., V]`."""
        return self.output(hidden)

    def start(self, z: Tensor | None = None, batch_size: int | None = None) -> State:
        """Compute the code's share of every input, `[B, C]`; every block's past is zeros."""
        rows = self.check_code(z, batch_size)
        weight = self.word_to_channels.weight
        share = weight.new_zeros(rows, len(weight))
        if self.code_to_channels is not None:
            share = self.code_to_channels(z)
        memories = [(self.width - 1) * dilation for dilation in self.dilations]
        narrow = len(weight) // 2
        return share, *(weight.new_zeros(rows, memory, narrow) for memory in memories)

    def step(self, token: Tensor, state: State) -> tuple[Tensor, State]:
        """Read one token, `[B]`; return the logits of the next, `[B, V]`, and the new state."""
        hidden, state = self._read(token[:, None], state)
        return self.project(hidden[:, 0]), state

    def _read(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """Read tokens `[B, T]` from a state on: hidden states `[B, T, C]` and the new state."""
        share, *pasts = state
        words = self.dropout(self.embedding(self.word_dropout(tokens)))  # [B, T, E]
        x = self.word_to_channels(words) + share[:, None]  # [B, T, C]
        for i, block in enumerate(self.blocks):
            x, pasts[i] = block(x, pasts[i])
        return self.norm(x), (share, *pasts)


def _dilations(dilations: Preset | Sequence[int]) -> tuple[int, ...]:
    """The numbers behind a preset's name, or the numbers given."""
    if isinstance(dilations, str):
        if dilations not in DILATIONS:
            names = ", ".join(get_args(Preset))
            raise ValueError(f"no dilations are called {dilations!r}: choose {names}, or numbers")
        return DILATIONS[dilations]
    if len(dilations) == 0:
        raise ValueError("dilations must name at least one block: an empty list makes no decoder")
    return tuple(dilations)
