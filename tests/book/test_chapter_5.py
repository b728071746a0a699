"""The short remedies of chapter 5 compute what the package's do."""

import copy
import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from nbformat import NotebookNode
from torch import Tensor, nn

import tutvae
from tutvae import Elbo, EncodedTexts, schedules
from tutvae.data.batches.resumable import endless
from tutvae.models.lstm_decoder import WordDropout
from tutvae.training.aggressive import fit_aggressively

V, E, H, Z = 11, 4, 6, 3
STARTS = (
    "def annealed(",
    "def free_bits(",
    "def held(",
    "class WordDropout(",
    "def pooled(",
    "def normalise_means(",
    "def autoencoder_first(",
    "def update(",
    "def logits_with_skip(",
)
# A change of any term, and how it would read: the remedy, the term, the other.
MUTANTS = {
    "no ramp": ("annealed", "step / ramp", "1.0"),
    "a ramp beyond 1": ("annealed", "min(1.0, step / ramp)", "step / ramp"),
    "a weight of the reconstruction": (
        "annealed",
        "elbo.reconstruction + weight * elbo.kl",
        "weight * elbo.reconstruction + elbo.kl",
    ),
    "free for each review": (
        "free_bits",
        "elbo.kl_per_dimension.mean(0)  # [Z], from [B, Z]",
        "elbo.kl_per_dimension",
    ),
    "free above": ("free_bits", "kl.clamp(min=nats)", "kl.clamp(max=nats)"),
    "a mean over dimensions": ("free_bits", "clamp(min=nats).sum()", "clamp(min=nats).mean()"),
    "no floor in total": ("free_bits_in_total", "elbo.kl.mean().clamp(min=nats)", "elbo.kl.mean()"),
    "a lower price above the rate": ("held", "4 * excess", "excess"),
    "no constant": ("held", "+ rate + 4", "+ 4"),
    "a price below the rate": ("held", ".clamp(min=0)", ""),
    "words hidden in use": (
        "word_dropout",
        "not self.training and self.rate < 1",
        "False",
    ),
    "an inputless decoder that reads": ("word_dropout", " and self.rate < 1", ""),
    "the start hidden": ("word_dropout", "hidden & (tokens != self.bos_id)", "hidden"),
    "another mark": ("word_dropout", "self.unk_id)\n", "self.bos_id)\n"),
    "padding in the pool": ("pooled", "~is_word[..., None]", "is_word[..., None] & False"),
    "the smallest": ("pooled", ".amax(1)", ".amin(1)"),
    "the last time": ("aggressive", "if now >= before:", "if now < before:"),
    "no update of the decoder": ("aggressive", "    update(model, next(batches), of_decoder)", ""),
    "one step at a time": ("aggressive", "for _ in range(window))", "for _ in range(1))"),
}


@pytest.fixture(scope="module")
def source(chapters: dict[int, NotebookNode]) -> str:
    """The cells of the chapter that define the remedies."""
    found = [cell.source for cell in chapters[5].cells if cell.source.startswith(STARTS)]
    assert len(found) == len(STARTS)
    return "\n\n\n".join(found) + "\n"


def defined(source: str) -> dict[str, Any]:
    names: dict[str, Any] = {"torch": torch, "nn": nn, "math": math}
    exec(source, names)
    return names


def bounds() -> Iterator[Elbo]:
    """Random terms, above and below the thresholds, whose gradients are wanted."""
    torch.manual_seed(0)
    for scale in (0.1, 1.0, 4.0):
        kl = (scale * torch.rand(5, Z)).requires_grad_()
        reconstruction = (10 * torch.rand(5)).requires_grad_()
        yield Elbo(reconstruction, kl.sum(1), kl)


def with_gradients(loss: Callable[[Elbo], Tensor]) -> list[Tensor]:
    """The losses of all random terms, with their gradients."""
    results = []
    for elbo in bounds():
        value = loss(elbo)
        terms = (elbo.reconstruction, elbo.kl_per_dimension)
        gradients = torch.autograd.grad(value, terms, allow_unused=True, materialize_grads=True)
        results += [value.detach(), *gradients]
    return results


def losses(names: dict[str, Any] | None, remedy: str) -> list[Tensor]:
    """The losses of a remedy by the chapter's functions, or by the package where there are none."""
    results = []
    for nats in (0.05, 0.7, 5.0):
        own, theirs = {
            "annealed": (
                lambda elbo, n=nats: names["annealed"](elbo, 100 * n, 200),
                lambda elbo, n=nats: elbo.loss(schedules.linear(200)(100 * n)),
            ),
            "free_bits": (
                lambda elbo, n=nats: names["free_bits"](elbo, n),
                lambda elbo, n=nats: elbo.loss(free_bits=n),
            ),
            "free_bits_in_total": (
                lambda elbo, n=nats: names["free_bits_in_total"](elbo, n),
                lambda elbo, n=nats: elbo.loss(free_bits=n, free_bits_per="total"),
            ),
            "held": (
                lambda elbo, n=nats: names["held"](elbo, n),
                lambda elbo, n=nats: elbo.loss(rate=n),
            ),
        }[remedy]
        results += with_gradients(own if names else theirs)
    return results


