from __future__ import annotations

import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy import sparse
from scipy.special import logsumexp
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import MultinomialNB

from tutvae.data.batches.labelled import label_subset
from tutvae.evaluation import rivals
from tutvae.evaluation.rivals import (
    NaiveBayesEM,
    naive_bayes,
    naive_bayes_em,
    self_training,
    sentence_features,
    tfidf,
)
from tutvae.reviews.grammar import ReviewGrammar

OF_WORDS = [tfidf, naive_bayes, naive_bayes_em, self_training]
N, V, K = 60, 12, 3


def reviews(known: int) -> tuple[list[str], np.ndarray, Any]:
    """Texts, labels of which all but some are hidden, and texts to be scored on."""
    grammar = ReviewGrammar(sentences=(4, 10), nouns=20, vagueness=0.3, persons=1, tenses=1)
    corpus = grammar.corpus(400, 0, 200)
    labels = np.full(400, -1)
    rows = label_subset(corpus.train.labels, known, seed=0)
    labels[rows] = np.array(corpus.train.labels)[rows]
    return list(corpus.train.texts), labels, corpus.test


def counted(seed: int = 0) -> tuple[sparse.csr_matrix, np.ndarray]:
    """Counts of words `[N, V]`, and labels of which all but nine are hidden."""
    random = np.random.default_rng(seed)
    classes = np.arange(N) % K
    rates = random.gamma(0.5, size=(K, V))[classes]
    labels = np.where(np.arange(N) < 3 * K, classes, -1)
    return sparse.csr_matrix(random.poisson(2 * rates)), labels


def objective(model: NaiveBayesEM, X: Any, y: np.ndarray) -> float:
    """What EM climbs: the weighted log likelihood of all texts, and the prior of the words."""
    joint = model.predict_joint_log_proba(X)
    known = y >= 0
    labelled = joint[known, y[known]].sum()
    unlabelled = logsumexp(joint[~known], axis=1).sum()
    return labelled + model.weight * unlabelled + model.alpha * model.feature_log_prob_.sum()


class TestNaiveBayesEM:
    @pytest.mark.parametrize("weight", [0.1, 1.0, 3.0])
    @pytest.mark.parametrize("alpha", [0.1, 1.0])
    def test_the_likelihood_never_falls(self, alpha: float, weight: float) -> None:
        X, y = counted()
        models = [NaiveBayesEM(alpha, weight, rounds).fit(X, y) for rounds in range(12)]
        climb = np.diff([objective(model, X, y) for model in models])
        assert climb.min() > -1e-9
        assert climb[0] > 0.1

    def test_without_unlabelled_texts_it_is_naive_bayes(self) -> None:
        X, y = counted()
        X, y = X[y >= 0], y[y >= 0]
        expected = MultinomialNB(alpha=0.3).fit(X, y)
        got = NaiveBayesEM(alpha=0.3).fit(X, y)
        np.testing.assert_allclose(got.predict_proba(X), expected.predict_proba(X))

    def test_unlabelled_texts_that_weigh_nothing_change_nothing(self) -> None:
        X, y = counted()
        expected = MultinomialNB().fit(X[y >= 0], y[y >= 0])
        for model in (NaiveBayesEM(weight=0.0), NaiveBayesEM(rounds=0)):
            got = model.fit(X, y).predict_proba(X)
            np.testing.assert_allclose(got, expected.predict_proba(X))

    def test_one_round_by_hand(self) -> None:
        """Words a, b; "aab" is of class 0 and "b" of class 1; "aa" has no label, weight 1/2."""
        X, y = np.array([[2, 1], [0, 1], [2, 0]]), np.array([0, 1, -1])
        before = np.array([[3 / 5, 2 / 5], [1 / 3, 2 / 3]])  # with one more of each word
        q = before[:, 0] ** 2 / (before[:, 0] ** 2).sum()
        counts = np.array([[3 + q[0], 2.0], [1 + q[1], 2.0]])  # half of two words a
        expected = counts / counts.sum(1, keepdims=True)
        got = NaiveBayesEM(alpha=1.0, weight=0.5, rounds=1).fit(X, y)
        np.testing.assert_allclose(np.exp(got.feature_log_prob_), expected)

    def test_dense_and_sparse_counts_come_to_the_same(self) -> None:
        X, y = counted()
        got = NaiveBayesEM().fit(X.toarray(), y.tolist()).predict_proba(X)
        np.testing.assert_allclose(got, NaiveBayesEM().fit(X, y).predict_proba(X))

    def test_unlabelled_texts_help(self) -> None:
        texts, labels, test = reviews(50)
        X = CountVectorizer().fit(texts)
        alone, helped = (
            NaiveBayesEM(0.1, 0.1, rounds).fit(X.transform(texts), labels) for rounds in (0, 10)
        )
        scores = [model.score(X.transform(test.texts), test.labels) for model in (alone, helped)]
        assert scores[1] > scores[0] + 0.1


