"""Strings from a decoder, token by token: sampling, greedy and beam search, filling of blanks.

Every step reads one token and the decoder's state, so it costs the same at every position. No
string contains padding or a start mark; after its end mark a row holds padding.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from tutvae.data.tokenization import Tokenizer
from tutvae.evaluation.importance import check_seed, in_single
from tutvae.models.protocols import Decoder, evaluating
from tutvae.models.text_vae import check_tokenizer

MAX_LENGTH = 100
# In a template: a position that is to be filled.
FREE = -1
# What takes logits `[R, V]` and numbers in (0, 1], `[R]`, and gives tokens, `[R]`.
Choose = Callable[[Tensor, Tensor], Tensor]
# A nucleus is looked for among so many tokens first.
FEW = 128
# Strings that have ended leave the batch when no more than this share of it goes on. Not at once:
# to some processors every new number of rows is a new kernel.
STAY = 0.75


def generate(
    decoder: Decoder,
    z: Tensor | None = None,
    *,
    tokenizer: Tokenizer,
    count: int = 1,
    max_length: int = MAX_LENGTH,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float = 1.0,
    seed: int = 0,
    chunk_size: int = 1_024,
) -> Tensor:
    """Draw a string for each code, or from a language model, token by token.

    `top_k` and `top_p` may go together; then a token must pass both.

    Args:
        decoder: on any device.
        z: codes `[B, Z]`; None for a decoder without a code.
        tokenizer: whose marks start and end a string.
        count: rows B where there are no codes to tell it.
        max_length: most tokens of a string, its end mark included; longer ones are cut.
        temperature: what logits are divided by: below 1 likelier tokens, above 1 rarer ones; 0
            is greedy decoding, the most probable token every time.
        top_k: draw from the k most probable tokens only.
        top_p: draw from the nucleus only: the fewest most probable tokens that hold at least
            this probability.
        seed: of the draws; torch's global random state is left alone. What is drawn for a row
            depends on the seed, `max_length` and the row's place, not on the other rows.
        chunk_size: strings that are written at a time; bounds the memory.

    Returns token ids without the start mark, `[B, T]` with T <= `max_length`. A ValueError says
    that an argument is out of range, or `z` or the tokenizer does not go with the decoder.

    Source: Fan et al. (2018) for top-k, Holtzman et al. (2020) for the nucleus. Chapter 3.
    """
    B = count if z is None else len(z)
    k = 1 if top_k is None else top_k
    _check_at_least_one(count=B, max_length=max_length, top_k=k, chunk_size=chunk_size)
    check_tokenizer(tokenizer, decoder.vocabulary_size)
    if not (0 <= temperature < math.inf and 0 < top_p <= 1):
        raise ValueError(
            "temperature must be at least 0 and finite, and top_p above 0 and at most 1, "
            f"not {temperature} and {top_p}"
        )
    check_seed(seed)
    choose = _chooser(temperature, top_k, top_p)
    generator = torch.Generator().manual_seed(int(seed))
    with evaluating(decoder) as device:
        tokens = torch.full((B, max_length), tokenizer.pad_id, device=device)
        longest = 0
        for start in range(0, B, chunk_size):
            part = slice(start, start + chunk_size)
            code = None if z is None else _as_input(decoder, z[part])
            drawn = 1 - torch.rand(tokens[part].shape, generator=generator, dtype=torch.float64)
            longest = max(longest, _write(decoder, code, tokens[part], tokenizer, choose, drawn))
    return tokens[:, :longest]


def _write(
    decoder: Decoder,
    z: Tensor | None,
    tokens: Tensor,
    tokenizer: Tokenizer,
    choose: Choose,
    drawn: Tensor,
) -> int:
    """Write strings into tokens `[B, T]`, which are padding; returns the longest one's length.

    `drawn` are numbers in (0, 1] to choose by, `[B, T]`.
    """
    B, T = tokens.shape
    # All at once, so that a GPU need not wait for them. Apple's have no double precision.
    drawn = drawn.to(tokens.device, torch.float32 if tokens.device.type == "mps" else None)
    state = decoder.start(z, batch_size=B)
    broken = torch.zeros((), dtype=torch.bool, device=tokens.device)
    forbidden = torch.tensor([tokenizer.pad_id, tokenizer.bos_id], device=tokens.device)
    rows = torch.arange(B, device=tokens.device)  # those of the batch, and whether they go on
    going = torch.ones_like(rows, dtype=torch.bool)
    token = torch.full_like(rows, tokenizer.bos_id)
    length = 0
    while length < T and (left := int(going.sum())) > 0:
        if left <= STAY * len(rows):
            stay = going.nonzero()[:, 0]
            rows, token, going = rows[stay], token[stay], going[stay]
            state = decoder.select(state, stay)
        logits, state = decoder.step(token, state)
        broken |= _is_broken(logits)
        # In place: a copy would take longer than the choice.
        token = choose(logits.index_fill_(-1, forbidden, -torch.inf), drawn[rows, length])
        tokens[rows, length] = token.masked_fill(~going, tokenizer.pad_id)
        going &= token != tokenizer.eos_id
        length += 1
    _check_unbroken(broken)
    return length


def _chooser(temperature: float, top_k: int | None, top_p: float) -> Choose:
    def choose(logits: Tensor, drawn: Tensor) -> Tensor:
        logits = in_single(logits)
        if temperature < torch.finfo(logits.dtype).tiny:  # 0, or too low to divide by
            return logits.argmax(-1)
        logits = (logits - logits.amax(-1, keepdim=True)).div_(temperature)
        if top_k is not None or top_p < 1:
            logits = keep_most_probable(logits, top_k, top_p)
        # The inverse of the distribution function: one number a row, where Gumbel noise, or
        # `torch.multinomial`, would draw one a token. None is 0: no token of probability 0 is met.
        # Logits of NaN reach nowhere, so that what is found may lie behind the last token.
        reached = logits.softmax(-1).cumsum(-1, dtype=drawn.dtype)
        found = torch.searchsorted(reached, (drawn * reached[:, -1])[:, None])[:, 0]
        return found.clamp(max=logits.shape[1] - 1)

    return choose


def keep_most_probable(logits: Tensor, top_k: int | None = None, top_p: float = 1.0) -> Tensor:
    """Set the logits `[..., V]` of improbable tokens to -inf.

    `top_k` and `top_p` are those of `generate`; the most probable token always stays.

    Source: Holtzman et al. (2020), section 3.1. Chapter 3.
    """
    probabilities = logits.softmax(-1)
    V = logits.shape[-1]
    most = V if top_k is None else min(top_k, V)
    count = most if top_p >= 1 else min(most, FEW)
    likeliest, order = probabilities.topk(count)
    # Sorting all takes longer than the decoder does. More only where those few hold too little.
    while count < most and (likeliest.sum(-1) < top_p).any():
        count = min(most, 8 * count)
        likeliest, order = probabilities.topk(count)
    kept = likeliest.cumsum(-1) - likeliest < top_p  # by what the likelier ones hold
    kept[..., :1] = True  # the smallest top_p are zero in single precision
    stays = torch.zeros_like(logits, dtype=torch.bool).scatter(-1, order, kept)
    return logits.masked_fill(~stays, -torch.inf)


def beam_search(
    decoder: Decoder,
    z: Tensor | None = None,
    *,
    tokenizer: Tokenizer,
    count: int = 1,
    max_length: int = MAX_LENGTH,
    width: int = 5,
) -> tuple[Tensor, Tensor]:
    """Look for the most probable string of each code.

    At every step the `width` most probable beginnings are kept; strings that have ended stay
    among them. Strings are compared by their log-probability, end mark included, which is not
    divided by the length; one that has not ended by `max_length` is returned only where none
    has. Width 1 is greedy decoding. The other arguments and the errors are those of `generate`.

    Returns token ids without the start mark, `[B, T]` with T <= `max_length`, and log
    p(string | z), `[B]` nats.

    Source: Sutskever et al. (2014), section 3.2. Chapter 5.
    """
    B = count if z is None else len(z)
    _check_at_least_one(count=B, max_length=max_length, width=width)
    template = torch.full((B, max_length), FREE)
    return _search(decoder, z, template, width, tokenizer, [tokenizer.pad_id, tokenizer.bos_id])


def fill(
    decoder: Decoder, z: Tensor | None, template: Tensor, *, tokenizer: Tokenizer, width: int
) -> tuple[Tensor, Tensor]:
    """Look for the most probable words at the free positions of each string: a constrained beam.

    `template` holds token ids from the first word to the end mark, then padding, `[B, T]`, and
    `FREE` where a word is to be found. It comes back filled, but with no mark, beside log
    p(string | z), `[B]` nats. The other arguments and the errors are those of `beam_search`.

    Source: Bowman et al. (2016) on imputing missing words. Chapter 5.
    """
    _check_at_least_one(count=len(template), width=width)
    marks = [tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id]
    marks += [] if tokenizer.unk_id is None else [tokenizer.unk_id]
    return _search(decoder, z, template, width, tokenizer, marks)


def _search(
    decoder: Decoder,
    z: Tensor | None,
    template: Tensor,
    width: int,
    tokenizer: Tokenizer,
    forbidden: Sequence[int],
) -> tuple[Tensor, Tensor]:
    """Beam search in a template `[B, T]`: any token but the `forbidden` where it is `FREE`."""
    check_tokenizer(tokenizer, decoder.vocabulary_size)
    B, W = len(template), width
    with evaluating(decoder) as device:
        vocabulary = torch.arange(decoder.vocabulary_size, device=device)
        free = torch.isin(vocabulary, torch.tensor(forbidden, device=device), invert=True)
        state = decoder.start(_as_input(decoder, z), batch_size=B)
        broken = torch.zeros((), dtype=torch.bool, device=device)
        first_row = torch.arange(B, device=device)[:, None] * W
        # All beams start alike, so only the first of each string may have successors.
        scores = torch.full((B, W), -torch.inf, device=device)
        scores[:, 0] = 0.0
        strings = torch.full((B, W, 1), tokenizer.bos_id, device=device)
        ended = torch.zeros(B, W, dtype=torch.bool, device=device)
        going = first_row[:, 0]  # the rows whose states `state` holds; the others are not read
        for wanted in template.T[..., None].to(device):  # [B, 1]
            logits, state = decoder.step(strings[..., -1].flatten()[going], state)
            broken |= _is_broken(logits)
            log_p = in_single(logits).log_softmax(-1)
            log_p = log_p.new_full((B * W, len(vocabulary)), -torch.inf).index_copy(0, going, log_p)
            allowed = torch.where(wanted == FREE, free, wanted == vocabulary)  # [B, V]
            log_p = log_p.view(B, W, -1).masked_fill_(~allowed[:, None], -torch.inf)
            # What has ended goes on as padding, at no cost.
            log_p[..., tokenizer.pad_id].masked_fill_(ended, 0.0)
            scores, best = (scores[..., None] + log_p).flatten(1).topk(W)  # [B, W], best first
            parent, token = best // log_p.shape[-1], best % log_p.shape[-1]
            rows = (first_row + parent).flatten()
            strings = torch.cat([strings.flatten(0, 1)[rows].view(B, W, -1), token[..., None]], -1)
            ended = ended.flatten()[rows].view(B, W) | (token == tokenizer.eos_id)
            # Log-probabilities only fall: an ended string in front stays there.
            goes = ~ended & ~ended[:, :1] & (scores > -torch.inf)
            # Where a row's state stands among those that were read.
            place = torch.zeros_like(rows).index_copy(0, going, torch.arange(len(going)).to(going))
            going = goes.flatten().nonzero()[:, 0]
            if not len(going):
                break
            state = decoder.select(state, place[rows[going]])
        _check_unbroken(broken)
        # Ended strings before others, each by its score; the beams are sorted already.
        winner = (ended & scores.isfinite()).int().argmax(1)
        rows = first_row[:, 0] + winner
        return strings.flatten(0, 1)[rows, 1:], scores.flatten()[rows]


def _check_at_least_one(**values: int) -> None:
    for name, value in values.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, not {value}")


def _as_input(decoder: Decoder, z: Tensor | None) -> Tensor | None:
    """Codes on the decoder's device and in its precision."""
    return None if z is None else z.to(next(decoder.parameters()))


def _is_broken(logits: Tensor) -> Tensor:
    """Whether logits `[B, V]` hold NaN or infinity, a boolean that is not looked at yet."""
    return ~logits.amax(-1).isfinite().all()


def _check_unbroken(broken: Tensor) -> None:
    if broken:
        raise FloatingPointError(
            "the decoder's logits are not finite: are there NaN in its weights or in the codes?"
        )
