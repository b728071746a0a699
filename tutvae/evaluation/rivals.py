"""Labels for texts without a model of the package: what those must beat where labels are few.

Each function builds a pipeline of scikit-learn that is fitted with `fit(texts, labels)`: integers
`[N]`, -1 where there is none. It leaves a constant or two open, which are chosen by five-fold
cross-validation on the texts that have a label; `pipeline[-1].best_params_` tells them. A class
needs five such texts.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.naive_bayes import MultinomialNB
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.semi_supervised import SelfTrainingClassifier

if TYPE_CHECKING:
    from typing_extensions import Self

NO_LABEL = -1
SENTENCE_ENCODER = "sentence-transformers/all-MiniLM-L6-v2"
WORDS_AND_MARKS = r"<\w+>|\w+|[^\w\s]"  # and <unk>
# The values to choose from; of equally good ones the first is taken.
C, ALPHA, WEIGHT = [1.0, 10.0, 100.0, 0.1], [0.1, 1.0], [0.1, 0.3, 1.0, 0.03]


def tfidf() -> Pipeline:
    """Build logistic regression on TF-IDF: how often a word comes, and how rare it is elsewhere.

    How rare a word is, the texts without a label tell too; nothing else is learnt from them.

    >>> texts, labels = 5 * ["so good", "so bad", "very bad"], 5 * [1, 0, -1]
    >>> tutvae.tfidf().fit(texts, labels).predict(["good", "very bad"]).tolist()
    [1, 0]

    Source: Salton & Buckley (1988). Chapter 8.
    """
    words = TfidfVectorizer(sublinear_tf=True, token_pattern=WORDS_AND_MARKS)
    return _tuned(words, _Regression(max_iter=1000), C=C)


def naive_bayes() -> Pipeline:
    """Build naive Bayes: in each class, words are drawn one by one from its own frequencies.

    It learns nothing from texts without a label.

    >>> texts, labels = 5 * ["so good", "so bad", "very bad"], 5 * [1, 0, -1]
    >>> tutvae.naive_bayes().fit(texts, labels).predict(["good", "very bad"]).tolist()
    [1, 0]

    Source: McCallum & Nigam (1998), the multinomial model. Chapter 8.
    """
    return _tuned(CountVectorizer(), NaiveBayesEM(rounds=0), alpha=[0.1, 0.03, 0.3, 1.0])


def naive_bayes_em() -> Pipeline:
    """Build naive Bayes that learns from texts without a label, too, as `NaiveBayesEM` does.

    >>> texts, labels = 5 * ["so good", "so bad", "very bad"], 5 * [1, 0, -1]
    >>> tutvae.naive_bayes_em().fit(texts, labels).predict(["good", "very"]).tolist()
    [1, 0]

    Source: Nigam et al. (2000), sections 3 to 5.2. Chapter 8.
    """
    return _tuned(CountVectorizer(), NaiveBayesEM(), alpha=ALPHA, weight=WEIGHT)


def self_training() -> Pipeline:
    """Build naive Bayes that takes the labels it is sure of for true ones, ten times.

    >>> texts, labels = 5 * ["so good", "so bad", "very bad"], 5 * [1, 0, -1]
    >>> tutvae.self_training().fit(texts, labels).predict(["good", "very"]).tolist()
    [1, 0]

    Source: Yarowsky (1995); scikit-learn's `SelfTrainingClassifier`. Chapter 8.
    """
    classifier, sure = SelfTrainingClassifier(NaiveBayesEM(rounds=0)), [0.99, 0.9, 0.999]
    return _tuned(CountVectorizer(), classifier, estimator__alpha=ALPHA, threshold=sure)


def frozen_encoder(encoder: str = SENTENCE_ENCODER) -> Pipeline:
    """Build logistic regression on the features of a large pretrained encoder of sentences.

    That has seen a billion pairs of sentences, and stays as it is; see `sentence_features`.

    >>> classifier = tutvae.frozen_encoder()
    >>> classifier.fit(texts, labels).predict(["It is dull."])  # doctest: +SKIP

    Source: Reimers & Gurevych (2019). Chapter 8.
    """
    features = FunctionTransformer(sentence_features, kw_args={"encoder": encoder})
    return _tuned(features, _Regression(max_iter=1000), C=C)


def sentence_features(texts: Sequence[str], encoder: str = SENTENCE_ENCODER) -> np.ndarray:
    """Return the features of N raw texts, `[N, 384]` of the default encoder.

    That reads 256 word pieces of a text. The `encoder` is a name on the Hugging Face Hub, or a
    folder: OSError where there is none. Texts that were asked for shortly before are not encoded
    again. ImportError without `sentence_transformers`.
    """
    return _features(tuple(texts), encoder)


@lru_cache(maxsize=3)  # a corpus
def _features(texts: tuple[str, ...], encoder: str) -> np.ndarray:
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        remedy = 'pip install "tutvae[rivals]"'
        raise ImportError(f"sentence encoders need another package: {remedy}") from error
    return SentenceTransformer(encoder).encode(list(texts), show_progress_bar=False)


class NaiveBayesEM(MultinomialNB):
    """Naive Bayes fitted by expectation maximisation: texts without a label count for all classes.

    In each round they get the labels' probabilities under the present word frequencies (E), and
    count with these in the next ones (M). All classes are equally probable beforehand. It is
    fitted on counts of words `[N, V]` and labels `[N]`, of which -1 is none.

    Args:
        alpha: so often each word counts in each class before any is seen.
        weight: what a text without a label counts, where one with a label counts 1.
        rounds: of E and M; 0 makes it naive Bayes of the texts with a label.

    Source: Nigam et al. (2000), equations 5 and 10. Chapter 8.
    """

    def __init__(self, alpha: float = 1.0, weight: float = 1.0, rounds: int = 10) -> None:
        super().__init__(alpha=alpha, fit_prior=False)
        self.weight = weight
        self.rounds = rounds

    def fit(self, X: Any, y: Any) -> "Self":
        """Fit on sparse or dense counts `[N, V]` and labels `[N]`."""
        known = np.asarray(y) != NO_LABEL
        super().fit(X[known], np.asarray(y)[known])
        counts, unlabelled = self.feature_count_, X[~known]
        for _ in range(0 if known.all() else self.rounds):
            q = self.predict_proba(unlabelled)
            # A document a class: the words that are expected in it.
            super().fit(counts + self.weight * (q.T @ unlabelled), self.classes_)
        return self


class _Regression(LogisticRegression):
    """Logistic regression that leaves out what has no label."""

    def fit(self, X: Any, y: Any) -> "Self":
        known = np.asarray(y) != NO_LABEL
        return super().fit(X[known], np.asarray(y)[known])


class _Folds(StratifiedKFold):
    """Folds of what has a label; what has none is in the training part of each."""

    def split(self, X: Any, y: Any, groups: Any = None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        known, unlabelled = (
            np.flatnonzero((np.asarray(y) == NO_LABEL) == x) for x in (False, True)
        )
        for train, test in super().split(known, np.asarray(y)[known]):
            yield np.concatenate([known[train], unlabelled]), known[test]


def _tuned(features: Any, classifier: Any, **grid: list[float]) -> Pipeline:
    return make_pipeline(features, GridSearchCV(classifier, grid, cv=_Folds(5)))
