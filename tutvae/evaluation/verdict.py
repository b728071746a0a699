"""A verdict on a model: what is wrong with it and its code, why, and what to do."""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from textwrap import fill
from typing import Any, Protocol

import torch
from torch import Tensor

from tutvae.data.batches.text_batch import TextBatch
from tutvae.evaluation.diagnostics import own_code_gain
from tutvae.evaluation.illnesses import EMPTY_NATS, MILD, TERMS, Examination, Finding, examine, nats
from tutvae.evaluation.importance import in_single
from tutvae.evaluation.report import Report, encode, evaluate, mean_terms
from tutvae.models.protocols import LatentVariableModel, evaluating

# Of a score or of a code, and far above what rounding in half precision changes.
TOLERANCE = 0.02
# Standard deviations of the prior: how far a code is moved to see whether the decoder notices.
FAR = 3.0
COLUMNS = ("kl_weight", *(f"{part}_{term}" for part in ("train", "valid") for term in TERMS))


class Curves(Protocol):
    """Columns by name, one entry an epoch: a `History`, or a mapping of lists."""

    def __getitem__(self, column: str, /) -> list[float]: ...  # or KeyError


@dataclass(frozen=True)
class Diagnosis:
    """What `diagnose` found; printed, it is a letter of a few lines. Chapter 4.

    Attributes:
        report: the figures of `evaluate`.
        own_code_gain: what an example's own code is worth to the decoder beyond another's, nats.
        findings: what is wrong, or worth knowing; empty for a model in good health.

    >>> images = tutvae.digits().test.pixels.split(50)
    >>> diagnosis = tutvae.diagnose(tutvae.VAE(data_size=64, latent_size=2), images)
    >>> diagnosis.healthy, diagnosis.findings[0].name  # nobody trained it
    (False, 'empty_code')
    """

    report: Report
    own_code_gain: float
    findings: tuple[Finding, ...]

    @property
    def healthy(self) -> bool:
        """Whether nothing was found, or nothing but what is mild."""
        return all(finding.name in MILD for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        return {"healthy": self.healthy, **asdict(self), "report": self.report.to_dict()}

    def __str__(self) -> str:
        letter = [self._verdict()]
        for found in self.findings:
            letter.append(f"\n{found.name.replace('_', ' ')} ({found.chapter})")
            said = {"seen": found.symptom, "cause": found.cause, "try": found.remedy}
            for title, text in said.items():
                letter.append(fill(f"  {title:<7}{text}", 88, subsequent_indent=" " * 9))
        return "\n".join(letter)

    def _verdict(self) -> str:
        r = self.report
        said = "healthy" if self.healthy else f"not well, findings: {len(self.findings)}"
        figures = [f"NLL {r.importance_weighted_nll:.2f}"]
        if r.language_model_nll is not None:
            figures.append(f"a language model's {r.language_model_nll:.2f}")
        if Z := len(r.kl_per_dimension):
            figures += [f"KL {r.kl:.2f}", f"mutual information {r.mutual_information:.2f}"]
            figures += [f"own code worth {nats(self.own_code_gain)}"]
            figures += [f"{r.active_units} of {Z} units active"]
        else:
            figures.append("no code (Z = 0)")
        return f"{said}\n" + fill(f"{', '.join(figures)} (nats an example)", 88)


def diagnose(
    model: LatentVariableModel,
    batches: Iterable[Any],
    *,
    language_model: LatentVariableModel | None = None,
    history: Curves | None = None,
    importance_samples: int = 50,
) -> Diagnosis:
    """Examine a model: is its code alive, is it heard, what does it cost, and if not well, why.

    A model without a code (Z = 0) is examined for its scores and curves alone.

    Args:
        model: a `LatentVariableModel`, on any device.
        batches: examples that it was not trained on, some hundreds or more.
        language_model: one of the same decoder, Z = 0, to compare with.
        history: what `fit` returned, or its columns by name.
        importance_samples: S, for the NLL. The errors are those of `evaluate`.

    >>> images = tutvae.digits().test.pixels.split(50)
    >>> diagnosis = tutvae.diagnose(tutvae.VAE(data_size=64, latent_size=2), images)
    >>> [finding.name for finding in diagnosis.findings]  # nobody trained it
    ['empty_code']

    Source: Bowman et al. (2016), section 3.1; Hoffman & Johnson (2016). Chapters 4 and 5.
    """
    batches = list(batches)
    options: dict[str, Any] = {"language_model": language_model}
    report = evaluate(model, batches, importance_samples=importance_samples, **options)
    with evaluating(model) as device:
        seen = _look_at(model, batches[0].to(device))
    curves, told = {}, {} if history is None else history
    for name in COLUMNS:
        with suppress(KeyError):  # without a validation set some are missing
            curves[name] = list(told[name])
    gain = own_code_gain(model, batches)
    scale = encode(model, batches).scale.log().mean().exp().item()
    terms = mean_terms(model, batches)
    examination = Examination(report, gain, scale, terms, curves=curves, **seen)
    return Diagnosis(report, gain, examine(examination))


def empty_code_line(report: Report) -> str | None:
    """Say in one line that a code is empty, by its KL and information; or None. Chapter 4."""
    kl, mi = report.kl, report.mutual_information or 0.0
    advice = "try rate=8, or more or longer training; tutvae.diagnose says more"
    line = f"the code is empty (KL {kl:.2f} nats, mutual information {mi:.2f}): {advice}"
    return line if report.kl_per_dimension and min(kl, mi) < EMPTY_NATS else None


def _look_at(model: LatentVariableModel, batch: Any) -> dict[str, bool]:
    """Whether the decoder is deaf, scores are repeatable, and documents independent."""

    def scored(x: Any, shift: float = 0.0) -> Tensor:
        """Codes and scores in one, `[B, Z + 1]`."""
        codes = model.posterior(x).loc
        scores = model.log_likelihood(x, codes + shift)
        return torch.cat([in_single(codes), in_single(scores)[:, None]], dim=1)

    close = partial(torch.allclose, rtol=TOLERANCE, atol=TOLERANCE)  # equal but for rounding
    usual = scored(batch)
    deaf = torch.allclose(usual[:, -1], scored(batch, FAR)[:, -1], rtol=1e-5)
    found = {"deaf": deaf, "repeatable": close(usual, scored(batch)), "independent": True}
    if isinstance(batch, TextBatch):
        shortest = int(batch.lengths.argmin())
        rows = slice(shortest, shortest + 1)
        tokens = batch.tokens[rows, : int(batch.lengths[shortest])]
        found["independent"] = close(scored(TextBatch(tokens, batch.lengths[rows])), usual[rows])
    return found
