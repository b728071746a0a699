"""Measuring a model: bound, importance-weighted likelihood, perplexity, active units.

Everything here is deterministic: the noise comes from a seed of its own (in `score` and `evaluate`
from a stream for each example, whatever its batch), torch's global random state is left alone, and
the model is in eval mode meanwhile.
"""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence
from torch.random import fork_rng

from tutvae.bounds import importance_weighted_bound
from tutvae.data.batches.text_batch import TextBatch
from tutvae.evaluation import importance
from tutvae.evaluation.diagnostics import mutual_information
from tutvae.evaluation.importance import importance_samples_of, normal_in_single
from tutvae.evaluation.in_order import columns_of
from tutvae.models.protocols import LatentVariableModel, TrainableModel, evaluating

ACTIVE_UNIT_VARIANCE = 0.01
# The exponential of more is too large for a number.
MOST_NATS = 709.0
# How many posteriors the mutual information is estimated from, where there are as many.
AGGREGATED_POSTERIORS = 2_048


@dataclass(frozen=True)
class Report:
    """What a model achieves on a set of examples, in nats an example.

    Attributes:
        examples: how many were measured, N.
        reconstruction: mean of -log p(x|z) over samples z of the posterior.
        kl: mean KL of the posterior to the prior.
        importance_weighted_nll: estimate of -log p(x) by `importance_samples` samples.
        importance_samples: S; the estimate is from above, tighter the larger S, exact if Z = 0.
        active_units: latent dimensions whose posterior mean varies with the data.
        kl_per_dimension: the KL of each of the Z dimensions.
        mutual_information: between examples and codes; see `tutvae.evaluation.diagnostics`.
        mutual_information_ceiling: the most it can be, ln of the number of posteriors used.
        tokens: how many were predicted, words and end marks; None if the data are not text.
        language_model_nll: exact NLL of a language model on the same examples; None without one.

    >>> images = tutvae.digits().test.pixels.split(50)
    >>> report = tutvae.evaluate(tutvae.VAE(data_size=64, latent_size=2), images)
    >>> report.bound == report.reconstruction + report.kl
    True

    Source: Burda et al. (2016), section 5. Chapters 2 and 4.
    """

    examples: int
    reconstruction: float
    kl: float
    importance_weighted_nll: float
    importance_samples: int
    active_units: int
    kl_per_dimension: tuple[float, ...]
    mutual_information: float | None = None
    mutual_information_ceiling: float | None = None
    tokens: int | None = None
    language_model_nll: float | None = None

    @property
    def bound(self) -> float:
        """The negative ELBO, reconstruction + KL, an upper bound on the NLL."""
        return self.reconstruction + self.kl

    @property
    def perplexity(self) -> float | None:
        """The exponential of the NLL a predicted token; None if the data are not text.

        Infinite above 709 nats a token. Chapter 3, equation `perplexity`.
        """
        if self.tokens is None:
            return None
        nats = self.importance_weighted_nll * self.examples / self.tokens
        return math.exp(nats) if nats <= MOST_NATS else math.inf

    @property
    def price(self) -> float | None:
        """The bound less a language model's NLL, if known; below 0, the code pays. Chapter 7."""
        return None if self.language_model_nll is None else self.bound - self.language_model_nll

    def to_dict(self) -> dict[str, Any]:
        """The fields, bound, perplexity and price, ready for JSON; None and infinity left out."""
        derived = {name: getattr(self, name) for name in ("bound", "perplexity", "price")}
        values = asdict(self) | derived
        return {name: x for name, x in values.items() if x is not None and x != math.inf}

    def __str__(self) -> str:
        latent_size = len(self.kl_per_dimension)
        samples = f"{self.importance_samples} samples" if latent_size else "exact"
        rows = [
            ("reconstruction", self.reconstruction),
            ("KL", self.kl),
            ("bound", self.bound),
            (f"NLL, {samples}", self.importance_weighted_nll),
            ("perplexity", self.perplexity),
            ("mutual information", self.mutual_information),
            ("  its ceiling", self.mutual_information_ceiling),
            ("language model NLL", self.language_model_nll),
            ("price of the code", self.price),
        ]
        tokens = "" if self.tokens is None else f", {self.tokens:,} tokens"
        lines = [f"{self.examples:,} examples{tokens}, nats an example"]
        lines += [f"  {name:<18} {value:>9.2f}" for name, value in rows if value is not None]
        units = f"{self.active_units} of {latent_size}"
        return "\n".join([*lines, f"  {'active units':<18} {units:>9}"])


