"""What is measured on a trained model of texts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict

import numpy as np
import torch
from tqdm import tqdm

from tutvae.data.batches.buckets import draw_batches
from tutvae.data.batches.text import EncodedTexts, TextBatch
from tutvae.evaluation.diagnostics import probe, sample_codes
from tutvae.evaluation.report import Report, encode, evaluate
from tutvae.experiments.records import significant
from tutvae.experiments.text_corpora import EncodedCorpus
from tutvae.experiments.text_sections import EvaluationPrecision
from tutvae.models.text_vae import LanguageModel, TextVAE
from tutvae.reviews.grammar import Reviews
from tutvae.training.loop import is_watched

PROBED_FACTORS = ("category", "stars", "person", "tense")
# Tokens that are measured at a time, and how many logits of their samples are held at once.
EVALUATION_TOKENS = 2_048
EVALUATION_LOGITS = 2**26
CURVE_DIGITS = 5


def measure_texts(
    model: LanguageModel | TextVAE,
    texts: EncodedTexts,
    *,
    importance_samples: int,
    max_examples: int | None = None,
    precision: EvaluationPrecision = "fp32",
    progress: bool | None = None,
) -> Report:
    """Measure a model on a split.

    Args:
        model: on any device.
        texts: the split.
        importance_samples: S, the posterior samples a document.
        max_examples: at most so many documents, spread evenly over the split.
        precision: of the heavy operations.
        progress: show a bar; by default only where somebody watches.

    Source: Burda et al. (2016), section 5. Chapter 7.
    """
    batches = list(spread_batches(texts, max_examples))
    logits = EVALUATION_TOKENS * model.decoder.vocabulary_size
    bar = tqdm(batches, "measuring", unit="batch", leave=False, disable=not is_watched(progress))
    device = next(model.parameters()).device.type
    with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
        return evaluate(
            model,
            bar,
            importance_samples=importance_samples,
            chunk_size=max(1, EVALUATION_LOGITS // logits),
        )


def spread_batches(texts: EncodedTexts, count: int | None = None) -> Iterator[TextBatch]:
    """Yield at most `count` documents, spread evenly over a split, which may come sorted."""
    used = min(len(texts), count or len(texts))
    positions = np.arange(used) * len(texts) // used
    for (rows,) in draw_batches(texts.lengths[positions], EVALUATION_TOKENS, by_tokens=True):
        yield texts.batch(positions[rows])


def probe_factors(model: TextVAE, corpus: EncodedCorpus) -> dict[str, dict[str, float]]:
    """What sampled codes of the test reviews tell of their hidden factors."""
    splits = (corpus.train, corpus.test)
    codes = [sample_codes(encode(model, spread_batches(split))) for split in splits]
    train, test = corpus.texts.train, corpus.texts.test
    if not (isinstance(train, Reviews) and isinstance(test, Reviews)):
        raise TypeError("only generated reviews have factors to probe")
    found = {
        factor: probe(codes[0], train.factors[factor], codes[1], test.factors[factor])
        for factor in PROBED_FACTORS
    }
    return {factor: significant(asdict(result), CURVE_DIGITS) for factor, result in found.items()}
