"""Context or optimisation: what becomes of the code as the decoder sees more of the text?

    python experiments/context.py [--study ...] [--family ...] [--field ...] [--seed ...]

A decoder that sees the last R words, in three families (see `decoders.py`): an LSTM that forgets,
a Transformer with windows, dilated convolutions. Each is trained as a language model, "lm", and
as a VAE; the price of the code is the one's bound less the other's. The studies:

- reviews: the generated reviews of chapter 7. None has 125 words, so that fields of 125 and more
  are the whole to the LSTM and the Transformer; of the convolutions they are other networks. Those
  of ten layers and more, "large" and "very_large", learn the reviews by heart: of them the best
  epoch by validation is kept, of all others the last.
- convolutions: the field apart from the depth. Seven layers with fields from 15 to 255 have equally
  many weights; field 15 has seven layers, five or three, and three that are wider.
- ag_news: 10,000 articles, of which 1,000 others choose the best epoch.
- axes: for a code of one dimension, the mean of q(z|x) beside that of p(z|x), which a grid tells,
  as training goes on (He et al., 2019, "Lagging Inference Networks and Posterior Collapse").
- words: the nats that a code saves, word by word, log p(x_t|x_<t, z) - log p_LM(x_t|x_<t).

The weight of the KL rises for half of a run. A study's runs go to results/context/STUDY.json as
they are finished, and are not done again; several processes may work on one study.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache, partial
from itertools import product
from typing import Any

import pandas as pd
import torch
from decoders import DILATIONS, FAMILIES, Field, decoder_of
from study import (
    RESULTS,
    Recipe,
    Record,
    Split,
    build,
    curves,
    fit,
    measured,
    parser_of,
    probed,
    selected,
    trained,
)
from torch import Tensor

import tutvae
from tutvae.models import DilatedConvDecoder, TextVAE
from tutvae.models.protocols import evaluating
from tutvae.models.text_vae import target_costs
from tutvae.reviews.words import FOLLOW_UPS, OPENINGS, SLOTS

Plan = dict[str, Any]

SEEDS = range(5)
SOME_FIELDS: tuple[Field, ...] = (3, 15, 63, "whole")
GRAMMAR = tutvae.ReviewGrammar(
    sentences=(4, 10),
    openings=4,
    follow_ups=10,
    nouns=2,
    verbs=1,
    adjectives=2,
    fillers=1,
    persons=1,
    tenses=1,
    vagueness=0.0,
    star_noise=0.1,
)
DOCUMENTS = {"reviews": (4_000, 300, 500), "ag_news": (10_000, 1_000, 500)}
RECIPES = {
    "reviews": Recipe(),
    "ag_news": Recipe(
        width=128, latent_size=16, epochs=12, learning_rate=3e-3, best=True, samples=50
    ),
}
AG_NEWS_DROPOUT = 0.3
BY_HEART = (125, 187)
# Dilations and channels: seven layers of growing field, then field 15 by five layers and by three.
CONVOLUTIONS: tuple[tuple[tuple[int, ...], int], ...] = (
    ((1, 1, 1, 1, 1, 1, 1), 64),
    ((1, 1, 2, 2, 2, 3, 4), 64),
    ((1, 2, 4, 4, 4, 8, 8), 64),
    ((1, 2, 4, 8, 15, 16, 16), 64),
    ((1, 2, 4, 8, 16, 32, 64), 64),
    ((1, 1, 1, 2, 2), 64),
    ((1, 2, 4), 64),
    ((1, 2, 4), 94),  # about the weights of seven layers
)
# Of the two means: documents, codes of the grid, and the steps before which they are measured.
WATCHED, GRID = 100, torch.linspace(-5, 5, 201)
STEPS = (0, 25, 50, 100, 200, 400, 700, 1_000, 1_500)
# Of the words: samples of each code, and reviews shown word by word.
CODES, SHOWN = 20, 5


@cache
def reviews() -> Split:
    """The generated reviews."""
    return Split(GRAMMAR.corpus(*DOCUMENTS["reviews"], seed=0))


@cache
def ag_news() -> Split:
    """The first articles of each part, in small letters, marks apart."""
    corpus = tutvae.ag_news()
    parts = (
        part.part(range(count))
        for part, count in zip(
            (corpus.train, corpus.valid, corpus.test), DOCUMENTS["ag_news"], strict=True
        )
    )
    options = {"max_vocabulary": 10_000, "uncased": True, "split_punctuation": True}
    return Split(tutvae.Corpus("ag_news", *parts), longest=100, **options)


def plans(study: str) -> Iterator[Plan]:
    """The runs of a study."""
    models = ("lm", "vae")
    if study == "reviews":
        for family, field, seed, model in product(FAMILIES, DILATIONS, SEEDS, models):
            if family == "cnn" or field not in BY_HEART:
                yield {"family": family, "field": field, "model": model, "seed": seed}
    elif study == "convolutions":
        for (dilations, channels), seed, model in product(CONVOLUTIONS, SEEDS, models):
            plan = {"family": "cnn", "field": 1 + 2 * sum(dilations), "dilations": [*dilations]}
            yield plan | {"channels": channels, "model": model, "seed": seed}
    elif study == "ag_news":
        for family, field in product(("lstm", "cnn"), SOME_FIELDS):
            for model, seed in (("lm", 0), ("vae", 0), ("vae", 1)):
                yield {"family": family, "field": field, "model": model, "seed": seed}
    elif study == "axes":
        ends = SOME_FIELDS[0], SOME_FIELDS[-1]
        for family, field, ramp, seed in product(("lstm", "cnn"), ends, (0.0, 0.5), (0, 1)):
            yield {"family": family, "field": field, "ramp": ramp, "seed": seed}
    else:
        for field in SOME_FIELDS:
            family = "lstm" if field == "whole" else "cnn"
            yield {"family": family, "field": field, "seed": 0}


def on_reviews(plan: Plan) -> Plan:
    """Train a model on the reviews and measure it."""
    make = partial(decoder_of, plan["family"], plan["field"])
    recipe = replace(RECIPES["reviews"], best=plan["field"] in BY_HEART)
    return _measured(make, plan, reviews(), recipe, factors=True)


def by_convolutions(plan: Plan) -> Plan:
    """The same with dilations and channels of the plan's own."""

    def make(V: int, E: int, _: int, Z: int) -> DilatedConvDecoder:
        return DilatedConvDecoder(V, E, plan["channels"], Z, dilations=plan["dilations"])

    return _measured(make, plan, reviews(), RECIPES["reviews"], factors=True)


