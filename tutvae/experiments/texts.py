"""Training and measuring the model that a text experiment describes."""

from __future__ import annotations

import json
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from tutvae.data.batches.text import Batches
from tutvae.experiments.fitting import fit_aggressively_as_described, fit_as_described
from tutvae.experiments.measuring import (
    CURVE_DIGITS,
    EVALUATION_TOKENS,
    measure_texts,
    probe_factors,
)
from tutvae.experiments.records import significant
from tutvae.experiments.text_corpora import EncodedCorpus, ReviewsSection
from tutvae.experiments.text_models import build_model, language_model_like
from tutvae.experiments.text_sections import TextExperiment
from tutvae.models.text_vae import LanguageModel, TextVAE, initialise_encoder
from tutvae.training.aggressive import AggressiveRound
from tutvae.training.checkpoints import load_weights, save_weights, write_or_explain
from tutvae.training.loop import History
from tutvae.training.run_folder import RunFolder

REPORT_DIGITS = 7


def about_data(experiment: TextExperiment, corpus: EncodedCorpus) -> dict[str, Any]:
    """What a record tells of the corpus: its hash, and the entropy in nats where it is known."""
    facts: dict[str, Any] = {"data_sha256": corpus.sha256}
    if isinstance(experiment.corpus, ReviewsSection):
        entropy = experiment.corpus.grammar().entropy()
        facts["entropy"] = significant(entropy._asdict(), REPORT_DIGITS)
    return facts


def train_and_measure(
    experiment: TextExperiment,
    corpus: EncodedCorpus,
    folder: Path | None = None,
    *,
    progress: bool | None = None,
) -> tuple[LanguageModel | TextVAE, dict[str, Any]]:
    """Build, fit and evaluate one model, or go on where an interrupted run stopped.

    Args:
        experiment: the description, without seeds and variants.
        corpus: what it names, loaded.
        folder: keeps checkpoints and, in the end, weights and tokenizer; see `RunFolder`.
            Without it nothing is written.
        progress: show a bar; by default only where somebody watches.

    Returns:
        The model, and the part of the record that is the run's own.

    Raises:
        FloatingPointError: training diverged.
        ValueError: the folder holds another run.

    Source: Yang et al. (2017), section 4. Chapter 7.
    """
    if folder is None and experiment.training.weights == "best":
        with TemporaryDirectory() as scratch:
            return train_and_measure(experiment, corpus, Path(scratch), progress=progress)
    torch.manual_seed(experiment.seed or 0)
    model = build_model(experiment, corpus.tokenizer)
    outcome: dict[str, Any] = {}
    if isinstance(model, TextVAE) and experiment.initialisation is not None:
        seconds = _initialise(model, experiment, corpus, folder, progress)
        outcome["initialisation_seconds"] = round(seconds, 1)
    steps_before = 0
    if isinstance(model, TextVAE) and experiment.training.aggressive is not None:
        outcome["aggressive"] = _aggressive_phase(model, experiment, corpus, folder)
        steps_before = outcome["aggressive"]["decoder_steps"]
    epochs = experiment.training.epochs
    history = _fit(model, experiment, corpus, epochs, folder, progress, steps_before)
    outcome |= _about_training(model, history, corpus)
    if folder is not None:
        outcome |= _keep(model, experiment, corpus, history, folder)
    outcome["reports"] = _reports(model, experiment, corpus, progress)
    if isinstance(model, TextVAE) and experiment.evaluation.factors:
        outcome["probes"] = probe_factors(model, corpus)
    return model, outcome


def _about_training(
    model: LanguageModel | TextVAE, history: History, corpus: EncodedCorpus
) -> dict[str, Any]:
    """How long training took, of what, and how it went."""
    tokens = int(corpus.train.lengths.sum()) - len(corpus.train)
    about: dict[str, Any] = {
        "train_seconds": round(history.seconds, 1),
        "tokens_per_second": round(tokens * len(history) / history.seconds),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
    }
    if model.decoder.receptive_field is not None:
        about["receptive_field"] = model.decoder.receptive_field
    about["curves"] = {
        column: significant(history[column], CURVE_DIGITS) for column in history.records[0]
    }
    return about


