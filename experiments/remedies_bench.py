"""What is measured of each run of `remedies.py`, and its table. All figures are nats a document."""

from __future__ import annotations

import re
import statistics
from collections import Counter
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import RidgeCV
from torch import Tensor
from torch.distributions import kl_divergence

import tutvae
from tutvae.evaluation.importance import importance_samples_of, noise_streams, normal_in_single
from tutvae.evaluation.in_order import columns_of
from tutvae.experiments.tables import aligned

WEIGHED, SAMPLES, CHUNK, READ_BACK = 500, 100, 20, 200
FACTORS = ("opening", "person", "tense", "category", "stars")


def measured(model: Any, corpus: Any) -> dict[str, Any]:
    """All that is asked of a model, on the test documents of a corpus."""
    some = corpus.test.part(range(min(WEIGHED, len(corpus.test))))
    found: dict[str, Any] = {"examples": len(some)} | weighed(model, _in_order(some))
    if corpus.grammar is not None:
        truth = corpus.grammar.log_probs(corpus.texts.test.texts[: len(some)])
        found["nll_of_the_grammar"] = -float(truth.mean())
    if model.latent_size == 0:
        return found
    report = tutvae.evaluate(model, _in_order(corpus.test), importance_samples=1)
    names = ("kl_per_dimension", "active_units", "mutual_information", "mutual_information_ceiling")
    found |= {name: report.to_dict()[name] for name in names}
    found |= own_and_foreign(model, _in_order(corpus.test))
    return found | {"held": held(model, corpus)}


def _in_order(texts: tutvae.EncodedTexts) -> tutvae.Batches:
    return tutvae.Batches(texts, batch_size=100, shuffle=False)


def weighed(model: Any, batches: Any) -> dict[str, Any]:
    """Bound and NLL by importance samples, and how many samples count: (sum w)^2 / sum w^2."""
    samples = SAMPLES if model.latent_size else 1

    def scored(batch: Any, positions: Tensor) -> tuple[Tensor, ...]:
        q, noise = normal_in_single(model.posterior(batch)), noise_streams(0, positions.tolist())
        log_p, log_w = importance_samples_of(model, batch, q, samples, CHUNK, noise)
        count = (2 * log_w.logsumexp(0) - (2 * log_w).logsumexp(0)).exp()
        kl = kl_divergence(q, model.prior()).sum(1)
        return -log_p.mean(0), kl, -tutvae.importance_weighted_bound(log_w), count

    columns = [column.double() for column in columns_of(model, batches, scored)]
    reconstruction, kl, nll, count = (column.mean().item() for column in columns)
    found = {"bound": reconstruction + kl, "reconstruction": reconstruction, "kl": kl, "nll": nll}
    found["nll_standard_error"] = columns[2].std().item() / len(columns[2]) ** 0.5
    few = columns[3].quantile(0.1).item()
    return found | {"samples": samples, "effective_samples": count, "effective_in_a_tenth": few}


def own_and_foreign(model: Any, batches: Any) -> dict[str, float]:
    """The cost of documents given the mean of their own posterior, and of another document's."""
    own = tutvae.encode(model, batches).loc
    order = torch.randperm(len(own), generator=torch.Generator().manual_seed(0))
    foreign = torch.empty_like(own)
    foreign[order] = own[order.roll(1)]  # nobody gets the own one

    def costs(batch: Any, positions: Tensor) -> tuple[Tensor, ...]:
        codes = torch.stack([own[positions], foreign[positions]]).to(batch.tokens.device)
        return tuple(-model.log_likelihood(batch, codes))

    with_own, with_foreign = (x.double().mean() for x in columns_of(model, batches, costs))
    return {"with_own_code": with_own.item(), "with_foreign_code": with_foreign.item()}


