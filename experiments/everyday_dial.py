"""What codes of everyday sentences hold at each rate: figures and sentences of chapter 11.

    python experiments/everyday_dial.py RUNS

RUNS is the folder of `tutvae train experiments/everyday_sentences.toml`. Of each run with a code:
how sixty test sentences read back; which words are kept in sentences of which kind; what probes
read of the codes, beside TF-IDF; which sentences are neighbours; and how often one hidden word is
found, beside the language model. Written to results/everyday/dial.json, ten minutes on one core.
"""

import argparse
import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
from scipy.spatial.distance import cdist
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge, RidgeCV

import tutvae
from tutvae.data.readers.tatoeba import CREDIT
from tutvae.experiments.provenance import provenance

RECORD = Path(__file__).parents[1] / "results" / "everyday" / "dial.json"
SHOWN, QUERIES, SHELF, GAPS, PROBED = 60, 300, 30_000, 500, 4_000
IMPUTED = ("language_model", "rate_8", "rate_24")
LENGTHS = (
    (4, "1 to 4 words"),
    (7, "5 to 7"),
    (10, "8 to 10"),
    (14, "11 to 14"),
    (99, "15 or more"),
)
COMMON_NAMES = {"Tom", "Mary", "I"}

Factor = Callable[[list[str]], Any]


def words(text: str) -> list[str]:
    """The words of a text in small letters, punctuation marks among them."""
    return re.findall(r"[\w']+|[^\w\s]", text.lower())


PAST = {*words("was were wasn't weren't did didn't had hadn't went came said saw got took")}
PRESENT = {*words("is are am isn't aren't do does don't doesn't it's he's she's i'm you're")}
NEGATION = {*words("not no never nobody nothing none cannot")}
NOUNS = words(
    "money school car book house dog time room door job father mother train letter water "
    "question hospital party doctor baby"
)


def tense(found: list[str]) -> str | None:
    """Past or present, where the words of one of the two alone occur."""
    past, present = bool(PAST & {*found}), bool(PRESENT & {*found})
    return None if past == present else "past" if past else "present"


def noun(found: list[str]) -> str | None:
    """Which of twenty nouns, where it is one alone."""
    known = [word for word in found if word in NOUNS]
    return known[0] if len(known) == 1 else None


def is_negated(found: list[str]) -> bool:
    """Whether some word denies."""
    return any(word in NEGATION or word.endswith("n't") for word in found)


def factors(texts: Sequence[str]) -> dict[str, Factor]:
    """What is asked of a sentence; None where the question makes no sense."""
    first = {word for word, _ in Counter(words(text)[0] for text in texts).most_common(10)}
    return {
        "question or not": lambda found: found[-1] == "?",
        "negation or not": is_negated,
        "past or present": tense,
        "first word, of ten": lambda found: found[0] if found[0] in first else None,
        "noun, of twenty": noun,
    }


def posteriors(trained: Any, texts: Sequence[str]) -> torch.distributions.Normal:
    """The posteriors of texts."""
    encoded = tutvae.EncodedTexts.from_texts(
        texts, trained.tokenizer_, max_length=trained.max_length
    )
    return tutvae.encode(trained.model_, tutvae.Batches(encoded, batch_size=256, shuffle=False))


def kept(text: str, back: str) -> float:
    """The share of a text's words that are in another, in any order."""
    own, other = Counter(words(text)), Counter(words(back))
    return (own & other).total() / own.total()


def kinds(text: str) -> list[str]:
    """What kinds of sentence a text belongs to."""
    count = len(text.split())
    length = next(name for most, name in LENGTHS if count <= most)
    capitals = {word.strip(".,?!\"'") for word in text.split()[1:] if word[0].isupper()}
    names = {word.partition("'")[0] for word in capitals} - COMMON_NAMES
    return (
        [length] + ["with a digit"] * bool(re.search(r"\d", text)) + ["with a name"] * bool(names)
    )


def by_kind(texts: Sequence[str], back: Sequence[str]) -> dict[str, dict[str, float]]:
    """For each kind of sentence: how many, per cent of words kept, per cent without a fault."""
    rows: dict[str, list[tuple[float, bool]]] = {}
    for text, other in zip(texts, back, strict=True):
        for kind in ["all", *kinds(text)]:
            rows.setdefault(kind, []).append((kept(text, other), text.lower() == other))
    return {
        kind: {
            "sentences": len(found),
            "words_kept": 100 * mean(share for share, _ in found),
            "exact": 100 * mean(exact for _, exact in found),
        }
        for kind, found in rows.items()
    }


def labelled(texts: Sequence[str], factor: Factor, most: int) -> tuple[list[int], list[Any]]:
    """The places of the first texts that have a factor, and its values."""
    found = [
        (i, value) for i, text in enumerate(texts) if (value := factor(words(text))) is not None
    ]
    return [i for i, _ in found[:most]], [value for _, value in found[:most]]