def on_ag_news(plan: Plan) -> Plan:
    """Train a model on AG News and measure it."""
    make = partial(decoder_of, plan["family"], plan["field"], dropout=AG_NEWS_DROPOUT)
    return _measured(make, plan, ag_news(), RECIPES["ag_news"])


def _measured(make: Any, plan: Plan, split: Split, recipe: Recipe, factors: bool = False) -> Plan:
    model, history = trained(make, plan["model"], split, recipe, plan["seed"])
    found = measured(model, split, recipe) | {"curves": curves(history)}
    if factors and plan["model"] == "vae":
        found["probes"] = probed(model, split)
    return found


class WatchedVAE(TextVAE):
    """A VAE with a code of one dimension that notes two means of it as it is trained."""

    def watch(self, batch: tutvae.TextBatch) -> None:
        """Say of which documents."""
        self.batch = batch
        self.seen: list[Plan] = []

    def at_step(self, step: int) -> None:
        """Note the means; `fit` calls this before each step."""
        if step in STEPS:
            self.note(step)

    def note(self, step: int) -> None:
        """The means of q(z|x) and of p(z|x), `[B]` each, to three digits."""
        with evaluating(self) as device:
            batch = self.batch.to(device)
            means = {"posterior": self.posterior(batch).loc[:, 0], "model": model_mean(self, batch)}
        rounded = {name: [round(x, 3) for x in mean.tolist()] for name, mean in means.items()}
        self.seen.append({"step": step} | rounded)


def model_mean(model: TextVAE, batch: tutvae.TextBatch) -> Tensor:
    """The mean of p(z|x) for a code of one dimension, `[B]`, by a sum over the grid."""
    grid = GRID.to(batch.tokens.device)
    codes = (z.expand(len(batch), 1) for z in grid)
    log_likelihood = torch.stack([model.log_likelihood(batch, z) for z in codes])  # [G, B]
    log_prior = model.prior().log_prob(grid[:, None])  # [G, 1]
    return grid @ (log_likelihood + log_prior).softmax(0)


def of_axes(plan: Plan) -> Plan:
    """Train a VAE with a code of one dimension and note the two means on the way."""
    split, recipe = reviews(), replace(RECIPES["reviews"], latent_size=1, ramp=plan["ramp"])
    make = partial(decoder_of, plan["family"], plan["field"])
    torch.manual_seed(plan["seed"])
    model = build(make, "vae", len(split.tokenizer), recipe, WatchedVAE)
    model.watch(split.test.batch(range(min(WATCHED, len(split.test)))))
    history = fit(model, split, recipe, plan["seed"])
    model.note(int(history["step"][-1]))
    known: Any = split.corpus.test
    factors = {name: known.factors[name][:WATCHED].tolist() for name in ("category", "stars")}
    found = measured(model, split, recipe) | {"curves": curves(history)}
    return found | {"factors": factors, "means": model.seen}


