"""What can be wrong with a model and its code, as seen from outside: one function an illness."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

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

BRING_IT_TO_LIFE = (
    'hold the KL up (`fit(..., rate=8)` or `free_bits=0.25`), pool the encoder (`pooling="max"`), '
    "or weaken the decoder (word dropout, a `DilatedConvDecoder` of a short field)"
)


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
    values |= {"active_units": r.active_units, "own_code_gain": x.own_code_gain}
    cause, remedy = "the decoder predicts words from words, and has no need of a code", ""
    if x.deaf:
        cause = "a bug: the code never reaches the decoder, which scores all codes alike"
        remedy = "pass z on to the decoder's state or inputs, and look again; if it stays empty, "
    elif alive:
        values["last_epoch_alive"] = alive[-1]
        cause += f"; the code was alive until epoch {alive[-1]} of {len(kl)}"
    return Finding(
        "empty_code",
        f"the code is empty: KL {r.kl:.2f} nats, {r.active_units} of {len(r.kl_per_dimension)} "
        f"units active, a document's own code is worth {nats(x.own_code_gain)} nats",
        cause,
        remedy + BRING_IT_TO_LIFE,
        "chapters 4 and 5",
        values,
    )


def kl_without_information(x: Examination) -> Finding | None:
    """A KL that is paid for a place far from the prior, and not for information."""
    kl, mi = x.report.kl, x.report.mutual_information or 0.0
    if kl < EMPTY_NATS or mi >= MUCH_OF_THE_KL * kl or information_at_ceiling(x):
        return None
    cause = "the posteriors lie away from the prior, which a small KL weight allows and free bits"
    cause += " in each dimension reward; codes drawn from the prior will be decoded badly"
    if mi < EMPTY_NATS:
        cause = "the posteriors are the same for all documents, but not the prior: free bits can "
        cause += "be met so"
    return Finding(
        "kl_without_information",
        f"of {kl:.2f} nats of KL only {mi:.2f} are information about the document",
        cause,
        'train with KL weight 1 at the end, and `free_bits_per="total"` or `rate=` in place of '
        "free bits in each dimension; judge by the mutual information",
        "chapter 5",
        {"kl": kl, "mutual_information": mi},
    )


def unheard_code(x: Examination) -> Finding | None:
    """A code that tells documents apart, and a decoder that does not use it."""
    mi, gain = x.report.mutual_information or 0.0, x.own_code_gain
    if mi < EMPTY_NATS or gain >= HEARD * mi:
        return None
    cause = "the decoder gets the codes of other documents, or has not learnt to listen"
    if x.deaf:
        cause = "the code never reaches the decoder, which scores all codes alike"
    return Finding(
        "unheard_code",
        f"the code holds {mi:.2f} nats about its document, yet its own code is worth only "
        f"{nats(gain)} nats to the decoder",
        cause,
        "follow z from the encoder to the decoder: look for a view or a sort that mixes rows, or "
        "for a layer that is not trained",
        "chapter 4",
        {"mutual_information": mi, "own_code_gain": gain},
    )


def few_active_units(x: Examination) -> Finding | None:
    """Most dimensions idle, which is mild: a code needs as many as the data do."""
    active, Z = x.report.active_units, len(x.report.kl_per_dimension)
    if not 0 < active < FEW_UNITS * Z or x.report.kl < EMPTY_NATS:
        return None
    return Finding(
        "few_active_units",
        f"mild: {active} of {Z} latent dimensions are in use",
        "the data, or the decoder, ask no more of the code",
        "none is needed; for more, anneal the KL weight longer or ask for a higher rate",
        "chapters 2 and 5",
        {"active_units": active, "latent_size": Z},
    )


def information_at_ceiling(x: Examination) -> Finding | None:
    """Too few documents to tell how much the code holds."""
    mi, ceiling = x.report.mutual_information or 0.0, x.report.mutual_information_ceiling or 0.0
    if mi < EMPTY_NATS or mi < NEAR_CEILING * ceiling:
        return None
    return Finding(
        "information_at_ceiling",
        f"mild: the mutual information, {mi:.2f} nats, is at its ceiling, {ceiling:.2f}: it says "
        '"large", and no more',
        "so few documents cannot show more",
        "give more documents; for more than 2,048, call `mutual_information(encode(...))`",
        "chapter 4",
        {"mutual_information": mi, "ceiling": ceiling},
    )


def worse_than_language_model(x: Examination) -> Finding | None:
    """A code that costs more than it tells."""
    nll, without = x.report.importance_weighted_nll, x.report.language_model_nll
    if without is None or nll <= (1 + CLEARLY) * without:
        return None
    return Finding(
        "worse_than_language_model",
        f"the NLL is {nll:.2f} nats, {nll - without:.2f} above the language model's",
        "the code costs more than it tells, the model is trained too short or fits too closely, "
        "or the decoder reads its own guesses in place of the true words",
        "train as long as the language model, and stop at the best validation bound; else lower "
        "the rate, strengthen the decoder, or want the code for its own sake",
        "chapters 5 and 7",
        {"nll": nll, "language_model_nll": without},
    )


def loose_bound(x: Examination) -> Finding | None:
    """A posterior of the wrong shape or place."""
    kl, gap = x.report.kl, x.report.bound - x.report.importance_weighted_nll
    if kl < EMPTY_NATS or gap <= max(MUCH_OF_THE_KL * kl, EMPTY_NATS):
        return None
    return Finding(
        "loose_bound",
        f"the bound lies {gap:.2f} nats above the NLL, and the KL is {kl:.2f}",
        "the encoder's posterior is far from the true one: too simple, or behind the decoder",
        "train the encoder longer, or more often than the decoder; report the NLL, not the bound",
        "chapter 2",
        {"gap": gap, "kl": kl},
    )


def narrow_posteriors(x: Examination) -> Finding | None:
    """An autoencoder in disguise."""
    if x.scale >= NARROW:
        return None
    return Finding(
        "narrow_posteriors",
        f"the posteriors' standard deviation is {x.scale:.1g} on average, the KL "
        f"{x.report.kl:.1f} nats",
        "the KL has no say in training: its weight is near 0, or the reconstruction is summed "
        "where the KL is averaged",
        "raise the KL weight to 1; until then, codes from the prior meet an untrained decoder",
        "chapters 2 and 4",
        {"scale": x.scale, "kl": x.report.kl},
    )


def loss_is_not_the_bound(x: Examination) -> Finding | None:
    """A KL averaged over dimensions, a cost averaged over words, padding that is predicted."""
    if "label_kl" in x.loss_terms:  # with labels the loss has other terms than the report
        return None
    measured = {"reconstruction": x.report.reconstruction, "KL": x.report.kl}
    for name, value in measured.items():
        claimed = x.loss_terms[name.lower()]
        if abs(claimed - value) > DISAGREEMENT * abs(value) + EMPTY_NATS:
            return Finding(
                "loss_is_not_the_bound",
                f"the model's own loss has a {name} of {claimed:.2f} nats, measured {value:.2f}",
                "a bug in the loss: a mean in place of a sum over words or dimensions, or padding "
                "that is predicted like words",
                "sum over words and dimensions, mask the padding, average over the batch alone",
                "chapter 4",
                {"claimed": claimed, "measured": value},
            )
    return None


def unsteady_scores(x: Examination) -> Finding | None:
    """Scores that depend on chance, or on the other documents of the batch."""
    if not x.repeatable:
        symptom = "the same batch scores differently when scored again"
        cause = "dropout, or word dropout, is on although the model is in eval mode"
        remedy = "let every random layer look at `self.training`"
    elif not x.independent:
        symptom = "a document scores differently in its batch and alone"
        cause = "the padding, or another row of the batch, has a say in its code or its score"
        remedy = "pick states by `batch.lengths`, mask the padding, keep the rows apart"
    else:
        return None
    return Finding("unsteady_scores", symptom, cause, remedy, "chapter 4", {})


def overfitting(x: Examination) -> Finding | None:
    """Training goes on getting better where validation gets worse."""
    train, valid = x.bounds("train"), x.bounds("valid")
    if not valid or valid[-1] <= (1 + CLEARLY) * min(valid):
        return None
    best = valid.index(min(valid))
    if not train or train[-1] >= train[best]:
        return None
    return Finding(
        "overfitting",
        f"since epoch {best + 1} the validation bound has risen from {valid[best]:.2f} to "
        f"{valid[-1]:.2f} nats, and the training bound fallen",
        "the model learns its training documents by heart",
        "stop early (`fit(..., patience=2)`), more dropout, a smaller model, or more documents",
        "chapter 1",
        {"best_epoch": best + 1, "best": valid[best], "last": valid[-1]},
    )


def still_improving(x: Examination) -> Finding | None:
    """Training that ended too early."""
    bounds = x.bounds("valid") or x.bounds("train")
    if len(bounds) < 2 or bounds[-1] > min(bounds) or bounds[-1] >= (1 - CLEARLY) * bounds[-2]:
        return None
    return Finding(
        "still_improving",
        f"in its last epoch the bound fell from {bounds[-2]:.2f} to {bounds[-1]:.2f} nats",
        "training ended before the model had learnt what it can",
        "train longer",
        "chapter 1",
        {"before": bounds[-2], "last": bounds[-1]},
    )


def unfinished_annealing(x: Examination) -> Finding | None:
    """A KL weight that was still on its way to 1."""
    weights = x.curves.get("kl_weight", [])
    if len(weights) < 2 or not weights[-2] < weights[-1] < 1 - CLEARLY:
        return None
    return Finding(
        "unfinished_annealing",
        f"the KL weight was still rising at the end, at {weights[-1]:.2f}",
        "the schedule is longer than the run: the loss was never the bound",
        "shorten the schedule or train longer, so that the last epochs have weight 1",
        "chapter 5",
        {"kl_weight": weights[-1]},
    )


Illness = Callable[[Examination], Finding | None]
# These come first: they make the other figures doubtful.
BUGS: tuple[Illness, ...] = (loss_is_not_the_bound, unsteady_scores)
OF_A_CODE: tuple[Illness, ...] = (
    empty_code,
    kl_without_information,
    unheard_code,
    narrow_posteriors,
    loose_bound,
    worse_than_language_model,
    few_active_units,
    information_at_ceiling,
)
OF_TRAINING: tuple[Illness, ...] = (overfitting, still_improving, unfinished_annealing)
