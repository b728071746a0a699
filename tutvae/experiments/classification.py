"""Recorded runs of classifiers of text: accuracy against the number of labels."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.torch import load_file, save

from tutvae.classification import bag_of_words, code_classifier, rows_of
from tutvae.data.batching import Batches, EncodedTexts, TextBatch
from tutvae.data.files import write_beside
from tutvae.data.labels import MixedBatches, label_subset
from tutvae.data.tokenization import Tokenizer
from tutvae.evaluation import encode
from tutvae.experiments.classification_sections import (
    ClassificationExperiment,
    ClassificationRun,
    SharedRun,
    classification_runs,
    shared_runs,
)
from tutvae.experiments.fitting import fit_as_described
from tutvae.experiments.resuming import finish_runs
from tutvae.experiments.text_corpora import EncodedCorpus, ReviewsSection, load_texts
from tutvae.experiments.text_models import build_decoder, build_encoder, build_model
from tutvae.experiments.texts import train_and_measure
from tutvae.models.semi_supervised import SemiSupervisedTextVAE
from tutvae.models.text_classifier import TextClassifier
from tutvae.models.text_vae import LanguageModel, TextVAE, initialise_encoder
from tutvae.results import data_sha256, provenance, significant
from tutvae.training import fit

READ_AT_A_TIME = 256
DIGITS = 5

# From documents to their classes, `[N]`.
Classify = Callable[[EncodedTexts], np.ndarray]


class Setting(NamedTuple):
    """What a method is given: the description, the data, and where the shared models are."""

    run: ClassificationRun
    corpus: EncodedCorpus
    folder: Path
    labelled: EncodedTexts
    classes: int

    @property
    def experiment(self) -> ClassificationExperiment:
        """The description of the run alone."""
        return self.run.experiment


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
    the same labels for all. The models without labels see the whole training split. Nothing is
    chosen on the validation or the test set: both accuracies are those of the last step.

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

    Source: Kingma et al. (2014), section 4; Yang et al. (2017), section 4.4. Chapter 8.
    """
    head = {"name": experiment.name, "command": command, **provenance()}
    if jobs > 1:
        head["hardware"]["threads"] = 1
    runs = classification_runs(experiment)
    shared = list({run.label: run for r in runs for run in shared_runs(r)}.values())
    corpus = load_texts(experiment.corpus)
    data = _about_data(experiment, corpus)
    for run in runs:  # before hours of training, not after
        label_subset(_labels(corpus.train), run.labels, run.seed)
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
    counts = np.bincount(_labels(corpus.test))
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
    write_beside(folder / f"{run.label}.safetensors", save(model.state_dict()))
    return outcome


def _train_and_score(corpus: EncodedCorpus, folder: Path, run: ClassificationRun) -> dict[str, Any]:
    """Train one classifier and measure its accuracy."""
    labels = _labels(corpus.train)
    chosen = label_subset(labels, run.labels, run.seed)
    labelled = _part(corpus.train, chosen)
    setting = Setting(run, corpus, folder, labelled, classes=int(labels.max()) + 1)
    torch.manual_seed(run.seed)
    start = time.perf_counter()
    classify, facts = METHODS[run.method](setting)
    seconds = time.perf_counter() - start
    accuracy = {
        name: float((classify(split) == _labels(split)).mean())
        for name, split in (("valid", corpus.valid), ("test", corpus.test))
    }
    return significant({"accuracy": accuracy} | facts, DIGITS) | {
        "train_seconds": round(seconds, 1)
    }


def _bag_of_words(setting: Setting) -> tuple[Classify, dict[str, Any]]:
    """Logistic regression on the words that the other methods see."""
    tokenizer = setting.corpus.tokenizer
    labelled = setting.labelled
    classifier = bag_of_words().fit(_texts(labelled, tokenizer), _labels(labelled))
    return lambda split: classifier.predict(_texts(split, tokenizer)), _size(classifier[-1])


def _lstm(setting: Setting) -> tuple[Classify, dict[str, Any]]:
    """The encoder as a classifier, started from a language model where one is described."""
    section = setting.experiment.classifier
    assert section is not None
    encoder = build_encoder(
        setting.experiment.encoder, setting.corpus.tokenizer, setting.experiment.model.latent_size
    )
    model = TextClassifier(encoder, setting.classes, dropout=section.dropout)
    _start_encoder(model, setting)
    batches = Batches(setting.labelled, batch_size=section.batch_size, seed=setting.run.seed)
    fit(
        model,
        islice(_endless(batches), section.steps),
        epochs=1,
        optimizer=torch.optim.Adam(model.parameters(), lr=section.learning_rate),
        max_grad_norm=setting.experiment.training.max_grad_norm,
        progress=False,
    )
    return partial(_most_probable, model), {"parameters": _parameters(model)}