def _initialise(
    model: TextVAE,
    experiment: TextExperiment,
    corpus: EncodedCorpus,
    folder: Path | None,
    progress: bool | None,
) -> float:
    """Start the encoder from a language model of the same documents; return the seconds it took."""
    if experiment.encoder is None or experiment.initialisation is None:
        raise ValueError("initialisation is of an encoder, and there is none")
    dropout = experiment.decoder.dropout
    language_model = language_model_like(experiment.encoder, corpus.tokenizer, dropout)
    inner = None if folder is None else RunFolder(folder).initialisation
    epochs = experiment.initialisation.epochs
    history = _fit(language_model, experiment, corpus, epochs, inner, progress)
    initialise_encoder(model, language_model)
    return history.seconds


def _aggressive_phase(
    model: TextVAE, experiment: TextExperiment, corpus: EncodedCorpus, folder: Path | None
) -> dict[str, Any]:
    """Do the phase before `fit`, unless `fit` goes on from later; return what it achieved."""
    if folder is None:
        return _fit_aggressively(model, experiment, corpus)
    kept = RunFolder(folder)
    kept.open(experiment.identity(corpus.sha256))
    if kept.last.exists():
        found: dict[str, Any] = json.loads(kept.aggressive.read_text(encoding="utf-8"))
        return found
    phase = _fit_aggressively(model, experiment, corpus)
    write_or_explain(kept.aggressive, json.dumps(phase, allow_nan=False).encode())
    return phase


def _fit_aggressively(
    model: TextVAE, experiment: TextExperiment, corpus: EncodedCorpus
) -> dict[str, Any]:
    """Do the phase that `[training.aggressive]` describes; return what it took and achieved."""
    start = time.perf_counter()
    training = experiment.training
    rounds: list[AggressiveRound] = []
    if training.aggressive is not None:
        train, valid = _training_batches(experiment, corpus), _validation_batches(corpus)
        rounds = fit_aggressively_as_described(model, training, training.aggressive, train, valid)
    information = [done.mutual_information for done in rounds]
    return {
        "seconds": round(time.perf_counter() - start, 1),
        "decoder_steps": sum(done.decoder_steps for done in rounds),
        "encoder_steps": sum(done.encoder_steps for done in rounds),
        "mutual_information": significant(information, CURVE_DIGITS),
    }


def _fit(
    model: LanguageModel | TextVAE,
    experiment: TextExperiment,
    corpus: EncodedCorpus,
    epochs: int,
    folder: Path | None,
    progress: bool | None,
    steps_before: int = 0,
) -> History:
    """Fit a model as `[training]` says, for so many epochs."""
    return fit_as_described(
        model,
        experiment.training,
        _training_batches(experiment, corpus),
        epochs=epochs,
        valid=_validation_batches(corpus),
        steps_before=steps_before,
        run_folder=folder,
        configuration=experiment.identity(corpus.sha256),
        progress=progress,
    )


def _training_batches(experiment: TextExperiment, corpus: EncodedCorpus) -> Batches:
    """The training documents as `[training]` wants them."""
    return Batches(
        corpus.train,
        batch_size=experiment.training.batch_size,
        token_budget=experiment.training.token_budget,
        seed=experiment.seed or 0,
    )


def _validation_batches(corpus: EncodedCorpus) -> Batches:
    """What is measured after every epoch."""
    return Batches(corpus.valid, token_budget=EVALUATION_TOKENS, shuffle=False)


def _keep(
    model: LanguageModel | TextVAE,
    experiment: TextExperiment,
    corpus: EncodedCorpus,
    history: History,
    folder: Path,
) -> dict[str, Any]:
    """Keep tokenizer and weights; tell which epoch's, where the model was given the best ones."""
    kept = RunFolder(folder)
    chosen: dict[str, Any] = {}
    if experiment.training.weights == "best":
        load_weights(model, kept.best)
        chosen["best_epoch"] = history.best["epoch"]
    corpus.tokenizer.save(kept.tokenizer)
    save_weights(model, kept.weights)
    return chosen


def _reports(
    model: LanguageModel | TextVAE,
    experiment: TextExperiment,
    corpus: EncodedCorpus,
    progress: bool | None,
) -> dict[str, Any]:
    """Measure a model on the validation and the test set."""
    evaluation = experiment.evaluation
    reports: dict[str, Any] = {}
    for name, split in (("valid", corpus.valid), ("test", corpus.test)):
        report = measure_texts(
            model,
            split,
            importance_samples=evaluation.samples_of(name),
            max_examples=evaluation.max_examples,
            precision=evaluation.precision,
            progress=progress,
        )
        reports[name] = significant(report.to_dict(), REPORT_DIGITS)
    return reports
