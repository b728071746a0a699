"""What the price of a code is paid for: a VAE of sentences, one thing changed at a time.

    python experiments/price_of_a_code.py [--jobs N] [--only NAME ...]

A third of Tatoeba's sentences, three million weights, a held rate of 16 nats, two seeds. Each
finished run is written to results/everyday/price.json, with its commit, and is not done again.
The price is the bound less the NLL of the language model of the same decoder, in nats a sentence.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from joblib import Parallel, delayed
from torch import Tensor, nn
from torch.distributions import (
    Categorical,
    Distribution,
    Independent,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
    kl_divergence,
)

import tutvae
from tutvae import schedules
from tutvae.experiments.records import provenance
from tutvae.models import (
    BiLSTMEncoder,
    LanguageModel,
    LSTMEncoder,
    ProjectedLSTMDecoder,
    TextVAE,
    tie_weights,
)
from tutvae.models.text_vae import document_log_likelihood
from tutvae.training.step import adam

SENTENCES, TEST, SAMPLES, SEEDS, RATE = 36_861, 3_124, 100, (0, 1), 16.0
RECORD = Path(__file__).parents[1] / "results" / "everyday" / "price.json"


class MixturePrior(nn.Module):
    """A mixture of Normals whose means, scales and weights are learnt."""

    def __init__(self, latent_size: int, components: int = 100) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.randn(components, latent_size))
        self.log_scale = nn.Parameter(torch.zeros(components, latent_size))
        self.weight = nn.Parameter(torch.zeros(components))

    def forward(self, encoder: LSTMEncoder) -> Distribution:
        """The prior as it is now, over `[Z]`."""
        parts = Normal(self.mean, self.log_scale.exp(), validate_args=False)
        return _mixture(self.weight, parts)


class VampPrior(nn.Module):
    """The mixture of the posteriors of learnt features (Tomczak & Welling, 2018)."""

    def __init__(self, width: int, components: int = 100) -> None:
        super().__init__()
        self.features = nn.Parameter(torch.randn(components, width) / 2)

    def forward(self, encoder: LSTMEncoder) -> Distribution:
        """The prior as it is now, over `[Z]`."""
        parts = encoder.posterior(self.features)
        return _mixture(parts.loc.new_zeros(len(parts.loc)), parts)


def _mixture(weight: Tensor, parts: Normal) -> Distribution:
    return MixtureSameFamily(Categorical(logits=weight), Independent(parts, 1), validate_args=False)


class FlowPrior(nn.Module):
    """A Normal that affine coupling layers have bent (Dinh et al., 2017)."""

    def __init__(self, latent_size: int, layers: int = 6, hidden: int = 128) -> None:
        super().__init__()
        half = latent_size // 2
        self.nets = nn.ModuleList(
            nn.Sequential(nn.Linear(half, hidden), nn.ReLU(), nn.Linear(hidden, 2 * half))
            for _ in range(layers)
        )
        for net in self.nets:
            nn.init.zeros_(net[2].weight)
            nn.init.zeros_(net[2].bias)

    def forward(self, encoder: LSTMEncoder) -> FlowPrior:
        """The prior: itself."""
        return self

    def log_prob(self, z: Tensor) -> Tensor:
        """Return log p(z), `[...]`, of codes `[..., Z]`: by the change of variables."""
        log_det = z.new_zeros(z.shape[:-1])
        for net in self.nets:
            fixed, moved = z.chunk(2, -1)
            log_scale, shift = net(fixed).chunk(2, -1)
            log_scale = torch.tanh(log_scale)
            z = torch.cat([moved * log_scale.exp() + shift, fixed], -1)
            log_det = log_det + log_scale.sum(-1)
        return log_det - 0.5 * (z.square() + math.log(2 * math.pi)).sum(-1)


class FreerVAE(TextVAE):
    """A `TextVAE` with another prior, or with a posterior of full covariance."""

    def __init__(
        self, encoder: Any, decoder: Any, prior: nn.Module | None = None, full: bool = False
    ) -> None:
        super().__init__(encoder, decoder)
        Z = self.latent_size
        self.own_prior = prior
        self.below = nn.Linear(encoder.hidden_size, Z * (Z - 1) // 2) if full else None
        if self.below is not None:
            nn.init.zeros_(self.below.weight)
            nn.init.zeros_(self.below.bias)

    def forward(self, batch: Any) -> tutvae.Elbo:
        """Bound log p(x) at one sample a document, at which the KL is taken, too."""
        q = posterior_of(self, batch)
        z = q.rsample()
        kl = q.log_prob(z) - log_prior(self, z)
        return tutvae.Elbo(-document_log_likelihood(self.decoder, batch, z), kl)


def posterior_of(model: TextVAE, batch: Any) -> Distribution:
    """q(z|x): independent dimensions, or a full covariance by its Cholesky factor."""
    features = model.encoder.features(batch).float()
    q = model.encoder.posterior(features)
    loc, scale = q.loc.float(), q.scale.float()
    below = getattr(model, "below", None)
    if below is None:
        return Independent(Normal(loc, scale, validate_args=False), 1)
    Z = model.latent_size
    factor = torch.diag_embed(scale)
    rows, columns = torch.tril_indices(Z, Z, -1, device=factor.device)
    factor[:, rows, columns] = 0.3 * below(features).float()
    return MultivariateNormal(loc, scale_tril=factor, validate_args=False)


def log_prior(model: TextVAE, z: Tensor) -> Tensor:
    """Return log p(z), `[...]`, of codes `[..., Z]`."""
    own = getattr(model, "own_prior", None)
    return model.prior().log_prob(z).sum(-1) if own is None else own(model.encoder).log_prob(z)


@dataclass(frozen=True)
class Plan:
    """One model and how it is trained; the first plan is what the others change."""

    latent_size: int = 32
    hidden_size: int = 384
    both_ways: bool = True
    encoder: dict[str, Any] = field(default_factory=dict)
    decoder: dict[str, Any] = field(default_factory=dict)
    prior: str = "normal"
    full: bool = False
    epochs: int = 24
    learning_rate: float = 2e-3
    batch_size: int = 256
    alone_first: int = 0
    refine: bool = False


BASE = Plan()
PLANS = {
    "language model": replace(BASE, latent_size=0),
    "as it is": replace(BASE, refine=True),
    "prior: a mixture": replace(BASE, prior="mixture"),
    "prior: VampPrior": replace(BASE, prior="vamp"),
    "prior: a flow": replace(BASE, prior="flow"),
    "posterior: full covariance": replace(BASE, full=True),
    "encoder: one way, last state": replace(BASE, both_ways=False),
    "encoder: more dropout": replace(BASE, encoder={"dropout": 0.4}),
    "encoder: no dropout": replace(BASE, encoder={"dropout": 0.0}),
    "optimisation: three times as long": replace(BASE, epochs=72),
    "optimisation: autoencoder first": replace(BASE, alone_first=4),
    "optimisation: both": replace(BASE, epochs=72, alone_first=12),
    "optimisation: batches of 64": replace(BASE, batch_size=64, learning_rate=1e-3),
    "decoder: more dropout": replace(BASE, decoder={"dropout": 0.5}),
    "decoder: words hidden": replace(BASE, decoder={"word_dropout": 0.2}),
    "optimisation: twice the learning rate": replace(BASE, learning_rate=4e-3),
    "encoder and decoder: more dropout": replace(
        BASE, encoder={"dropout": 0.4}, decoder={"dropout": 0.5}
    ),
    "width: twice the state": replace(BASE, hidden_size=768),
    "width: twice the code": replace(BASE, latent_size=64),
}


def texts() -> tuple[tutvae.Tokenizer, list[tutvae.EncodedTexts]]:
    """The tokenizer, and the encoded sentences to train on, to choose by and to test on."""
    corpus = tutvae.tatoeba()
    train = corpus.train.texts[:SENTENCES]
    options: Any = {"model": "bpe", "max_vocabulary": 4_000, "min_frequency": 10}
    tokenizer = tutvae.Tokenizer.train(train, uncased=True, **options)
    splits = train, corpus.valid.texts, corpus.test.texts[:TEST]
    return tokenizer, [tutvae.EncodedTexts.from_texts(x, tokenizer) for x in splits]


def build(plan: Plan, tokenizer: tutvae.Tokenizer) -> LanguageModel | TextVAE:
    """The model of a plan."""
    V, E, Z = len(tokenizer), 192, plan.latent_size
    decoder = ProjectedLSTMDecoder(V, E, plan.hidden_size, Z, **{"dropout": 0.3} | plan.decoder)
    tie_weights(decoder)
    if Z == 0:
        return LanguageModel(decoder)
    encoder: Any = LSTMEncoder(V, E, 192, Z)
    if plan.both_ways:
        encoder = BiLSTMEncoder(V, E, 192, Z, **{"dropout": 0.15} | plan.encoder)
    if plan.prior == "normal" and not plan.full:
        return TextVAE(encoder, decoder)
    priors: dict[str, Callable[[], nn.Module | None]] = {
        "normal": lambda: None,
        "mixture": lambda: MixturePrior(Z),
        "vamp": lambda: VampPrior(encoder.hidden_size),
        "flow": lambda: FlowPrior(Z),
    }
    return FreerVAE(encoder, decoder, priors[plan.prior](), plan.full)


def trained(
    plan: Plan, seed: int, tokenizer: tutvae.Tokenizer, train: Any, valid: tutvae.EncodedTexts
) -> Any:
    """Train a model as its plan says."""
    torch.manual_seed(seed)
    model = build(plan, tokenizer)
    batches = tutvae.Batches(train, batch_size=plan.batch_size, seed=seed)
    ramp = schedules.linear(max(1, plan.alone_first * len(batches)))
    tutvae.fit(
        model,
        batches,
        valid=tutvae.Batches(valid, batch_size=512, shuffle=False),
        epochs=plan.epochs,
        optimizer=adam(model.parameters(), plan.learning_rate),
        scheduler="linear",
        kl_weight=ramp if plan.alone_first else 1.0,
        rate=RATE if plan.latent_size else None,
        max_grad_norm=5.0,
        precision="bf16",
        progress=False,
    )
    return model.eval()


def refined(model: TextVAE, batch: Any, steps: int = 30) -> Distribution:
    """q(z|x) after some gradient steps on each sentence's own mean and scale."""
    with torch.no_grad():
        q: Any = posterior_of(model, batch)
        q = q.base_dist
    loc, log_scale = q.loc.clone().requires_grad_(), q.scale.log().requires_grad_()
    optimizer = torch.optim.Adam([loc, log_scale], lr=0.03)
    for _ in range(steps):
        q = Normal(loc, log_scale.exp(), validate_args=False)
        z = q.rsample((4,))
        kl = kl_divergence(q, model.prior()).sum(-1)
        loss = (kl - model.log_likelihood(batch, z).mean(0)).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return Independent(Normal(loc.detach(), log_scale.detach().exp(), validate_args=False), 1)


