"""What a code adds to a label: control by conditional models beside their rivals, for chapter 9.

    python experiments/control.py

On generated reviews of one or two sentences, with category and stars as the label: a language
model that is told the label and has no code, and conditional VAEs whose code is annealed or held
at a rate; five seeds each. How often do samples have the label asked for, by the grammar's exact
posterior, and how many differ, over the temperature? And when the stars of test reviews are
changed and the category is kept: is the new label there, and what is left of the review? Rivals:
the model without a code, the nearest training review with the wanted label, and an editor that
exchanges words which tell the stars. "Another review" is chance: any that has the label.

On the first words of Yelp reviews, good or poor: the same, judged by a classifier of other
documents, and by the words that are kept; two seeds. Written to results/control/. About half an
hour of one core.
"""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from torch import nn

import tutvae
from tutvae import schedules
from tutvae.experiments.provenance import provenance
from tutvae.experiments.records import significant
from tutvae.models.text_vae import document_log_likelihood

RECORD = Path(__file__).parents[1] / "results" / "control" / "control.json"
SEEDS = {"reviews": range(5), "yelp": range(2)}
CODES = {"reviews": (None, "annealed", 4.0, 8.0), "yelp": (None, 8.0)}
TEMPERATURES = (0.0, 0.25, 0.5, 0.75, 1.0)
# Embedding, hidden and latent size, epochs, learning rate.
SIZES = {"reviews": (64, 64, 8, 8, 4e-3), "yelp": (64, 96, 16, 10, 4e-3)}
ASKED, EDITED, FIRST, SHOWN = 40, 500, 16, 4
DROPOUT = {"reviews": 0.0, "yelp": 0.3}
POOR, GOOD = (0, 1), (4,)


class ConditionalLanguageModel(nn.Module):
    """p(x | y): a decoder that is told the label and nothing else."""

    def __init__(self, decoder: Any) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, batch: Any) -> tutvae.Elbo:
        """The cost of B documents, given their labels."""
        y = F.one_hot(batch.labels, self.decoder.latent_size).float()
        cost = -document_log_likelihood(self.decoder, batch, y)
        return tutvae.Elbo(cost, torch.zeros_like(cost))


class Task:
    """Texts with labels, and how they are judged."""

    def __init__(self, name: str, train: Any, test: Any, old: Any, new: Any) -> None:
        self.name, self.train = name, train
        self.before, self.old, self.new = test, np.array(old), np.array(new)
        self.tokenizer = tutvae.Tokenizer.train(train.texts, max_vocabulary=4_000)
        rows, labels = self.tokenizer.encode(train.texts), np.array(train.labels)
        self.encoded = tutvae.EncodedTexts(rows, labels, pad_id=self.tokenizer.pad_id)
        self.classes = len(train.label_names)


