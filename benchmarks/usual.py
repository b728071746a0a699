"""The usual way: what published code of text VAEs does, with the layers of our models.

Documents keep the order of the file and are padded to 60 tokens; recurrent layers run over packed
sequences; every position gets its logits, padding too; Adam goes through the parameters one by one.
A document is scored by its own; a text is written by one step after the other for all rows, or, by
convolutions, by a whole pass for every token.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Normal
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from tutvae.data.batches.text_batch import TextBatch
from tutvae.models import DilatedConvDecoder, GRUDecoder, LSTMDecoder, TextVAE

LONGEST = 60  # tokens that a document is padded to, the start mark left out
PAD, BOS = 0, 1

Recurrent = GRUDecoder | LSTMDecoder


def cell(layers: nn.Module) -> nn.RNNBase:
    """The recurrent layer of an encoder or a decoder."""
    return next(layer for layer in layers.modules() if isinstance(layer, nn.RNNBase))


def encode(model: TextVAE, batch: TextBatch) -> tuple[Tensor, Tensor]:
    """Mean and logarithmic variance of the codes of B documents, `[B, Z]` each."""
    encoder = model.encoder
    words = encoder.embedding(batch.tokens)
    packed = pack_padded_sequence(
        words, batch.lengths.cpu(), batch_first=True, enforce_sorted=False
    )
    _, last = cell(encoder)(packed)
    features = last[0] if isinstance(last, Tensor) else last[0][0]  # an LSTM's has a cell, too
    return encoder.mean(features), encoder.log_variance(features)


def initial_state(decoder: Recurrent, z: Tensor) -> Tensor | tuple[Tensor, Tensor]:
    """What a recurrent decoder starts from, at codes `[B, Z]`."""
    if isinstance(decoder, GRUDecoder):
        return torch.tanh(decoder.code_to_state(z))[None]
    c = decoder.code_to_cell(z)[None]
    return torch.tanh(c), c


def with_code(decoder: Recurrent, tokens: Tensor, z: Tensor) -> Tensor:
    """Word vectors joined with the code, `[B, T, E + Z]`."""
    words = decoder.embedding(tokens)
    return torch.cat([words, z[:, None].expand(-1, tokens.shape[1], -1)], dim=-1)


def reconstruction(decoder: Recurrent, batch: TextBatch, z: Tensor) -> Tensor:
    """The cost -log p(x|z) of B documents, `[B]` nats."""
    packed = pack_padded_sequence(
        with_code(decoder, batch.inputs, z),
        batch.lengths.cpu() - 1,
        batch_first=True,
        enforce_sorted=False,
    )
    hidden, _ = cell(decoder)(packed, initial_state(decoder, z))
    hidden, _ = pad_packed_sequence(hidden, batch_first=True)
    log_probs = F.log_softmax(decoder.output(hidden), dim=-1)  # [B, T, V], for padding too
    targets = batch.targets[:, : hidden.shape[1]]
    costs = F.nll_loss(
        log_probs.flatten(0, 1), targets.flatten(), ignore_index=PAD, reduction="none"
    )
    return costs.view(targets.shape).sum(1)


def loss(model: TextVAE, batch: TextBatch) -> Tensor:
    """The negative bound, the mean of B documents, in nats."""
    mean, log_variance = encode(model, batch)
    scale = torch.exp(0.5 * log_variance)
    z = mean + scale * torch.randn_like(scale)
    kl = -0.5 * (1 + log_variance - mean**2 - log_variance.exp()).sum(1)
    return (reconstruction(model.decoder, batch, z) + kl).mean()


def train(model: TextVAE, batches: Iterable[TextBatch], optimizer: torch.optim.Optimizer) -> None:
    """A pass over the batches."""
    device = next(model.parameters()).device
    for given in batches:
        batch = TextBatch(given.tokens.to(device), given.lengths)
        optimizer.zero_grad()
        loss(model, batch).backward()
        optimizer.step()


@torch.no_grad()
def importance_weighted_nll(model: TextVAE, batch: TextBatch, samples: int, block: int) -> Tensor:
    """Estimate -log p(x) of one document by S samples, encoded anew for every block of them."""
    log_weights = []
    for _ in range(samples // block):
        mean, log_variance = encode(model, batch)
        q = Normal(mean, torch.exp(0.5 * log_variance))
        z = q.sample((block,))[:, 0]  # [block, Z]
        repeated = TextBatch(batch.tokens.expand(block, -1), batch.lengths.expand(block))
        log_ratio = (Normal(0.0, 1.0).log_prob(z) - q.log_prob(z)).sum(1)
        log_weights.append(log_ratio - reconstruction(model.decoder, repeated, z))
    return math.log(samples) - torch.cat(log_weights).logsumexp(0)


def mutual_information(q: Normal, codes: Tensor, block: int = 100) -> float:
    """Mean of log q(z|x) - log q(z) over codes `[M, Z]` of the first M of N posteriors `[N, Z]`.

    Every code meets every posterior in an array [block, N, Z].
    """
    own = Normal(q.loc[: len(codes)], q.scale[: len(codes)]).log_prob(codes).sum(1)
    all_pairs = [q.log_prob(z[:, None]).sum(2).logsumexp(1) for z in codes.split(block)]
    return (own - torch.cat(all_pairs)).mean().item() + math.log(len(q.loc))


@torch.no_grad()
def written(
    decoder: Recurrent, z: Tensor, length: int, choose: Callable[[Tensor], Tensor]
) -> Tensor:
    """Tokens chosen by their logits `[B, V]`, step by step, for all rows: `[B, length]`."""
    token, state = torch.full((len(z), 1), BOS, device=z.device), initial_state(decoder, z)
    tokens = []
    for _ in range(length):
        hidden, state = cell(decoder)(with_code(decoder, token, z), state)
        token = choose(decoder.output(hidden)[:, 0])[:, None]
        tokens.append(token)
    return torch.cat(tokens, dim=1)


def greedy(decoder: Recurrent, z: Tensor, length: int) -> Tensor:
    """The most probable token each time: `[B, length]`."""
    return written(decoder, z, length, lambda logits: logits.argmax(-1))


def drawn(decoder: Recurrent, z: Tensor, length: int) -> Tensor:
    """A token by its probability each time: `[B, length]`."""
    return written(decoder, z, length, lambda logits: logits.softmax(-1).multinomial(1)[:, 0])


@torch.no_grad()
def full_passes(decoder: DilatedConvDecoder, z: Tensor, length: int) -> Tensor:
    """The most probable token, each by a whole pass over those before it: `[B, length]`."""
    tokens = torch.full((len(z), 1), BOS, device=z.device)
    for _ in range(length):
        logits = decoder.project(decoder(tokens, z)[:, -1])
        tokens = torch.cat([tokens, logits.argmax(-1)[:, None]], dim=1)
    return tokens[:, 1:]