def measured(model: Any, batches: Iterator[Any], refine: bool = False) -> dict[str, float]:
    """Bound, rate and NLL by importance samples, nats a sentence."""
    device = next(model.parameters()).device
    model.requires_grad_(False)
    sums: dict[str, float] = {"bound": 0.0, "kl": 0.0, "nll": 0.0}
    count = 0
    torch.manual_seed(0)
    for batch in batches:
        batch = batch.to(device)
        # In eval mode cuDNN's LSTMs have no gradients.
        with torch.backends.cudnn.flags(enabled=not refine):
            q = refined(model, batch) if refine else posterior_of(model, batch)
        with torch.no_grad():
            z = q.sample((SAMPLES,))
            kl = q.log_prob(z) - log_prior(model, z)
            costs = -torch.cat([model.log_likelihood(batch, part) for part in z.split(10)])
            nll = math.log(SAMPLES) - torch.logsumexp(-costs - kl, 0)
        found = {"bound": (costs + kl).mean(0), "kl": kl.mean(0), "nll": nll}
        sums = {name: sums[name] + x.double().sum().item() for name, x in found.items()}
        count += len(batch)
    return {name: total / count for name, total in sums.items()}


def run(name: str, seed: int) -> dict[str, Any]:
    """Train and measure one model."""
    begun, plan = provenance(), PLANS[name]
    tokenizer, (train, valid, test) = texts()
    model = trained(plan, seed, tokenizer, train, valid)
    some = train.part(range(0, len(train), 12))
    batches = {"test": test, "train": some}
    parts = {k: tutvae.Batches(x, batch_size=256, shuffle=False) for k, x in batches.items()}
    weights = sum(p.numel() for p in model.parameters())
    found: dict[str, Any] = {"plan": name, "seed": seed, "weights": weights, "provenance": begun}
    if plan.latent_size == 0:
        device = next(model.parameters()).device
        with torch.no_grad():
            nlls = {
                k: torch.cat([-model.log_likelihood(b.to(device)).cpu() for b in part])
                for k, part in parts.items()
            }
        return found | {k: {"bound": x.mean().item()} for k, x in nlls.items()}
    found |= {k: measured(model, iter(part)) for k, part in parts.items()}
    if plan.refine:
        found["refined"] = measured(model, iter(parts["test"]), refine=True)
    return found