@dataclass(frozen=True)
class Scores:
    """What a model makes of each of N examples, in the caller's order, in double precision.

    Attributes:
        reconstruction: mean of -log p(x|z) over the samples z of the posterior, `[N]` nats.
        nll: importance-weighted estimate of -log p(x), `[N]` nats.
        kl: KL of each dimension's posterior to its prior, `[N, Z]` nats.
        posterior: q(z|x), a Normal of shape `[N, Z]`.
        importance_samples: S, the samples that were used.
        tokens: how many were predicted in all, or None if the data are not text.

    Source: Burda et al. (2016), section 5. Chapter 3.
    """

    reconstruction: Tensor
    nll: Tensor
    kl: Tensor
    posterior: Normal
    importance_samples: int
    tokens: int | None


def evaluate(
    model: LatentVariableModel,
    batches: Iterable[Any],
    *,
    importance_samples: int = 500,
    chunk_size: int = 50,
    seed: int = 0,
    language_model: LatentVariableModel | None = None,
) -> Report:
    """Measure a model on all examples of a set.

    Args:
        model: a `LatentVariableModel`, on any device.
        batches: the examples; each batch has `.to(device)`.
        importance_samples: S, the posterior samples an example, for reconstruction and NLL. The
            NLL is an upper estimate: a code of many nats has a narrow posterior, whose samples
            miss most of p(x). At 24 nats 100 of them leave it over 2 nats too high (chapter 11).
        chunk_size: samples that are decoded at a time; changes the memory, not the result.
        seed: of the noise.
        language_model: one of the same decoder, Z = 0, to tell the price of the code by.

    ValueError if there are no batches, a term is not finite, `importance_samples` or `chunk_size`
    is below 1, or the language model has a code.

    >>> images = tutvae.digits().test.pixels.split(50)
    >>> report = tutvae.evaluate(tutvae.VAE(data_size=64, latent_size=2), images)
    >>> report.examples, report.importance_weighted_nll < report.bound
    (300, True)

    Source: Burda et al. (2016), section 5. Chapter 2.
    """
    language_model_nll = None
    if language_model is not None:
        batches = list(batches)  # both models read them
        if Z := language_model.prior().loc.numel():
            raise ValueError(
                f"a language model has no code (Z = 0), and this one has Z = {Z}, so its NLL is "
                "not exact: train a LanguageModel of the same decoder"
            )
        language_model_nll = score(language_model, batches).nll.mean().item()
    options = {"importance_samples": importance_samples, "chunk_size": chunk_size, "seed": seed}
    scores = score(model, batches, **options)
    q = aggregated(scores.posterior)
    return Report(
        examples=len(scores.nll),
        reconstruction=scores.reconstruction.mean().item(),
        kl=scores.kl.sum(1).mean().item(),
        importance_weighted_nll=scores.nll.mean().item(),
        importance_samples=scores.importance_samples,
        active_units=int(active_units(scores.posterior.loc).sum()),
        kl_per_dimension=tuple(scores.kl.mean(0).tolist()),
        mutual_information=mutual_information(q, seed),
        mutual_information_ceiling=math.log(len(q.loc)),
        tokens=scores.tokens,
        language_model_nll=language_model_nll,
    )


