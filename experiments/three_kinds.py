"""Does a code tell three kinds of texts apart that nobody told it of?

    python experiments/three_kinds.py

experiments/three_kinds.csv holds notes of cooks, letters to a help desk and diaries of walkers,
all written for this experiment. A `SentenceVAE` learns from two thirds of them without their
kinds, once with its defaults and once with texts as bags of words; so does TF-IDF with an SVD of
the same size. On each one's codes a logistic regression learns the kinds, and is asked for those
of the last third. Three splits and seeds; what is found is written to
results/own_data/three_kinds.json.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegressionCV
from sklearn.model_selection import train_test_split
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import tutvae
from tutvae.experiments.provenance import provenance

SEEDS, SHOWN = (0, 1, 2), 4
TEXTS = Path(__file__).with_suffix(".csv")
# Chosen on a third of the texts to train on: few texts are soon known by heart.
BAGS: dict[str, Any] = {"encoder": "bag", "decoder": "bag", "rate": 20.0}
BAGS |= {"learning_rate": 0.001, "epochs": 80}
RECORD = Path(__file__).parents[1] / "results" / "own_data" / "three_kinds.json"


def probed(representation: Any, train: pd.DataFrame, test: pd.DataFrame) -> float:
    """Fit a representation; return the accuracy of a probe on the held-out texts."""
    codes = representation.fit(list(train["text"])).transform(list(train["text"]))
    probe = make_pipeline(StandardScaler(), LogisticRegressionCV(max_iter=1_000))
    probe.fit(codes, train["kind"])
    return float(probe.score(representation.transform(list(test["text"])), test["kind"]))


def neighbours(vae: tutvae.SentenceVAE, texts: pd.DataFrame) -> list[list[str]]:
    """Some texts, each before the three whose codes are nearest to its own."""
    shown = texts.groupby("kind").sample(SHOWN, random_state=0)
    nearest = NearestNeighbors(n_neighbors=4, metric="cosine").fit(vae.transform(texts["text"]))
    _, found = nearest.kneighbors(vae.transform(shown["text"]))
    lines = (texts["kind"] + ": " + texts["text"]).to_numpy()
    return [list(lines[row]) for row in found]


def main() -> None:
    """Compare, over all seeds, and print."""
    texts = pd.read_csv(TEXTS)
    size = tutvae.SentenceVAE().latent_size
    accuracies: dict[str, list[float]] = {}
    for seed in SEEDS:
        split = {"test_size": 1 / 3, "random_state": seed, "stratify": texts["kind"]}
        train, test = train_test_split(texts, **split)
        common = {"random_state": seed, "progress": None}
        bags = tutvae.SentenceVAE(**BAGS, **common)
        compared = {
            "TF-IDF + SVD": make_pipeline(TfidfVectorizer(), TruncatedSVD(size, random_state=seed)),
            "SentenceVAE": tutvae.SentenceVAE(**common),
            "SentenceVAE of bags": bags,
        }
        for name, representation in compared.items():
            accuracies.setdefault(name, []).append(probed(representation, train, test))
            print(f"seed {seed}: {name:<19} {accuracies[name][-1]:.3f}", flush=True)
    for name, values in accuracies.items():
        print(f"{name:<19} {np.mean(values):.3f}")
    near = neighbours(bags, texts)
    for first, *rest in near:
        print(f"\n{first}", *(f"    {text}" for text in rest), sep="\n")
    RECORD.parent.mkdir(parents=True, exist_ok=True)
    record = provenance() | {"accuracies": accuracies, "neighbours": near}
    RECORD.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