def main() -> None:
    """Do what is not done yet, and print the table."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--jobs", type=int, default=1)
    arguments.add_argument("--only", nargs="*", default=list(PLANS))
    given = arguments.parse_args()
    done = json.loads(RECORD.read_text()) if RECORD.exists() else []
    known = {(row["plan"], row["seed"]) for row in done}
    todo = [(n, s) for n in given.only for s in SEEDS if (n, s) not in known]
    RECORD.parent.mkdir(parents=True, exist_ok=True)
    parallel = Parallel(n_jobs=given.jobs, return_as="generator_unordered")
    for row in parallel(delayed(run)(*each) for each in todo):
        done.append(row)
        RECORD.write_text(json.dumps(done, indent=1) + "\n")
        print(row["plan"], row["seed"], row["test"], flush=True)
    print(table(done))


def table(rows: list[dict[str, Any]]) -> str:
    """Each plan's mean price on test and training sentences, and its rate and NLL."""
    lines = []
    base = {k: _mean(rows, "language model", k, "bound") for k in ("test", "train")}
    for name in PLANS:
        if any(row["plan"] == name for row in rows) and name != "language model":
            price = {k: _mean(rows, name, k, "bound") - base[k] for k in base}
            kl, nll = (_mean(rows, name, "test", x) for x in ("kl", "nll"))
            lines.append(
                f"{name:<36} price {price['test']:5.2f} (train {price['train']:5.2f})  "
                f"KL {kl:5.2f}  NLL {nll - base['test']:+.2f}"
            )
    return "\n".join([f"language model {base['test']:.2f} (train {base['train']:.2f})", *lines])


def _mean(rows: list[dict[str, Any]], plan: str, part: str, value: str) -> float:
    found = [row[part][value] for row in rows if row["plan"] == plan]
    return sum(found) / len(found) if found else math.nan


if __name__ == "__main__":
    main()
