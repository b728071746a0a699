"""How the settings of the semi-supervised models were chosen: cross-validation on labels alone.

    python experiments/label_choices.py

For each experiment of chapter 8 but the last, the documents that keep their label in the first
draw, at the number of labels below, are cut in three. Two thirds train the model, the third part
being unlabelled meanwhile, and the labels of that third are then told; so every label is told once.
First the factor of the classification term, alpha, is compared with the weight of the labelled
bound, and with the best pair then the dropout. No document is looked at whose label the model would
not have been given. What is found is written to results/label_choices.json; about 45 minutes of
one core.
"""

import json
import sys
import tempfile
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.model_selection import StratifiedKFold

from tutvae.data.batches.labelled import label_subset
from tutvae.experiments import methods
from tutvae.experiments.data import EncodedCorpus, labels_of
from tutvae.experiments.experiment import Context
from tutvae.experiments.records import provenance
from tutvae.experiments.sweeps import load_experiment
from tutvae.training.run_folder import RunFolder

HERE = Path(__file__).parent
RECORD = HERE.parent / "results" / "label_choices.json"
LABELS = {"few_labels": 100, "ag_news_labels": 500, "yelp_labels": 500}
ALPHA, LABELLED_WEIGHT, DROPOUT, FOLDS = (4.0, 20.0), (0.1, 1.0), (0.5, 0.2), 3
Choice = dict[str, float]


def told(name: str, data: EncodedCorpus, choice: Choice, known: np.ndarray) -> np.ndarray:
    """Train with the labels of the documents `known`; tell the classes of all, `[N]`."""
    settings = [f"{key}={value}" for key, value in choice.items()]
    experiment = load_experiment(HERE / f"{name}.toml", [*settings, 'methods=["semi_supervised"]'])
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        run = RunFolder(Path(folder))
        run.open({})
        classes = int(labels_of(data.train).max()) + 1
        setting = methods.Setting(experiment, data, known, classes, Context(run, {}, False))
        classify, _ = methods.METHODS["semi_supervised"](setting)
    return classify("train")


def accuracy(name: str, data: EncodedCorpus, choice: Choice) -> float:
    """The share of the labelled documents whose class a model tells that was not given it."""
    labels = labels_of(data.train)
    chosen = label_subset(labels, LABELS[name], 0)
    parts = StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(chosen, labels[chosen])
    right = np.zeros(len(chosen), bool)
    for known, asked in parts:
        right[asked] = (
            told(name, data, choice, chosen[known])[chosen[asked]] == labels[chosen[asked]]
        )
    return float(right.mean())


def compared(name: str) -> list[dict[str, Any]]:
    """Every choice that was tried and its accuracy, the best one first."""
    data = load_experiment(HERE / f"{name}.toml").load()
    found: list[dict[str, Any]] = []

    def look(alpha: float, weight: float, dropout: float) -> None:
        choice = {"classification_weight": alpha, "labelled_weight": weight}
        keys = {f"semi_supervised.{key}": value for key, value in choice.items()}
        right = accuracy(name, data, keys | {"encoder.dropout": dropout})
        found.append(choice | {"dropout": dropout, "accuracy": round(right, 4)})
        print(name, found[-1], flush=True)

    for alpha, weight in product(ALPHA, LABELLED_WEIGHT):
        look(alpha, weight, DROPOUT[0])
    best = max(found, key=lambda x: x["accuracy"])
    for dropout in DROPOUT[1:]:
        look(best["classification_weight"], best["labelled_weight"], dropout)
    return sorted(found, key=lambda x: -x["accuracy"])


def main() -> None:
    """Compare the choices for the experiments that are named, or for all."""
    record: dict[str, Any] = {"command": "python experiments/label_choices.py"} | provenance()
    if RECORD.exists():
        record = json.loads(RECORD.read_text(encoding="utf-8"))
    record["labels"] = LABELS
    for name in sys.argv[1:] or LABELS:
        record[name] = compared(name)
    RECORD.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