class TestAllOfWords:
    @pytest.mark.parametrize("build", OF_WORDS)
    def test_they_learn_which_words_go_with_which_label(self, build: Callable[[], Any]) -> None:
        texts, labels, test = reviews(200)
        fitted = build().fit(texts, labels)
        assert fitted.score(test.texts, test.labels) > 0.85
        assert fitted.predict_proba(test.texts).shape == (200, 5)

    @pytest.mark.parametrize("build", [tfidf, naive_bayes])
    def test_two_of_them_learn_no_label_from_texts_without(self, build: Callable[[], Any]) -> None:
        """The unlabelled texts come twice; the words and how rare they are stay the same."""
        texts, labels, test = reviews(50)
        once = build().fit(texts, labels)
        twice = build().fit(2 * texts, np.concatenate([labels, np.full(len(texts), -1)]))
        if build is naive_bayes:
            got = twice.predict_proba(test.texts)
            np.testing.assert_allclose(got, once.predict_proba(test.texts))
        assert twice[-1].best_params_ == once[-1].best_params_

    def test_tfidf_is_logistic_regression_on_labelled_texts_with_the_rarity_in_all(self) -> None:
        texts, labels, test = reviews(50)
        got = tfidf().fit(texts, labels)
        features = TfidfVectorizer(sublinear_tf=True, token_pattern=r"[a-z']+|[.,!]").fit(texts)
        known = labels >= 0
        X = features.transform(texts)[known]
        model = LogisticRegression(max_iter=1000, **got[-1].best_params_).fit(X, labels[known])
        expected = model.predict_proba(features.transform(test.texts))
        np.testing.assert_allclose(got.predict_proba(test.texts), expected, atol=1e-4)

    def test_marks_are_words_apart_and_the_unknown_word_stays_whole(self) -> None:
        fitted = tfidf().fit(5 * ["So good!", "<unk> bad."], 5 * [0, 1])
        assert set(fitted[0].vocabulary_) == {"so", "good", "!", "<unk>", "bad", "."}

    @pytest.mark.parametrize("build", OF_WORDS)
    def test_constants_are_chosen_on_the_labelled_texts_alone(
        self, build: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        texts, labels, _ = reviews(50)
        search = build().fit(texts, labels)[-1]
        held_out = [test for _, test in search.cv.split(np.zeros((400, 1)), labels)]
        assert sorted(np.concatenate(held_out).tolist()) == np.flatnonzero(labels >= 0).tolist()
        for train, test in search.cv.split(np.zeros((400, 1)), labels):
            assert set(np.flatnonzero(labels < 0)) <= set(train)
            assert not set(train) & set(test)

    @pytest.mark.parametrize("build", OF_WORDS)
    def test_a_class_with_too_few_texts_is_an_error(self, build: Callable[[], Any]) -> None:
        with pytest.raises(ValueError, match="number of members in each class"):
            build().fit(["so good", "so bad", "bad", "very good", "very"], [1, 0, 0, 1, 1])


class TestFrozenEncoder:
    @pytest.fixture
    def encoded(self, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[str]]]:
        """What a stand-in for `sentence_transformers` is asked for; it counts a few letters."""
        asked: list[tuple[str, list[str]]] = []

        class SentenceTransformer:
            def __init__(self, name: str) -> None:
                self.name = name

            def encode(self, texts: list[str], **options: Any) -> np.ndarray:
                asked.append((self.name, texts))
                return np.array([[text.count(x) for x in "abdo"] for text in texts], np.float32)

        module = SimpleNamespace(SentenceTransformer=SentenceTransformer)
        monkeypatch.setitem(sys.modules, "sentence_transformers", module)
        rivals._features.cache_clear()
        yield asked
        rivals._features.cache_clear()

    def test_it_is_logistic_regression_on_the_features(self, encoded: list[Any]) -> None:
        texts = 5 * ["so good", "so bad", "no label here"]
        fitted = rivals.frozen_encoder().fit(texts, 5 * [1, 0, -1])
        assert fitted.predict(["good", "bad"]).tolist() == [1, 0]
        assert {name for name, _ in encoded} == {"sentence-transformers/all-MiniLM-L6-v2"}
        assert sentence_features(["good"]).shape == (1, 4)

    def test_texts_are_encoded_once(self, encoded: list[Any]) -> None:
        texts = 5 * ["so good", "so bad"]
        for labels in (5 * [1, 0], 5 * [0, 1]):
            rivals.frozen_encoder().fit(texts, labels).predict(["good"])
        assert [asked for _, asked in encoded] == [texts, ["good"]]

    def test_another_encoder(self, encoded: list[Any]) -> None:
        rivals.frozen_encoder("my/folder").fit(5 * ["so good", "so bad"], 5 * [1, 0])
        assert [name for name, _ in encoded] == ["my/folder"]

    def test_without_the_extra_the_error_says_what_to_install(
        self, encoded: list[Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "sentence_transformers", None)
        with pytest.raises(ImportError, match=r'pip install "tutvae\[rivals\]"'):
            sentence_features(["good"])