def kinds_of(review: str) -> list[tuple[str, int]]:
    """The kind of each word of a review, and its sentence; its end is a word, too.

    All slots that neither category nor stars choose hold one word here, as if it were fixed.
    """
    templates = [x.split() for x in (*OPENINGS, *FOLLOW_UPS)]
    kinds = []
    sentences = review.removesuffix(" .").split(" . ")
    for number, sentence in enumerate(sentences):
        words = [*sentence.split(), "."]
        (template,) = (x for x in templates if _fits(x, words))
        kinds += [(_kind(part), number) for part in template]
    return [*kinds, ("end", len(sentences))]


def _fits(template: list[str], words: list[str]) -> bool:
    pairs = zip(template, words, strict=False)
    return len(template) == len(words) and all(word in _possible(part) for part, word in pairs)


@cache
def _possible(part: str) -> set[str]:
    """The words that may stand in a slot, in any form; a word is alone."""
    if part[0] != "{":
        return {part}
    lists = SLOTS[part.strip("{}")].lists
    return {form for entries in lists for entry in entries for form in entry.split("/")}


def _kind(part: str) -> str:
    slot = part.strip("{}")
    if part == slot or SLOTS[slot].chooser == "neither":
        return "function word"
    kind = {"kind": "noun", "part": "noun", "role": "noun", "treat": "noun"}.get(slot, "verb")
    kind = {"good": "adjective", "but": "conjunction"}.get(slot, kind)
    return f"{kind} of the {SLOTS[slot].chooser}"


def word_costs(model: Any, batch: tutvae.TextBatch, z: Tensor | None = None) -> Tensor:
    """The cost of each word, document by document: -log p(x_t|x_<t, z), `[words]` nats."""
    hidden = batch.counting(model.decoder(batch.inputs, z))
    return target_costs(model.decoder, hidden, batch.counting(batch.targets))


def saved(language_model: Any, vae: TextVAE, batch: tutvae.TextBatch) -> Tensor:
    """What the code saves on each word, `[words]` nats: the mean over samples of q(z|x)."""
    with evaluating(vae) as device, evaluating(language_model):
        batch = batch.to(device)
        torch.manual_seed(0)
        codes = vae.posterior(batch).sample((CODES,))
        with_code = torch.stack([word_costs(vae, batch, z) for z in codes]).mean(0)
        return (word_costs(language_model, batch) - with_code).cpu()


def of_words(plan: Plan) -> Plan:
    """Train both models and compare them word by word."""
    split, recipe = reviews(), RECIPES["reviews"]
    make = partial(decoder_of, plan["family"], plan["field"])
    lm, vae = (trained(make, kind, split, recipe, plan["seed"])[0] for kind in ("lm", "vae"))
    nats = saved(lm, vae, split.test.batch()).tolist()
    texts = split.corpus.test.texts
    rows = [(n, *kind) for n, text in enumerate(texts) for kind in kinds_of(text)]
    table = pd.DataFrame(rows, columns=["review", "kind", "sentence"]).assign(nats=nats)
    means = table.groupby(["kind", "sentence"])["nats"].agg(["size", "mean"]).reset_index()
    shown = [
        {
            "words": [*text.split(), "<eos>"],
            "nats": table.loc[table["review"] == n, "nats"].tolist(),
        }
        for n, text in enumerate(texts[:SHOWN])
    ]
    measures = measured(vae, split, recipe)
    measures["language_model_nll"] = measured(lm, split, recipe)["bound"]
    return measures | {"kinds": means.to_dict("records"), "shown": shown}


STUDIES: dict[str, Callable[[Plan], Plan]] = {
    "reviews": on_reviews,
    "convolutions": by_convolutions,
    "ag_news": on_ag_news,
    "axes": of_axes,
    "words": of_words,
}


def main(arguments: list[str] | None = None) -> None:
    """Do what is asked for and not in the record yet."""
    choices = {"family": FAMILIES, "field": DILATIONS, "model": ("lm", "vae"), "seed": SEEDS}
    parser = parser_of(__doc__, RESULTS / "context", **choices)
    parser.add_argument("--study", nargs="*", choices=list(STUDIES), default=list(STUDIES))
    given = parser.parse_args(arguments)
    for study in given.study:
        record = Record(given.records / f"{study}.json")
        record.complete(selected(plans(study), given), STUDIES[study])


if __name__ == "__main__":
    main()
