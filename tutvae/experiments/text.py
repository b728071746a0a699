"""Experiments with `kind = "text"`: a language model or a text VAE, or many of them."""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import model_validator
from tqdm import tqdm

from tutvae.data.batches.buckets import draw_batches
from tutvae.data.batches.text import Batches, EncodedTexts
from tutvae.data.batches.text_batch import TextBatch
from tutvae.data.tokenization import Tokenizer
from tutvae.evaluation.diagnostics import probe, sample_codes
from tutvae.evaluation.report import Report, encode, evaluate
from tutvae.experiments import sections
from tutvae.experiments.data import AnyCorpus, EncodedCorpus, ReviewsSection, labels_of
from tutvae.experiments.experiment import Context, Experiment, Run, Section
from tutvae.experiments.keys import Count, Seed, Seeds, Variants
from tutvae.experiments.methods import most_probable, parameters
from tutvae.experiments.records import significant
from tutvae.models import LanguageModel, SemiSupervisedTextVAE, TextVAE, initialise_encoder
from tutvae.training.aggressive import fit_aggressively
from tutvae.training.checkpoints import load_weights, save_weights
from tutvae.training.engine import autocast, rank_and_world_size
from tutvae.training.loop import History, fit, is_watched

TextModules = LanguageModel | TextVAE | SemiSupervisedTextVAE
PROBED_FACTORS = ("category", "stars", "person", "tense")
# Tokens that are measured at a time, and how many logits of their samples are held at once.
EVALUATION_TOKENS = 2_048
EVALUATION_LOGITS = 2**26
CURVE_DIGITS = 5
REPORT_DIGITS = 7


class EvaluationSection(Section):
    """`[evaluation]`: what is measured after training.

    Posterior samples of the importance-weighted NLL, and those on the validation set where they
    are others; at most so many documents of a split, spread evenly over it; the precision of the
    heavy operations; with `factors`, what the code holds of the hidden factors of the reviews.
    """

    importance_samples: Count
    valid_importance_samples: Count | None = None
    max_examples: Count | None = None
    precision: Literal["fp32", "bf16"] = "fp32"
    factors: bool = False

    def samples_of(self, split: str) -> int:
        """Posterior samples on one of the splits."""
        on_valid = self.valid_importance_samples if split == "valid" else None
        return on_valid or self.importance_samples


