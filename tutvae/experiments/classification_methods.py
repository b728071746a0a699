"""The classifiers of recorded runs: what each method trains, and on what."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.torch import load_file

from tutvae.data.batches.labelled import MixedBatches
from tutvae.data.batches.resumable import endless
from tutvae.data.batches.text import Batches, EncodedTexts
from tutvae.data.tokenization import Tokenizer
from tutvae.evaluation.classification import bag_of_words, code_classifier, rows_of
from tutvae.evaluation.report import encode
from tutvae.experiments.classification_sections import (
    ClassificationExperiment,
    ClassificationRun,
    shared_runs,
)
from tutvae.experiments.fitting import fit_as_described
from tutvae.experiments.text_corpora import EncodedCorpus
from tutvae.experiments.text_models import build_decoder, build_encoder, build_model
from tutvae.models.semi_supervised import SemiSupervisedTextVAE
from tutvae.models.text_classifier import TextClassifier
from tutvae.models.text_vae import LanguageModel, TextVAE, initialise_encoder
from tutvae.training.loop import fit

READ_AT_A_TIME = 256

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


def _bag_of_words(setting: Setting) -> tuple[Classify, dict[str, Any]]:
    """Logistic regression on the words that the other methods see."""
    tokenizer = setting.corpus.tokenizer
    labelled = setting.labelled
    classifier = bag_of_words().fit(_texts(labelled, tokenizer), labels_of(labelled))
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
        islice(endless(batches), section.steps),
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
    classifier.fit(means(setting.labelled), labels_of(setting.labelled))
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


def labels_of(split: EncodedTexts) -> np.ndarray:
    """The classes of the documents, `[N]`."""
    if split.labels is None:
        raise ValueError("the corpus has no labels: there is nothing to classify")
    return split.labels.numpy()


def documents_of(split: EncodedTexts) -> list[list[int]]:
    """The token ids of the documents, without padding."""
    batch = split.batch()
    rows = zip(batch.tokens.tolist(), batch.lengths.tolist(), strict=True)
    return [tokens[:length] for tokens, length in rows]


def _texts(split: EncodedTexts, tokenizer: Tokenizer) -> list[str]:
    """The documents as the models see them, as text."""
    return [tokenizer.decode(document) for document in documents_of(split)]


def _parameters(model: torch.nn.Module) -> int:
    """How many numbers a model has to learn."""
    return sum(parameter.numel() for parameter in model.parameters())


def _size(classifier: Any) -> dict[str, Any]:
    """How many numbers logistic regression has learnt."""
    return {"parameters": classifier.coef_.size + classifier.intercept_.size}
