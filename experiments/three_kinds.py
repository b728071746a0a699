"""Does a code tell three kinds of texts apart that nobody told it of?

    python experiments/three_kinds.py

experiments/three_kinds.csv holds notes of cooks, letters to a help desk and diaries of walkers,
all written for this experiment. A `SentenceVAE`, untouched, learns from two thirds of them without
their kinds; so does TF-IDF with an SVD of the same size. On either's codes a logistic regression
learns the kinds, and is asked for those of the last third. Three splits and seeds; what is found
is written to results/own_data/three_kinds.json.
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
from tutvae.experiments.records import provenance

SEEDS, SHOWN = (0, 1, 2), 4
TEXTS = Path(__file__).with_suffix(".csv")
RECORD = Path(__file__).parents[1] / "results" / "own_data" / "three_kinds.json"


def probed(representation: Any, seed: int, texts: pd.DataFrame) -> tuple[float, Any]:
    """The accuracy of a probe on the held-out texts, and the representation, fitted."""
    train, test = train_test_split(
        texts, test_size=1 / 3, random_state=seed, stratify=texts["kind"], shuffle=True
    )
    codes = representation.fit(list(train["text"])).transform(list(train["text"]))
    probe = make_pipeline(StandardScaler(), LogisticRegressionCV(max_iter=1_000))
    probe.fit(codes, train["kind"])
    found = probe.score(representation.transform(list(test["text"])), test["kind"])
    return float(found), representation


def neighbours(vae: tutvae.SentenceVAE, texts: pd.DataFrame) -> list[list[str]]:
    """Some texts, each before the three whose codes are nearest to its own."""
    shown = texts.groupby("kind").sample(SHOWN, random_state=0)
    nearest = NearestNeighbors(n_neighbors=4, metric="cosine").fit(vae.transform(texts["text"]))
    _, found = nearest.kneighbors(vae.transform(shown["text"]))
    kinds, words = texts["kind"].to_numpy(), texts["text"].to_numpy()
    return [[f"{kinds[index]}: {words[index]}" for index in row] for row in found]


def main() -> None:
    """Compare, over all seeds, and print."""
    texts = pd.read_csv(TEXTS)
    size = tutvae.SentenceVAE().latent_size
    accuracies: dict[str, list[float]] = {"SentenceVAE": [], "TF-IDF + SVD": []}
    for seed in SEEDS:
        counts = make_pipeline(TfidfVectorizer(), TruncatedSVD(size, random_state=seed))
        rival, _ = probed(counts, seed, texts)
        own, vae = probed(tutvae.SentenceVAE(random_state=seed, progress=None), seed, texts)
        accuracies["SentenceVAE"].append(own)
        accuracies["TF-IDF + SVD"].append(rival)
        print(f"seed {seed}: SentenceVAE {own:.3f}, TF-IDF + SVD {rival:.3f}", flush=True)
    for name, values in accuracies.items():
        print(f"{name:<14} {np.mean(values):.3f}")
    near = neighbours(vae, texts)
    for first, *rest in near:
        print(f"\n{first}", *(f"    {text}" for text in rest), sep="\n")
    RECORD.parent.mkdir(parents=True, exist_ok=True)
    record = provenance() | {"accuracies": accuracies, "neighbours": near}
    RECORD.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
