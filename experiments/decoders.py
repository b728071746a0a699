"""Decoders whose memory is a number, one family beside another, and a decoder of two levels.

The studies `context.py` and `length.py` use them in place of the package's decoders. Of the
convolutions the depth, and so the weights, grow with the field; of the two families here nothing
does, but for a bias a distance in the Transformer.
"""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutvae.models import Decoder, DilatedConvDecoder, LSTMDecoder, Preset, State

Field = int | Literal["whole"]
FAMILIES = ("lstm", "transformer", "cnn")
LONGEST = 255  # the field of what sees the whole of any document of the studies
# The dilations of a field, those of Yang et al. (2017) among them.
DILATIONS: dict[Field, Preset | Sequence[int]] = {
    3: (1,),
    7: (1, 2),
    15: "small",
    31: (1, 2, 4, 8),
    63: "medium",
    125: "large",
    187: "very_large",
    "whole": (1, 2, 4, 8, 16, 32, 64),
}
OVERLAP = 8  # windows of an LSTM that share a word, at most


def decoder_of(family: str, field: Field, *sizes: int, dropout: float = 0.0) -> Decoder:
    """The decoder of a family that sees so many tokens back; the sizes are V, E, H and Z."""
    if family == "cnn":
        return DilatedConvDecoder(*sizes, dilations=DILATIONS[field], dropout=dropout)
    if family == "transformer":
        field = LONGEST if field == "whole" else field
        return WindowedTransformerDecoder(*sizes, field=field, dropout=dropout)
    if field == "whole":
        return LSTMDecoder(*sizes, dropout=dropout)
    return WindowedLSTMDecoder(*sizes, field=field, dropout=dropout)


