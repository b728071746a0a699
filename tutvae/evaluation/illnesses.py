"""What can be wrong with a model: a function an illness, and its words in `illnesses.toml`."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tutvae.data.readers.files import read_toml
from tutvae.evaluation.report import Report

# Below so many nats an example there is nothing to discuss: chapter 4.
EMPTY_NATS = 0.1
# Of the KL. The MI of healthy codes in chapters 5 and 7 is more than half of it, and their bounds
# lie closer to the NLL than a third of it.
MUCH_OF_THE_KL = 0.5
# Of the MI. With the true posterior a document's own code is worth at least as many nats as that;
# to a decoder that cannot do without it, several times as many.
HEARD = 0.5
# Of the dimensions. Codes need not use all: in chapters 5 and 7 an eighth to all are active.
FEW_UNITS = 0.125
# Of a language model's NLL, or of a bound: other seeds move either by less, as a rule.
CLEARLY = 0.02
# Of the ceiling of the MI, where the estimate saturates.
NEAR_CEILING = 0.9
# A posterior so narrow says 4 nats or more a dimension, and leaves gaps where the prior draws.
NARROW = 0.01
# Between a loss's terms and the measured ones: far more than one sample an example explains.
DISAGREEMENT = 0.2
# Costs that add up to a bound; the last is of models with labels.
TERMS = ("reconstruction", "kl", "label_kl")
# Worth knowing, but no illness.
MILD = ("few_active_units", "information_at_ceiling")

ILLNESSES = read_toml(Path(__file__).with_suffix(".toml"))


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or worth knowing.

    Attributes:
        name: of the illness, such as "empty_code".
        symptom: what is seen, with the figures.
        cause: what it most likely comes from.
        remedy: what to try.
        chapter: where the book treats it, such as "chapters 4 and 5".
        values: the figures of the symptom, by name; nats an example, unless they are counts.
    """

    name: str
    symptom: str
    cause: str
    remedy: str
    chapter: str
    values: Mapping[str, float]


@dataclass(frozen=True)
class Examination:
    """All that a diagnosis rests on, in nats an example.

    Attributes:
        report: what `evaluate` says.
        own_code_gain: see `tutvae.evaluation.diagnostics.own_code_gain`.
        scale: geometric mean of the posteriors' standard deviations.
        loss_terms: what the model's own loss is made of, by `mean_terms`.
        deaf: the decoder scores every code alike, to the last digit.
        repeatable: scored twice, a batch gets the same score.
        independent: scored alone, a document gets the same score as in its batch.
        curves: columns of a `History`, one entry an epoch; empty without one.
    """

    report: Report
    own_code_gain: float
    scale: float
    loss_terms: Mapping[str, float]
    deaf: bool
    repeatable: bool
    independent: bool
    curves: Mapping[str, list[float]]

    def bounds(self, part: str) -> list[float]:
        """The bound after every epoch, on the "train" or the "valid" part; empty if unknown."""
        columns = [self.curves.get(f"{part}_{term}") for term in TERMS]
        if not columns[0]:
            return []
        return [sum(terms) for terms in zip(*filter(None, columns), strict=True)]


def nats(value: float) -> str:
    """A figure that may be negative, in two decimals, with no sign before a zero."""
    return f"{round(value, 2) + 0:.2f}"


def empty_code(x: Examination) -> Finding | None:
    """Posterior collapse, or a code that never reaches the decoder."""
    r = x.report
    if r.kl >= EMPTY_NATS:
        return None
    kl = x.curves.get("valid_kl") or x.curves.get("train_kl", [])
    alive = [epoch for epoch, nats in enumerate(kl, start=1) if nats >= EMPTY_NATS]
    values = {"kl": r.kl, "mutual_information": r.mutual_information or 0.0}
    values |= {"active_units": r.active_units, "latent_size": len(r.kl_per_dimension)}
    values |= {"own_code_gain": x.own_code_gain}
    form = "deaf" if x.deaf else None
    if alive and not x.deaf:
        form, values = "once_alive", values | {"last_epoch_alive": alive[-1], "epochs": len(kl)}
    return _finding(True, "empty_code", form, **values)


def kl_without_information(x: Examination) -> Finding | None:
    """A KL that is paid for a place far from the prior, and not for information."""
    kl, mi = x.report.kl, x.report.mutual_information or 0.0
    found = kl >= EMPTY_NATS and mi < MUCH_OF_THE_KL * kl and not information_at_ceiling(x)
    form = "all_alike" if mi < EMPTY_NATS else None
    return _finding(found, "kl_without_information", form, kl=kl, mutual_information=mi)


def unheard_code(x: Examination) -> Finding | None:
    """A code that tells documents apart, and a decoder that does not use it."""
    mi, gain = x.report.mutual_information or 0.0, x.own_code_gain
    found, form = mi >= EMPTY_NATS and gain < HEARD * mi, "deaf" if x.deaf else None
    return _finding(found, "unheard_code", form, mutual_information=mi, own_code_gain=gain)