def hidden(names: dict[str, Any] | None, _: str) -> list[Tensor]:
    """Words as they are at several rates, in training and in use."""
    make = names["WordDropout"] if names else WordDropout
    tokens = EncodedTexts([[1, 5, 6, 7, 2], [1, 8, 2]]).batch().tokens
    results = []
    for rate in (0.0, 0.4, 1.0):
        for training in (True, False):
            torch.manual_seed(3)
            results.append(make(rate).train(training)(tokens).float())
    return results


def features(names: dict[str, Any] | None, _: str) -> list[Tensor]:
    """Pooled states of documents of unequal length."""
    torch.manual_seed(0)
    encoder = tutvae.LSTMEncoder(V, E, H, Z, pooling="max")
    batch = EncodedTexts([[1, 5, 6, 7, 2], [1, 8, 2]]).batch()
    if names is None:
        return [encoder.features(batch)]
    states, _ = encoder.lstm(encoder.embedding(batch.tokens))
    return [names["pooled"](states, torch.arange(5) < batch.lengths[:, None])]


def after_aggressive_steps(names: dict[str, Any] | None, _: str) -> list[Tensor]:
    """The weights after two turns of the encoder, each with an update of the decoder."""
    torch.manual_seed(0)
    model = tutvae.TextVAE(tutvae.LSTMEncoder(V, E, H, Z), tutvae.LSTMDecoder(V, E, H, Z))
    model = model.train()
    documents = [[1, *torch.randint(4, V, (n % 5 + 1,)).tolist(), 2] for n in range(24)]
    batches = tutvae.Batches(EncodedTexts(documents), batch_size=4, seed=0)
    halves = (model.encoder, model.decoder)
    optimizers = [torch.optim.SGD(half.parameters(), lr=0.5) for half in halves]
    torch.manual_seed(4)
    if names is None:
        chosen: dict[str, Any] = {"window": 2, "max_encoder_steps": 8, "round_steps": 2}
        chosen |= {"encoder_optimizer": optimizers[0], "decoder_optimizer": optimizers[1]}
        valid = copy.deepcopy(batches)
        fit_aggressively(model, batches, valid=valid, max_rounds=1, device="cpu", **chosen)
    else:
        feed = endless(batches)
        for _ in range(2):
            names["aggressive_step"](model, feed, *optimizers, window=2, most=8)
    return [weight.detach() for weight in model.parameters()]


REMEDIES: dict[str, Callable[[dict[str, Any] | None, str], list[Tensor]]] = {
    "annealed": losses,
    "free_bits": losses,
    "free_bits_in_total": losses,
    "held": losses,
    "word_dropout": hidden,
    "pooled": features,
    "aggressive": after_aggressive_steps,
}


def agree(source: str, remedy: str) -> bool:
    """Whether chapter and package compute the same."""
    compute = REMEDIES[remedy]
    pairs = zip(compute(defined(source), remedy), compute(None, remedy), strict=True)
    return all(torch.allclose(one, other, atol=1e-5) for one, other in pairs)


@pytest.mark.parametrize("remedy", REMEDIES)
def test_the_remedy_computes_what_the_packages_does(source: str, remedy: str) -> None:
    assert agree(source, remedy)


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_change_of_any_term_is_seen(source: str, mutant: str) -> None:
    remedy, term, other = MUTANTS[mutant]
    assert term in source, f"the chapter no longer has {term!r}"
    assert not agree(source.replace(term, other), remedy)


def test_normalised_means_spread_by_gamma_and_keep_the_kl_up(source: str) -> None:
    torch.manual_seed(0)
    encoder = tutvae.LSTMEncoder(V, E, H, Z)
    defined(source)["normalise_means"](encoder, 0.5)
    batch = EncodedTexts([[1, *torch.randint(4, V, (5,)).tolist(), 2] for _ in range(40)]).batch()
    q = encoder(batch)
    assert q.loc.std(0, correction=0).tolist() == pytest.approx([0.5] * Z, abs=1e-4)
    kl = torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, 1.0)).mean(0)
    assert (kl >= 0.5**2 / 2 - 1e-4).all()
    assert not encoder.mean[1].weight.requires_grad


def test_the_autoencoder_first_keeps_the_encoder_and_exchanges_the_decoder(source: str) -> None:
    model = tutvae.TextVAE(tutvae.LSTMEncoder(V, E, H, Z), tutvae.LSTMDecoder(V, E, H, Z))
    encoder, first, second = model.encoder, model.decoder, tutvae.LSTMDecoder(V, E, H, Z)
    seen = []

    def fit(model: Any, **options: Any) -> None:
        assert model.encoder is encoder
        seen.append((model.decoder, options))

    defined(source)["autoencoder_first"](model, fit, second, free_bits=0.1)
    assert seen == [(first, {"kl_weight": 0.0}), (second, {"free_bits": 0.1})]


def test_a_skip_connection_adds_the_same_at_every_word(source: str) -> None:
    h, z, output, skip = torch.randn(2, 4, H), torch.randn(2, Z), nn.Linear(H, V), nn.Linear(Z, V)
    added = defined(source)["logits_with_skip"](h, z, output, skip) - output(h)
    assert torch.allclose(added, skip(z)[:, None].expand(2, 4, V), atol=1e-5)


def test_no_remedy_takes_more_than_fifteen_lines(chapters: dict[int, NotebookNode]) -> None:
    for cell in chapters[5].cells:
        if cell.source.startswith(STARTS):
            assert all(len(part.splitlines()) <= 16 for part in cell.source.split("\n\n\n"))
