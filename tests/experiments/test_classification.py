from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tutvae.data.batches.labelled import label_subset
from tutvae.data.batches.text import EncodedTexts
from tutvae.experiments import classification as module
from tutvae.experiments import classification_methods as methods
from tutvae.experiments import load_experiment, run_experiment
from tutvae.experiments.text_corpora import load_texts

METHODS = ["bag_of_words", "lstm", "lstm_init", "codes", "semi_supervised"]
TIMES = ("train_seconds", "tokens_per_second", "initialisation_seconds")
SHARED = ["all-language_model-1", "all-vae-1"]
LABELS = [f"all-{method}-{labels}-1" for method in METHODS for labels in (10, 40)]


def without_times(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in run.items() if key not in TIMES} for run in runs]


@pytest.fixture
def train(classification_toml: Path, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Run the experiment, changed, in the folder of the test."""

    def run(*settings: str, **options: Any) -> dict[str, Any]:
        experiment = load_experiment(classification_toml, settings)
        return run_experiment(experiment, "tutvae train", folder=tmp_path, **options)[1]

    return run


@pytest.fixture
def settings_seen(monkeypatch: pytest.MonkeyPatch) -> dict[str, methods.Setting]:
    """What each method is given; every one says class 2 of each document."""
    seen: dict[str, methods.Setting] = {}

    def stub(setting: methods.Setting) -> tuple[methods.Classify, dict[str, Any]]:
        seen[setting.run.label] = setting
        return lambda split: np.full(len(split), 2), {"parameters": 1}

    monkeypatch.setattr(module, "METHODS", dict.fromkeys(METHODS, stub))
    return seen


class TestTheRecord:
    def test_every_run_in_order(self, classification_run: dict[str, Any]) -> None:
        runs = classification_run["runs"]
        labels = [f"{r['variant']}-{r['method']}-{r['labels']}-{r['seed']}" for r in runs]
        assert labels == LABELS
        shared = classification_run["shared"]
        assert [f"{r['variant']}-{r['model']}-{r['seed']}" for r in shared] == SHARED

    def test_the_same_again(
        self, classification_run: dict[str, Any], train: Callable[..., dict[str, Any]]
    ) -> None:
        record = train()
        for key in ("runs", "shared"):
            assert without_times(record[key]) == without_times(classification_run[key])

    def test_several_at_a_time_come_to_the_same(
        self,
        classification_run: dict[str, Any],
        train: Callable[..., dict[str, Any]],
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        record = train(jobs=2)
        for key in ("runs", "shared"):
            assert without_times(record[key]) == without_times(classification_run[key])
        assert record["hardware"]["threads"] == 1
        files = [f"{label}.json" for label in SHARED + LABELS]
        files += [f"{label}.safetensors" for label in SHARED]
        kept = sorted(path.name for path in tmp_path.iterdir() if path.suffix)
        assert kept == sorted(files)
        told = [line.split()[1] for line in capsys.readouterr().err.splitlines()]
        assert sorted(told) == sorted(f"{label}:" for label in SHARED + LABELS)

    def test_a_folder_is_needed(self, classification_toml: Path) -> None:
        with pytest.raises(ValueError, match="a sweep needs a folder"):
            run_experiment(load_experiment(classification_toml), "tutvae train")


class TestAccuracy:
    def test_it_is_the_share_that_is_right(
        self,
        settings_seen: dict[str, methods.Setting],
        classification_toml: Path,
        train: Callable[..., dict[str, Any]],
    ) -> None:
        corpus = load_texts(load_experiment(classification_toml).corpus)
        run = train("methods=['lstm']", "labels=[10]")["runs"][0]
        for name, split in (("valid", corpus.valid), ("test", corpus.test)):
            assert split.labels is not None
            right = sum(label == 2 for label in split.labels.tolist())
            assert run["accuracy"][name] == pytest.approx(right / len(split), abs=1e-5)

    def test_of_the_largest_class_alone_and_of_the_best_classifier(
        self, classification_run: dict[str, Any], classification_toml: Path
    ) -> None:
        section = load_experiment(classification_toml).corpus
        labels = load_texts(section).test.labels
        assert labels is not None
        largest = max(labels.tolist().count(label) for label in range(5))
        assert classification_run["majority_accuracy"] == pytest.approx(largest / 53, abs=1e-5)
        best = section.grammar().bayes_accuracy("category")
        assert classification_run["bayes_accuracy"]["value"] == pytest.approx(best.value, abs=1e-4)

    def test_words_that_tell_the_class(self, train: Callable[..., dict[str, Any]]) -> None:
        """Two nouns a category and none left out: a hundred labels show nearly all of them."""
        settings = ["corpus.vagueness=0.0", "corpus.label_noise=0.0", "labels=[100]"]
        settings += ["classifier.steps=300", "corpus.documents=[200, 40, 60]"]
        record = train("methods=['bag_of_words', 'lstm']", *settings)
        for run in record["runs"]:
            assert run["accuracy"]["test"] > 0.7 > 2 * record["majority_accuracy"]


class TestWhatTheMethodsAreGiven:
    def test_a_seed_draws_the_same_labels_for_all(
        self,
        settings_seen: dict[str, methods.Setting],
        train: Callable[..., dict[str, Any]],
        classification_toml: Path,
    ) -> None:
        train("seeds=[1, 2]")
        texts = load_texts(load_experiment(classification_toml).corpus).train
        for count in (10, 40):
            for seed in (1, 2):
                positions = label_subset(texts.labels, count, seed)
                expected = texts.batch(positions)
                for method in METHODS:
                    given = settings_seen[f"all-{method}-{count}-{seed}"].labelled.batch()
                    assert torch.equal(given.tokens, expected.tokens)
                    assert torch.equal(given.labels, expected.labels)

    def test_bag_of_words_sees_no_more_of_a_document_than_the_others(
        self, train: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Spy:
            def __getitem__(self, step: int) -> Any:
                return type("Step", (), {"coef_": np.zeros(3), "intercept_": np.zeros(1)})

            def fit(self, texts: list[str], labels: np.ndarray) -> Spy:
                assert len(texts) == len(labels) == 10
                assert {len(text.split()) for text in texts} == {5}  # and the start mark
                assert any("<unk>" in text for text in texts)
                return self

            def predict(self, texts: list[str]) -> np.ndarray:
                assert {len(text.split()) for text in texts} == {5}
                return np.zeros(len(texts), dtype=int)

        monkeypatch.setattr(methods, "bag_of_words", Spy)
        settings = ["labels=[10]", "corpus.max_length=6", "corpus.vocabulary_size=20"]
        with pytest.warns(UserWarning, match="were cut to the first 6"):
            run = train("methods=['bag_of_words']", *settings)["runs"][0]
        assert run["parameters"] == 4

    def test_the_classifier_s_steps_do_not_depend_on_the_labels(
        self, train: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        steps: list[int] = []

        def spy(model: Any, batches: Any, *, epochs: int, **options: Any) -> None:
            assert epochs == 1
            steps.append(len(list(batches)))

        monkeypatch.setattr(methods, "fit", spy)
        train("methods=['lstm']", "labels=[5, 10, 40]", "classifier.steps=17")
        assert steps == [17, 17, 17]

    @pytest.mark.parametrize("method", ["lstm_init", "semi_supervised"])
    def test_an_encoder_that_starts_from_the_language_model(
        self,
        train: Callable[..., dict[str, Any]],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        method: str,
    ) -> None:
        states: list[dict[str, torch.Tensor]] = []

        def spy(model: Any, *arguments: Any, **options: Any) -> Any:
            states.append({k: v.clone() for k, v in model.encoder.lstm.state_dict().items()})
            return fit(model, *arguments, **options)

        name = "fit" if method == "lstm_init" else "fit_as_described"
        fit = getattr(methods, name)
        monkeypatch.setattr(methods, name, spy)
        train(f"methods=['{method}']", "labels=[10]", "initialisation.vaes=true")
        weights = load_file(tmp_path / "all-language_model-1.safetensors")
        assert len(states) == 1
        for key, value in states[0].items():
            assert torch.equal(value, weights[f"decoder.lstm.{key}"])


class TestGoingOn:
    @pytest.fixture
    def done(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """What was really trained, in one process."""
        labels: list[str] = []

        def spied(name: str) -> None:
            function = getattr(module, name)

            def spy(corpus: Any, folder: Path, run: Any) -> Any:
                labels.append(run.label)
                return function(corpus, folder, run)

            monkeypatch.setattr(module, name, spy)

        spied("_train_shared")
        spied("_train_and_score")
        return labels

    def test_what_is_finished_is_not_done_again(
        self, train: Callable[..., dict[str, Any]], done: list[str], tmp_path: Path
    ) -> None:
        first = train("labels=[10]")
        assert done == SHARED + [label for label in LABELS if "-10-" in label]
        done.clear()
        (tmp_path / "all-codes-10-1.json").unlink()
        assert without_times(train("labels=[10]")["runs"]) == without_times(first["runs"])
        assert done == ["all-codes-10-1"]

    def test_more_labels_are_added(
        self, train: Callable[..., dict[str, Any]], done: list[str]
    ) -> None:
        methods = "methods=['bag_of_words', 'codes']"
        train(methods, "labels=[10]")
        done.clear()
        train(methods, "labels=[10, 20]")
        assert done == ["all-bag_of_words-20-1", "all-codes-20-1"]

    def test_what_a_changed_section_has_no_say_in_is_kept(
        self, train: Callable[..., dict[str, Any]], done: list[str]
    ) -> None:
        train("labels=[10]")
        done.clear()
        train("labels=[10]", "classifier.steps=8")
        assert done == ["all-lstm-10-1", "all-lstm_init-10-1"]
        done.clear()
        train("labels=[10]", "classifier.steps=8", "initialisation.epochs=2")
        assert done == ["all-language_model-1", "all-lstm_init-10-1"]

    def test_divergence_names_the_run(self, train: Callable[..., dict[str, Any]]) -> None:
        settings = ["training.optimizer='sgd'", "training.learning_rate=1e30"]
        with pytest.raises(FloatingPointError, match="all-semi_supervised-10-1: the loss is "):
            train("methods=['semi_supervised']", *settings)


class TestUnfitCorpora:
    def test_too_few_documents_of_a_class(self, train: Callable[..., dict[str, Any]]) -> None:
        """Said before anything is trained."""
        with pytest.raises(ValueError, match="too few to draw"):
            train("labels=[10, 119]", "methods=['bag_of_words']")

    def test_no_labels(
        self, train: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        texts = EncodedTexts([[1, 2], [1, 2]])
        monkeypatch.setattr(
            module,
            "load_texts",
            lambda section: module.EncodedCorpus(None, None, texts, texts, texts),
        )
        with pytest.raises(ValueError, match="the corpus has no labels"):
            train()
