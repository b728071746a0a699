"""New data from a trained model: samples, reconstructions, paths between codes, filled blanks.

`sample_prior` and `interpolate` are for every model; the functions below them take and return
strings. How a decoder is turned into a string is told in `tutvae.generation.decoding`. A
`tokenizer` is the one that the model was trained with; words that it does not know become its
unknown mark, and are a ValueError where it has none. A text has at most `max_length` tokens.
"""

import re
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from tutvae.data.batches.text import Batches, EncodedTexts
from tutvae.data.tokenization import Tokenizer, require_documents
from tutvae.evaluation.classification import BATCH_SIZE
from tutvae.evaluation.diagnostics import sample_codes
from tutvae.evaluation.importance import check_seed, standard_noise
from tutvae.evaluation.in_order import rows_of
from tutvae.evaluation.report import encode
from tutvae.generation.decoding import FREE, MAX_LENGTH, fill, generate
from tutvae.models import LanguageModel, LatentVariableModel, SemiSupervisedTextVAE, TextVAE
from tutvae.models.protocols import evaluating

WithCode = TextVAE | SemiSupervisedTextVAE
# Added to a seed, so that words are not drawn from the same random numbers as their codes.
WORD_SEED = 1_000_003


def sample_prior(model: LatentVariableModel, count: int, seed: int = 0) -> Tensor:
    """Draw codes from the prior, to be decoded: `[count, Z]`, on the model's device.

    Source: Kingma & Welling (2014), section 2.1. Chapter 1.
    """
    with evaluating(model):
        prior = model.prior().expand((count, *model.prior().loc.shape))
    return prior.loc + prior.scale * standard_noise(prior.loc, seed)


def interpolate(left: Tensor, right: Tensor, weights: Tensor) -> Tensor:
    """Mix two codes `[Z]`: z = a z_left + (1 - a) z_right, for each a of the weights `[A]`.

    Returns the path, `[A, Z]`. Codes of two sizes are a ValueError.

    Source: Bowman et al. (2016). Chapter 2, equation `interpolation`.
    """
    if left.shape != right.shape:
        raise ValueError(f"codes of sizes {list(left.shape)} and {list(right.shape)} do not mix")
    a = weights[:, None].to(left.device)
    return a * left + (1 - a) * right


def sample_texts(
    model: WithCode | LanguageModel,
    tokenizer: Tokenizer,
    count: int,
    *,
    max_length: int = MAX_LENGTH,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float = 1.0,
    seed: int = 0,
) -> list[str]:
    """Write `count` new texts: draw codes, and labels, from the prior, if any, and then words.

    The `seed` is that of codes and words. The other options and the errors are those of
    `tutvae.generation.generate`.

    >>> trained = tutvae.load("sentences")
    >>> len(tutvae.sample_texts(trained.model_, trained.tokenizer_, 3, temperature=0.5))
    3

    Source: Bowman et al. (2016) for samples of the prior. Chapters 3 and 4.
    """
    check_seed(seed)
    z = sample_prior(model, count, seed) if model.latent_size > 0 else None
    if isinstance(model, SemiSupervisedTextVAE) and z is not None:
        generator = torch.Generator().manual_seed(seed)
        p = model.label_prior().probs.cpu()
        z = model.code(z, p.multinomial(count, replacement=True, generator=generator).to(z.device))
    draws = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "seed": seed + WORD_SEED}
    return write(model, tokenizer, z, count=count, max_length=max_length, **draws)


def decode_codes(
    model: WithCode, tokenizer: Tokenizer, z: Tensor, *, max_length: int = MAX_LENGTH
) -> list[str]:
    """Decode greedily what the decoder takes: codes `[N, Z]`, with labels `[N, Z + K]`.

    Source: Bowman et al. (2016), who decode greedily. Chapter 4.
    """
    return write(model, tokenizer, z, max_length=max_length, temperature=0.0)


def write(model: Any, tokenizer: Tokenizer, z: Tensor | None, **options: Any) -> list[str]:
    """Write a text for each of what the decoder takes, with the options of `generate`."""
    tokens = generate(model.decoder, z, tokenizer=tokenizer, **options)
    return [tokenizer.decode(row) for row in tokens]


def reconstruct(
    model: WithCode,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    *,
    max_length: int = MAX_LENGTH,
    sampled: bool = False,
    seed: int = 0,
) -> list[str]:
    """Encode N texts and decode their codes greedily.

    A `SemiSupervisedTextVAE` encodes and decodes each with its most probable label. `sampled`
    decodes a sample of each posterior, by the `seed`, instead of its mean. A model without a code
    is a ValueError.

    >>> trained = tutvae.load("sentences")
    >>> tutvae.reconstruct(trained.model_, trained.tokenizer_, ["I can't swim."])
    ["i can't swim."]

    Source: Bowman et al. (2016) on samples from the posterior. Chapters 4 and 5.
    """
    if not (documents := tokenizer.encode(texts)):
        return []
    z = codes(model, document_batches(documents, tokenizer), seed if sampled else None)
    return decode_codes(model, tokenizer, z, max_length=max_length)