def held(model: Any, corpus: Any) -> dict[str, Any]:
    """What codes hold: how many words read back; the factors of a review, or else the length."""
    texts = corpus.texts.test.texts
    shown = texts[:READ_BACK]
    back = tutvae.reconstruct(model, corpus.tokenizer, shown, max_length=100)
    found: dict[str, Any] = {"words_kept": kept(shown, back)}
    found["words_kept_by_chance"] = kept(shown, [*back[1:], back[0]])
    codes = tutvae.sample_codes(tutvae.encode(model, _in_order(corpus.test)))
    half = len(codes) // 2
    if corpus.grammar is None:
        lengths = np.array([len(text.split()) for text in texts])
        ridge = RidgeCV(np.logspace(-2, 4, 7)).fit(codes[:half], lengths[:half])
        return found | {"length_r_squared": ridge.score(codes[half:], lengths[half:])}
    for name in FACTORS:
        values = corpus.texts.test.factors[name]
        read = tutvae.probe(codes[:half], values[:half], codes[half:], values[half:])
        found[name] = vars(read)
    return found


def kept(texts: list[str], back: list[str]) -> float:
    """The share of the words of texts that are in what was read back, in any order."""
    bags = [[Counter(re.findall(r"[\w']+", x.lower())) for x in part] for part in (texts, back)]
    both = sum((one & other).total() for one, other in zip(*bags, strict=True))
    return both / sum(bag.total() for bag in bags[0])


def said(held: dict[str, Any]) -> float:
    """One figure of what codes hold: nats of factors that are read, or the share of words kept."""
    nats = [held[name]["nats"] for name in FACTORS if name in held]
    return sum(nats) if nats else held["words_kept"]


def figures(row: dict[str, Any], of: dict[str, float]) -> dict[str, float]:
    """The columns of the table for one run; `of` has the NLL of its two baselines."""
    found = {"NLL": row["nll"], "CPU min": row["seconds"]["cpu"] / 60}
    found |= {key: row["nll"] - nll for key, nll in of.items()}
    if row["samples"] > 1:
        found |= {"bound": row["bound"], "KL": row["kl"]}
        found |= {"ESS": row["effective_samples"], "MI": row["mutual_information"]}
        found |= {"units": row["active_units"], "holds": said(row["held"])}
        found["own code"] = row["with_foreign_code"] - row["with_own_code"]
    return found


COLUMNS = ("bound", "KL", "MI", "units", "NLL", "- LM", "- blank", "ESS", "own code", "holds")


def table(rows: list[dict[str, Any]], decoders: dict[str, str]) -> str:
    """Mean and spread over the seeds, a line a remedy; `decoders` are those of the remedies.

    "- LM" and "- blank": the NLL less that of the same seed's baseline with the same decoder, a
    language model, and a VAE with a blank code. "own code": what the mean of a document's own
    posterior is worth beyond another's. "holds": nats of the factors that a linear probe reads,
    or the share of words that come back.
    """
    nlls = {(row["remedy"], row["seed"]): row["nll"] for row in rows}
    columns = (*COLUMNS, "CPU min")
    lines = [["", "runs", *columns]]
    for name in dict.fromkeys([*decoders, *sorted({row["remedy"] for row in rows})]):
        runs = [row for row in rows if row["remedy"] == name]
        if not runs:
            continue
        found = []
        for row in runs:
            kinds = {"- LM": "language_model", "- blank": "blank"} if name in decoders else {}
            names = {key: (f"{kind}_{decoders[name]}", row["seed"]) for key, kind in kinds.items()}
            of = {key: nlls[place] for key, place in names.items() if place in nlls}
            found.append(figures(row, of))
        cells = [_cell([run[key] for run in found if key in run]) for key in columns]
        lines.append([name, str(len(runs)), *cells])
    lines = aligned(lines)
    if rows and "nll_of_the_grammar" in rows[0]:
        lines.append(f"the grammar's own NLL of these documents: {rows[0]['nll_of_the_grammar']}")
    ceilings = sorted({x["mutual_information_ceiling"] for x in rows if "held" in x})
    return "\n".join([*lines, *(f"the most that MI can be: {ceiling}" for ceiling in ceilings)])


def _cell(values: list[float]) -> str:
    """Mean and standard deviation; "" without values."""
    if len(values) < 2:
        return "".join(f"{value:.2f}" for value in values)
    return f"{statistics.mean(values):.2f} \N{PLUS-MINUS SIGN} {statistics.stdev(values):.2f}"
