"""What the price of a code is paid for: a VAE of sentences, one thing changed at a time.

    python experiments/price_of_a_code.py [--change NAME ...] [--model vae ...] [--seed 0 1]

A third of Tatoeba's sentences, three million weights, a held rate of 16 nats, two seeds; of each
run the epoch with the best bound on the validation sentences (where a rate is held, a smaller KL
counts as that). The price is the bound less the NLL
of a language model with the same decoder, trained alike, in nats a sentence.

Finished runs are written to results/everyday/price.json, and are not done again; several
processes may work side by side, each on one thread (a quarter of an hour a run), or on a GPU where
there is one. Each ends with the table of all that is in the record. `shipped` runs train nothing:
they ask how much of the price of `sentences-8` and `sentences-24` is their encoders'.
"""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
from price_models import FreerVAE, log_prior, posterior_of
from study import RESULTS, Record, parser_of, selected
from torch import nn
from torch.distributions import Distribution, Independent, Normal, kl_divergence

import tutvae
from tutvae import schedules
from tutvae.models import (
    BiLSTMEncoder,
    LanguageModel,
    LSTMEncoder,
    ProjectedLSTMDecoder,
    TextVAE,
    tie_weights,
)
from tutvae.training.checkpoints import load_weights
from tutvae.training.run_folder import RunFolder
from tutvae.training.step import adam

SENTENCES, SEEDS, RATE, SAMPLES, CHUNK = 36_861, (0, 1), 16.0, 100, 10
# Gradient steps on each posterior of some sentences, and codes drawn for a step.
REFINED, STEPS, DRAWN = 512, 60, 4
Posterior = Callable[[Any, Any], Distribution]


@dataclass(frozen=True)
class Plan:
    """One model and how it is trained."""

    latent_size: int = 32
    hidden_size: int = 384  # of the decoder
    both_ways: bool = True  # the encoder reads
    encoder_size: int = 192  # of its states
    encoder_dropout: float = 0.15
    small_words: bool = False  # the encoder's word vectors start with a scale of 0.05, not 1
    prior: str | None = None
    full: bool = False  # covariance of the posterior
    epochs: int = 24
    alone_first: int = 0  # epochs in which the KL's weight rises: at first it is an autoencoder
    free_bits_per: str | None = None  # with free bits in place of a rate, whose they are

    def alone(self) -> Plan:
        """The language model of the same decoder."""
        return Plan(latent_size=0, hidden_size=self.hidden_size, epochs=self.epochs)


BASE = "as it is"
CHANGES = {
    BASE: Plan(),
    "prior: Normal, KL at a sample": Plan(prior="Normal"),  # as of the next three
    "prior: mixture": Plan(prior="mixture"),
    "prior: VampPrior": Plan(prior="VampPrior"),
    "prior: flow": Plan(prior="flow"),
    "posterior: full covariance": Plan(full=True),
    "encoder: one way": Plan(both_ways=False),
    "encoder: more dropout": Plan(encoder_dropout=0.4),
    "encoder: no dropout": Plan(encoder_dropout=0.0),
    "encoder: small word vectors": Plan(small_words=True),
    "encoder: twice as wide": Plan(encoder_size=384),
    "training: autoencoder first": Plan(alone_first=4),
    "training: free bits of the batch": Plan(free_bits_per="total"),
    "training: rate of each sentence": Plan(free_bits_per="example"),
    "training: three times as long": Plan(epochs=72),
    "width: twice the code": Plan(latent_size=64),
    "width: twice the state": Plan(hidden_size=768),
    # What helps by itself, at once: the recipe for full size.
    "together": Plan(
        small_words=True, encoder_size=384, encoder_dropout=0.0, free_bits_per="example"
    ),
}

# Models that come with the package, and what their codes were told to hold.
SHIPPED = {"sentences-8": 8.0, "sentences-24": 24.0}


def plans() -> Iterator[dict[str, Any]]:
    """All runs; a language model is trained once for all changes that leave it as it is."""
    for name in SHIPPED:
        yield {"change": name, "model": "shipped", "seed": 0}
    for seed in SEEDS:
        for change, plan in CHANGES.items():
            if change == BASE or plan.alone() != CHANGES[BASE].alone():
                yield {"change": change, "model": "lm", "seed": seed}
            yield {"change": change, "model": "vae", "seed": seed}