class TextExperiment(Experiment):
    """An experiment file with `kind = "text"`. Chapter 7.

    With `seeds` or `[variants.NAME]` it is a sweep: every variant is run with every seed. A
    variant's table is merged into the rest of the file; where it names another `kind` or
    `schedule`, it replaces that table. With `[semi_supervised]` the model is one of texts and
    labels, which some of the documents have, and its accuracy is measured, too.
    """

    common: ClassVar[set[str]] = Experiment.common | {"seed", "seeds"}
    kind: Literal["text"]
    seed: Seed | None = None
    seeds: Seeds | None = None
    corpus: AnyCorpus
    encoder: sections.EncoderSection | None = None
    decoder: sections.AnyDecoder
    model: sections.ModelSection
    training: sections.TextTrainingSection
    semi_supervised: sections.SemiSupervisedSection | None = None
    initialisation: sections.InitialisationSection | None = None
    evaluation: EvaluationSection
    variants: Variants | None = None

    @model_validator(mode="after")
    def _sections_go_together(self) -> "TextExperiment":
        """A code needs an encoder; seeds are told once; factors are the reviews' alone."""
        if self.seed is not None and self.seeds is not None:
            raise ValueError("give either seed or seeds")
        if self.seeds is not None and len(set(self.seeds)) < len(self.seeds):
            raise ValueError("seeds must differ from each other")
        phases: dict[str, Any] = {"initialisation": self.initialisation}
        phases["training.aggressive"] = self.training.aggressive
        first = [name for name, phase in phases.items() if phase is not None]
        if self.model.latent_size > 0 and self.encoder is None:
            raise ValueError("a model with a code (latent_size above 0) needs an [encoder]")
        if self.model.latent_size == 0 and first:
            raise ValueError(f"{first[0]} is of an encoder, and latent_size 0 has none")
        if self.semi_supervised is not None and self.model.latent_size == 0:
            raise ValueError("semi_supervised goes with a code: latent_size must be above 0")
        if self.semi_supervised is not None and first:
            raise ValueError("semi_supervised goes with neither initialisation nor aggressive")
        if self.evaluation.factors and not isinstance(self.corpus, ReviewsSection):
            raise ValueError("evaluation.factors goes with the corpus 'reviews' alone")
        return self

    def alone(self, variant: str) -> list[Run]:
        """The runs of a variant, one a seed."""
        seeds = self.seeds or (self.seed or 0,)
        alone = (self.model_copy(update={"seeds": None, "seed": seed}) for seed in seeds)
        return [Run(variant, seed, x, {}) for seed, x in zip(seeds, alone, strict=True)]

    def load(self, tokenizer: Tokenizer | None = None) -> EncodedCorpus:
        """Load the corpus; see `CorpusSection.build`."""
        return self.corpus.build(tokenizer)

    def facts(self, data: EncodedCorpus) -> dict[str, Any]:
        """The hash of the corpus, and its entropy in nats where that is known."""
        facts: dict[str, Any] = {"data_sha256": data.sha256}
        if isinstance(self.corpus, ReviewsSection):
            entropy = self.corpus.grammar().entropy()
            facts["entropy"] = significant(entropy._asdict(), REPORT_DIGITS)
        return facts

    def build(self, tokenizer: Tokenizer, classes: int = 0) -> TextModules:
        """Make the model, from torch's present random state; with labels, of K classes."""
        Z = self.model.latent_size
        if self.encoder is None or Z == 0:
            return LanguageModel(self.decoder.build(tokenizer, Z))
        if self.semi_supervised is None:
            decoder = self.decoder.build(tokenizer, Z)
            return TextVAE(self.encoder.build(tokenizer, Z), decoder)
        if classes < 2:
            raise ValueError(f"there are labels of {classes} classes, and two are needed")
        return self.semi_supervised.build(self.encoder, self.decoder, tokenizer, Z, classes)

    def train(self, data: EncodedCorpus, context: Context) -> dict[str, Any]:
        """Build, fit and evaluate the model, or go on where an interrupted run stopped.

        Source: Yang et al. (2017), section 4. Chapter 7.
        """
        torch.manual_seed(self.seed or 0)
        model = self.build(data.tokenizer, len(data.texts.train.label_names or ()))
        outcome: dict[str, Any] = {}
        if isinstance(model, TextVAE) and self.initialisation is not None:
            outcome["initialisation_seconds"] = round(self._initialise(model, data, context), 1)
        if isinstance(model, TextVAE) and self.training.aggressive is not None:
            outcome["aggressive"] = self._first_phase(model, data, context)
        steps_before = outcome.get("aggressive", {}).get("decoder_steps", 0)
        train = self.batches(data.train)
        options = self.training.build(model, train, steps_before=steps_before)
        history = fit(model, train, valid=in_order(data.valid), **options, **context.of_fit())
        outcome |= _about_training(model, history, data)
        if self.training.weights == "best":
            load_weights(model, context.folder.best)
            outcome["best_epoch"] = history.best["epoch"]
        if rank_and_world_size()[0] == 0:
            data.tokenizer.save(context.folder.tokenizer)
            names = data.texts.train.label_names if self.semi_supervised else None
            about: dict[str, Any] = {"label_names": names and list(names)}
            save_weights(model, context.folder.weights, configuration=context.identity, **about)
        splits = {"valid": data.valid, "test": data.test}
        reports = {x: self.measure(model, data, x, progress=context.progress) for x in splits}
        tables = {split: report.to_dict() for split, report in reports.items()}
        outcome["reports"] = significant(tables, REPORT_DIGITS)
        if isinstance(model, SemiSupervisedTextVAE):
            outcome["accuracy"] = {name: _accuracy(model, x) for name, x in splits.items()}
        if isinstance(model, TextVAE) and self.evaluation.factors:
            outcome["probes"] = _probe_factors(model, data)
        return outcome

    def batches(self, texts: EncodedTexts) -> Batches:
        """Make this process's share of the training batches."""
        if self.semi_supervised is None:
            return self.training.batches(texts, self.seed or 0)
        labelled = texts.part(np.flatnonzero(labels_of(texts) >= 0))
        return self.semi_supervised.batches(labelled, texts, self.training, self.seed or 0)

    def measure(
        self,
        model: TextModules,
        data: EncodedCorpus,
        split: str,
        *,
        importance_samples: int | None = None,
        progress: bool | None = None,
    ) -> Report:
        """Measure a model on a split, as `[evaluation]` says.

        The model may be on any device, and the split is "valid" or "test"; S is that of the
        experiment by default. A bar is shown by default only where somebody watches.

        Source: Burda et al. (2016), section 5. Chapter 7.
        """
        batches = list(_spread_batches(getattr(data, split), self.evaluation.max_examples))
        hidden = not is_watched(progress)
        bar = tqdm(batches, "measuring", unit="batch", leave=False, disable=hidden)
        S = importance_samples or self.evaluation.samples_of(split)
        at_once = max(1, EVALUATION_LOGITS // (EVALUATION_TOKENS * model.decoder.vocabulary_size))
        device, in_half = next(model.parameters()).device, self.evaluation.precision == "bf16"
        with autocast(device, torch.bfloat16) if in_half else nullcontext():
            return evaluate(model, bar, importance_samples=S, chunk_size=at_once)

    def _initialise(self, model: TextVAE, data: EncodedCorpus, context: Context) -> float:
        """Start the encoder from a language model of the same documents; tell the seconds."""
        assert self.encoder is not None
        assert self.initialisation is not None
        decoder = sections.DecoderSection.checked(self.encoder.language_model(self.decoder))
        language_model = LanguageModel(decoder.build(data.tokenizer, latent_size=0))
        train = self.training.batches(data.train, self.seed or 0)
        options = self.training.build(language_model, train, epochs=self.initialisation.epochs)
        options |= context.of_fit(context.folder.initialisation)
        history = fit(language_model, train, valid=in_order(data.valid), **options)
        initialise_encoder(model, language_model)
        return history.seconds

    def _first_phase(self, model: TextVAE, data: EncodedCorpus, context: Context) -> dict[str, Any]:
        """Train aggressively, unless that is done; return what it achieved."""
        assert self.training.aggressive is not None
        train = self.training.batches(data.train, self.seed or 0)
        rounds = fit_aggressively(
            model,
            train,
            valid=in_order(data.valid),
            encoder_optimizer=self.training.build_optimizer(model.encoder.parameters()),
            decoder_optimizer=self.training.build_optimizer(model.decoder.parameters()),
            kl_weight=self.training.build_kl_weight(train),
            run_folder=context.folder.path,
            configuration=context.identity,
            **self.training.model_dump(include={"max_grad_norm", "precision"}),
            **self.training.aggressive.model_dump(),
        )
        steps = ("decoder_steps", "encoder_steps")
        return {
            "seconds": round(sum(done.seconds for done in rounds), 1),
            **{key: sum(getattr(done, key) for done in rounds) for key in steps},
            "mutual_information": significant([x.mutual_information for x in rounds], CURVE_DIGITS),
        }


def _about_training(model: TextModules, history: History, data: EncodedCorpus) -> dict[str, Any]:
    tokens = int(data.train.lengths.sum()) - len(data.train)
    about: dict[str, Any] = {
        "train_seconds": round(history.seconds, 1),
        "tokens_per_second": round(tokens * len(history) / history.seconds),
        "parameters": parameters(model),
    }
    if model.decoder.receptive_field is not None:
        about["receptive_field"] = model.decoder.receptive_field
    curves = {column: history[column] for column in history.records[0]}
    return about | {"curves": significant(curves, CURVE_DIGITS)}


def _accuracy(model: SemiSupervisedTextVAE, texts: EncodedTexts) -> float | None:
    """The share of the documents with a label whose label is the most probable one."""
    known = labels_of(texts) >= 0
    right = most_probable(model, texts) == labels_of(texts)
    return float(right[known].mean()) if known.any() else None


def in_order(texts: EncodedTexts) -> Batches:
    """What is measured after every epoch."""
    return Batches(texts, token_budget=EVALUATION_TOKENS, shuffle=False)


def _spread_batches(texts: EncodedTexts, count: int | None = None) -> Iterator[TextBatch]:
    """Yield at most `count` documents, spread evenly over a split, which may come sorted."""
    used = min(len(texts), count or len(texts))
    positions = np.arange(used) * len(texts) // used
    for (rows,) in draw_batches(texts.lengths[positions], EVALUATION_TOKENS, by_tokens=True):
        yield texts.batch(positions[rows])


def _probe_factors(model: TextVAE, data: EncodedCorpus) -> dict[str, dict[str, float]]:
    """What sampled codes of the test reviews tell of their hidden factors."""
    splits = data.train, data.test
    train, test = (sample_codes(encode(model, _spread_batches(split))) for split in splits)
    known: Any = data.texts  # the reviews: `_sections_go_together` lets no others come here
    found = {}
    for factor in PROBED_FACTORS:
        result = probe(train, known.train.factors[factor], test, known.test.factors[factor])
        found[factor] = significant(asdict(result), CURVE_DIGITS)
    return found