def probes(codes: dict[str, tuple[Any, Any]], train: list[str], test: list[str]) -> Any:
    """Per factor: accuracy of chance, of TF-IDF and of each run's codes; of length, R squared."""
    tfidf = TfidfVectorizer(analyzer=words, min_df=2).fit(train)
    bags = tfidf.transform(train), tfidf.transform(test)
    table = {}
    for name, factor in factors(train).items():
        places, values = labelled(train, factor, PROBED)
        test_places, test_values = labelled(test, factor, len(test))
        common = Counter(values).most_common(1)[0][0]
        rival = LogisticRegression(max_iter=1_000, C=10).fit(bags[0][places], values)
        row = {"chance": mean(value == common for value in test_values)}
        row["tfidf"] = rival.score(bags[1][test_places], test_values)
        for run, (own, other) in codes.items():
            found = tutvae.probe(own[places], values, other[test_places], test_values)
            row[run] = found.accuracy
        table[name] = {"train": len(values), "test": len(test_values)} | row
    lengths = [np.array([len(text.split()) for text in part]) for part in (train, test)]
    row = {"chance": 0.0, "tfidf": _length(Ridge(1.0), bags, lengths)}
    row |= {run: _length(RidgeCV(), pair, lengths) for run, pair in codes.items()}
    table["length, R squared"] = {"train": PROBED, "test": len(test)} | row
    return table


def _length(ridge: Any, features: tuple[Any, Any], lengths: list[Any]) -> float:
    """The R squared on test texts of a regression of lengths, on features."""
    ridge.fit(features[0][:PROBED], lengths[0][:PROBED])
    return float(ridge.score(features[1], lengths[1]))


def neighbours(queries: Any, shelf: Any, metric: str) -> list[int]:
    """The three nearest on a shelf, a row a query."""
    return np.argsort(cdist(queries, shelf, metric), axis=1)[:, :3].tolist()


def overlap(texts: Sequence[str], shelf: Sequence[str], nearest: list[list[int]]) -> float:
    """Words in both over words in either, of texts and the nearest on the shelf."""
    pairs = [({*words(t)}, {*words(shelf[row[0]])}) for t, row in zip(texts, nearest, strict=True)]
    return 100 * mean(len(a & b) / len(a | b) for a, b in pairs)


def gaps(texts: Sequence[str], tokenizer: Any) -> list[dict[str, str]]:
    """Texts with one hidden word each: one that is one token to the models, at a drawn place."""
    rng, found = np.random.default_rng(0), []
    for text in texts:
        parts = text.split()
        single = [i for i, word in enumerate(parts) if word.isalpha() and 0 < i < len(parts)]
        single = [i for i in single if len(tokenizer.encode(["a " + parts[i]])[0]) == 4]
        if len(parts) >= 5 and single:
            i = int(rng.choice(single))
            asked = " ".join([*parts[:i], "_", *parts[i + 1 :]])
            found.append({"asked": asked, "word": parts[i], "text": " ".join(parts)})
    return found[:GAPS]


def main() -> None:
    """Measure all runs of a folder, and write the record."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("runs", type=Path)
    folder = arguments.parse_args().runs
    record: dict[str, Any] = {"command": "python experiments/everyday_dial.py RUNS"}
    record |= provenance() | {"credit": CREDIT}
    corpus = tutvae.tatoeba()
    train, test = corpus.train.texts[:SHELF], [*corpus.test.texts, *corpus.valid.texts]
    shown = corpus.test.texts[:SHOWN]
    trained = {
        path.name.removesuffix("-0"): tutvae.load(path) for path in sorted(folder.glob("*-0"))
    }
    coded = {name: model for name, model in trained.items() if model.model_.latent_size > 0}

    record |= {"sentences": shown, "read_back": {}, "by_kind": {}, "neighbours": {}, "overlap": {}}
    samples, queries = {}, corpus.test.texts[:QUERIES]
    for name, model in coded.items():
        back = model.reconstruct(corpus.test.texts)
        record["read_back"][name] = back[:SHOWN]
        record["by_kind"][name] = by_kind(corpus.test.texts, back)
        on_shelf, asked = posteriors(model, train), posteriors(model, test)
        samples[name] = tutvae.sample_codes(on_shelf), tutvae.sample_codes(asked)
        nearest = neighbours(asked.loc[:QUERIES].numpy(), on_shelf.loc.numpy(), "euclidean")
        record["neighbours"][name] = [[train[i] for i in row] for row in nearest[:SHOWN]]
        record["overlap"][name] = overlap(queries, train, nearest)
        print(name, flush=True)
    record |= {"probes": probes(samples, train, test)} | {"imputed": []}
    tfidf = TfidfVectorizer(analyzer=words).fit(train)
    cosine = tfidf.transform(queries) @ tfidf.transform(train).T
    nearest = [np.argsort(-row.toarray()[0])[:3].tolist() for row in cosine]
    record["neighbours"]["tfidf"] = [[train[i] for i in row] for row in nearest[:SHOWN]]
    record["overlap"]["tfidf"] = overlap(queries, train, nearest)
    record["overlap"]["random"] = overlap(queries, train, [[i] for i in range(QUERIES)])

    record["imputed"] = gaps(corpus.test.texts, trained["language_model"].tokenizer_)
    for name in IMPUTED:
        filled = trained[name].impute([gap["asked"] for gap in record["imputed"]])
        for gap, text in zip(record["imputed"], filled, strict=True):
            gap[name] = text.split()[gap["asked"].split().index("_")]
        print(name, flush=True)
    RECORD.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
