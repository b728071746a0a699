from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from tutvae.evaluation.clustering import compare_clusters, mixture_clusters

partitions = st.integers(1, 40).flatmap(
    lambda N: st.tuples(
        st.lists(st.integers(0, 3), min_size=N, max_size=N),
        st.lists(st.integers(0, 4), min_size=N, max_size=N),
    )
)


class TestCompareClusters:
    def test_by_hand(self) -> None:
        """Cluster 0 holds as many of class 1 as of class 2; only class 1 can do with another."""
        labels = [0, 0, 0, 0, 1, 1, 1, 1, 1, 2, 2, 2]
        clusters = [1, 1, 0, 3, 0, 0, 0, 2, 2, 0, 0, 0]
        report = compare_clusters(labels, clusters)
        assert report.table.tolist() == [[2, 0, 1, 1], [0, 2, 3, 0], [0, 0, 3, 0]]
        assert report.clusters == (1, 2, 0, 3)
        assert report.classes == (0, 1, 2)
        assert report.accuracy == pytest.approx(7 / 12)
        assert report.majority_accuracy == pytest.approx(8 / 12)
        assert report.nmi == pytest.approx(normalized_mutual_info_score(labels, clusters))
        assert report.ari == pytest.approx(adjusted_rand_score(labels, clusters))

    @given(partitions)
    def test_no_other_matching_is_better(self, partition: tuple[list[int], list[int]]) -> None:
        labels, clusters = map(np.array, partition)
        best = max(
            np.mean([names[cluster] == label for label, cluster in zip(*partition, strict=True)])
            for names in permutations(range(5))
        )
        report = compare_clusters(labels, clusters)
        assert report.accuracy == pytest.approx(best)
        majority = sum(np.bincount(labels[clusters == c]).max() for c in set(partition[1]))
        assert report.majority_accuracy == pytest.approx(majority / len(labels))
        assert report.accuracy <= report.majority_accuracy

    @given(partitions, st.permutations(range(5)))
    def test_the_names_of_the_clusters_do_not_matter(
        self, partition: tuple[list[int], list[int]], names: list[int]
    ) -> None:
        labels, clusters = partition
        one, other = (
            compare_clusters(labels, renamed)
            for renamed in (clusters, [names[cluster] for cluster in clusters])
        )
        for measure in ("accuracy", "majority_accuracy", "nmi", "ari"):
            assert getattr(one, measure) == pytest.approx(getattr(other, measure))

    @given(partitions)
    def test_the_table_counts_every_document_under_its_names(
        self, partition: tuple[list[int], list[int]]
    ) -> None:
        labels, clusters = map(np.array, partition)
        report = compare_clusters(labels, clusters)
        assert report.table.shape == (len(report.classes), len(report.clusters))
        assert {c for c in report.clusters if c is not None} == set(partition[1])
        for row, label in zip(report.table, report.classes, strict=True):
            for count, cluster in zip(row, report.clusters, strict=True):
                expected = (
                    0 if cluster is None else ((labels == label) & (clusters == cluster)).sum()
                )
                assert count == expected
        assert report.accuracy == pytest.approx(np.trace(report.table) / len(labels))

    def test_the_classes_under_other_names_are_perfect(self) -> None:
        report = compare_clusters([0, 1, 2, 0, 1, 2], [7, 3, 5, 7, 3, 5])
        assert report.clusters == (7, 3, 5)
        measures = report.accuracy, report.majority_accuracy, report.nmi, report.ari
        assert measures == pytest.approx((1, 1, 1, 1))

    def test_one_cluster_tells_nothing(self) -> None:
        report = compare_clusters([0, 1, 1, 2, 1, 0], [4] * 6)
        assert report.accuracy == report.majority_accuracy == 0.5
        assert report.nmi == pytest.approx(0)
        assert report.ari == pytest.approx(0)
        assert report.clusters == (None, 4, None)
        assert report.table.tolist() == [[0, 2, 0], [0, 3, 0], [0, 1, 0]]

    def test_a_cluster_for_every_document(self) -> None:
        """By majority that is perfect, one to one it is not."""
        report = compare_clusters([0, 1, 0, 1, 0, 1], range(6))
        assert report.majority_accuracy == 1
        assert report.accuracy == pytest.approx(2 / 6)
        assert report.table.shape == (2, 6)

    def test_one_class_and_one_cluster_agree(self) -> None:
        report = compare_clusters([2, 2, 2], [0, 0, 0])
        assert (report.accuracy, report.nmi, report.ari) == (1, 1, 1)
        assert report.classes == (2,)

    def test_it_prints_as_a_table(self) -> None:
        lines = str(compare_clusters([0, 0, 1, 1, 1], [1, 1, 0, 0, 0])).splitlines()
        assert lines[0] == "5 documents, 2 classes, 2 clusters"
        assert [line.split()[-1] for line in lines[1:]] == ["1.000"] * 4

    @pytest.mark.parametrize(
        ("labels", "clusters", "message"),
        [
            ([0, 1], [0, 1, 1], r"got \[2\] and \[3\]"),
            ([], [], r"got \[0\] and \[0\]"),
            ([[0, 1]], [[0, 1]], r"both \[N\]"),
            ([0, -1], [0, 1], "labels must be integers from 0 on, not .*-1.*without a label"),
            ([0, 1], [0.5, 1.0], "clusters must be integers from 0 on, not .*0.5"),
        ],
    )
    def test_bad_input(self, labels: list[int], clusters: list[int], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            compare_clusters(labels, clusters)


class TestMixtureClusters:
    def codes(self) -> tuple[torch.Tensor, np.ndarray]:
        """Three long, parallel, narrow clouds in four dimensions: no matter for k-means."""
        generator = torch.Generator().manual_seed(0)
        classes = torch.arange(300) % 3
        codes = torch.randn(300, 4, generator=generator) * torch.tensor([6.0, 0.2, 0.2, 0.2])
        codes[:, 1] += 3.0 * classes
        return codes, classes.numpy()

    def test_it_finds_what_is_there(self) -> None:
        codes, classes = self.codes()
        clusters = mixture_clusters(codes, 3)
        assert clusters.shape == (300,)
        assert compare_clusters(classes, clusters).accuracy == 1

    def test_the_seed_alone_decides(self) -> None:
        codes = torch.randn(200, 3, generator=torch.Generator().manual_seed(1))
        before = np.random.get_state()[1].copy()
        one = mixture_clusters(codes, 5, seed=1)
        np.testing.assert_array_equal(mixture_clusters(codes, 5, seed=1), one)
        assert (mixture_clusters(codes, 5, seed=2) != one).any()
        np.testing.assert_array_equal(np.random.get_state()[1], before)

    def test_gradients_and_single_clusters_are_no_trouble(self) -> None:
        codes = torch.randn(9, 2, requires_grad=True)
        assert mixture_clusters(codes, 1).tolist() == [0] * 9

    @pytest.mark.parametrize(("shape", "clusters"), [((3, 2), 5), ((6, 0), 2), ((6, 2), 0)])
    def test_bad_input(self, shape: tuple[int, int], clusters: int) -> None:
        with pytest.raises(ValueError, match=r"3 documents are too few for 5|feature|n_components"):
            mixture_clusters(torch.zeros(shape), clusters)
