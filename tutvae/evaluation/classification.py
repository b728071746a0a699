"""Telling a document's label: models of the package on raw texts, and what they must beat.

All have scikit-learn's `predict_proba`, `predict` and `score`; the two baselines are pipelines of
scikit-learn, which are fitted with `fit(texts, labels)`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from tutvae.data.batches.text import Batches
from tutvae.data.tokenization import Tokenizer
from tutvae.evaluation.in_order import rows_of
from tutvae.evaluation.report import encode
from tutvae.models.semi_supervised import SemiSupervisedTextVAE
from tutvae.models.text_classifier import TextClassifier, check_labels
from tutvae.models.text_vae import TextVAE, check_tokenizer

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

BATCH_SIZE = 256


@dataclass(eq=False, repr=False)
class TextPredictor:
    """A trained classifier for raw texts.

    Args:
        model: a `TextClassifier` or a `SemiSupervisedTextVAE`, on any device.
        tokenizer: the one it was trained with.
        batch_size: documents that are read at a time; changes the speed, not the result.
        max_length: longer documents are cut to so many tokens, as in training; None cuts none.

    >>> tokenizer = tutvae.Tokenizer.train(["so good", "so bad"])
    >>> model = tutvae.TextClassifier(tutvae.LSTMEncoder(len(tokenizer), 8, 16, 2), classes=5)
    >>> tutvae.TextPredictor(model, tokenizer).predict_proba(["good", "bad"]).shape
    (2, 5)

    Source: q(y|x) of Kingma et al. (2014), section 2. Chapter 8.
    """

    model: TextClassifier | SemiSupervisedTextVAE
    tokenizer: Tokenizer
    batch_size: int = BATCH_SIZE
    max_length: int | None = None

    def predict_proba(self, texts: Sequence[str]) -> np.ndarray:
        """Return q(y|x) of N texts, `[N, K]`.

        FloatingPointError if it is NaN; ValueError without texts, or for a foreign tokenizer.
        """
        check_tokenizer(self.tokenizer, self.model.encoder.vocabulary_size)
        options = {"batch_size": self.batch_size, "max_length": self.max_length}
        batches = Batches.from_texts(texts, self.tokenizer, shuffle=False, **options)
        q = rows_of(self.model, batches, lambda x: self.model.label_posterior(x).probs)
        if q.isnan().any():
            raise FloatingPointError("q(y|x) is NaN: are there NaN in the model's weights?")
        return q.float().numpy()

    def predict(self, texts: Sequence[str]) -> np.ndarray:
        """Return the most probable label of N texts, integers `[N]`."""
        return self.predict_proba(texts).argmax(1)

    def score(self, texts: Sequence[str], labels: Sequence[int] | np.ndarray) -> float:
        """Return the accuracy: the share of N texts whose label `[N]` is the most probable one.

        ValueError if a label lies outside 0 ... K - 1, or there is not one for each text.
        """
        probabilities = self.predict_proba(texts)
        expected = as_labels(labels, *probabilities.shape).numpy()
        return float((probabilities.argmax(1) == expected).mean())


def bag_of_words() -> "Pipeline":
    """Build a classifier that counts words and never minds their order: the baseline to beat.

    It is logistic regression on counts of words, which stand between white space. Chapter 8.

    >>> classifier = tutvae.bag_of_words().fit(["so good", "so bad"], [1, 0])
    >>> classifier.predict(["good", "bad bad"]).tolist()
    [1, 0]
    """
    from sklearn.feature_extraction.text import CountVectorizer

    return _regression_on(CountVectorizer(lowercase=False, token_pattern=r"\S+"))


def code_classifier(
    model: TextVAE, tokenizer: Tokenizer, batch_size: int = BATCH_SIZE
) -> "Pipeline":
    """Build a classifier on the codes of a VAE that has seen no label: the model M1.

    It is multinomial logistic regression on the posterior means, not standardised: that would
    blow up the dimensions that hold nothing.

    Args:
        model: a trained `TextVAE`, on any device; its weights stay as they are.
        tokenizer: the one it was trained with.
        batch_size: documents that are encoded at a time; changes the speed, not the result.

    >>> trained = tutvae.load("sentences")
    >>> classifier = tutvae.code_classifier(trained.model_, trained.tokenizer_)
    >>> texts = ["Are you tired?", "He is here.", "Is it late?", "I am late."]
    >>> classifier.fit(texts, [1, 0, 1, 0]).predict(["Is he tired?"]).tolist()
    [1]

    Source: Kingma et al. (2014), section 2, the latent-feature discriminative model. Chapter 8.
    """
    from sklearn.preprocessing import FunctionTransformer

    check_tokenizer(tokenizer, model.decoder.vocabulary_size)

    def means(texts: Sequence[str]) -> np.ndarray:
        batches = Batches.from_texts(texts, tokenizer, batch_size=batch_size, shuffle=False)
        return encode(model, batches).loc.numpy()

    return _regression_on(FunctionTransformer(means))


def _regression_on(features: Any) -> "Pipeline":
    from sklearn import linear_model, pipeline

    return pipeline.make_pipeline(features, linear_model.LogisticRegression(max_iter=1000))


def as_labels(labels: Sequence[int] | np.ndarray, documents: int, classes: int) -> Tensor:
    """Return labels `[N]` as a tensor; ValueError unless they are N integers in 0 ... K - 1."""
    values = np.asarray(labels)
    if values.shape != (documents,):
        raise ValueError(
            f"{documents} documents need {documents} labels, not an array {list(values.shape)}"
        )
    if documents and not np.issubdtype(values.dtype, np.integer):
        raise ValueError(f"labels are integers in 0 ... {classes - 1}, not {values[0]!r}")
    checked = torch.from_numpy(values.astype(np.int64))
    check_labels(checked, classes)
    return checked