def few_active_units(x: Examination) -> Finding | None:
    """Most dimensions idle, which is mild: a code needs as many as the data do."""
    active, Z = x.report.active_units, len(x.report.kl_per_dimension)
    found = 0 < active < FEW_UNITS * Z and x.report.kl >= EMPTY_NATS
    return _finding(found, "few_active_units", active_units=active, latent_size=Z)


def information_at_ceiling(x: Examination) -> Finding | None:
    """Too few documents to tell how much the code holds."""
    mi, ceiling = x.report.mutual_information or 0.0, x.report.mutual_information_ceiling or 0.0
    found = mi >= max(EMPTY_NATS, NEAR_CEILING * ceiling)
    return _finding(found, "information_at_ceiling", mutual_information=mi, ceiling=ceiling)


def worse_than_language_model(x: Examination) -> Finding | None:
    """A code that costs more than it tells."""
    nll, without = x.report.importance_weighted_nll, x.report.language_model_nll
    if without is None:
        return None
    values = {"nll": nll, "language_model_nll": without, "difference": nll - without}
    return _finding(nll > (1 + CLEARLY) * without, "worse_than_language_model", **values)


def loose_bound(x: Examination) -> Finding | None:
    """A posterior of the wrong shape or place."""
    kl, gap = x.report.kl, x.report.bound - x.report.importance_weighted_nll
    found = kl >= EMPTY_NATS and gap > max(MUCH_OF_THE_KL * kl, EMPTY_NATS)
    return _finding(found, "loose_bound", gap=gap, kl=kl)


def narrow_posteriors(x: Examination) -> Finding | None:
    """An autoencoder in disguise."""
    return _finding(x.scale < NARROW, "narrow_posteriors", scale=x.scale, kl=x.report.kl)


def loss_is_not_the_bound(x: Examination) -> Finding | None:
    """A KL averaged over dimensions, a cost averaged over words, padding that is predicted."""
    if "label_kl" in x.loss_terms:  # with labels the loss has other terms than the report
        return None
    for term in ("reconstruction", "kl"):
        claimed, measured = x.loss_terms[term], getattr(x.report, term)
        if abs(claimed - measured) > DISAGREEMENT * abs(measured) + EMPTY_NATS:
            figures = {"claimed": claimed, "measured": measured}
            return _finding(True, "loss_is_not_the_bound", term, **figures)
    return None


def unsteady_scores(x: Examination) -> Finding | None:
    """Scores that depend on chance, or on the other documents of the batch."""
    found = not (x.repeatable and x.independent)
    return _finding(found, "unsteady_scores", "in_company" if x.repeatable else "by_chance")


def overfitting(x: Examination) -> Finding | None:
    """Training goes on getting better where validation gets worse."""
    train, valid = x.bounds("train"), x.bounds("valid")
    if not train or not valid:
        return None
    best = valid.index(min(valid))
    found = valid[-1] > (1 + CLEARLY) * valid[best] and train[-1] < train[best]
    return _finding(found, "overfitting", best_epoch=best + 1, best=valid[best], last=valid[-1])


def still_improving(x: Examination) -> Finding | None:
    """Training that ended too early."""
    bounds = x.bounds("valid") or x.bounds("train")
    if len(bounds) < 2:
        return None
    before, last = bounds[-2:]
    found = last <= min(bounds) and last < (1 - CLEARLY) * before
    return _finding(found, "still_improving", before=before, last=last)


def unfinished_annealing(x: Examination) -> Finding | None:
    """A KL weight that was still on its way to 1."""
    weights = x.curves.get("kl_weight", [])
    before, last = [1.0, 1.0, *weights][-2:]
    return _finding(before < last < 1 - CLEARLY, "unfinished_annealing", kl_weight=last)


def _finding(found: bool, name: str, form: str | None = None, /, **values: float) -> Finding | None:
    """If it is found, a finding in the words of the illness, or of this form of it."""
    if not found:
        return None
    usual = ILLNESSES[name]
    figures = values | {"worth": nats(values.get("own_code_gain", 0.0))}
    words = {
        part: (usual | usual.get(form, {}))[part].format(**figures, **usual)
        for part in ("symptom", "cause", "remedy", "chapter")
    }
    return Finding(name, **words, values=values)


def examine(x: Examination) -> tuple[Finding, ...]:
    """All that is found; first bugs, which make the other figures doubtful."""
    illnesses = [loss_is_not_the_bound, unsteady_scores]
    if x.report.kl_per_dimension:
        illnesses += [empty_code, kl_without_information, unheard_code, narrow_posteriors]
        illnesses += [loose_bound, worse_than_language_model]
        illnesses += [few_active_units, information_at_ceiling]
    illnesses += [overfitting, still_improving, unfinished_annealing]
    return tuple(finding for illness in illnesses if (finding := illness(x)))