class WindowedLSTMDecoder(Decoder):
    """An LSTM that forgets: a prediction comes from a state that the code set at most R words ago.

    Windows of R tokens start every `hop` tokens, each in the state that the code sets. A
    prediction is that of the earliest window that holds its last token: it sees all before it
    up to R tokens, and later the last R - hop + 1 to R. The hop is an eighth of the field, or 1,
    where the field is exact at every position. (With a hop of R, the state would be reset
    every R tokens, and half of what the field allows be seen on average.)
    """

    def __init__(self, *sizes: int, field: int, dropout: float = 0.0) -> None:
        super().__init__(sizes[0], sizes[3])
        if field < 1:
            raise ValueError(f"a field has at least 1 token, the last one, not {field}")
        self.window = LSTMDecoder(*sizes, dropout=dropout)
        self.field = field
        self.hop = -(-field // OVERLAP)

    @property
    def receptive_field(self) -> int:
        """Tokens from the first that a prediction may see to the last."""
        return self.field

    def forward(self, inputs: Tensor, z: Tensor | None = None) -> Tensor:
        """Read inputs `[B, T]` at codes `[B, Z]`; return hidden states `[B, T, H]`."""
        (B, T), R = inputs.shape, self.field
        if T <= R:
            return self.window(inputs, z)
        later = -(-(T - R) // self.hop)  # windows after the first
        padded = F.pad(inputs, (0, R + later * self.hop - T))
        windows = padded.unfold(1, R, self.hop)  # [B, 1 + later, R]
        codes = None if z is None else z.repeat_interleave(1 + later, 0)
        hidden = self.window(windows.flatten(0, 1), codes).unflatten(0, (B, -1))
        ends = hidden[:, 1:, -self.hop :].flatten(1, 2)  # what no earlier window holds
        return torch.cat([hidden[:, 0], ends], 1)[:, :T]

    def project(self, hidden: Tensor) -> Tensor:
        """Turn hidden states `[..., H]` into logits of the next token, `[..., V]`."""
        return self.window.project(hidden)

    def start(self, z: Tensor | None = None, batch_size: int | None = None) -> State:
        """Set the state by the code; beside it stand the tokens of the window, none yet."""
        state = self.window.start(z, self.check_code(z, batch_size))
        return *state, torch.empty(len(state[0]), 0, dtype=torch.int64, device=state[0].device)

    def step(self, token: Tensor, state: State) -> tuple[Tensor, State]:
        """Read one token, `[B]`, and with it the window once more, since that moves on."""
        *first, tokens = state
        tokens = torch.cat([tokens, token[:, None]], 1)
        if tokens.shape[1] > self.field:
            tokens = tokens[:, self.hop :]
        last = tuple(first)
        for word in tokens.T:
            logits, last = self.window.step(word, last)
        return logits, (*first, tokens)


class AttentionBlock(nn.Module):
    """A layer of a Transformer in which a position attends to the last W, itself among them.

    Of a word's place only the distance counts, by a bias for each distance and head, so that
    what is further back than the window leaves no trace. The channels C are those of the inputs,
    the outputs and the heads together.

    Source: Vaswani et al. (2017); Raffel et al. (2020) for the bias.
    """

    def __init__(self, channels: int, window: int, heads: int = 4, dropout: float = 0.0) -> None:
        super().__init__()
        self.window, self.heads = window, heads
        self.norm = nn.LayerNorm(channels)
        self.query = nn.Linear(channels, channels)
        self.key_and_value = nn.Linear(channels, 2 * channels)
        self.bias = nn.Parameter(torch.zeros(heads, window))
        self.mix = nn.Linear(channels, channels)
        self.words = nn.Sequential(
            nn.LayerNorm(channels),
            nn.Linear(channels, 2 * channels),
            nn.GELU(),
            nn.Linear(2 * channels, channels),
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """Read inputs `[B, T, C]` after the past, `[B, up to W - 1, C]`; return such a pair."""
        seen = torch.cat([past, self.norm(x)], 1)  # [B, S, C]
        P, S = past.shape[1], seen.shape[1]
        time = torch.arange(S, device=x.device)
        back = time[P:, None] - time  # [T, S]
        outside = (back < 0) | (back >= self.window)
        bias = self.bias[:, back.clamp(0, self.window - 1)].masked_fill(outside, -torch.inf)
        parts = self.query(seen[:, P:]), *self.key_and_value(seen).chunk(2, -1)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        found = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)  # [B, heads, T, C / heads]
        x = x + self.dropout(self.mix(found.transpose(1, 2).flatten(2)))
        return x + self.dropout(self.words(x)), seen[:, max(0, S - self.window + 1) :]


class WindowedTransformerDecoder(DilatedConvDecoder):
    """The decoder of convolutions with blocks of attention in their place, two of them.

    The windows of the blocks add up to the field R of the whole stack: each has 1 + (R - 1) / 2.
    """

    def __init__(self, *sizes: int, field: int, layers: int = 2, dropout: float = 0.0) -> None:
        super().__init__(*sizes, dilations=[1], dropout=dropout)
        window, rest = divmod(field - 1, layers)
        if rest or window < 1:
            raise ValueError(f"{layers} windows have a field of 1 + {layers} n, not {field}")
        self.field, channels = field, sizes[2]
        blocks = [AttentionBlock(channels, 1 + window, dropout=dropout) for _ in range(layers)]
        self.blocks = nn.ModuleList(blocks)

    @property
    def receptive_field(self) -> int:
        """Tokens from the first that a prediction sees to the last."""
        return self.field

    def start(self, z: Tensor | None = None, batch_size: int | None = None) -> State:
        """Compute the code's share of every input, `[B, C]`; no block has a past."""
        share, _ = super().start(z, batch_size)
        return share, *(share.new_empty(len(share), 0, share.shape[1]) for _ in self.blocks)


class TwoLevelDecoder(Decoder):
    """A conductor makes of the code a state a sentence; from it alone the sentence is written.

    The conductor is an LSTM that the code drives and that reads no word. Each of its states, S
    wide, is to an `LSTMDecoder` the code of one sentence, up to the mark `stop_id` that ends it;
    what follows, the next sentence or the end mark, starts from the conductor's next state and
    from a start mark. So words of one sentence reach another through the code alone, but for
    how many sentences there were. The other sizes are those of `LSTMDecoder`.

    Source: after Roberts et al. (2018), "A Hierarchical Latent Vector Model for Learning
    Long-Term Structure in Music".
    """

    def __init__(
        self,
        vocabulary_size: int,
        embedding_size: int,
        hidden_size: int,
        latent_size: int = 0,
        *,
        stop_id: int,
        conductor_size: int = 32,
        bos_id: int = 1,
    ) -> None:
        super().__init__(vocabulary_size, latent_size)
        S = conductor_size
        self.stop_id, self.bos_id = stop_id, bos_id
        self.drive = nn.Parameter(torch.randn(S))
        self.code_to_drive = nn.Linear(latent_size, S, bias=False) if latent_size > 0 else None
        self.conductor = nn.LSTM(S, S, batch_first=True)
        self.sentence = LSTMDecoder(vocabulary_size, embedding_size, hidden_size, S)

    def forward(self, inputs: Tensor, z: Tensor | None = None) -> Tensor:
        """Read inputs `[B, T]` at codes `[B, Z]`; return hidden states `[B, T, H]`."""
        stops = inputs == self.stop_id
        number = stops.cumsum(1)  # of the sentence at each position, [B, T]
        time = torch.arange(inputs.shape[1], device=inputs.device)
        place = time - torch.where(stops, time, 0).cummax(1).values  # in the sentence, [B, T]
        B, K, L = len(inputs), int(number.max()) + 1, int(place.max()) + 1
        document = torch.arange(B, device=inputs.device)[:, None]
        words = inputs.new_zeros(B, K, L)
        words[document, number, place] = inputs.masked_fill(stops, self.bos_id)
        drive = self._drive(z, B)[:, None].expand(-1, K, -1)
        states = self.conductor(drive)[0].flatten(0, 1)  # [B K, S]
        hidden = self.sentence(words.flatten(0, 1), states).unflatten(0, (B, K))
        return hidden[document, number, place]

    def project(self, hidden: Tensor) -> Tensor:
        """Turn hidden states `[..., H]` into logits of the next token, `[..., V]`."""
        return self.sentence.project(hidden)

    def start(self, z: Tensor | None = None, batch_size: int | None = None) -> State:
        """Drive the conductor to its first state, and the sentence from there."""
        drive = self._drive(z, self.check_code(z, batch_size))
        return self._conduct(drive, torch.zeros_like(drive), torch.zeros_like(drive))

    def step(self, token: Tensor, state: State) -> tuple[Tensor, State]:
        """Read one token, `[B]`; where it ends a sentence, the conductor takes a step first."""
        stop = token == self.stop_id
        following = self._conduct(*state[:3])
        state = tuple(
            torch.where(stop[:, None], a, b) for a, b in zip(following, state, strict=True)
        )
        logits, sentence = self.sentence.step(token.masked_fill(stop, self.bos_id), state[3:])
        return logits, (*state[:3], *sentence)

    def _conduct(self, drive: Tensor, h: Tensor, c: Tensor) -> State:
        """The conductor's next state, with its drive, and the start of the sentence."""
        h, c = torch.lstm_cell(drive, (h, c), *self.conductor.all_weights[0])
        return drive, h, c, *self.sentence.start(h)

    def _drive(self, z: Tensor | None, rows: int) -> Tensor:
        """What drives the conductor at every step, `[B, S]`."""
        rows = self.check_code(z, rows)
        share = 0 if self.code_to_drive is None else self.code_to_drive(z)
        return (self.drive + share).expand(rows, -1)