def score(
    model: LatentVariableModel,
    batches: Iterable[Any],
    *,
    importance_samples: int = 500,
    chunk_size: int = 50,
    seed: int = 0,
) -> Scores:
    """Measure a model on each example; arguments and errors are those of `evaluate`.

    Source: Burda et al. (2016), section 5. Chapter 3.
    """
    if min(importance_samples, chunk_size) < 1:
        given = f"{importance_samples} and {chunk_size}"
        raise ValueError(f"importance_samples and chunk_size must be at least 1, not {given}")
    tokens: int | None = None

    def scored(batch: Any, positions: Tensor) -> tuple[Tensor, ...]:
        nonlocal tokens
        if isinstance(batch, TextBatch):
            tokens = (tokens or 0) + batch.predicted_tokens
        q, prior = (normal_in_single(p) for p in (model.posterior(batch), model.prior()))
        noise = importance.noise_streams(seed, positions.tolist())
        log_likelihoods, log_weights = importance_samples_of(model, batch, q, S, chunk_size, noise)
        nll = -importance_weighted_bound(log_weights)  # [B]
        return -log_likelihoods.mean(0), nll, kl_divergence(q, prior), q.loc, q.scale

    with evaluating(model):
        # Without a code every sample gives the same, exact value.
        S = importance_samples if model.prior().loc.numel() > 0 else 1
    columns = columns_of(model, batches, scored)
    reconstruction, nll, kl, mean, scale = (column.double() for column in columns)
    if not (reconstruction.isfinite().all() and kl.isfinite().all()):
        raise ValueError("the bound is not finite: are there NaN in the data or in the weights?")
    return Scores(reconstruction, nll, kl, Normal(mean, scale, validate_args=False), S, tokens)


def mean_terms(model: TrainableModel, batches: Iterable[Any], seed: int = 0) -> dict[str, float]:
    """Average the terms of a model's bound over a set, at one posterior sample an example.

    Cheaper than `evaluate`: it is what `fit` follows on the validation set.

    The model is called with a batch and returns an `Elbo`. The terms are `reconstruction`, `kl`
    and, of a model with labels, `label_kl`, in nats an example. ValueError without batches.

    Source: Kingma & Welling (2014), equation 10. Chapter 1, equation `elbo`.
    """
    sums, examples = summed_terms(model, batches, seed)
    return {name: total / examples for name, total in sums.items()}


def summed_terms(
    model: TrainableModel, batches: Iterable[Any], seed: int = 0
) -> tuple[Counter[str], int]:
    """The sums of which `mean_terms` gives the means, and over how many examples."""
    importance.check_seed(seed)
    sums: Counter[str] = Counter()
    examples = 0
    with evaluating(model) as device, fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        for batch in batches:
            terms = model(batch.to(device)).terms
            sums.update({name: term.sum().item() for name, term in terms.items()})
            examples += len(batch)
    if examples == 0:
        raise ValueError("there is nothing to evaluate: no batch came")
    return sums, examples


def encode(model: LatentVariableModel, batches: Iterable[Any]) -> Normal:
    """Encode N examples: their posteriors in the caller's order, a Normal `[N, Z]` on the CPU.

    FloatingPointError if a posterior is not finite; ValueError without batches.

    >>> model = tutvae.VAE(data_size=64, latent_size=2)
    >>> tutvae.encode(model, tutvae.digits().test.pixels.split(50)).loc.shape
    torch.Size([300, 2])

    Source: Kingma & Welling (2014), section 2. Chapter 2.
    """

    def encoded(batch: Any, _: Tensor) -> tuple[Tensor, Tensor]:
        q = normal_in_single(model.posterior(batch))
        return q.loc, q.scale

    mean, scale = columns_of(model, batches, encoded)
    if not (mean.isfinite().all() and scale.isfinite().all() and (scale > 0).all()):
        cause = "are there NaN in the data or in the weights?"
        raise FloatingPointError(f"the posterior is not finite: {cause}")
    return Normal(mean, scale, validate_args=False)


def aggregated(q: Normal) -> Normal:
    """Pick the posteriors, of N `[N, Z]`, that a mutual information is estimated from.

    At most 2,048 of them, spread evenly over the examples, which may come sorted.

    Source: Hoffman & Johnson (2016), section 2. Chapter 4.
    """
    N = len(q.loc)
    used = min(N, AGGREGATED_POSTERIORS)
    rows = torch.arange(used) * N // used
    return Normal(q.loc[rows], q.scale[rows], validate_args=False)


def active_units(means: Tensor, threshold: float = ACTIVE_UNIT_VARIANCE) -> Tensor:
    """Tell which latent dimensions respond to the data: True for each active one, `[Z]`.

    The posterior means of N examples, `[N, Z]`, vary there by more than the threshold.

    Source: Burda et al. (2016), section 5.2. Chapter 2.
    """
    return (means - means.mean(0)).square().mean(0) > threshold
