"""Recorded runs of classifiers of text: accuracy against the number of labels."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tutvae.data.batches.labelled import label_subset
from tutvae.data.batches.text import EncodedTexts
from tutvae.experiments.classification_methods import METHODS, Setting, documents_of, labels_of
from tutvae.experiments.classification_sections import (
    ClassificationExperiment,
    ClassificationRun,
    SharedRun,
    classification_runs,
    shared_runs,
)
from tutvae.experiments.records import data_sha256, provenance, significant
from tutvae.experiments.resuming import finish_runs
from tutvae.experiments.text_corpora import EncodedCorpus, ReviewsSection, load_texts
from tutvae.experiments.texts import train_and_measure
from tutvae.training.checkpoints import save_weights

DIGITS = 5


def run_classification(
    experiment: ClassificationExperiment,
    command: str,
    folder: str | Path,
    *,
    jobs: int = 1,
    progress: bool | None = None,
) -> dict[str, Any]:
    """Measure the accuracy of every method at every number of labels, or go on measuring.

    All methods are given the same documents, cut and with the same words unknown; a seed draws
    the same labels for all. The VAEs and the language model see the whole training split, in
    which the semi-supervised model meets the labelled documents again without their labels.
    Nothing is chosen on the validation or the test set: both accuracies are those of the last
    step.

    Args:
        experiment: the description.
        command: what the user typed to start it, for the record.
        folder: keeps each finished run as `VARIANT-METHOD-LABELS-SEED.json`, and the models that
            several of them start from.
        jobs: runs at a time; see `run_sweep`.
        progress: show a bar; by default only where somebody watches.

    Returns:
        The record: `runs`, and `shared`, the models without labels that runs start from.

    Raises:
        FileNotFoundError: the corpus is not at hand.
        FloatingPointError: training diverged; the message names the run.
        ValueError: the corpus has no labels, or too few of a class.

    Source: Kingma et al. (2014), section 4; Yang et al. (2017), section 4. Chapter 8.
    """
    head = {"name": experiment.name, "command": command, **provenance()}
    if jobs > 1:
        head["hardware"]["threads"] = 1
    runs = classification_runs(experiment)
    shared = list({run.label: run for r in runs for run in shared_runs(r)}.values())
    corpus = load_texts(experiment.corpus)
    data = _about_data(experiment, corpus)
    for run in runs:  # before hours of training, not after
        label_subset(labels_of(corpus.train), run.labels, run.seed)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    finish = partial(
        finish_runs,
        folder=folder,
        data_sha256=data["data_sha256"],
        jobs=jobs,
        progress=progress,
    )
    models = finish(shared, partial(_train_shared, corpus, folder), figures=_shared_figures)
    outcomes = finish(runs, partial(_train_and_score, corpus, folder), figures=_figures)
    return {
        **head,
        "configuration": experiment.configuration(),
        **data,
        "shared": [
            {"variant": run.variant, "model": run.model, "seed": run.experiment.seed, **model}
            for run, model in zip(shared, models, strict=True)
        ],
        "runs": [
            {
                "variant": run.variant,
                "method": run.method,
                "labels": run.labels,
                "seed": run.seed,
                **outcome,
            }
            for run, outcome in zip(runs, outcomes, strict=True)
        ],
    }


def _about_data(experiment: ClassificationExperiment, corpus: EncodedCorpus) -> dict[str, Any]:
    """What a record tells of the corpus, with the accuracies that need no training."""
    counts = np.bincount(labels_of(corpus.test))
    facts = {
        "data_sha256": data_sha256(corpus.texts),
        "majority_accuracy": significant(float(counts.max() / counts.sum()), DIGITS),
    }
    section = experiment.corpus
    if isinstance(section, ReviewsSection):
        accuracy = section.grammar().bayes_accuracy(section.label)
        facts["bayes_accuracy"] = significant(accuracy._asdict(), DIGITS)
    return facts


def _train_shared(corpus: EncodedCorpus, folder: Path, run: SharedRun) -> dict[str, Any]:
    """Train a model without labels and keep its weights."""
    model, outcome = train_and_measure(run.experiment, corpus, progress=False)
    save_weights(model, folder / f"{run.label}.safetensors")
    return outcome


def _train_and_score(corpus: EncodedCorpus, folder: Path, run: ClassificationRun) -> dict[str, Any]:
    """Train one classifier and measure its accuracy."""
    labels = labels_of(corpus.train)
    chosen = label_subset(labels, run.labels, run.seed)
    labelled = _part(corpus.train, chosen)
    setting = Setting(run, corpus, folder, labelled, classes=int(labels.max()) + 1)
    torch.manual_seed(run.seed)
    start = time.perf_counter()
    classify, facts = METHODS[run.method](setting)
    seconds = time.perf_counter() - start
    accuracy = {
        name: float((classify(split) == labels_of(split)).mean())
        for name, split in (("valid", corpus.valid), ("test", corpus.test))
    }
    return significant({"accuracy": accuracy} | facts, DIGITS) | {
        "train_seconds": round(seconds, 1)
    }


def _part(split: EncodedTexts, positions: np.ndarray) -> EncodedTexts:
    """Some documents of a split, with their labels."""
    documents = documents_of(split)
    return EncodedTexts(
        [documents[i] for i in positions], labels_of(split)[positions].tolist(), pad_id=split.pad_id
    )


def _figures(outcome: dict[str, Any]) -> str:
    """What a finished run achieved, in a few words."""
    accuracy = outcome["accuracy"]
    return (
        f"accuracy {accuracy['valid']:.3f} on valid, {accuracy['test']:.3f} on test "
        f"({outcome['train_seconds']:.0f} s of training)"
    )


def _shared_figures(outcome: dict[str, Any]) -> str:
    """What a model without labels achieved, in a few words."""
    report = outcome["reports"]["valid"]
    return (
        f"valid bound {report['bound']:.2f}, KL {report['kl']:.2f} "
        f"({outcome['train_seconds']:.0f} s of training)"
    )
