"""How long must a text be for its code to pay? Reviews of 1 to 16 sentences, three decoders.

    python experiments/length.py [--sentences ...] [--decoder ...] [--seed ...]

Category and stars hold every review together, however long it is: the longer, the more often a
code of three nats can help. An LSTM reads the whole, convolutions a field of 15 words, and a
decoder of two levels (see `decoders.py`) its own sentence and what a conductor makes of the code.
Each is trained as a language model, "lm", and as a VAE, on as many reviews for as many epochs.
With each run stand the entropy, which no bound can undercut, and the nats that a review tells of
category and stars, all that a code can usefully hold of them.

That recipe leaves the code of two levels empty. So there are "held" runs of that decoder as well,
whose rate is held at 5 nats while they learn, and which are alike in all else.

Finished runs go to results/length/length.json, those at a held rate to held.json beside it. None
is done again; several processes may work.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache, partial
from itertools import product
from typing import Any

from decoders import TwoLevelDecoder, decoder_of
from study import (
    RESULTS,
    Recipe,
    Record,
    Split,
    curves,
    measured,
    parser_of,
    probed,
    selected,
    trained,
)

import tutvae

SENTENCES, SEEDS, DOCUMENTS = (1, 2, 4, 8, 16), range(3), (4_000, 300, 500)
RECIPE, HELD, HELD_SENTENCES = Recipe(), 5.0, (8, 16)
DECODERS = ("lstm", "cnn", "two_level")
FIELD = 15


@cache
def grammar(sentences: int) -> tutvae.ReviewGrammar:
    """Reviews of so many sentences, in one person and tense, of few words."""
    words = {"nouns": 2, "verbs": 1, "adjectives": 2, "fillers": 1, "persons": 1, "tenses": 1}
    noise: dict[str, Any] = {"vagueness": 0.0, "star_noise": 0.1}
    return tutvae.ReviewGrammar((sentences, sentences), openings=4, **words, **noise)


@cache
def reviews(sentences: int) -> Split:
    """The reviews, encoded."""
    return Split(grammar(sentences).corpus(*DOCUMENTS, seed=0))


@cache
def truth(sentences: int) -> dict[str, float]:
    """The entropy, and what a review tells of category and stars, in nats."""
    known = grammar(sentences)
    available = known.mutual_information("category", "stars").value
    return {"entropy": known.entropy().value, "available": available}


def maker(decoder: str, tokenizer: tutvae.Tokenizer) -> Callable[..., Any]:
    """What makes a decoder of sizes."""
    if decoder == "two_level":
        (_, stop_id, _) = tokenizer.encode(["."])[0]
        return partial(TwoLevelDecoder, stop_id=stop_id, bos_id=tokenizer.bos_id)
    return partial(decoder_of, decoder, FIELD if decoder == "cnn" else "whole")


def plans() -> Iterator[dict[str, Any]]:
    """All runs, the short ones first."""
    for sentences, decoder, seed, model in product(SENTENCES, DECODERS, SEEDS, ("lm", "vae")):
        yield {"sentences": sentences, "decoder": decoder, "model": model, "seed": seed}


def held_plans() -> Iterator[dict[str, Any]]:
    """The runs that hold a rate, the short ones first."""
    for sentences, seed in product(HELD_SENTENCES, SEEDS):
        yield {"sentences": sentences, "decoder": "two_level", "model": "held", "seed": seed}


def done(plan: dict[str, Any]) -> dict[str, Any]:
    """Train a model and measure it."""
    split = reviews(plan["sentences"])
    make = maker(plan["decoder"], split.tokenizer)
    recipe = replace(RECIPE, rate=HELD) if plan["model"] == "held" else RECIPE
    kind = "lm" if plan["model"] == "lm" else "vae"
    model, history = trained(make, kind, split, recipe, plan["seed"])
    found = measured(model, split, recipe) | truth(plan["sentences"])
    if kind == "vae":
        found["probes"] = probed(model, split)
    return found | {"curves": curves(history)}


def main(arguments: list[str] | None = None) -> None:
    """Do what is asked for and not in the record yet."""
    choices: dict[str, Any] = {"sentences": SENTENCES, "decoder": DECODERS, "seed": SEEDS}
    choices["model"] = ("lm", "vae", "held")
    given = parser_of(__doc__, RESULTS / "length", **choices).parse_args(arguments)
    Record(given.records / "length.json").complete(selected(plans(), given), done)
    Record(given.records / "held.json").complete(selected(held_plans(), given), done)


if __name__ == "__main__":
    main()
