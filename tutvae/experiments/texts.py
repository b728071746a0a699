"""Recorded runs on texts: a language model or a text VAE is built, fitted and measured."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from tutvae.aggressive import AggressiveRound
from tutvae.data.batching import Batches, EncodedTexts, TextBatch
from tutvae.data.buckets import draw_batches
from tutvae.data.reviews import Reviews
from tutvae.data.tokenization import Tokenizer
from tutvae.diagnostics import probe, sample_codes
from tutvae.evaluation import encode, evaluate
from tutvae.experiments.fitting import fit_aggressively_as_described, fit_as_described
from tutvae.experiments.text_corpora import EncodedCorpus, ReviewsSection, load_texts
from tutvae.experiments.text_models import build_model, language_model_like
from tutvae.experiments.text_sections import TextExperiment
from tutvae.models.text_vae import LanguageModel, TextVAE, initialise_encoder
from tutvae.results import data_sha256, provenance, significant
from tutvae.training import History

PROBED_FACTORS = ("category", "stars", "person", "tense")
# Tokens that are measured at a time, and how many logits of their samples are held at once.
EVALUATION_TOKENS = 2_048
EVALUATION_LOGITS = 2**26
CURVE_DIGITS = 5
REPORT_DIGITS = 7


def run_texts(
    experiment: TextExperiment, command: str, progress: bool | None = None
) -> tuple[LanguageModel | TextVAE, Tokenizer, dict[str, Any]]:
    """Do the one run that an experiment describes.

    Args:
        experiment: the description, without seeds and variants.
        command: what the user typed to start it, for the record.
        progress: show a bar; by default only where somebody watches.

    Returns:
        The trained model, its tokenizer and the record of the run.

    Raises:
        FileNotFoundError: the corpus is not at hand.
        FloatingPointError: training diverged.

    Source: Yang et al. (2017), section 4. Chapter 7.
    """
    head = {"name": experiment.name, "command": command, **provenance()}
    corpus = load_texts(experiment.corpus)
    data = about_data(experiment, corpus)
    model, outcome = train_and_measure(experiment, corpus, progress)
    record = {**head, "configuration": experiment.configuration(), **data, **outcome}
    return model, corpus.tokenizer, record


def about_data(experiment: TextExperiment, corpus: EncodedCorpus) -> dict[str, Any]:
    """What a record tells of the corpus: its hash, and the entropy in nats where it is known."""
    facts: dict[str, Any] = {"data_sha256": data_sha256(corpus.texts)}
    if isinstance(experiment.corpus, ReviewsSection):
        entropy = experiment.corpus.grammar().entropy()
        facts["entropy"] = significant(entropy._asdict(), REPORT_DIGITS)
    return facts


def train_and_measure(
    experiment: TextExperiment, corpus: EncodedCorpus, progress: bool | None = None
) -> tuple[LanguageModel | TextVAE, dict[str, Any]]:
    """Build, fit and evaluate one model.

    Args:
        experiment: the description, without seeds and variants.
        corpus: what it names, loaded.
        progress: show a bar; by default only where somebody watches.

    Returns:
        The model, and the part of the record that is the run's own.
    """
    torch.manual_seed(experiment.seed or 0)
    model = build_model(experiment, corpus.tokenizer)
    outcome: dict[str, Any] = {}
    if isinstance(model, TextVAE) and experiment.initialisation is not None:
        outcome["initialisation_seconds"] = _initialise(model, experiment, corpus, progress)
    steps_before = 0
    if isinstance(model, TextVAE) and experiment.training.aggressive is not None:
        outcome["aggressive"] = _fit_aggressively(model, experiment, corpus)
        steps_before = outcome["aggressive"]["decoder_steps"]
    start = time.perf_counter()
    epochs = experiment.training.epochs
    history = _fit(model, experiment, corpus, epochs, progress, steps_before)
    seconds = time.perf_counter() - start
    tokens = int(corpus.train.lengths.sum()) - len(corpus.train)
    outcome |= {
        "train_seconds": round(seconds, 1),
        "tokens_per_second": round(tokens * len(history) / seconds),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
    }
    if hasattr(model.decoder, "receptive_field"):
        outcome["receptive_field"] = model.decoder.receptive_field
    outcome["curves"] = {
        column: significant(history[column], CURVE_DIGITS) for column in history.records[0]
    }
    outcome["reports"] = {
        name: _report(model, experiment, split, experiment.evaluation.samples_of(name))
        for name, split in (("valid", corpus.valid), ("test", corpus.test))
    }
    if isinstance(model, TextVAE) and experiment.evaluation.factors:
        outcome["probes"] = _probes(model, corpus)
    return model, outcome


def _initialise(
    model: TextVAE, experiment: TextExperiment, corpus: EncodedCorpus, progress: bool | None
) -> float:
    """Start the encoder from a language model of the same documents; return the seconds it took."""
    start = time.perf_counter()
    if experiment.encoder is not None and experiment.initialisation is not None:
        dropout = experiment.decoder.dropout
        language_model = language_model_like(experiment.encoder, corpus.tokenizer, dropout)
        _fit(language_model, experiment, corpus, experiment.initialisation.epochs, progress)
        initialise_encoder(model, language_model)
    return round(time.perf_counter() - start, 1)


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


def _report(
    model: LanguageModel | TextVAE, experiment: TextExperiment, texts: EncodedTexts, samples: int
) -> dict[str, Any]:
    """Evaluate a model on a split."""
    logits = EVALUATION_TOKENS * model.decoder.vocabulary_size
    device = next(model.parameters()).device.type
    halved = experiment.evaluation.precision == "bf16"
    with torch.autocast(device, torch.bfloat16, enabled=halved):
        report = evaluate(
            model,
            _batches(texts, experiment.evaluation.max_examples),
            importance_samples=samples,
            chunk_size=max(1, EVALUATION_LOGITS // logits),
        )
    return significant(report.to_dict(), REPORT_DIGITS)


def _batches(texts: EncodedTexts, count: int | None = None) -> Iterator[TextBatch]:
    """Yield at most `count` documents, spread evenly over a split, which may come sorted."""
    used = min(len(texts), count or len(texts))
    positions = np.arange(used) * len(texts) // used
    for (rows,) in draw_batches(texts.lengths[positions], EVALUATION_TOKENS, by_tokens=True):
        yield texts.batch(positions[rows])


def _probes(model: TextVAE, corpus: EncodedCorpus) -> dict[str, dict[str, float]]:
    """What sampled codes of the test reviews tell of their hidden factors."""
    codes = [sample_codes(encode(model, _batches(x))) for x in (corpus.train, corpus.test)]
    train, test = corpus.texts.train, corpus.texts.test
    if not (isinstance(train, Reviews) and isinstance(test, Reviews)):
        raise TypeError("only generated reviews have factors to probe")
    found = {
        factor: probe(codes[0], train.factors[factor], codes[1], test.factors[factor])
        for factor in PROBED_FACTORS
    }
    return {factor: significant(asdict(result), CURVE_DIGITS) for factor, result in found.items()}
