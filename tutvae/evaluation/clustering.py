"""Clusters without labels: a mixture on codes, and how well any clusters match known classes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor


@dataclass(frozen=True, eq=False)
class ClusterReport:
    """How well clusters of N documents match their K classes.

    Attributes:
        accuracy: share of the documents in the cluster of their class, each class matched with
            one cluster of its own so that this share is as large as can be.
        majority_accuracy: share of the documents that are of the most frequent class of their
            cluster. It grows with the clusters, up to 1 where each document has one of its own.
        nmi: normalised mutual information of class and cluster, from 0 to 1.
        ari: adjusted Rand index: 0 on average for clusters drawn at random, 1 for the classes.
        table: documents of each class in each cluster, `[K, C]`, with what agrees in the diagonal;
            a class that was left without a cluster has a column of zeros.
        classes: the label of each row, K integers in rising order.
        clusters: the cluster in each column, C integers, or None where there is none.

    Source: Kuhn (1955) for the matching, Hubert & Arabie (1985) for the index. Chapter 9.
    """

    accuracy: float
    majority_accuracy: float
    nmi: float
    ari: float
    table: np.ndarray
    classes: tuple[int, ...]
    clusters: tuple[int | None, ...]

    def __str__(self) -> str:
        rows = [
            ("accuracy, one to one", self.accuracy),
            ("accuracy, majority", self.majority_accuracy),
            ("NMI", self.nmi),
            ("adjusted Rand index", self.ari),
        ]
        used = sum(cluster is not None for cluster in self.clusters)
        heading = f"{self.table.sum():,} documents, {len(self.classes)} classes, {used} clusters"
        return "\n".join([heading, *(f"  {name:<20} {value:>6.3f}" for name, value in rows)])


def compare_clusters(
    labels: Sequence[int] | np.ndarray, clusters: Sequence[int] | np.ndarray
) -> ClusterReport:
    """Compare clusters with known classes; what the clusters are called does not matter.

    Args:
        labels: class of each document, `[N]`, integers from 0 on.
        clusters: its cluster, `[N]`, integers from 0 on; as many or few of them as you like.

    ValueError if they are not N integers from 0 on each, or N is 0.

    >>> report = tutvae.compare_clusters([0, 0, 1, 1], [7, 7, 3, 7])
    >>> report.accuracy, report.clusters
    (0.75, (7, 3))

    Source: see `ClusterReport`. Chapter 9.
    """
    from scipy.optimize import linear_sum_assignment
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
    from sklearn.metrics.cluster import contingency_matrix

    labels, clusters = np.asarray(labels), np.asarray(clusters)
    if labels.ndim != 1 or labels.shape != clusters.shape or len(labels) == 0:
        got = f"got {list(labels.shape)} and {list(clusters.shape)}"
        raise ValueError(f"each of N documents needs a label and a cluster, both [N]: {got}")
    for name, values in (("labels", labels), ("clusters", clusters)):
        if not np.issubdtype(values.dtype, np.integer) or values.min() < 0:
            fault = f"{name} must be integers from 0 on, not {values.min()!r}"
            raise ValueError(f"{fault}: leave out documents without a label")
    classes, names = np.unique(labels), np.unique(clusters)
    counts = contingency_matrix(labels, clusters)
    # At least as many columns as rows: every class is matched, if need be with nothing.
    counts = np.pad(counts, ((0, 0), (0, max(0, len(classes) - len(names)))))
    _, matched = linear_sum_assignment(counts, maximize=True)
    order = [*matched, *np.setdiff1d(np.arange(counts.shape[1]), matched)]
    table = counts[:, order]
    return ClusterReport(
        accuracy=float(table.trace() / len(labels)),
        majority_accuracy=float(table.max(0).sum() / len(labels)),
        nmi=float(normalized_mutual_info_score(labels, clusters)),
        ari=float(adjusted_rand_score(labels, clusters)),
        table=table,
        classes=tuple(classes.tolist()),
        clusters=tuple(int(names[column]) if column < len(names) else None for column in order),
    )


def mixture_clusters(codes: Tensor, clusters: int, seed: int = 0) -> np.ndarray:
    """Cluster codes by a mixture of Gaussians, the baseline: the cluster of each, integers `[N]`.

    Each Gaussian has a full covariance. Of five starts, by k-means, the likeliest mixture counts.

    Args:
        codes: posterior means of N documents, `[N, Z]`, as in `encode(...).loc`.
        clusters: Gaussians of the mixture.
        seed: of the starts.

    ValueError if there are fewer codes than clusters, or Z is 0.

    >>> clusters = tutvae.mixture_clusters(torch.tensor([[0.0], [0.1], [9.0], [9.1]]), 2)
    >>> tutvae.compare_clusters([0, 0, 1, 1], clusters).accuracy
    1.0

    Source: Yang et al. (2017), whose baseline it is. Chapter 9.
    """
    from sklearn.mixture import GaussianMixture

    if len(codes) < max(clusters, 2):
        fault = f"{len(codes)} documents are too few for {clusters} clusters"
        raise ValueError(f"{fault}: give more, or make fewer")
    mixture = GaussianMixture(clusters, n_init=5, max_iter=500, random_state=seed)
    return mixture.fit_predict(codes.detach().cpu().double().numpy())
