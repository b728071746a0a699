"""Telling a document's label: models of the package on raw texts."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tutvae.data.batches.text import Batches
from tutvae.data.tokenization import Tokenizer
from tutvae.evaluation.in_order import rows_of
from tutvae.models.semi_supervised import SemiSupervisedTextVAE
from tutvae.models.text_classifier import TextClassifier, check_labels
from tutvae.models.text_vae import check_tokenizer

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


def as_labels(labels: Sequence[int] | np.ndarray, N: int, classes: int) -> Tensor:
    """Return labels `[N]` as a tensor; ValueError unless they are N integers in 0 ... K - 1."""
    values = np.asarray(labels)
    if values.shape != (N,):
        raise ValueError(f"{N} documents need {N} labels, not an array {list(values.shape)}")
    if N and not np.issubdtype(values.dtype, np.integer):
        raise ValueError(f"labels are integers in 0 ... {classes - 1}, not {values[0]!r}")
    checked = torch.from_numpy(values.astype(np.int64))
    check_labels(checked, classes)
    return checked
