"""What a code holds: information about the data, known factors, and its worth to the decoder."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Normal

from tutvae.evaluation.importance import check_seed, in_single, normal_in_single, standard_noise
from tutvae.evaluation.in_order import columns_of
from tutvae.models.protocols import LatentVariableModel

# Codes whose density under all N posteriors is computed at a time; bounds the memory.
CODES_AT_ONCE = 64
# Added to a seed: codes of posteriors are drawn from other numbers than codes of the prior.
CODE_SEED = 2_000_003


def sample_codes(q: Normal, seed: int = 0) -> Tensor:
    """Draw a code from each of N posteriors, `[N, Z]`, leaving torch's global random state alone.

    >>> q = torch.distributions.Normal(torch.zeros(3, 2), torch.ones(3, 2))
    >>> tutvae.sample_codes(q).shape
    torch.Size([3, 2])

    Source: Kingma & Welling (2014), section 2.4. Chapter 4.
    """
    check_seed(seed)
    return q.loc + q.scale * standard_noise(q.loc, seed + CODE_SEED)


def mutual_information(q: Normal, seed: int = 0) -> float:
    """Estimate the mutual information of examples and codes, in nats an example, 0 to ln N.

    That is the mean of log q(z_n|x_n) - log q(z_n), where z_n is a sample of q(z|x_n) and
    q(z) = (1/N) sum_m q(z|x_m) is the aggregate posterior. It equals the mean KL of q(z|x) to the
    prior less the KL of q(z) to the prior. N examples can tell at most ln N nats, so a value
    near that ceiling says no more than "large".

    The posteriors q are those of N examples, `[N, Z]`, as `encode` returns them; the seed is of
    the samples. ValueError if a mean or a scale is not finite, or a scale is not positive.

    >>> apart = torch.distributions.Normal(torch.tensor([[-9.0], [9.0]]), torch.ones(2, 1))
    >>> round(tutvae.mutual_information(apart), 2)  # ln 2: a code tells which of the two it is of
    0.69

    Source: Hoffman & Johnson (2016), section 2. Chapter 4, equation `code-information`.
    """
    if not (q.loc.isfinite().all() and q.scale.isfinite().all() and (q.scale > 0).all()):
        raise ValueError("the posteriors need finite means and finite, positive scales")
    q = Normal(q.loc.double(), q.scale.double(), validate_args=False)
    z = q.loc + q.scale * standard_noise(q.loc, seed)
    own = q.log_prob(z).sum(1)  # [N]
    ceiling = math.log(len(z))
    # Sampling error may lead below 0, where there is no information.
    return max(0.0, (own - _log_sums(q, z, own)).mean().item() + ceiling)


def _log_sums(q: Normal, z: Tensor, own: Tensor) -> Tensor:
    """Sum q(z_n|x_m) over m for each of N codes: logarithms `[N]`; `own` are log q(z_n|x_n).

    The square expanded, a log-density is linear in z^2 and z, so that all pairs are one product
    of matrices: N^2 Z multiplications, where the plain sum makes and reads N^2 Z numbers.
    """
    centre = q.loc.mean(0)  # what both have in common would only cost digits
    z, mean, precision = z - centre, q.loc - centre, q.variance.reciprocal()
    constants = -(0.5 * precision * mean.square() + q.scale.log()).sum(1)
    constants -= 0.5 * math.log(2 * math.pi) * z.shape[1]
    factors = torch.cat([-0.5 * precision, precision * mean], 1).T  # [2 Z, N]
    sums = torch.empty_like(own)
    for rows in torch.arange(len(z)).split(CODES_AT_ONCE):
        codes = z[rows]
        pairs = torch.addmm(constants, torch.cat([codes.square(), codes], 1), factors)  # [n, N]
        # A density that is far narrower than the means are apart loses digits here. The nearest
        # to a code, its own, is the one that this would hurt.
        pairs[torch.arange(len(rows)), rows] = own[rows]
        sums[rows] = pairs.logsumexp(1)
    return sums


def own_code_gain(model: LatentVariableModel, batches: Iterable[Any], seed: int = 0) -> float:
    """Measure what an example's own code is worth beyond another example's. Chapter 4.

    That is the mean of log p(x_n|z_n) - log p(x_n|z_m) in nats, where z_n and z_m are samples of
    q(z|x_n) and q(z|x_m), and m is the example half the set away (neighbours may be alike, where
    examples come sorted). It is 0 for a decoder that does not hear its code, or if all examples are
    equal. Arguments and errors are those of `encode`; the seed is of the samples.
    """
    batches = list(batches)  # two passes, which must see the same order

    def encoded(batch: Any, positions: Tensor) -> tuple[Tensor, ...]:
        q = normal_in_single(model.posterior(batch))
        return positions, q.loc, q.scale

    known, mean, scale = columns_of(model, batches, encoded)
    own = sample_codes(Normal(mean, scale, validate_args=False), seed)
    foreign = own.roll(len(own) // 2, dims=0)

    def gained(batch: Any, positions: Tensor) -> tuple[Tensor]:
        rows = torch.searchsorted(known, positions)
        codes = torch.stack([own[rows], foreign[rows]]).to(model.prior().loc)  # [2, B, Z]
        with_own, with_foreign = in_single(model.log_likelihood(batch, codes))
        return (with_own - with_foreign,)

    (gain,) = columns_of(model, batches, gained)
    return gain.double().mean().item()


@dataclass(frozen=True)
class Probe:
    """How much a linear classifier reads of a known factor.

    Attributes:
        accuracy: share of the test examples whose value it tells.
        nats: what the code tells of the factor, at least (another classifier may read more): the
            factor's entropy less the classifier's cross-entropy, in nats an example.
        entropy: nats of the factor in the test examples, the most that there is to tell.
    """

    accuracy: float
    nats: float
    entropy: float


def probe(
    codes_train: Tensor,
    factor_train: Sequence[Any] | np.ndarray,
    codes_test: Tensor,
    factor_test: Sequence[Any] | np.ndarray,
) -> Probe:
    """Ask a linear classifier for a known factor of the examples, given their codes.

    The classifier is multinomial logistic regression on standardised codes. Give it samples of
    the posterior (`sample_codes`): posterior means may carry a factor in differences so small
    that the posterior's noise drowns them. The nats are floored at 0.

    Args:
        codes_train: codes to learn from, `[N, Z]`.
        factor_train: the factor's value for each, `[N]`.
        codes_test: codes to be judged by, `[M, Z]`.
        factor_test: the factor's value for each, `[M]`.

    ValueError if codes and values differ in number, there is no code (Z = 0), or the factor has a
    test value that training lacks.

    >>> codes, stars = torch.tensor([[0.0], [0.1], [9.0], [9.1]]), [1, 1, 5, 5]
    >>> tutvae.probe(codes, stars, codes, stars).accuracy
    1.0

    Source: Alain & Bengio (2017). Chapter 4.
    """
    from sklearn import linear_model, metrics, pipeline, preprocessing
    from threadpoolctl import threadpool_limits

    factor_train, factor_test = np.asarray(factor_train), np.asarray(factor_test)
    for codes, factor in ((codes_train, factor_train), (codes_test, factor_test)):
        if factor.shape != (len(codes),):
            needed = f"{len(codes)} codes need a factor of {len(codes)} values"
            raise ValueError(f"{needed}, not one of shape {list(factor.shape)}")
    if codes_train.shape[1] == 0:
        raise ValueError("codes of no dimensions (Z = 0) have nothing to probe")
    if unseen := set(factor_test.tolist()) - set(factor_train.tolist()):
        raise ValueError(f"the factor takes a value in the test set only: {min(unseen)!r}")
    if len(np.unique(factor_train)) == 1:  # always the same: known without a classifier
        return Probe(accuracy=1.0, nats=0.0, entropy=0.0)
    regression = linear_model.LogisticRegression(max_iter=1000)
    classifier = pipeline.make_pipeline(preprocessing.StandardScaler(), regression)
    with threadpool_limits(1, user_api="blas"):  # on products so small, threads only wait
        classifier.fit(codes_train.cpu().numpy(), factor_train)
    probabilities = classifier.predict_proba(codes_test.cpu().numpy())
    cross_entropy = metrics.log_loss(factor_test, probabilities, labels=classifier.classes_)
    _, counts = np.unique(factor_test, return_counts=True)
    shares = counts / len(factor_test)
    entropy = float(-(shares * np.log(shares)).sum())
    right = classifier.classes_[probabilities.argmax(1)] == factor_test
    return Probe(float(right.mean()), max(0.0, entropy - float(cross_entropy)), entropy)
