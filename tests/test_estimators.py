"""The estimators keep scikit-learn's contract, and take texts as people have them."""

from __future__ import annotations

import inspect
import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

import tutvae
from tutvae.estimators import SemiSupervisedClassifier, SentenceVAE
from tutvae.generation.text_model import as_documents
from tutvae.models import BagDecoder, BagEncoder, LanguageModel

# So short a training leaves most codes empty, which is told.
pytestmark = pytest.mark.filterwarnings("ignore:the code is empty")
SMALL: dict[str, Any] = {
    "epochs": 2,
    "embedding_size": 12,
    "hidden_size": 16,
    "latent_size": 3,
    "vocabulary_size": 300,
    "device": "cpu",
    "progress": False,
}
NOUNS, VERBS = ("Anna", "my brother", "the cat", "nobody"), ("sees", "doesn't like", "knows")
TEXTS = [f"{a.capitalize()} {v} {b}." for a in NOUNS for v in VERBS for b in NOUNS]
LABELS = ["cat" if "cat" in text else "other" for text in TEXTS]
ESTIMATORS = [SentenceVAE, SemiSupervisedClassifier]


def small(kind: type[Any], **parameters: Any) -> Any:
    return kind(**SMALL | parameters)


def fitted(kind: type[Any], **parameters: Any) -> Any:
    return small(kind, **parameters).fit(TEXTS, LABELS)


@pytest.fixture(scope="module")
def vae() -> SentenceVAE:
    return fitted(SentenceVAE)


@pytest.fixture(scope="module")
def classifier() -> SemiSupervisedClassifier:
    return fitted(SemiSupervisedClassifier)