def _codes(setting: Setting) -> tuple[Classify, dict[str, Any]]:
    """Logistic regression on the codes of a VAE that saw no label."""
    vae = _load_shared(setting, "vae")
    assert isinstance(vae, TextVAE)

    def means(split: EncodedTexts) -> np.ndarray:
        return encode(vae, _in_order(split)).loc.numpy()

    # The documents are encoded already, so only the last step of the pipeline is needed.
    classifier = code_classifier(vae, setting.corpus.tokenizer)[-1]
    classifier.fit(means(setting.labelled), _labels(setting.labelled))
    return lambda split: classifier.predict(means(split)), _size(classifier)


def _semi_supervised(setting: Setting) -> tuple[Classify, dict[str, Any]]:
    """A VAE whose second latent is the label."""
    experiment, tokenizer = setting.experiment, setting.corpus.tokenizer
    section = experiment.semi_supervised
    assert section is not None
    Z, K = experiment.model.latent_size, setting.classes
    temperature = section.temperature
    model = SemiSupervisedTextVAE(
        build_encoder(experiment.encoder, tokenizer, Z),
        build_decoder(experiment.decoder, tokenizer, Z + K),
        K,
        classification_weight=section.classification_weight,
        marginal=section.marginal,
        temperature=temperature if isinstance(temperature, float) else temperature.build(),
        label_kl_floor=section.label_kl_floor,
        dropout=section.dropout,
    )
    _start_encoder(model, setting)
    batches = MixedBatches(
        setting.labelled,
        setting.corpus.train,
        labelled_size=section.labelled_size,
        batch_size=experiment.training.batch_size,
        token_budget=experiment.training.token_budget,
        seed=setting.run.seed,
    )
    history = fit_as_described(model, experiment.training, batches, progress=False)
    return partial(_most_probable, model), {
        "parameters": _parameters(model),
        "epochs": len(history),
        "reconstruction": history["train_reconstruction"][-1],
        "kl": history["train_kl"][-1],
    }


METHODS: dict[str, Callable[[Setting], tuple[Classify, dict[str, Any]]]] = {
    "bag_of_words": _bag_of_words,
    "lstm": _lstm,
    "lstm_init": _lstm,
    "codes": _codes,
    "semi_supervised": _semi_supervised,
}


def _start_encoder(model: TextClassifier | SemiSupervisedTextVAE, setting: Setting) -> None:
    """Copy the language model's weights into the encoder, where a run uses one."""
    if setting.experiment.initialisation is not None:
        language_model = _load_shared(setting, "language_model")
        assert isinstance(language_model, LanguageModel)
        initialise_encoder(model, language_model)


def _load_shared(setting: Setting, model: str) -> LanguageModel | TextVAE:
    """Load a model without labels that was trained before."""
    shared = next(run for run in shared_runs(setting.run) if run.model == model)
    result = build_model(shared.experiment, setting.corpus.tokenizer)
    result.load_state_dict(load_file(setting.folder / f"{shared.label}.safetensors"))
    return result


def _most_probable(
    model: TextClassifier | SemiSupervisedTextVAE, split: EncodedTexts
) -> np.ndarray:
    """The most probable class of each document, `[N]`."""
    probabilities = rows_of(model, _in_order(split), lambda x: model.label_posterior(x).probs)
    return probabilities.argmax(1).numpy()


def _in_order(split: EncodedTexts) -> Batches:
    """Every document once."""
    return Batches(split, batch_size=READ_AT_A_TIME, shuffle=False)


def _endless(batches: Iterable[TextBatch]) -> Iterator[TextBatch]:
    """Epoch after epoch."""
    while True:
        yield from batches


def _labels(split: EncodedTexts) -> np.ndarray:
    """The classes of the documents, `[N]`."""
    if split.labels is None:
        raise ValueError("the corpus has no labels: there is nothing to classify")
    return split.labels.numpy()


def _documents(split: EncodedTexts) -> list[list[int]]:
    """The token ids of the documents, without padding."""
    batch = split.batch()
    rows = zip(batch.tokens.tolist(), batch.lengths.tolist(), strict=True)
    return [tokens[:length] for tokens, length in rows]


def _part(split: EncodedTexts, positions: np.ndarray) -> EncodedTexts:
    """Some documents of a split, with their labels."""
    documents = _documents(split)
    return EncodedTexts(
        [documents[i] for i in positions], _labels(split)[positions].tolist(), pad_id=split.pad_id
    )


def _texts(split: EncodedTexts, tokenizer: Tokenizer) -> list[str]:
    """The documents as the models see them, as text."""
    return [tokenizer.decode(document) for document in _documents(split)]


def _parameters(model: torch.nn.Module) -> int:
    """How many numbers a model has to learn."""
    return sum(parameter.numel() for parameter in model.parameters())


def _size(classifier: Any) -> dict[str, Any]:
    """How many numbers logistic regression has learnt."""
    return {"parameters": classifier.coef_.size + classifier.intercept_.size}


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
