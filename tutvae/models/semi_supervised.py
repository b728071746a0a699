"""Labels as a second latent: the model p(x|y, z) p(y) p(z), for a few labels or for none."""

from collections.abc import Callable
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Categorical, Normal, kl_divergence

from tutvae.bounds import LabelElbo
from tutvae.data.batches.text_batch import TextBatch
from tutvae.models.protocols import Decoder, Encoder
from tutvae.models.text_classifier import LabelHead, check_labels
from tutvae.models.text_vae import check_tokens, document_log_likelihood, standard_normal

Marginal = Literal["enumerate", "gumbel"]


class SemiSupervisedTextVAE(nn.Module):
    """A latent-variable model of text with two latents: a label y and a code z.

    The label is known for some documents, and then scores p(x, y); for the others it is a latent
    like z, and they score p(x). One encoder reads the document for both posteriors, q(y|x) and
    q(z|x, y): the mean of z, and the logarithm of its standard deviation, are those of the
    encoder, each moved by a vector of its own for every class. The decoder's code is `[z; y]`.

    To `evaluate`, `score` and `encode` it is a model of z alone, with the label summed out: log
    p(x) is estimated by log (1/S) sum_s sum_y p(y) p(x|y, z_s) p(z_s) / q(z_s|x, y'), where the
    samples z_s are drawn under y', the most probable label by q(y|x).

    Args:
        encoder: for example an `LSTMEncoder`.
        decoder: any decoder with `latent_size` Z + K and the same `vocabulary_size`.
        classes: how many there are, K.
        classification_weight: factor of -log q(y|x) of the labelled documents, often called
            alpha. The bound of a document with its label says nothing about q(y|x).
        marginal: how an unlabelled document's bound is taken over y: "enumerate", the exact mean
            over the K classes, each decoded; or "gumbel", one soft label drawn from the
            Gumbel-softmax distribution.
        temperature: of the soft labels, or a function to it from the step that `at_step` says.
        label_kl_floor: nats of the label's KL that come at no cost, often called gamma: a
            smaller mean over the batch counts as this much, so that y stays in use where no
            label teaches it. The chapter on clusters tells the ways in which it fails.
        labelled_weight: factor of the labelled documents' mean bound: their number by that of the
            others weighs each document alike, as in the sums of Kingma et al.
        label_prior: p(y), `[K]`; uniform by default.
        dropout: in training, the share of zeroed features that q(y|x) sees.

    ValueError if sizes do not go together, `label_prior` is not a distribution over the classes,
    `marginal` is unknown, or the temperature is not positive; in the methods, if a token is outside
    the vocabulary, or a label is no class.

    >>> encoder, decoder = tutvae.LSTMEncoder(100, 8, 16, 2), tutvae.LSTMDecoder(100, 8, 16, 2 + 5)
    >>> model = tutvae.SemiSupervisedTextVAE(encoder, decoder, classes=5)
    >>> model.label_posterior(tutvae.EncodedTexts([[1, 7, 2]]).batch()).probs.shape
    torch.Size([1, 5])

    Source: Kingma et al. (2014), equations 6 to 9; Yang et al. (2017), sections 3.2 and 3.3.
    Chapter 8.
    """

    step: Tensor
    label_probabilities: Tensor

    def __init__(
        self,
        encoder: Encoder,
        decoder: Decoder,
        classes: int,
        *,
        classification_weight: float = 1.0,
        marginal: Marginal = "enumerate",
        temperature: float | Callable[[int], float] = 1.0,
        label_kl_floor: float = 0.0,
        labelled_weight: float = 1.0,
        label_prior: Tensor | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if marginal not in get_args(Marginal):
            raise ValueError(f"marginal must be one of {get_args(Marginal)}, not {marginal!r}")
        self.label_head = LabelHead(encoder.hidden_size, classes, dropout)
        _check_sizes(encoder, decoder, classes)
        self.encoder = encoder
        self.decoder = decoder
        self.classes = classes
        self.latent_size = encoder.latent_size
        self.mean_shift = nn.Linear(classes, self.latent_size, bias=False)
        self.log_scale_shift = nn.Linear(classes, self.latent_size, bias=False)
        self.classification_weight = classification_weight
        self.marginal = marginal
        self.temperature = temperature
        self.label_kl_floor = label_kl_floor
        self.labelled_weight = labelled_weight
        self.register_buffer("label_probabilities", _distribution(label_prior, classes))
        self.register_buffer("step", torch.tensor(0))
        self.at_step(0)
        self.register_load_state_dict_post_hook(_remember_step)
        self._present_temperature()

    def prior(self) -> Normal:
        """The prior p(z): a standard Normal of shape `[Z]`."""
        return standard_normal(self, self.latent_size)

    def label_prior(self) -> Categorical:
        """The prior p(y): a Categorical over K classes, of shape `[]`."""
        return Categorical(logits=self.label_probabilities.log(), validate_args=False)

    def label_posterior(self, batch: TextBatch) -> Categorical:
        """Classify B documents: q(y|x), a Categorical of shape `[B]` over K classes."""
        return self.label_head(self._features(batch))

    def posterior(self, batch: TextBatch, labels: Tensor | None = None) -> Normal:
        """Encode B documents with labels `[B]` to q(z|x, y), a Normal of shape `[B, Z]`.

        Without labels, each document is encoded with its most probable one by q(y|x); those of
        the batch are not looked at. Labels that are not one a document are a ValueError.
        """
        features = self._features(batch)
        if labels is None:
            labels = self.label_head(features).logits.argmax(-1)
        if labels.shape != (len(batch),):
            raise ValueError(f"labels must be [B] = [{len(batch)}], not {list(labels.shape)}")
        check_labels(labels, self.classes)
        return self._moved(self.encoder.posterior(features), self._one_hot(labels))

    def code(self, z: Tensor, labels: Tensor) -> Tensor:
        """Join codes `[..., Z]` and labels `[...]` to what the decoder takes, `[..., Z + K]`."""
        check_labels(labels, self.classes)
        return torch.cat([z, self._one_hot(labels)], dim=-1)

    def log_likelihood(self, batch: TextBatch, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Score B documents at codes `[..., B, Z]`, `[..., B]` nats per document.

        That is log p(x|y, z) at labels `[B]` or `[..., B]`, or log p(x|z) = log sum_y p(y)
        p(x|y, z) without; the batch's own labels are not looked at. Codes or labels of another
        shape are a ValueError.
        """
        if labels is None:
            classes = torch.arange(self.classes, device=z.device)[:, None].expand(-1, len(batch))
            scores = [self.log_likelihood(batch, z, label) for label in classes]
            return (torch.stack(scores, -1) + self.label_prior().logits).logsumexp(-1)
        check_tokens(batch, self.decoder.vocabulary_size)
        B, Z = len(batch), self.latent_size
        if z.shape[-2:] != (B, Z) or labels.shape[-1:] != (B,):
            raise ValueError(
                f"codes must be [..., B, Z] = [..., {B}, {Z}] and labels [..., B], "
                f"not {list(z.shape)} and {list(labels.shape)}"
            )
        code = self.code(z, labels.expand(z.shape[:-1])).flatten(0, -2)
        rows = torch.arange(len(code), device=z.device) % B
        repeated = TextBatch(batch.tokens[rows], batch.lengths[rows])
        return document_log_likelihood(self.decoder, repeated, code).view(z.shape[:-1])

    def forward(self, batch: TextBatch) -> LabelElbo:
        """Bound log p(x, y) of the documents with a label, log p(x) of those without.

        `batch.labels` holds a class or -1, no label; None is no label at all.
        """
        features = self._features(batch)
        q_y = self.label_head(features)
        labels = torch.full_like(batch.lengths, -1) if batch.labels is None else batch.labels
        check_labels(batch.label_extremes, self.classes, optional=True)
        labelled, classes = labels >= 0, labels.clamp(min=0)
        cases, rows, y, weights = self._cases(batch, q_y, labelled, classes)
        reconstruction, kl = self._terms(cases, features, rows, y)
        kl = _sum_cases(weights[:, None] * kl, rows, len(batch))
        prior = self.label_prior()
        # torch's own KL of categoricals looks for zeros, and a GPU would have to wait.
        label_kl = (q_y.probs * (q_y.logits - prior.logits)).sum(-1)
        return LabelElbo(
            reconstruction=_sum_cases(weights * reconstruction, rows, len(batch)),
            kl=kl.sum(-1),
            kl_per_dimension=kl,
            label_kl=torch.where(labelled, -prior.log_prob(classes), label_kl),
            classification=torch.where(labelled, -q_y.log_prob(classes), 0.0),
            labelled=labelled,
            classification_weight=self.classification_weight,
            label_kl_floor=self.label_kl_floor,
            labelled_weight=self.labelled_weight,
        )

    def _features(self, batch: TextBatch) -> Tensor:
        """What the encoder reads in B documents, `[B, H]`."""
        check_tokens(batch, self.decoder.vocabulary_size)
        return self.encoder.features(batch)

    def _one_hot(self, labels: Tensor) -> Tensor:
        """Labels `[...]`, each one a class, as y `[..., K]`."""
        return torch.ones_like(self.label_probabilities).diag()[labels]

    def _moved(self, q: Normal, y: Tensor) -> Normal:
        """Move q(z|x), `[B, Z]`, to q(z|x, y) by labels y `[B, K]`."""
        scale = q.scale * torch.exp(self.log_scale_shift(y))
        return Normal(q.loc + self.mean_shift(y), scale, validate_args=False)

    def at_step(self, step: int) -> None:
        """Set the training step (0, 1, ...), which the temperature of soft labels follows."""
        self.step.fill_(step)
        self._step = step  # the same: to ask the buffer would make a GPU wait

    def _present_temperature(self) -> float:
        """The temperature at the present step, which must be positive."""
        at = self.temperature
        temperature = at(self._step) if callable(at) else at
        if not temperature > 0:
            raise ValueError(f"the temperature must be positive, not {temperature}")
        return temperature

    def _cases(
        self, batch: TextBatch, q_y: Categorical, labelled: Tensor, classes: Tensor
    ) -> tuple[TextBatch, Tensor, Tensor, Tensor]:
        """Pair documents with labels, P times: a batch, its rows `[P]`, y `[P, K]`, weights `[P]`.

        Each document comes with its label; one without comes with every class in turn.
        """
        known = self._one_hot(classes)  # [B, K]
        if self.marginal == "gumbel":
            soft = F.gumbel_softmax(q_y.logits, self._present_temperature())
            y = torch.where(labelled[:, None], known, soft)
            rows = torch.arange(len(y), device=y.device)
            return batch, rows, y, torch.ones_like(y[:, 0])
        others = torch.arange(1, self.classes, device=classes.device)[:, None]
        cases = torch.cat([classes, others.expand(-1, len(batch.unlabelled)).flatten()])
        batch, rows = batch.with_copies(len(others))
        weights = torch.where(labelled[:, None], known, q_y.probs)[rows, cases]
        return batch, rows, self._one_hot(cases), weights

    def _terms(
        self, cases: TextBatch, features: Tensor, rows: Tensor, y: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Reconstruction `[P]` and KL of z `[P, Z]` of P cases: rows of a batch, labels y."""
        q = self.encoder.posterior(features)
        # One draw a document, whatever its label: what labels differ in is not lost in the noise.
        noise = torch.randn_like(q.loc)[rows]
        q = self._moved(Normal(q.loc[rows], q.scale[rows], validate_args=False), y)
        code = torch.cat([q.loc + q.scale * noise, y], dim=-1)
        reconstruction = -document_log_likelihood(self.decoder, cases, code)
        return reconstruction, kl_divergence(q, self.prior())


def _remember_step(model: SemiSupervisedTextVAE, _: object) -> None:
    """Take the step from the weights that were loaded."""
    model.at_step(int(model.step))


def _sum_cases(values: Tensor, rows: Tensor, documents: int) -> Tensor:
    """Sum the values `[P, ...]` of each document's cases: `[B, ...]`."""
    return values.new_zeros(documents, *values.shape[1:]).index_add(0, rows, values)


def _check_sizes(encoder: Encoder, decoder: Decoder, classes: int) -> None:
    if encoder.vocabulary_size != decoder.vocabulary_size:
        raise ValueError(
            f"encoder and decoder must agree: vocabulary_size is {encoder.vocabulary_size} in "
            f"the one and {decoder.vocabulary_size} in the other"
        )
    needed = encoder.latent_size + classes
    if decoder.latent_size != needed:
        raise ValueError(
            f"the decoder's code is [z; y]: build it with latent_size {encoder.latent_size} + "
            f"{classes} = {needed} (the encoder's and the classes), not {decoder.latent_size}"
        )


def _distribution(label_prior: Tensor | None, classes: int) -> Tensor:
    """The probabilities p(y), `[K]`, checked; uniform for None."""
    if label_prior is None:
        return torch.full((classes,), 1 / classes)
    valid = label_prior.shape == (classes,) and bool((label_prior > 0).all())
    if not (valid and abs(float(label_prior.sum()) - 1) < 1e-4):
        raise ValueError(
            f"label_prior must be {classes} positive probabilities that sum to 1, "
            f"not {label_prior.tolist()}"
        )
    return label_prior.float()