def interpolate_texts(
    model: WithCode,
    tokenizer: Tokenizer,
    left: str,
    right: str,
    steps: int = 5,
    *,
    max_length: int = MAX_LENGTH,
) -> list[str]:
    """Walk from one text to another: decode codes on the line between theirs, greedily.

    Returns `steps` texts, the first the reconstruction of `left`, the last that of `right`. The
    labels of a `SemiSupervisedTextVAE` are mixed like codes. `steps` below 2, or a model without a
    code, are a ValueError.

    >>> trained = tutvae.load("sentences")
    >>> ends = "Where is the station?", "She bought a new car."
    >>> len(tutvae.interpolate_texts(trained.model_, trained.tokenizer_, *ends, steps=4))
    4

    Source: Bowman et al. (2016) on homotopies. Chapter 5.
    """
    if steps < 2:
        raise ValueError(f"a walk has at least 2 steps, its ends, not {steps}")
    ends = codes(model, document_batches(tokenizer.encode([left, right]), tokenizer))
    z = interpolate(ends[0], ends[1], torch.linspace(1, 0, steps))
    return decode_codes(model, tokenizer, z, max_length=max_length)


def impute(
    model: WithCode | LanguageModel,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    *,
    blank: str = "_",
    width: int = 15,
    rounds: int = 3,
) -> list[str]:
    """Fill the blanks of N texts, anywhere and as many as there are; nothing else changes.

    A beam search looks for the words that, with the given ones, make the most probable text. A
    `TextVAE` has no p(x) to search, so it alternates: the code is the posterior mean of the
    text, then the text is the best one for that code. It starts from the code of the given
    words alone.

    Args:
        model: one that can write.
        tokenizer: each blank is filled with one of its tokens: a word, if it is one of words.
        texts: to be filled.
        blank: what marks a missing word; it stands between white space, or it is a ValueError.
        width: beginnings that the beam search keeps, at least 1.
        rounds: most searches for a `TextVAE`, at least 1; fewer if nothing changes any more.

    >>> trained = tutvae.load("sentences")
    >>> tutvae.impute(trained.model_, trained.tokenizer_, ["She _ a new car."])
    ['She bought a new car.']

    Source: Bowman et al. (2016) on imputing missing words; the alternation is the iterated
    conditional modes of Besag (1986). Chapter 5.
    """
    require_documents(texts)
    if rounds < 1:
        raise ValueError(f"rounds must be at least 1, not {rounds}")
    if not texts:
        return []
    pattern = _blank_pattern(blank, texts)
    rows = [_template(tokenizer, pattern.split(text)) for text in texts]
    template = pad_sequence(list(map(torch.tensor, rows)), True, tokenizer.pad_id)
    if isinstance(model, LanguageModel):
        filled, _ = fill(model.decoder, None, template, tokenizer=tokenizer, width=width)
    else:
        filled = _alternate(model, tokenizer, rows, template, width, rounds)
    words = (tokenizer.decode([token]).strip() for token in filled.cpu()[template == FREE].tolist())
    return [pattern.sub(lambda _: next(words), text) for text in texts]


def _alternate(
    model: WithCode,
    tokenizer: Tokenizer,
    rows: list[list[int]],
    template: Tensor,
    width: int,
    rounds: int,
) -> Tensor:
    """Fill templates `[N, T]` by iterated conditional modes; returns tokens `[N, T]`."""
    known = [[token for token in row if token != FREE] for row in rows]
    filled = template
    for _ in range(rounds):
        documents = [[tokenizer.bos_id, *row] for row in known]
        z = codes(model, document_batches(documents, tokenizer))
        before = filled
        filled = fill(model.decoder, z, template, tokenizer=tokenizer, width=width)[0].cpu()
        if torch.equal(filled, before):
            break
        known = [found[: len(row)] for found, row in zip(filled.tolist(), rows, strict=True)]
    return filled


def _blank_pattern(blank: str, texts: Sequence[str]) -> re.Pattern[str]:
    """A pattern that matches the blank where it stands as a word of its own."""
    if not blank or any(map(str.isspace, blank)):
        raise ValueError(f"a blank is a mark without white space, not {blank!r}")
    pattern = re.compile(rf"(?<!\S){re.escape(blank)}(?!\S)")
    for text in texts:
        if blank in text and not pattern.search(text):
            raise ValueError(
                f"in {text!r} the blank {blank!r} is part of a word: put white space around it"
            )
    return pattern


def _template(tokenizer: Tokenizer, pieces: list[str]) -> list[int]:
    """Token ids of what stands between the blanks, `FREE` for each blank, and the end mark."""
    first, *others = tokenizer.encode([piece.rstrip() for piece in pieces])
    row = first[1:-1]
    for tokens in others:
        row += [FREE, *tokens[1:-1]]
    return [*row, tokenizer.eos_id]


def document_batches(
    documents: list[list[int]], tokenizer: Tokenizer, labels: Sequence[int] | None = None
) -> Batches:
    """Batches of documents of token ids, to be read once."""
    texts = EncodedTexts(documents, labels, pad_id=tokenizer.pad_id)
    return Batches(texts, batch_size=BATCH_SIZE, shuffle=False)


def require_code(model: Any) -> Any:
    """Return a model; ValueError for one without a code."""
    if model.latent_size == 0:
        raise ValueError("a language model has no code: this needs a TextVAE")
    return model


def codes(model: Any, batches: Batches, seed: int | None = None) -> Tensor:
    """What the decoder takes for N documents: `[N, Z]`, or `[N, Z + K]` with the likeliest labels.

    With a seed, codes are samples of the posteriors instead of their means.
    """
    q = encode(require_code(model), batches)
    z = q.loc if seed is None else sample_codes(q, seed)
    if not isinstance(model, SemiSupervisedTextVAE):
        return z
    labels = rows_of(model, batches, lambda batch: model.label_posterior(batch).logits)
    return torch.cat([z, F.one_hot(labels.argmax(-1), model.classes)], dim=-1)