def reviews() -> Task:
    """The reviews of chapter 9, of one or two sentences, and other stars for those of the test."""
    words = {"nouns": 4, "verbs": 1, "adjectives": 2, "fillers": 2}
    noise = {"vagueness": 0.05, "star_noise": 0.05, "persons": 1, "tenses": 1}
    sizes = {"sentences": (1, 2), "openings": 4, "follow_ups": 4}
    grammar = tutvae.ReviewGrammar(**words, **noise, **sizes)
    corpus = grammar.corpus(train=6_000, valid=10, test=2_000, seed=0, label="joint")
    old = np.array(corpus.test.labels[:EDITED])
    draws = np.random.default_rng(0).integers(1, 5, EDITED)
    new = 5 * (old // 5) + (old % 5 + draws) % 5
    task = Task("reviews", corpus.train, corpus.test.texts[:EDITED], old, new)
    task.grammar, task.stars = grammar, lambda label: label % 5
    return task


def first_words(text: str) -> str:
    """The first words of a review, marks apart, in small letters."""
    return " ".join(re.findall(r"[\w']+|[.,!?]", text.lower())[:FIRST])


def openings(part: Any, seed: int) -> tutvae.Texts:
    """As many poor reviews as good ones: their first words, and 0 or 1."""
    sides = [[i for i, y in enumerate(part.labels) if y in side] for side in (POOR, GOOD)]
    rng, count = np.random.default_rng(seed), min(map(len, sides))
    rows = np.concatenate([rng.permutation(side)[:count] for side in sides])
    labels = np.repeat([0, 1], count).tolist()
    texts = [first_words(part.texts[i]) for i in rows]
    return tutvae.Texts(texts, labels, label_names=("poor", "good"))


def yelp() -> Task:
    """The first words of Yelp reviews, poor or good, to be turned into the other."""
    corpus = tutvae.yelp()
    train, test, judge = (openings(p, 0) for p in (corpus.train, corpus.test, corpus.valid))
    rows = np.random.default_rng(0).permutation(len(test.texts))[:EDITED]
    old = np.array(test.labels)[rows]
    task = Task("yelp", train, [test.texts[i] for i in rows], old, 1 - old)
    words = make_pipeline(TfidfVectorizer(ngram_range=(1, 2)), LogisticRegression(C=10))
    task.judge, task.stars = words.fit(judge.texts, judge.labels), lambda label: label
    task.judge_accuracy = float(task.judge.score(task.before, old))
    return task


def trained(task: Task, code: float | str | None, seed: int) -> Any:
    """Train a model without a code, or one whose code is annealed or held at a rate."""
    E, H, Z, epochs, learning_rate = SIZES[task.name]
    V, K = len(task.tokenizer), task.classes
    torch.manual_seed(seed)
    decoder = tutvae.LSTMDecoder(V, E, H, K if code is None else Z + K, dropout=DROPOUT[task.name])
    if code is None:
        model: Any = ConditionalLanguageModel(decoder)
    else:
        encoder = tutvae.LSTMEncoder(V, E, H, Z, pooling="max")
        model = tutvae.SemiSupervisedTextVAE(encoder, decoder, K, classification_weight=0.0)
    batches = tutvae.MixedBatches(task.encoded, None, batch_size=32, seed=seed)
    ramp = schedules.linear(int(0.8 * epochs * len(batches)))
    tutvae.fit(
        model,
        batches,
        epochs=epochs,
        optimizer=torch.optim.Adam(model.parameters(), lr=learning_rate),
        scheduler="cosine",
        kl_weight=ramp if code == "annealed" else 1.0,
        rate=code if isinstance(code, float) else None,
        max_grad_norm=5.0,
        progress=False,
    )
    return model.eval()


def write(model: Any, task: Task, labels: Any, temperature: float, seed: int = 0) -> list[str]:
    """Write a text for each label; a code, if there is one, comes from the prior."""
    options = {"temperature": temperature, "seed": seed, "max_length": 60}
    if isinstance(model, ConditionalLanguageModel):
        y = F.one_hot(torch.as_tensor(labels), task.classes).float()
        rows = tutvae.generation.generate(model.decoder, y, tokenizer=task.tokenizer, **options)
        return [task.tokenizer.decode(row) for row in rows]
    return tutvae.sample_with_label(model, task.tokenizer, labels, **options)


def has_label(task: Task, texts: Sequence[str], labels: Any) -> dict[str, float]:
    """The share of texts with the label asked for, by the grammar or by the classifier."""
    if task.name == "yelp":
        return {"label": float((task.judge.predict(texts) == labels).mean())}
    report = tutvae.label_agreement(task.grammar, texts, labels, "joint")
    return {"label": report.among_all, "grammatical": report.grammatical}


def kept(task: Task, before: Sequence[str], after: Sequence[str]) -> dict[str, float]:
    """What is left of texts: their words and, of reviews, opening, noun and length."""
    pairs = [(x.split(), y.split()) for x, y in zip(before, after, strict=True)]
    shares = [(Counter(x) & Counter(y)).total() / max(len(x), len(y), 1) for x, y in pairs]
    found = {"words": float(np.mean(shares))}
    if task.name == "reviews":
        questions = {"opening": opening, "noun": noun, "sentences": lambda text: text.count(" .")}
        for name, question in questions.items():
            same = [question(x) == question(y) for x, y in zip(before, after, strict=True)]
            found[name] = float(np.mean(same))
    return found


def opening(text: str) -> str:
    """Which of the four opening patterns a review has."""
    return "that" if " that this " in text else text.split()[0]


def noun(text: str) -> str:
    """The word after "this"."""
    return text.partition(" this ")[2].split(" ")[0]


def another(task: Task) -> list[str]:
    """Any training text with the wanted label."""
    rng, labels = np.random.default_rng(1), np.array(task.train.labels)
    rows = [rng.choice(np.flatnonzero(labels == label)) for label in task.new]
    return [task.train.texts[row] for row in rows]


def nearest(task: Task) -> list[str]:
    """The training text with the wanted label that is most like the text, by TF-IDF."""
    tfidf = TfidfVectorizer(token_pattern=r"\S+").fit(task.train.texts)
    shelf, labels = tfidf.transform(task.train.texts), np.array(task.train.labels)
    like = (tfidf.transform(task.before) @ shelf.T).toarray()
    like[task.new[:, None] != labels] = -1
    return [task.train.texts[row] for row in like.argmax(1)]


def exchanged(task: Task) -> list[str]:
    """Exchange the words that tell the stars for what stands there in texts with the new ones."""
    stars = [task.stars(label) for label in task.train.labels]
    told: dict[str, Counter] = defaultdict(Counter)
    between: dict[tuple[Any, ...], Counter] = defaultdict(Counter)
    for text, star in zip(task.train.texts, stars, strict=True):
        words = ["<s>", *text.split(), "</s>"]
        for before, word, after in zip(words, words[1:], words[2:], strict=False):
            told[word][star] += 1
            between[star, before, after][word] += 1

    def tells(word: str, star: int) -> float:
        return (told[word][star] + 0.1) / (told[word].total() + 0.1 * len(set(stars)))

    def edit(text: str, old: int, new: int) -> str:
        words = ["<s>", *text.split(), "</s>"]
        for i in range(1, len(words) - 1):
            there = between[new, words[i - 1], words[i + 1]]
            if tells(words[i], old) > 0.7 and there:
                words[i] = max(there, key=lambda word: there[word] * tells(word, new) ** 2)
        return " ".join(words[1:-1])

    changes = zip(task.before, task.stars(task.old), task.stars(task.new), strict=True)
    return [edit(*change) for change in changes]


RIVALS: dict[str, Callable[[Task], list[str]]]
RIVALS = {"another": another, "nearest": nearest, "exchanged": exchanged}


def edited(task: Task, after: list[str]) -> dict[str, Any]:
    """Whether edited texts have the new label, what they kept; the first reviews that we wrote."""
    found = has_label(task, after, task.new) | {"kept": kept(task, task.before, after)}
    shown = {"texts": after[:SHOWN]} if task.name == "reviews" else {}  # Yelp's are not ours
    return significant(found, 4) | shown


def sampled(task: Task, model: Any, seed: int) -> Iterator[dict[str, Any]]:
    """Agreement and variety of samples at each temperature, and the same for shuffled orders."""
    asked = np.repeat(np.arange(task.classes), ASKED)
    for temperature in TEMPERATURES:
        texts = write(model, task, asked, temperature, seed)
        found = has_label(task, texts, asked) | {"different": len(set(texts)) / len(texts)}
        shuffled = np.random.default_rng(seed).permutation(asked)
        found["by_chance"] = has_label(task, texts, shuffled)["label"]
        yield {"temperature": temperature} | significant(found, 4)


def measured(task: Task, code: float | str | None, seed: int) -> dict[str, Any]:
    """Train a model and measure what it writes and how it edits."""
    model, found = trained(task, code, seed), {}
    if code is None:
        after = write(model, task, task.new, 0.5, seed)
    else:
        after = tutvae.change_label(
            model, task.tokenizer, task.before, task.new, own_labels=task.old
        )
        with torch.no_grad():
            terms = model(task.encoded.batch(range(1_000)))
        found["kl"] = significant(float(terms.kl.mean()), 4)
    found["edited"] = edited(task, after)
    if task.name == "reviews":
        found["sampled"] = list(sampled(task, model, seed))
    return found


def main() -> None:
    """Do what is not in the record yet."""
    record: dict[str, Any] = {"command": "python experiments/control.py"} | provenance()
    if RECORD.exists():
        record = json.loads(RECORD.read_text(encoding="utf-8"))
    RECORD.parent.mkdir(parents=True, exist_ok=True)
    for build in (reviews, yelp):
        task = build()
        known = record.setdefault(task.name, {"runs": []})
        if "rivals" not in known:
            known["rivals"] = {name: edited(task, rival(task)) for name, rival in RIVALS.items()}
            known["unchanged"] = has_label(task, task.before, task.old)
        for seed, code in product(SEEDS[task.name], CODES[task.name]):
            if not any((run["seed"], run["code"]) == (seed, code) for run in known["runs"]):
                run = {"code": code, "seed": seed} | measured(task, code, seed)
                known["runs"].append(run)
                print(
                    task.name, code, seed, run["edited"]["label"], run["edited"]["kept"], flush=True
                )
                RECORD.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
