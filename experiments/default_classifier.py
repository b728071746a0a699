"""What `SemiSupervisedClassifier().fit(texts, labels)`, untouched, makes of few labels.

    python experiments/default_classifier.py

The corpora, the draws of the labels and the test documents are those of chapter 8's experiment
files, whose records tell what the rivals and the chosen recipe make of them. Finished rows stand in
results/own_data/default_classifier.json and are not done again. The real corpora are read from
$TUTVAE_DATA.
"""

from pathlib import Path
from typing import Any

import numpy as np
from study import RESULTS, Record

import tutvae
from tutvae.data.batches.labelled import label_subset
from tutvae.experiments.sweeps import load_experiment

HERE, SEEDS = Path(__file__).parent, (0, 1, 2)
ROWS = {"few_labels": (50,), "ag_news_labels": (100, 500), "yelp_labels": (500,)}
UNKNOWN = -1


def plans() -> list[dict[str, Any]]:
    """All rows, each three times."""
    names = [(name, count) for name, counts in ROWS.items() for count in counts]
    return [{"record": n, "labels": count, "seed": s} for n, count in names for s in SEEDS]


def done(plan: dict[str, Any]) -> dict[str, Any]:
    """Fit with the labels of a draw, and count what is right in the test set."""
    corpus: Any = load_experiment(HERE / f"{plan['record']}.toml")
    found = corpus.corpus.read()
    labels = np.asarray(found.train.labels)
    chosen = label_subset(labels, plan["labels"], plan["seed"])
    known = np.full(len(labels), UNKNOWN)
    known[chosen] = labels[chosen]
    model = tutvae.SemiSupervisedClassifier(random_state=plan["seed"], progress=None)
    model.fit(found.train.texts, known)
    accuracy = float(np.mean(model.predict(found.test.texts) == found.test.labels))
    return {"accuracy": accuracy, "epochs": len(model.history_)}


def main() -> None:
    """Do what is not in the record yet."""
    Record(RESULTS / "own_data" / "default_classifier.json").complete(plans(), done)


if __name__ == "__main__":
    main()