@cache
def sentences() -> tuple[tutvae.Tokenizer, tuple[tutvae.EncodedTexts, ...]]:
    """The tokenizer, and the encoded sentences to train on, to choose by and to test on."""
    corpus = tutvae.tatoeba()
    train = corpus.train.texts[:SENTENCES]
    options: Any = {"model": "bpe", "max_vocabulary": 4_000, "min_frequency": 10}
    tokenizer = tutvae.Tokenizer.train(train, uncased=True, **options)
    splits = train, corpus.valid.texts, corpus.test.texts
    return tokenizer, tuple(tutvae.EncodedTexts.from_texts(x, tokenizer) for x in splits)


def build(plan: Plan, V: int) -> LanguageModel | TextVAE:
    """The model of a plan, new."""
    E, Z = 192, plan.latent_size
    decoder = ProjectedLSTMDecoder(V, E, plan.hidden_size, Z, dropout=0.3)
    tie_weights(decoder)
    if Z == 0:
        return LanguageModel(decoder)
    encoder: Any = LSTMEncoder(V, E, plan.encoder_size, Z)
    if plan.both_ways:
        encoder = BiLSTMEncoder(V, E, plan.encoder_size, Z, dropout=plan.encoder_dropout)
    nn.init.normal_(encoder.embedding.weight, std=0.05 if plan.small_words else 1.0)
    if plan.prior or plan.full:
        return FreerVAE(encoder, decoder, plan.prior, plan.full)
    return TextVAE(encoder, decoder)


def trained(plan: Plan, seed: int) -> tuple[Any, tutvae.History]:
    """Train a model as its plan says, and take the weights of the best epoch."""
    tokenizer, (train, valid, _) = sentences()
    torch.manual_seed(seed)
    model = build(plan, len(tokenizer))
    batches = tutvae.Batches(train, batch_size=256, seed=seed)
    ramp = schedules.linear(plan.alone_first * len(batches)) if plan.alone_first else 1.0
    held: dict[str, Any] = {"rate": RATE if plan.latent_size else None}
    if plan.free_bits_per:
        held = {"free_bits": RATE, "free_bits_per": plan.free_bits_per}
    with tempfile.TemporaryDirectory() as folder:
        history = tutvae.fit(
            model,
            batches,
            valid=in_order(valid),
            epochs=plan.epochs,
            optimizer=adam(model.parameters(), 2e-3),
            scheduler="linear",
            kl_weight=ramp,
            max_grad_norm=5.0,
            precision="bf16",
            run_folder=folder,
            **held,
        )
        load_weights(model, RunFolder(folder).best)
    return model.eval().requires_grad_(False), history


def in_order(texts: tutvae.EncodedTexts) -> tutvae.Batches:
    """Batches to be read once."""
    return tutvae.Batches(texts, batch_size=256, shuffle=False)


