"""Texts with a label of one's choice, and a check that they have it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from tutvae.data.tokenization import Tokenizer
from tutvae.evaluation.classification import as_labels
from tutvae.evaluation.in_order import rows_of
from tutvae.generation.decoding import MAX_LENGTH
from tutvae.generation.texts import WORD_SEED, document_batches, sample_prior, write
from tutvae.models.semi_supervised import SemiSupervisedTextVAE
from tutvae.reviews.grammar import Label, ReviewGrammar

# Posterior probabilities this close, relative to each other, are equal but for rounding.
TIE = 1e-9


def sample_with_label(
    model: SemiSupervisedTextVAE,
    tokenizer: Tokenizer,
    labels: Sequence[int] | np.ndarray,
    *,
    z: Tensor | None = None,
    max_length: int = MAX_LENGTH,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float = 1.0,
    seed: int = 0,
) -> list[str]:
    """Write a text for each of N labels y: x ~ p(x | y, z).

    The codes `z` are `[N, Z]`, or one code `[Z]` for all, and drawn from the prior by default. The
    tokenizer and the options are those of `sample_texts`. A label outside 0 ... K - 1, or another
    argument out of range, is a ValueError.

    >>> tokenizer = tutvae.Tokenizer.train(["so good", "so bad"])
    >>> encoder, decoder = tutvae.LSTMEncoder(7, 8, 16, 2), tutvae.LSTMDecoder(7, 8, 16, 2 + 5)
    >>> model = tutvae.SemiSupervisedTextVAE(encoder, decoder, classes=5)
    >>> len(tutvae.sample_with_label(model, tokenizer, [0, 4, 4]))
    3

    Source: Yang et al. (2017). Chapter 9.
    """
    y = as_labels(labels, len(labels), model.classes)
    if len(y) == 0:
        return []
    N, Z = len(y), model.latent_size
    if z is None:
        z = sample_prior(model, N, seed)
    elif z.shape not in ((Z,), (N, Z)):
        raise ValueError(f"codes must be [N, Z] = [{N}, {Z}] or [Z] = [{Z}], not {list(z.shape)}")
    code = model.code(z.to(model.label_probabilities).expand(N, Z), y)
    draws = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "seed": seed + WORD_SEED}
    return write(model, tokenizer, code, max_length=max_length, **draws)


def change_label(
    model: SemiSupervisedTextVAE,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    labels: Sequence[int] | np.ndarray,
    *,
    own_labels: Sequence[int] | np.ndarray | None = None,
    max_length: int = MAX_LENGTH,
) -> list[str]:
    """Rewrite texts with other labels: the same review with other stars.

    Each of N texts is encoded to the posterior mean of q(z | x, y) under its own label, `[N]`, by
    default the most probable one by q(y|x). That code is decoded greedily with the new one, `[N]`;
    with its own, a text is only reconstructed. A text has at most `max_length` tokens. A label
    outside 0 ... K - 1, or not one for each text, is a ValueError.

    >>> tokenizer = tutvae.Tokenizer.train(["so good", "so bad"])
    >>> encoder, decoder = tutvae.LSTMEncoder(7, 8, 16, 2), tutvae.LSTMDecoder(7, 8, 16, 2 + 5)
    >>> model = tutvae.SemiSupervisedTextVAE(encoder, decoder, classes=5)
    >>> len(tutvae.change_label(model, tokenizer, ["so good"], [0]))
    1

    Source: Hu et al. (2017) for the idea, Yang et al. (2017) for the model. Chapter 9.
    """
    documents = tokenizer.encode(texts)
    as_labels(labels, len(documents), model.classes)
    if own_labels is not None:
        own_labels = as_labels(own_labels, len(documents), model.classes).tolist()
    if not documents:
        return []
    batches = document_batches(documents, tokenizer, own_labels)
    z = rows_of(model, batches, lambda batch: model.posterior(batch, batch.labels).loc)
    return sample_with_label(model, tokenizer, labels, z=z, max_length=max_length, temperature=0.0)


@dataclass(frozen=True)
class LabelAgreement:
    """How often texts have the label that was asked for, by a grammar's exact posterior.

    Of those `asked`, `grammatical` is the share that the grammar can write, and `among_all` the
    share that it can write and whose label is the most probable one. `among_grammatical` is the
    same share of the grammatical ones; NaN if there are none.

    >>> agreement = tutvae.label_agreement(tutvae.ReviewGrammar(), ["no such review"], [0])
    >>> agreement.asked, agreement.grammatical
    (1, 0.0)

    Chapter 9.
    """

    asked: int
    grammatical: float
    among_all: float
    among_grammatical: float


def label_agreement(
    grammar: ReviewGrammar,
    texts: Sequence[str],
    labels: Sequence[int] | np.ndarray,
    label: Label = "category",
) -> LabelAgreement:
    """Judge texts by the grammar that wrote the corpus: is the label asked for the likeliest?

    Where several labels are equally likely, the one asked for counts by its share of them. So
    documents of the grammar itself reach `ReviewGrammar.bayes_accuracy` (without label noise),
    not 1, and a perfect model does the same.

    Of each of N texts `labels`, `[N]`, holds what was asked, and `label` says of what kind that
    is, as in `ReviewGrammar.sample`. No texts, an unknown `label`, or a label that is not one of
    its classes is a ValueError.

    >>> grammar = tutvae.ReviewGrammar()
    >>> reviews = grammar.sample(100, seed=0)
    >>> tutvae.label_agreement(grammar, reviews.texts, reviews.labels).grammatical
    1.0

    Source: chapter 9, equation `label-agreement`.
    """
    # The posterior is [N, category, stars]: sum over what was not asked for; () sums nothing.
    axes = {"category": (2,), "stars": (1,), "joint": ()}
    if label not in axes:
        raise ValueError(f"label must be one of {', '.join(axes)}, not {label!r}")
    if len(texts) == 0:
        raise ValueError("there is nothing to judge: no text came")
    posterior = grammar.posteriors(texts).sum(axes[label]).reshape(len(texts), -1)  # [N, K]
    y = as_labels(labels, *posterior.shape).numpy()
    grammatical = ~np.isnan(posterior).any(1)
    # NaN is never the largest: texts outside the grammar agree with nothing.
    first = posterior >= posterior.max(1, keepdims=True) * (1 - TIE)
    credit = first[np.arange(len(y)), y] / np.maximum(first.sum(1), 1)
    return LabelAgreement(
        asked=len(y),
        grammatical=float(grammatical.mean()),
        among_all=float(credit.mean()),
        among_grammatical=float(credit[grammatical].mean()) if grammatical.any() else float("nan"),
    )
