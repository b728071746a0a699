"""Classifiers of text, q(y|x), on the features of an encoder."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Normal

from tutvae.bounds import Elbo
from tutvae.data.batches.text_batch import TextBatch
from tutvae.models.protocols import Encoder
from tutvae.models.text_vae import check_tokens, standard_normal


class LabelHead(nn.Module):
    """The classifier q(y|x) on an encoder's features: dropout and a linear layer.

    The features have width H, the `feature_size`, and there are K classes; none is a ValueError.
    `dropout` is, in training, the share of zeroed features.

    Source: Yang et al. (2017), section 3.3. Chapter 8.
    """

    def __init__(self, feature_size: int, classes: int, dropout: float = 0.0) -> None:
        super().__init__()
        if classes < 1:
            raise ValueError(f"classes must be at least 1, not {classes}")
        self.classes = classes
        self.dropout = nn.Dropout(dropout)
        self.logits = nn.Linear(feature_size, classes)

    def forward(self, features: Tensor) -> Categorical:
        """Map features `[B, H]` to a Categorical of shape `[B]` over K classes."""
        logits = self.logits(self.dropout(features))
        # In the weights' own precision: under autocast probabilities would be rounded to bf16.
        logits = logits.to(self.logits.weight.dtype)
        return Categorical(logits=logits, validate_args=False)


def check_labels(labels: Tensor | Iterable[int], classes: int, *, optional: bool = False) -> None:
    """Raise ValueError for a label outside 0 ... K - 1; where `optional`, -1 is none at all.

    Of a tensor the lowest and the largest are looked at, for which a GPU is waited for once.
    """
    if isinstance(labels, Tensor):
        labels = torch.stack(labels.aminmax()).tolist() if labels.numel() > 0 else []
    for label in labels:
        if not (-1 if optional else 0) <= label < classes:
            allowed = f"the model's classes are 0 ... {classes - 1}"
            none = ", and -1 means no label" if optional else ""
            raise ValueError(f"label {label} is not a class: {allowed}{none}")


class TextClassifier(nn.Module):
    """A classifier q(y|x) without a decoder: what the labels alone can teach.

    To `fit` it is a latent-variable model with Z = 0 whose reconstruction is -log q(y|x). Its
    architecture is that of `SemiSupervisedTextVAE`'s classifier; the layers of the encoder that
    make q(z|x) are not used. There are K `classes`; `dropout` is, in training, the share of zeroed
    features. No class, or, in the methods, a token outside the vocabulary, is a ValueError.

    >>> model = tutvae.TextClassifier(tutvae.LSTMEncoder(100, 8, 16, 2), classes=5)
    >>> model.label_posterior(tutvae.EncodedTexts([[1, 7, 2]]).batch()).probs.shape
    torch.Size([1, 5])

    Source: chapter 8.
    """

    def __init__(self, encoder: Encoder, classes: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.encoder = encoder
        self.label_head = LabelHead(encoder.hidden_size, classes, dropout)
        self.classes = classes
        self.latent_size = 0

    def label_posterior(self, batch: TextBatch) -> Categorical:
        """Classify B documents: q(y|x), a Categorical of shape `[B]` over K classes."""
        check_tokens(batch, self.encoder.vocabulary_size)
        return self.label_head(self.encoder.features(batch))

    def prior(self) -> Normal:
        """The prior over no dimensions at all: a Normal of shape `[0]`."""
        return standard_normal(self, 0)

    def posterior(self, batch: TextBatch) -> Normal:
        """The posterior over no dimensions of B documents: a Normal of shape `[B, 0]`."""
        return standard_normal(self, len(batch), 0)

    def log_likelihood(self, batch: TextBatch, z: Tensor | None = None) -> Tensor:
        """Score the labels of B documents: log q(y|x), `[B]` nats; `[..., B]` for z `[..., B, 0]`.

        A document without a label, or with one that is not a class, is a ValueError.
        """
        if batch.labels is None or batch.label_extremes[0] == -1:
            raise ValueError("a classifier is trained on labels: some documents have none")
        check_labels(batch.label_extremes, self.classes)
        scores = self.label_posterior(batch).log_prob(batch.labels)
        return scores if z is None else scores.expand(z.shape[:-1])

    def forward(self, batch: TextBatch) -> Elbo:
        """Return -log q(y|x) of B labelled documents as the reconstruction of a bound."""
        cost = -self.log_likelihood(batch)
        return Elbo(cost, torch.zeros_like(cost), cost.new_zeros(len(cost), 0))