@pytest.mark.parametrize("kind", ESTIMATORS)
class TestContract:
    def test_the_constructor_stores_its_arguments_and_no_more(self, kind: type[Any]) -> None:
        names = set(inspect.signature(kind).parameters)
        nonsense = {name: object() for name in names}
        assert vars(kind(**nonsense)) == nonsense

    def test_a_clone_has_the_parameters_and_nothing_learnt(self, kind: type[Any]) -> None:
        original = fitted(kind, rate=2.5)
        copy = clone(original)
        assert copy.get_params() == original.get_params()
        assert not hasattr(copy, "model_")

    def test_codes_come_as_a_table_with_named_columns(self, kind: type[Any]) -> None:
        table = fitted(kind).set_output(transform="pandas").transform(TEXTS[:2])
        prefix = kind.__name__.lower()
        assert list(table.columns) == [f"{prefix}{index}" for index in range(3)]

    def test_parameters_are_set_by_name(self, kind: type[Any]) -> None:
        assert small(kind).set_params(rate=3.0).rate == 3.0
        with pytest.raises(ValueError, match="Invalid parameter 'beta'"):
            small(kind).set_params(beta=1)

    def test_fit_returns_itself_and_leaves_parameters_and_texts_alone(
        self, kind: type[Any]
    ) -> None:
        estimator, texts, labels = small(kind), list(TEXTS), list(LABELS)
        before = estimator.get_params()
        assert estimator.fit(texts, labels) is estimator
        assert estimator.get_params() == before
        assert (texts, labels) == (TEXTS, LABELS)

    @pytest.mark.parametrize(
        "use",
        [
            lambda x: x.transform(TEXTS),
            lambda x: x.inverse_transform(np.zeros((1, 3))),
            lambda x: x.sample(1),
            lambda x: x.reconstruct(TEXTS),
            lambda x: x.interpolate(*TEXTS[:2]),
            lambda x: x.impute(["the _"]),
            lambda x: x.evaluate(TEXTS),
            lambda x: x.score(TEXTS, LABELS),
        ],
    )
    def test_before_fit_every_use_says_so(
        self, kind: type[Any], use: Callable[[Any], object]
    ) -> None:
        with pytest.raises(NotFittedError):
            use(small(kind))

    def test_equal_random_states_give_equal_results(self, kind: type[Any]) -> None:
        one, two, other = (fitted(kind, random_state=seed).transform(TEXTS) for seed in (1, 1, 2))
        np.testing.assert_array_equal(one, two)
        assert not np.allclose(one, other)

    def test_a_seed_of_numpy_is_that_seed(self, kind: type[Any]) -> None:
        one, two = (fitted(kind, random_state=seed).transform(TEXTS) for seed in (3, np.int64(3)))
        np.testing.assert_array_equal(one, two)

    def test_the_global_random_state_is_left_alone(self, kind: type[Any]) -> None:
        torch.manual_seed(5)
        expected = torch.rand(3)
        torch.manual_seed(5)
        fitted(kind)
        torch.testing.assert_close(torch.rand(3), expected)

    def test_a_second_fit_forgets_the_first(self, kind: type[Any]) -> None:
        estimator = small(kind).fit([text.upper() for text in TEXTS], LABELS)
        again = estimator.fit(TEXTS, LABELS).transform(TEXTS)
        np.testing.assert_array_equal(again, fitted(kind).transform(TEXTS))

    def test_a_pickle_gives_the_same_results(self, kind: type[Any]) -> None:
        estimator = fitted(kind)
        copy = pickle.loads(pickle.dumps(estimator))
        np.testing.assert_array_equal(copy.transform(TEXTS), estimator.transform(TEXTS))
        assert copy.reconstruct(TEXTS[:3]) == estimator.reconstruct(TEXTS[:3])

    @pytest.mark.parametrize(
        ("texts", "error", "message"),
        [
            ([], ValueError, "there are no texts"),
            ("one string", TypeError, r"write \[text\]"),
            (["a", 3], TypeError, "document 1 is a int"),
            (["a", None], TypeError, "document 1 is a NoneType"),
            (["a", float("nan")], TypeError, "document 1 is a float.*leave out what is missing"),
            (None, TypeError, "not a NoneType"),
            ({"text": ["a"]}, TypeError, "not a dict: choose one column"),
            (np.array([["a", "b"]]), ValueError, "one column of strings"),
        ],
    )
    def test_wrong_input_is_explained(
        self, kind: type[Any], texts: Any, error: type[Exception], message: str
    ) -> None:
        with pytest.raises(error, match=message):
            small(kind).fit(texts, ["a"] * (1 if texts is None else len(texts)))

    @pytest.mark.parametrize(
        ("parameters", "message"),
        [
            ({"rate": -1.0}, "training.rate"),
            ({"latent_size": -2}, "model.latent_size"),
            ({"decoder": "transformer-xxl"}, "kind should be"),
            ({"tokenizer": "letters"}, "corpus.tokenizer: Input should be 'bpe' or 'words'"),
            ({"precision": "fp8"}, "training.precision"),
            ({"random_state": -1}, "seed"),
            ({"epochs": 0}, "training.epochs"),
            ({"patience": 0}, "training.patience"),
            ({"validation_fraction": -0.1}, "validation_fraction must be between 0 and 1"),
            ({"validation_fraction": 1.0}, "validation_fraction must be between 0 and 1"),
        ],
    )
    def test_wrong_parameters_are_named_by_fit(
        self, kind: type[Any], parameters: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(ValueError, match=message):
            fitted(kind, **parameters)


class TestTexts:
    def test_a_list_an_array_a_column_a_split_and_a_dataset_are_the_same_texts(self) -> None:
        pandas, datasets = pytest.importorskip("pandas"), pytest.importorskip("datasets")
        dataset = datasets.Dataset.from_dict({"text": TEXTS})
        others = [
            tuple(TEXTS),
            np.array(TEXTS),
            np.array(TEXTS, dtype=object),
            pandas.Series(TEXTS, index=range(7, 7 + len(TEXTS))),
            tutvae.Texts(TEXTS),
            dataset,
            dataset["text"],
        ]
        for texts in others:
            assert as_documents(texts) == TEXTS

    def test_text_comes_back_as_people_write_it(self, vae: SentenceVAE) -> None:
        tokenizer = vae.tokenizer_
        written = ["I don't know.", "Größe?  «да» — 你好\n", "a\tb"]
        assert [tokenizer.decode(ids) for ids in tokenizer.encode(written)] == written

    def test_a_rate_makes_a_code_that_tells_the_texts_apart(self) -> None:
        held, free = (
            fitted(SentenceVAE, rate=rate, epochs=60, patience=60, learning_rate=0.01)
            for rate in (3.0, None)
        )
        assert 2 < held.report_.kl < 4.5
        assert free.report_.kl < held.report_.kl - 1

    def test_an_empty_code_is_told_in_one_line(self) -> None:
        with pytest.warns(UserWarning, match="the code is empty"):
            fitted(SentenceVAE, rate=None, epochs=1)

    def test_empty_and_one_word_texts_have_codes(self, vae: SentenceVAE) -> None:
        assert vae.transform(["", "Anna", "x" * 50]).shape == (3, 3)

    def test_codes_decode_to_the_reconstructions(self, vae: SentenceVAE) -> None:
        assert vae.inverse_transform(vae.transform(TEXTS[:5])) == vae.reconstruct(TEXTS[:5])

    def test_codes_of_another_size_are_refused(self, vae: SentenceVAE) -> None:
        with pytest.raises(ValueError, match=r"\[N, 3\], not \[2, 4\]"):
            vae.inverse_transform(np.zeros((2, 4)))

    def test_a_walk_begins_and_ends_with_the_reconstructions(self, vae: SentenceVAE) -> None:
        walk = vae.interpolate(TEXTS[0], TEXTS[7], 4)
        assert [walk[0], walk[-1]] == vae.reconstruct([TEXTS[0], TEXTS[7]])
        assert len(walk) == 4

    def test_blanks_are_filled_and_the_rest_stays(self, vae: SentenceVAE) -> None:
        (filled,) = vae.impute(["Anna sees _ cat."])
        assert filled.startswith("Anna sees ")
        assert filled.endswith(" cat.")

    def test_score_is_the_mean_log_likelihood_of_the_report(self, vae: SentenceVAE) -> None:
        report = vae.evaluate(TEXTS, importance_samples=50)
        assert vae.score(TEXTS) == pytest.approx(-report.importance_weighted_nll, rel=1e-5)

    def test_without_a_code_it_is_the_language_model_of_the_same_decoder(
        self, vae: SentenceVAE
    ) -> None:
        model = fitted(SentenceVAE, latent_size=0, tokenizer=vae.tokenizer_)
        assert isinstance(model.model_, LanguageModel)
        assert model.evaluate(TEXTS).kl == 0
        with pytest.raises(ValueError, match="has no code"):
            model.reconstruct(TEXTS)

    @pytest.mark.parametrize(
        "decoder",
        ["lstm", "gru", "bag", {"kind": "dilated_cnn", "embedding_size": 8, "channels": 8}],
    )
    def test_decoders_are_chosen_by_name_or_table(self, decoder: Any) -> None:
        assert fitted(SentenceVAE, decoder=decoder, epochs=1).transform(TEXTS).shape == (48, 3)

    def test_bags_of_words_are_kept_like_any_model(self, tmp_path: Path) -> None:
        vae = fitted(SentenceVAE, encoder="bag", decoder="bag")
        again = tutvae.load(vae.save(tmp_path / "bags"))
        np.testing.assert_array_equal(again.transform(TEXTS), vae.transform(TEXTS))
        assert isinstance(again.model_.encoder, BagEncoder)
        assert isinstance(again.model_.decoder, BagDecoder)

    def test_given_texts_choose_the_best_epoch(self) -> None:
        vae = small(SentenceVAE).fit(TEXTS[:40], valid=TEXTS[40:])
        assert vae.report_.examples == 8

    def test_one_text_cannot_be_split(self) -> None:
        with pytest.raises(ValueError, match="too few to train on"):
            small(SentenceVAE).fit(TEXTS[:1])

    def test_an_interrupted_fit_goes_on_and_other_texts_are_refused(self, tmp_path: Path) -> None:
        folder = tmp_path / "run"
        once = fitted(SentenceVAE, run_folder=folder)
        again = fitted(SentenceVAE, run_folder=folder)
        np.testing.assert_array_equal(once.transform(TEXTS), again.transform(TEXTS))
        with pytest.raises(ValueError, match="data_sha256"):
            small(SentenceVAE, run_folder=folder).fit(TEXTS[1:])


class TestPipelines:
    def test_codes_feed_a_classifier_in_a_grid_search(self) -> None:
        pipeline = make_pipeline(small(SentenceVAE, epochs=1), LogisticRegression())
        search = GridSearchCV(pipeline, {"sentencevae__latent_size": [2, 3]}, cv=2)
        search.fit(TEXTS, LABELS)
        assert set(search.predict(TEXTS)) <= {"cat", "other"}

    def test_a_grid_search_chooses_by_the_likelihood(self) -> None:
        search = GridSearchCV(small(SentenceVAE), {"epochs": [1, 12]}, cv=2)
        assert search.fit(np.array(TEXTS)).best_params_ == {"epochs": 12}

    def test_a_classifier_is_searched_by_its_accuracy(self) -> None:
        search = GridSearchCV(small(SemiSupervisedClassifier), {"rate": [1.0]}, cv=2)
        search.fit(TEXTS, LABELS)
        assert 0 <= search.best_score_ <= 1


class TestLabels:
    def test_classes_are_the_sorted_labels(self, classifier: SemiSupervisedClassifier) -> None:
        assert classifier.classes_.tolist() == ["cat", "other"]
        assert set(classifier.predict(TEXTS)) <= {"cat", "other"}

    def test_probabilities_sum_to_one_and_their_largest_is_predicted(
        self, classifier: SemiSupervisedClassifier
    ) -> None:
        q = classifier.predict_proba(TEXTS)
        assert np.allclose(np.exp(classifier.predict_log_proba(TEXTS)), q)
        np.testing.assert_allclose(q.sum(1), 1, rtol=1e-5)
        assert classifier.predict(TEXTS).tolist() == classifier.classes_[q.argmax(1)].tolist()

    @pytest.mark.parametrize("missing", [-1, None, float("nan")])
    def test_texts_without_a_label_are_no_class(self, missing: Any) -> None:
        few = [label if i % 3 else missing for i, label in enumerate(LABELS)]
        assert small(SemiSupervisedClassifier).fit(TEXTS, few).classes_.tolist() == ["cat", "other"]

    def test_a_column_of_pandas_may_lack_labels(self) -> None:
        pandas = pytest.importorskip("pandas")
        for dtype, name in (("Int64", 7), ("string", "a b")):
            few = pandas.Series(
                [None, name, name[:1] if dtype == "string" else -3] * 16, dtype=dtype
            )
            expected = sorted(few.dropna().unique().tolist())
            assert small(SemiSupervisedClassifier).fit(TEXTS, few).classes_.tolist() == expected

    def test_the_few_texts_with_a_label_are_not_held_out(self) -> None:
        few = [label if i in (2, 20) else -1 for i, label in enumerate(LABELS)]
        half = small(SemiSupervisedClassifier, epochs=1, validation_fraction=0.5)
        for seed in range(3):
            half.set_params(random_state=seed).fit(TEXTS, few)
            assert half.classes_.tolist() == ["cat", "other"]

    def test_no_epoch_is_left_out_because_the_bound_was_best_before(self) -> None:
        texts = [*TEXTS, *(f"{text} {other}" for text in TEXTS for other in TEXTS[:3])]
        labels = [*LABELS, *[None] * (len(texts) - len(TEXTS))]
        strange = ["A bird, a plane, a train." for _ in range(8)]  # the bound of these gets worse
        model = small(SemiSupervisedClassifier, epochs=8, learning_rate=0.02)
        model.fit(texts, labels, valid=strange)
        assert model.history_.best["epoch"] < len(model.history_) == 8
        last = small(SemiSupervisedClassifier, epochs=8, learning_rate=0.02).fit(
            texts, labels, valid=TEXTS
        )
        assert np.allclose(model.predict_proba(TEXTS), last.predict_proba(TEXTS), atol=1e-5)

    def test_labels_may_be_any_numbers(self) -> None:
        numbers = np.array([7 if label == "cat" else 30 for label in LABELS])
        numbers[::4] = -1
        model = small(SemiSupervisedClassifier, epochs=25, learning_rate=0.02).fit(TEXTS, numbers)
        assert model.classes_.tolist() == [7, 30]
        known = numbers >= 0
        assert model.score(np.array(TEXTS)[known], numbers[known]) > 0.9

    @pytest.mark.parametrize(
        ("labels", "message"),
        [
            (None, "48 texts need 48 labels"),
            (LABELS[:-1], "48 texts need 48 labels"),
            ([-1] * 48, "0 classes"),
            (["one"] * 48, "labels of 1 classes"),
            (["one", 2] * 24, "both numbers and names"),
            (np.zeros((48, 2)), r"one column, not an array \[48, 2\]"),
        ],
    )
    def test_impossible_labels_are_explained(self, labels: Any, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            small(SemiSupervisedClassifier).fit(TEXTS, labels)

    def test_it_reconstructs_walks_and_fills_like_any_other(
        self, classifier: SemiSupervisedClassifier
    ) -> None:
        assert len(classifier.reconstruct(TEXTS[:2])) == 2
        assert len(classifier.interpolate(*TEXTS[:2])) == 5
        assert len(classifier.impute(["Anna sees _ cat."])) == 1
        assert len(classifier.inverse_transform(classifier.transform(TEXTS[:2]))) == 2
        assert len(classifier.sample(3)) == len(classifier.sample(3, label="cat")) == 3
        with pytest.raises(ValueError, match=r"one of \['cat', 'other'\], not 'dog'"):
            classifier.sample(3, label="dog")

    @pytest.mark.filterwarnings("ignore:.*were cut")
    def test_a_long_text_is_classified_by_what_is_read_in_training(self) -> None:
        model = fitted(SemiSupervisedClassifier, max_length=6, tokenizer="words")
        q = model.predict_proba(["Anna sees nobody. the cat", "Anna sees nobody. the cat the cat"])
        np.testing.assert_allclose(q[0], q[1], rtol=1e-5)


# What another process finds in folders, as JSON.
ANSWERS = """
import json, sys, tutvae
texts, *folders = sys.argv[1:]
texts = json.loads(texts)
for model in map(tutvae.load, folders):
    print(json.dumps({
        "kind": type(model).__name__,
        "codes": model.transform(texts).tolist(),
        "texts": model.reconstruct(texts),
        "history": model.history_.records,
        "report": model.report_.to_dict(),
        "tokenizer": model.tokenizer_.fingerprint,
        "parameters": [model.rate, model.max_length, model.random_state],
        "labels": [model.classes_.tolist(), model.predict(texts).tolist()]
        if hasattr(model, "classes_") else None,
    }))
"""


class TestSaved:
    def test_a_refined_one_is_saved_without_the_report_of_another(
        self, vae: SentenceVAE, tmp_path: Path
    ) -> None:
        loaded = tutvae.load(vae.refined(steps=2).save(tmp_path / "refined"))
        assert vae.report_ is not None
        assert loaded.report_ is None
        assert "## Measured" not in (tmp_path / "refined" / "README.md").read_text("utf-8")

    @pytest.mark.filterwarnings("ignore:.*were cut")
    def test_a_new_process_finds_the_same_estimators(self, tmp_path: Path) -> None:
        tokenizer, texts = tutvae.Tokenizer.train(TEXTS), TEXTS[:5]
        state = np.random.RandomState(5)
        vae = fitted(SentenceVAE, rate=2.5, random_state=state)
        classifier = fitted(SemiSupervisedClassifier, tokenizer=tokenizer, max_length=7, rate=None)
        models = {"vae": vae, "classifier": classifier}
        folders = [str(model.save(tmp_path / name)) for name, model in models.items()]
        command = [sys.executable, "-c", ANSWERS, json.dumps(texts), *folders]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        for model, line in zip(models.values(), done.stdout.splitlines(), strict=True):
            found = json.loads(line)
            np.testing.assert_allclose(found.pop("codes"), model.transform(texts), rtol=1e-5)
            is_classifier = model is classifier
            assert found == {
                "kind": type(model).__name__,
                "texts": model.reconstruct(texts),
                "history": model.history_.records,
                "report": json.loads(json.dumps(model.report_.to_dict())),
                "tokenizer": model.tokenizer_.fingerprint,
                "parameters": [model.rate, model.max_length, model.seed_],
                "labels": [["cat", "other"], model.predict(texts).tolist()]
                if is_classifier
                else None,
            }

    def test_parameters_come_back_and_train_the_same_model(
        self, classifier: SemiSupervisedClassifier, tmp_path: Path
    ) -> None:
        loaded: Any = tutvae.load(classifier.save(tmp_path / "model"))
        own = {"device": "cpu", "progress": False}
        assert loaded.get_params() | own == classifier.get_params()
        again = clone(loaded).set_params(**own).fit(TEXTS, LABELS)
        np.testing.assert_array_equal(again.transform(TEXTS), classifier.transform(TEXTS))

    @pytest.mark.parametrize("labels", [[3, -7], [True, False], [0.5, 2.0], ["a b", "ä"]])
    def test_classes_keep_what_they_are(self, labels: list[Any], tmp_path: Path) -> None:
        model = small(SemiSupervisedClassifier, epochs=1).fit(TEXTS, labels * 24)
        loaded: Any = tutvae.load(model.save(tmp_path / "model"))
        assert loaded.classes_.tolist() == sorted(labels)
        assert loaded.predict(TEXTS[:3]).tolist() == model.predict(TEXTS[:3]).tolist()

    @pytest.mark.parametrize("kind", ESTIMATORS)
    def test_a_run_folder_is_loaded_like_a_saved_model(
        self, kind: type[Any], tmp_path: Path
    ) -> None:
        model = fitted(kind, run_folder=tmp_path / "run")
        loaded: Any = tutvae.load(tmp_path / "run")
        assert type(loaded) is kind
        assert loaded.reconstruct(TEXTS[:3]) == model.reconstruct(TEXTS[:3])
        if kind is SemiSupervisedClassifier:
            np.testing.assert_array_equal(loaded.predict(TEXTS), model.predict(TEXTS))

    def test_by_the_function_for_models_it_says_how(self, vae: SentenceVAE, tmp_path: Path) -> None:
        with pytest.raises(TypeError, match=r"by its own save\(folder\)"):
            tutvae.save(vae, tmp_path / "model")  # type: ignore[arg-type]
