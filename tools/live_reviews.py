"""Train the map of reviews for chapter 7's page and write it there: python tools/live_reviews.py.

Two files of book/_static/live: reviews.js with the review that the decoder writes at each place of
a map, and with the codes of test reviews; reviews.png, which stands there without JavaScript.
"""

import json
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch

import tutvae
from tutvae import (
    Batches,
    DilatedConvDecoder,
    LSTMEncoder,
    ReviewGrammar,
    TextVAE,
    Tokenizer,
    plots,
    schedules,
)

FOLDER = Path(__file__).resolve().parents[1] / "book" / "_static" / "live"
EDGE, PLACES = 2.5, 17  # as in atlas.js; places a side
DOTS, LONGEST, SENTENCES = 300, 90, 4
MARKERS = "osD^v"


def split() -> tuple[Any, Tokenizer]:
    """Returns chapter 7's reviews and their tokenizer."""
    words = {"nouns": 2, "verbs": 1, "adjectives": 2, "fillers": 1, "persons": 1, "tenses": 1}
    rest = {"openings": 4, "follow_ups": 10, "vagueness": 0.0, "star_noise": 0.1}
    grammar = ReviewGrammar(sentences=(4, 10), **words, **rest)
    corpus = grammar.corpus(train=4_000, valid=300, test=1_000, seed=0)
    return corpus, Tokenizer.train(corpus.train.texts)


def new(V: int, Z: int) -> TextVAE:
    """Returns a VAE whose decoder sees seven words, with a code of Z numbers."""
    decoder = DilatedConvDecoder(V, 64, 64, Z, dilations=(1, 2))
    return TextVAE(LSTMEncoder(V, 64, 64, Z, pooling="max"), decoder)


def fit(model: TextVAE, train: Batches) -> TextVAE:
    """Trains a model; the weight of the KL rises over half of the run."""
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    options: dict[str, Any] = {"optimizer": optimizer, "scheduler": "cosine"}
    options |= {"kl_weight": schedules.linear(4 * len(train)), "max_grad_norm": 5.0}
    tutvae.fit(model, train, epochs=8, device="cpu", **options)
    return model


def trained(train: Batches, V: int) -> TextVAE:
    """Returns a model with a code of two numbers, which starts from one with eight."""
    torch.manual_seed(0)
    first, flat = fit(new(V, 8), train), new(V, 2)
    own = flat.state_dict()
    known = {name: w for name, w in first.state_dict().items() if w.shape == own[name].shape}
    flat.load_state_dict(known, strict=False)
    return fit(flat, train)


def written(model: TextVAE, tokenizer: Tokenizer) -> list[str]:
    """Returns the likeliest review at each place, row by row from the top, its first sentences."""
    steps = torch.linspace(-EDGE, EDGE, PLACES)
    codes = torch.cartesian_prod(steps.flip(0), steps).flip(1)
    options: dict[str, Any] = {"max_length": LONGEST, "temperature": 0.0}
    rows = tutvae.generation.generate(model.decoder, codes, tokenizer=tokenizer, **options)
    texts = [tokenizer.decode(row).removesuffix(" .").split(" . ") for row in rows]
    return [" . ".join(sentences[:SENTENCES]) + " ." for sentences in texts]


def picture(dots: list[list[float]], names: list[str]) -> None:
    """Draws the map of the test reviews: a colour for the category, a mark for the stars."""
    plots.use_style()
    fig, ax = plt.subplots(figsize=(5, 5))
    colors = (plots.BLUE, plots.ORANGE, plots.GREEN, plots.RED, plots.GREY)
    for x, y, category, stars in dots:
        ax.plot(x, y, MARKERS[int(stars)], color=colors[int(category)], markersize=5, alpha=0.7)
    for name, color in zip(names, colors, strict=True):
        ax.plot([], [], "o", color=color, label=name)
    ax.set(xlim=(-EDGE, EDGE), ylim=(-EDGE, EDGE), xticks=[], yticks=[])
    ax.legend(ncols=3, loc="lower center", bbox_to_anchor=(0.5, -0.15))
    fig.savefig(FOLDER / "reviews.png", dpi=90, facecolor="white")


def main() -> None:
    """Writes both files."""
    corpus, tokenizer = split()
    train = Batches.from_texts(corpus.train, tokenizer, batch_size=32, seed=0)
    test = Batches.from_texts(corpus.test, tokenizer, batch_size=100, shuffle=False)
    model = trained(train, len(tokenizer))
    means = tutvae.encode(model, test).loc[:DOTS]
    factors = (corpus.test.factors[name].tolist() for name in ("category", "stars"))
    dots = [
        [round(x, 2), round(y, 2), category, stars]
        for (x, y), category, stars in zip(means.tolist(), *factors, strict=False)
    ]
    names = list(corpus.test.label_names)
    found = {"texts": written(model, tokenizer), "dots": dots, "categories": names}
    content = json.dumps(found, separators=(",", ":"))
    script = f"(globalThis.tutvaeLive ??= {{}}).reviews = {content};\n"
    (FOLDER / "reviews.js").write_text(script, encoding="ascii")
    picture(dots, names)


if __name__ == "__main__":
    main()