def refined(model: TextVAE, batch: Any, rate: float | None = None) -> Distribution:
    """q(z|x) after some gradient steps on each sentence's own mean and scale.

    They lower the bound or, with a rate, the loss by which that rate was held in training.
    """
    q: Any = posterior_of(model, batch)
    loc, log_scale = q.base_dist.loc.clone(), q.base_dist.scale.log()
    optimizer = torch.optim.Adam([loc.requires_grad_(), log_scale.requires_grad_()], lr=0.03)
    for _ in range(STEPS):
        q = Normal(loc, log_scale.exp(), validate_args=False)
        # In eval mode cuDNN's LSTMs have no gradients.
        with torch.backends.cudnn.flags(enabled=False):
            costs = -model.log_likelihood(batch, q.rsample((DRAWN,))).mean(0)
        elbo = tutvae.Elbo(costs, kl_divergence(q, model.prior()).sum(-1))
        loss = elbo.loss(rate=rate) * len(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return Independent(Normal(loc.detach(), log_scale.detach().exp(), validate_args=False), 1)


def measured(
    model: Any, texts: tutvae.EncodedTexts, posterior: Posterior = posterior_of
) -> dict[str, float]:
    """Bound, rate and NLL by importance samples, nats a sentence; of a language model its NLL."""
    device, rows = next(model.parameters()).device, []
    torch.manual_seed(0)
    for batch in in_order(texts):
        batch = batch.to(device)
        if model.latent_size == 0:
            rows.append({"bound": -model.log_likelihood(batch)})
            continue
        q = posterior(model, batch)
        z = q.sample((SAMPLES,))
        kl = q.log_prob(z) - log_prior(model, z)
        costs = -torch.cat([model.log_likelihood(batch, part) for part in z.split(CHUNK)])
        nll = math.log(SAMPLES) - torch.logsumexp(-costs - kl, 0)
        rows.append({"bound": (costs + kl).mean(0), "kl": kl.mean(0), "nll": nll})
    return {x: torch.cat([row[x] for row in rows]).double().mean().item() for x in rows[0]}


def without_an_encoder(model: Any, test: tutvae.EncodedTexts, rate: float) -> dict[str, Any]:
    """What some sentences cost by their encoder's posteriors, and by refined ones."""
    some = test.part(range(min(REFINED, len(test))))
    at_the_rate = partial(refined, rate=rate)
    ways = {"encoder_s": posterior_of, "refined": refined, "refined_at_the_rate": at_the_rate}
    return {name: measured(model, some, way) for name, way in ways.items()}


def done(plan: dict[str, Any]) -> dict[str, Any]:
    """Train one model and measure it; or measure one that comes with the package."""
    if plan["model"] == "shipped":
        vae: Any = tutvae.load(plan["change"])
        texts = tutvae.EncodedTexts.from_texts(tutvae.tatoeba().test, vae.tokenizer_)
        model = vae.model_.eval().requires_grad_(False)
        return without_an_encoder(model, texts, SHIPPED[plan["change"]])
    settings = CHANGES[plan["change"]]
    settings = settings.alone() if plan["model"] == "lm" else settings
    model, history = trained(settings, plan["seed"])
    _, (train, _, test) = sentences()
    found: dict[str, Any] = {"weights": sum(p.numel() for p in model.parameters())}
    found |= measured(model, test)
    found["train"] = measured(model, train.part(range(0, len(train), 24)))
    if plan["change"] == BASE and plan["model"] == "vae":
        found |= without_an_encoder(model, test, RATE)
    names = [name for name in history.records[0] if name.startswith("valid_")]
    best: int = int(history.best["epoch"])
    return found | {"best_epoch": best, "epochs": {name: history[name] for name in names}}


def table(runs: list[dict[str, Any]]) -> str:
    """Each change's price on test and on training sentences, the rate, and the loss at most."""
    found = {(run["change"], run["model"], run["seed"]): run for run in runs}
    lines = [f"{'nats a sentence':<32} price  in training  rate  loss, at most  seeds"]
    for change, plan in CHANGES.items():
        own = BASE if plan.alone() == CHANGES[BASE].alone() else change
        pairs = [
            (found[change, "vae", seed], found[own, "lm", seed])
            for seed in SEEDS
            if (change, "vae", seed) in found and (own, "lm", seed) in found
        ]
        if pairs:
            columns = zip(*(_figures(*pair) for pair in pairs), strict=True)
            means = "  ".join(f"{statistics.mean(x):5.2f}" for x in columns)
            lines.append(f"{change:<32} {means}  {len(pairs)}")
    return "\n".join(lines)


def _figures(vae: dict[str, Any], alone: dict[str, Any]) -> tuple[float, ...]:
    """Price on test and training sentences, rate, and what the model loses by an NLL too high."""
    in_training = vae["train"]["bound"] - alone["train"]["bound"]
    return vae["bound"] - alone["bound"], in_training, vae["kl"], vae["nll"] - alone["bound"]


def main(arguments: list[str] | None = None) -> None:
    """Do what is asked for and not in the record yet, and print the table."""
    choices: dict[str, Any] = {"change": SHIPPED | CHANGES, "seed": SEEDS}
    choices["model"] = ("shipped", "lm", "vae")
    parser: argparse.ArgumentParser = parser_of(__doc__, RESULTS / "everyday", **choices)
    given = parser.parse_args(arguments)
    record = Record(given.records / "price.json")
    record.complete(selected(plans(), given), done)
    print(table(record.runs))


if __name__ == "__main__":
    main()
