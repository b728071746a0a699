"""The classifiers of recorded runs: what each method trains, and on what."""

import time
from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import numpy as np
import torch

from tutvae.data.batches.resumable import endless
from tutvae.data.batches.text import Batches, EncodedTexts
from tutvae.evaluation.classification import BATCH_SIZE
from tutvae.evaluation.in_order import rows_of
from tutvae.experiments.data import EncodedCorpus, labels_of
from tutvae.experiments.experiment import Context
from tutvae.models.bag_decoder import BagDecoder
from tutvae.models.semi_supervised import SemiSupervisedTextVAE
from tutvae.models.text_classifier import TextClassifier
from tutvae.training.loop import History, fit
from tutvae.training.step import adam

if TYPE_CHECKING:
    from tutvae.experiments.classification import ClassificationExperiment

Rival = Literal["tfidf", "naive_bayes", "naive_bayes_em", "self_training", "frozen_encoder"]
# From the name of a split to the classes of its documents, `[N]`; and with that, what a record says
# of the training.
Classify = Callable[[str], np.ndarray]
Fitted = tuple[Classify, dict[str, Any]]


class Setting(NamedTuple):
    """What a method is given: the description of a single run, the data, and its context."""

    experiment: "ClassificationExperiment"
    data: EncodedCorpus
    chosen: np.ndarray  # the training documents that keep their label, `[count]`
    classes: int
    context: Context

    @property
    def labelled(self) -> EncodedTexts:
        """The documents that keep their label."""
        return self.data.train.part(self.chosen)

    def words(self, split: str) -> list[str]:
        """The documents of a split as the models see them."""
        batch = getattr(self.data, split).batch()
        rows = zip(batch.tokens.tolist(), batch.lengths.tolist(), strict=True)
        return [self.data.tokenizer.decode(tokens[:length]) for tokens, length in rows]

    def raw(self, split: str) -> list[str]:
        """The documents of a split as they are written."""
        return getattr(self.data.texts, split).texts


def _rival(setting: Setting) -> Fitted:
    """Fit a rival to all training documents, most labels hidden; it chooses by the others."""
    from tutvae.evaluation import rivals  # scikit-learn takes a second to load

    (method,) = setting.experiment.methods
    documents = setting.raw if method == "frozen_encoder" else setting.words
    labels = np.full(len(setting.data.train), rivals.NO_LABEL)
    labels[setting.chosen] = labels_of(setting.labelled)
    start = time.perf_counter()
    classifier = getattr(rivals, method)().fit(documents("train"), labels)
    facts = {"chosen": classifier[-1].best_params_, "seconds": time.perf_counter() - start}
    return lambda split: classifier.predict(documents(split)), facts


def _labels_only(setting: Setting) -> Fitted:
    experiment, section = setting.experiment, setting.experiment.classifier
    assert section is not None
    encoder = experiment.encoder.build(setting.data.tokenizer, experiment.model.latent_size)
    model = TextClassifier(encoder, setting.classes, dropout=section.dropout)
    batches = Batches(setting.labelled, batch_size=section.batch_size, seed=experiment.seeds[0])
    history = fit(
        model,
        islice(endless(batches), section.steps),
        epochs=1,
        optimizer=adam(model.parameters(), section.learning_rate),
        max_grad_norm=experiment.training.max_grad_norm,
        **setting.context.of_fit(),
    )
    return _trained(model, setting, history)


def _semi_supervised(setting: Setting) -> Fitted:
    experiment, tokenizer = setting.experiment, setting.data.tokenizer
    section, training = experiment.semi_supervised, experiment.training
    assert section is not None
    sizes = experiment.model.latent_size, setting.classes
    model = section.build(experiment.encoder, experiment.decoder, tokenizer, *sizes)
    if isinstance(model.decoder, BagDecoder):
        model.decoder.start_at_frequencies(setting.data.train)
    train = section.batches(setting.labelled, setting.data.train, training, experiment.seeds[0])
    history = fit(model, train, **training.build(model, train), **setting.context.of_fit())
    classify, facts = _trained(model, setting, history)
    return classify, facts | {
        "epochs": len(history),
        "reconstruction": history["train_reconstruction"][-1],
        "kl": history["train_kl"][-1],
    }


def _trained(
    model: TextClassifier | SemiSupervisedTextVAE, setting: Setting, history: History
) -> Fitted:
    facts = {"parameters": parameters(model), "seconds": history.seconds}
    return lambda split: most_probable(model, getattr(setting.data, split)), facts


METHODS: dict[str, Callable[[Setting], Fitted]]
METHODS = {"labels_only": _labels_only, "semi_supervised": _semi_supervised}
METHODS |= dict.fromkeys(get_args(Rival), _rival)


def most_probable(model: TextClassifier | SemiSupervisedTextVAE, split: EncodedTexts) -> np.ndarray:
    """The most probable class of each document, `[N]`."""
    batches = Batches(split, batch_size=BATCH_SIZE, shuffle=False)
    return rows_of(model, batches, lambda x: model.label_posterior(x).probs).argmax(1).numpy()


def parameters(model: torch.nn.Module) -> int:
    """How many numbers a model has to learn."""
    return sum(parameter.numel() for parameter in model.parameters())
