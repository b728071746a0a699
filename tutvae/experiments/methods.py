"""The classifiers of recorded runs: what each method trains, and on what."""

import time
from collections.abc import Callable
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from tutvae.data.batches.resumable import endless
from tutvae.data.batches.text import Batches, EncodedTexts
from tutvae.evaluation.classification import BATCH_SIZE, bag_of_words, code_classifier
from tutvae.evaluation.in_order import rows_of
from tutvae.evaluation.report import encode
from tutvae.experiments.data import EncodedCorpus, labels_of
from tutvae.experiments.experiment import Context
from tutvae.models.bag_decoder import BagDecoder
from tutvae.models.semi_supervised import SemiSupervisedTextVAE
from tutvae.models.text_classifier import TextClassifier
from tutvae.models.text_vae import initialise_encoder
from tutvae.training.checkpoints import load_weights
from tutvae.training.loop import fit
from tutvae.training.step import adam

if TYPE_CHECKING:
    from tutvae.experiments.classification import ClassificationExperiment

# From documents to their classes, `[N]`; and with that, what a record says of the training.
Classify = Callable[[EncodedTexts], np.ndarray]
Fitted = tuple[Classify, dict[str, Any]]


class Setting(NamedTuple):
    """What a method is given: the description of a single run, the data, and its context."""

    experiment: "ClassificationExperiment"
    data: EncodedCorpus
    labelled: EncodedTexts
    classes: int
    context: Context


def _bag_of_words(setting: Setting) -> Fitted:
    def texts(split: EncodedTexts) -> list[str]:
        batch = split.batch()
        rows = zip(batch.tokens.tolist(), batch.lengths.tolist(), strict=True)
        return [setting.data.tokenizer.decode(tokens[:length]) for tokens, length in rows]

    return _regression(bag_of_words(), texts, setting.labelled)


def _lstm(setting: Setting) -> Fitted:
    experiment, section = setting.experiment, setting.experiment.classifier
    assert section is not None
    encoder = experiment.encoder.build(setting.data.tokenizer, experiment.model.latent_size)
    model = TextClassifier(encoder, setting.classes, dropout=section.dropout)
    _start_encoder(model, setting)
    batches = Batches(setting.labelled, batch_size=section.batch_size, seed=experiment.seeds[0])
    history = fit(
        model,
        islice(endless(batches), section.steps),
        epochs=1,
        optimizer=adam(model.parameters(), section.learning_rate),
        max_grad_norm=experiment.training.max_grad_norm,
        **setting.context.of_fit(),
    )
    facts = {"parameters": parameters(model), "seconds": history.seconds}
    return partial(most_probable, model), facts


def _codes(setting: Setting) -> Fitted:
    vae = _trained(setting, "vae")

    def means(split: EncodedTexts) -> np.ndarray:
        return encode(vae, _in_order(split)).loc.numpy()

    # The documents are encoded already, so only the last step of the pipeline is needed.
    classifier = code_classifier(vae, setting.data.tokenizer)[-1:]
    return _regression(classifier, means, setting.labelled)


def _regression(
    pipeline: Any, features: Callable[[EncodedTexts], Any], labelled: EncodedTexts
) -> Fitted:
    """Fit a pipeline that ends in logistic regression to features of the labelled documents."""
    start = time.perf_counter()
    pipeline.fit(features(labelled), labels_of(labelled))
    seconds = time.perf_counter() - start
    size = pipeline[-1].coef_.size + pipeline[-1].intercept_.size
    facts = {"parameters": size, "seconds": seconds}
    return lambda split: pipeline.predict(features(split)), facts


def _semi_supervised(setting: Setting) -> Fitted:
    experiment, tokenizer = setting.experiment, setting.data.tokenizer
    section, training = experiment.semi_supervised, experiment.training
    assert section is not None
    sizes = experiment.model.latent_size, setting.classes
    model = section.build(experiment.encoder, experiment.decoder, tokenizer, *sizes)
    if isinstance(model.decoder, BagDecoder):
        model.decoder.start_at_frequencies(setting.data.train)
    _start_encoder(model, setting)
    train = section.batches(setting.labelled, setting.data.train, training, experiment.seeds[0])
    history = fit(model, train, **training.build(model, train), **setting.context.of_fit())
    return partial(most_probable, model), {
        "parameters": parameters(model),
        "epochs": len(history),
        "reconstruction": history["train_reconstruction"][-1],
        "kl": history["train_kl"][-1],
        "seconds": history.seconds,
    }


METHODS: dict[str, Callable[[Setting], Fitted]]
METHODS = {"bag_of_words": _bag_of_words, "codes": _codes, "semi_supervised": _semi_supervised}
METHODS |= dict.fromkeys(["lstm", "lstm_init"], _lstm)


def _start_encoder(model: TextClassifier | SemiSupervisedTextVAE, setting: Setting) -> None:
    """Copy the language model's weights into the encoder, where a run uses one."""
    if setting.experiment.initialisation is not None:
        initialise_encoder(model, _trained(setting, "language_model"))


def _trained(setting: Setting, name: str) -> Any:
    """Load a model without labels that was trained before."""
    model = setting.experiment.starts()[name].build(setting.data.tokenizer)
    load_weights(model, setting.context.starts[name].weights)
    return model


def most_probable(model: TextClassifier | SemiSupervisedTextVAE, split: EncodedTexts) -> np.ndarray:
    """The most probable class of each document, `[N]`."""
    probabilities = rows_of(model, _in_order(split), lambda x: model.label_posterior(x).probs)
    return probabilities.argmax(1).numpy()


def _in_order(split: EncodedTexts) -> Batches:
    return Batches(split, batch_size=BATCH_SIZE, shuffle=False)


def parameters(model: torch.nn.Module) -> int:
    """How many numbers a model has to learn."""
    return sum(parameter.numel() for parameter in model.parameters())
