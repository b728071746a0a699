"""How the settings of the semi-supervised models were chosen: cross-validation on labels alone.

    python experiments/label_choices.py

On each corpus of chapter 8 but the last, documents that keep their label are cut in three. Two
thirds train the model, the third part being unlabelled meanwhile, and the labels of that third are
then told; so every label is told once. They are those of the first draw, on the reviews, where a
run takes seconds, of the first three. The weight of the labelled bound is compared first, then with
the better one alpha, the factor of the classification term, then the dropout. No document is looked
at whose label the model would not have been given. What is found is written to
results/labels/choices.json; about half an hour of one core.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.model_selection import StratifiedKFold

from tutvae.data.batches.labelled import label_subset
from tutvae.experiments import methods
from tutvae.experiments.data import EncodedCorpus, labels_of
from tutvae.experiments.experiment import Context
from tutvae.experiments.provenance import provenance
from tutvae.experiments.sweeps import load_experiment
from tutvae.training.run_folder import RunFolder

HERE = Path(__file__).parent
RECORD = HERE.parent / "results" / "labels" / "choices.json"
LABELS = {"few_labels": 50, "ag_news_labels": 500, "yelp_uneven": 500}
DRAWS = {"few_labels": 3, "ag_news_labels": 1, "yelp_uneven": 1}
FOLDS = 3
# In the order in which they are compared; the first value of each is where the search begins.
VALUES = {
    "semi_supervised.labelled_weight": (0.1, 1.0),
    "semi_supervised.classification_weight": (4.0, 20.0),
    "encoder.dropout": (0.5, 0.2),
}
Choice = dict[str, float]


def told(name: str, data: EncodedCorpus, choice: Choice, known: np.ndarray) -> np.ndarray:
    """Train with the labels of the documents `known`; tell the classes of all, `[N]`."""
    settings = [f"{key}={value}" for key, value in choice.items()]
    experiment: Any = load_experiment(
        HERE / f"{name}.toml", [*settings, 'methods=["semi_supervised"]']
    )
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
    labels, right = labels_of(data.train), []
    for draw in range(DRAWS[name]):
        chosen = label_subset(labels, LABELS[name], draw)
        parts = StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(chosen, labels[chosen])
        for known, asked in parts:
            guesses = told(name, data, choice, chosen[known])
            right.extend((guesses == labels)[chosen[asked]])
    return float(np.mean(right))


def compared(name: str) -> list[dict[str, float]]:
    """What was tried, in its order, and the accuracy of each."""
    data = load_experiment(HERE / f"{name}.toml").load()
    best = {key: values[0] for key, values in VALUES.items()}
    found: list[tuple[Choice, float]] = []
    for key, values in VALUES.items():
        for choice in [best | {key: value} for value in values]:
            if choice not in [x[0] for x in found]:
                found.append((choice, accuracy(name, data, choice)))
                print(name, *found[-1], flush=True)
        best = max(found, key=lambda x: x[1])[0]
    return [choice | {"accuracy": round(right, 4)} for choice, right in found]


def main() -> None:
    """Compare the choices for the experiments that are named, or for all."""
    record: dict[str, Any] = {"command": "python experiments/label_choices.py"} | provenance()
    if RECORD.exists():
        record = json.loads(RECORD.read_text(encoding="utf-8"))
    record["labels"] = LABELS
    for name in sys.argv[1:] or LABELS:
        record[name] = compared(name)
    RECORD.parent.mkdir(exist_ok=True)
    RECORD.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
