from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tutvae.data.batches.labelled import label_subset
from tutvae.data.batches.text import EncodedTexts
from tutvae.evaluation import rivals
from tutvae.experiments import (
    ClassificationExperiment,
    TextExperiment,
    load_experiment,
    methods,
    run_experiment,
    validate_experiment,
)
from tutvae.experiments.data import CorpusSection, EncodedCorpus
from tutvae.experiments.experiment import Context
from tutvae.training.loop import History

METHODS = ["tfidf", "naive_bayes_em", "labels_only", "semi_supervised"]
TIMES = ("train_seconds", "tokens_per_second")
LABELS = [f"all-{method}-{labels}-1" for method in METHODS for labels in (25, 40)]


def without_times(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in run.items() if key not in TIMES} for run in runs]


def described(path: Path, *settings: str) -> ClassificationExperiment:
    experiment = load_experiment(path, settings)
    assert isinstance(experiment, ClassificationExperiment)
    return experiment


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
        (run,) = setting.experiment.runs()
        seen[run.label] = setting
        return lambda split: np.full(len(getattr(setting.data, split)), 2), {"seconds": 0.0}

    monkeypatch.setattr(methods, "METHODS", dict.fromkeys(METHODS, stub))
    return seen


class Spy:
    """A rival that notes what it is given, and says class 0 of each document."""

    def __init__(self) -> None:
        self.best_params_ = {"C": 3.0}
        self.seen: list[list[str]] = []
        self.labels = np.array([])

    def __getitem__(self, step: int) -> Spy:
        return self

    def fit(self, texts: list[str], labels: np.ndarray) -> Spy:
        self.labels = labels
        self.predict(texts)
        return self

    def predict(self, texts: list[str]) -> np.ndarray:
        self.seen.append(texts)
        return np.zeros(len(texts), dtype=int)


class TestTheRecord:
    def test_every_run_in_order(self, classification_run: dict[str, Any]) -> None:
        runs = classification_run["runs"]
        labels = [f"{r['variant']}-{r['method']}-{r['labels']}-{r['seed']}" for r in runs]
        assert labels == LABELS

    def test_the_same_again(
        self, classification_run: dict[str, Any], train: Callable[..., dict[str, Any]]
    ) -> None:
        assert without_times(train()["runs"]) == without_times(classification_run["runs"])

    def test_several_at_a_time_come_to_the_same(
        self,
        classification_run: dict[str, Any],
        train: Callable[..., dict[str, Any]],
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        record = train(jobs=2)
        assert without_times(record["runs"]) == without_times(classification_run["runs"])
        assert record["hardware"]["threads"] == 1
        finished = sorted(path.parent.name for path in tmp_path.glob("*/record.json"))
        assert finished == sorted(LABELS)
        told = [line.split()[1] for line in capsys.readouterr().err.splitlines()]
        assert sorted(told) == sorted(f"{label}:" for label in LABELS)

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
        corpus = load_experiment(classification_toml).load()
        run = train("methods=['labels_only']", "labels=[25]")["runs"][0]
        for name, split in (("valid", corpus.valid), ("test", corpus.test)):
            assert split.labels is not None
            right = sum(label == 2 for label in split.labels.tolist())
            assert run["accuracy"][name] == pytest.approx(right / len(split), abs=1e-5)

    def test_of_the_largest_class_alone_and_of_the_best_classifier(
        self, classification_run: dict[str, Any], classification_toml: Path
    ) -> None:
        section = load_experiment(classification_toml).corpus
        labels = section.build().test.labels
        assert labels is not None
        largest = max(labels.tolist().count(label) for label in range(5))
        assert classification_run["majority_accuracy"] == pytest.approx(largest / 53, abs=1e-5)
        best = section.grammar().bayes_accuracy("category")
        assert classification_run["bayes_accuracy"]["value"] == pytest.approx(best.value, abs=1e-4)

    def test_words_that_tell_the_class(self, train: Callable[..., dict[str, Any]]) -> None:
        """Two nouns a category and none left out: a hundred labels show nearly all of them."""
        settings = ["corpus.vagueness=0.0", "corpus.label_noise=0.0", "labels=[100]"]
        settings += ["classifier.steps=300", "corpus.documents=[200, 40, 60]"]
        record = train("methods=['tfidf', 'naive_bayes', 'labels_only']", *settings)
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
        texts = load_experiment(classification_toml).load().train
        for count in (25, 40):
            for seed in (1, 2):
                positions = label_subset(texts.labels, count, seed)
                expected = texts.batch(positions)
                for method in METHODS:
                    given = settings_seen[f"all-{method}-{count}-{seed}"].labelled.batch()
                    assert torch.equal(given.tokens, expected.tokens)
                    assert torch.equal(given.labels, expected.labels)

    @pytest.mark.parametrize("method", ["tfidf", "naive_bayes", "self_training"])
    def test_a_rival_sees_no_more_of_a_document_than_the_others(
        self, train: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch, method: str
    ) -> None:
        spy = Spy()
        monkeypatch.setattr(rivals, method, lambda: spy)
        settings = ["labels=[10]", "corpus.max_length=6", "corpus.vocabulary_size=20"]
        with pytest.warns(UserWarning, match="were cut to the first 6"):
            run = train(f"methods=['{method}']", *settings)["runs"][0]
        assert [len(texts) for texts in spy.seen] == [120, 41, 53]
        for texts in spy.seen:
            assert {len(text.split()) for text in texts} == {5}  # and the start mark
            assert any("<unk>" in text for text in texts)
        assert run["chosen"] == {"C": 3.0}
        assert "parameters" not in run

    def test_the_frozen_encoder_reads_the_texts_as_they_are_written(
        self,
        train: Callable[..., dict[str, Any]],
        monkeypatch: pytest.MonkeyPatch,
        classification_toml: Path,
    ) -> None:
        spy = Spy()
        monkeypatch.setattr(rivals, "frozen_encoder", lambda: spy)
        train("methods=['frozen_encoder']", "labels=[10]", "corpus.vocabulary_size=20")
        texts = load_experiment(classification_toml).load().texts
        assert spy.seen == [texts.train.texts, texts.valid.texts, texts.test.texts]

    def test_a_rival_is_told_the_labels_of_the_draw_alone(
        self,
        train: Callable[..., dict[str, Any]],
        monkeypatch: pytest.MonkeyPatch,
        classification_toml: Path,
    ) -> None:
        spy = Spy()
        monkeypatch.setattr(rivals, "tfidf", lambda: spy)
        train("methods=['tfidf']", "labels=[10]")
        labels = load_experiment(classification_toml).load().train.labels.numpy()
        known = np.flatnonzero(spy.labels >= 0)
        assert known.tolist() == label_subset(labels, 10, 1).tolist()
        assert spy.labels[known].tolist() == labels[known].tolist()

    def test_the_classifier_s_steps_do_not_depend_on_the_labels(
        self, train: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        steps: list[int] = []

        def spy(model: Any, batches: Any, *, epochs: int, **options: Any) -> History:
            assert epochs == 1
            steps.append(len(list(batches)))
            return History()

        monkeypatch.setattr(methods, "fit", spy)
        train("methods=['labels_only']", "labels=[5, 10, 40]", "classifier.steps=17")
        assert steps == [17, 17, 17]


class TestGoingOn:
    @pytest.fixture
    def done(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """What was really trained, in one process."""
        labels: list[str] = []

        def spied(kind: Any) -> None:
            function = kind.train

            def spy(experiment: Any, data: Any, context: Context) -> Any:
                labels.append(context.folder.path.name)
                return function(experiment, data, context)

            monkeypatch.setattr(kind, "train", spy)

        spied(TextExperiment)
        spied(ClassificationExperiment)
        return labels

    def test_what_is_finished_is_not_done_again(
        self, train: Callable[..., dict[str, Any]], done: list[str], tmp_path: Path
    ) -> None:
        first = train("labels=[25]")
        assert done == [label for label in LABELS if "-25-" in label]
        done.clear()
        shutil.rmtree(tmp_path / "all-tfidf-25-1")
        assert without_times(train("labels=[25]")["runs"]) == without_times(first["runs"])
        assert done == ["all-tfidf-25-1"]

    def test_more_labels_are_added(
        self, train: Callable[..., dict[str, Any]], done: list[str]
    ) -> None:
        methods = "methods=['tfidf', 'naive_bayes']"
        train(methods, "labels=[25]")
        done.clear()
        train(methods, "labels=[25, 30]")
        assert done == ["all-tfidf-30-1", "all-naive_bayes-30-1"]

    def test_what_a_changed_section_does_not_concern_is_kept(
        self, train: Callable[..., dict[str, Any]], done: list[str], tmp_path: Path
    ) -> None:
        train("labels=[25]")
        done.clear()
        with pytest.raises(
            ValueError, match=r"all-labels_only-25-1 holds another run: its classifier\."
        ):
            train("labels=[25]", "classifier.steps=8")
        shutil.rmtree(tmp_path / "all-labels_only-25-1")
        train("labels=[25]", "classifier.steps=8")
        assert done == ["all-labels_only-25-1"]

    @pytest.mark.parametrize("method", ["labels_only", "semi_supervised"])
    def test_a_killed_run_goes_on_from_its_checkpoint(
        self,
        train: Callable[..., dict[str, Any]],
        classification_run: dict[str, Any],
        monkeypatch: pytest.MonkeyPatch,
        method: str,
    ) -> None:
        class KilledError(Exception):
            pass

        steps: list[int] = []
        stop: int | None = 3

        def deadly(model: Any, batches: Any, **options: Any) -> Any:
            kl_weight = options.get("kl_weight", 1.0)

            def schedule(step: int) -> float:
                if step == stop:
                    raise KilledError
                steps.append(step)
                return kl_weight(step) if callable(kl_weight) else kl_weight

            options |= {"kl_weight": schedule, "checkpoint_minutes": 0}
            return fit(model, batches, **options)

        fit = methods.fit
        monkeypatch.setattr(methods, "fit", deadly)
        settings = [f"methods=['{method}']", "labels=[25]"]
        with pytest.raises(KilledError):
            train(*settings)
        steps.clear()
        stop = None
        torch.rand(5)  # the next process has another random state
        (run,) = without_times(train(*settings)["runs"])
        assert min(steps) == 3
        expected = [r for r in classification_run["runs"] if r["method"] == method]
        assert run == without_times(expected)[0]

    def test_with_a_tied_decoder(self, train: Callable[..., dict[str, Any]]) -> None:
        """Its one matrix is kept once, and read as both."""
        settings = ["decoder.tied=true", "decoder.embedding_size=13"]
        record = train("methods=['semi_supervised']", "labels=[25]", *settings)
        assert 0 <= record["runs"][0]["accuracy"]["test"] <= 1

    def test_divergence_names_the_run(self, train: Callable[..., dict[str, Any]]) -> None:
        settings = ["training.optimizer='sgd'", "training.learning_rate=1e30"]
        with pytest.raises(FloatingPointError, match="all-semi_supervised-25-1: the loss is "):
            train("methods=['semi_supervised']", *settings)


class TestUnfitCorpora:
    def test_too_few_documents_of_a_class(self, train: Callable[..., dict[str, Any]]) -> None:
        """Said before anything is trained."""
        with pytest.raises(ValueError, match="too few to draw"):
            train("labels=[10, 119]", "methods=['labels_only']")

    def test_no_labels(
        self, train: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        texts = EncodedTexts([[1, 2], [1, 2]])
        corpus = EncodedCorpus(None, None, texts, texts, texts)
        monkeypatch.setattr(CorpusSection, "build", lambda section: corpus)
        with pytest.raises(ValueError, match="the corpus has no labels"):
            train()


class TestRuns:
    def test_every_method_with_every_number_of_labels_and_every_seed(
        self, classification_toml: Path
    ) -> None:
        runs = described(classification_toml, "seeds=[3, 1]").runs()
        assert [run.label for run in runs] == [
            f"all-{method}-{labels}-{seed}"
            for method in METHODS
            for labels in (25, 40)
            for seed in (3, 1)
        ]
        assert [(*run.keys.values(), run.seed) for run in runs[:3]] == [
            ("tfidf", 25, 3),
            ("tfidf", 25, 1),
            ("tfidf", 40, 3),
        ]

    def test_a_variant_may_have_methods_labels_and_seeds_of_its_own(
        self, classification_toml: Path
    ) -> None:
        experiment = described(
            classification_toml,
            "methods=['labels_only']",
            "variants.base.model.latent_size=2",
            "variants.cnn.decoder={kind='dilated_cnn', embedding_size=4, channels=6}",
            "variants.cnn.methods=['semi_supervised', 'tfidf']",
            "variants.cnn.labels=[7]",
            "variants.cnn.seeds=[8, 9]",
        )
        runs = {run.label: run.experiment for run in experiment.runs()}
        assert list(runs) == [
            "base-labels_only-25-1",
            "base-labels_only-40-1",
            "cnn-semi_supervised-7-8",
            "cnn-semi_supervised-7-9",
            "cnn-tfidf-7-8",
            "cnn-tfidf-7-9",
        ]
        assert runs["base-labels_only-40-1"].model.latent_size == 2
        assert runs["cnn-semi_supervised-7-9"].model.latent_size == 3
        assert runs["cnn-semi_supervised-7-9"].decoder.kind == "dilated_cnn"

    def test_a_run_is_an_experiment_without_what_it_does_not_use(
        self, classification_toml: Path
    ) -> None:
        """So that another [classifier] does not make the VAEs run anew."""
        used = {
            "tfidf": set(),
            "naive_bayes_em": set(),
            "labels_only": {"classifier"},
            "semi_supervised": {"semi_supervised"},
        }
        for run in described(classification_toml).runs():
            table = run.experiment.configuration()
            optional = {"classifier", "semi_supervised", "variants"}
            assert optional & set(table) == used[run.keys["method"]]
            assert validate_experiment(table) == run.experiment
            assert run.experiment.runs()[0].experiment == run.experiment


class TestFaults:
    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            (["labels=[]"], "labels: List should have at least one number"),
            (["labels=[0]"], r"labels\.0: "),
            (["seeds=[2, 2]"], "seeds must differ"),
            (["methods=['labels_only', 'labels_only']"], "methods must differ"),
            (["methods=['svm']"], r"methods\.0: Input should be 'tfidf'"),
            (["model.latent_size=0"], r"model\.latent_size: "),
            (["corpus.name='imdb'"], "corpus"),
            (["semi_supervised.temperature=0"], r"semi_supervised\.temperature: "),
            (["semi_supervised.temperature={floor=0.5}"], r"temperature\.rate: Field required"),
            (["semi_supervised.marginal='sum'"], r"semi_supervised\.marginal: "),
            (["variants.a.classifier.steps=0"], r"variants\.a\.classifier\.steps: "),
            (["variants.a.corpus.nouns=3"], r"variants\.a\.corpus: All runs"),
            (["training.weights=best"], "leave out training.patience and training.weights"),
            (["training.patience=2"], "leave out training.patience and training.weights"),
        ],
    )
    def test_the_message_names_the_key(
        self, classification_toml: Path, settings: list[str], message: str
    ) -> None:
        with pytest.raises(ValueError, match=message):
            load_experiment(classification_toml, settings)

    @pytest.mark.parametrize(
        ("section", "method"),
        [("classifier", "labels_only"), ("semi_supervised", "semi_supervised")],
    )
    def test_a_method_without_its_section(
        self, classification_toml: Path, section: str, method: str
    ) -> None:
        table = described(classification_toml).configuration()
        del table[section]
        with pytest.raises(ValueError, match=rf"'{method}' needs a section \[{section}\]"):
            validate_experiment(table)
        table["methods"] = [name for name in table["methods"] if name != method]
        validate_experiment(table)


def test_the_temperature_may_fall(classification_toml: Path) -> None:
    setting = "semi_supervised.temperature={rate=0.1, floor=0.25}"
    section = described(classification_toml, setting).semi_supervised
    assert section is not None
    assert not isinstance(section.temperature, float)
    temperature = section.temperature.build()
    assert [temperature(0), temperature(1000)] == [1.0, 0.25]


def test_an_uneven_prior_of_the_labels(classification_toml: Path) -> None:
    prior = [0.5, 0.2, 0.1, 0.1, 0.1]
    experiment = described(classification_toml, f"semi_supervised.label_prior={prior}")
    assert experiment.semi_supervised is not None
    parts = experiment.encoder, experiment.decoder, experiment.load().tokenizer
    model = experiment.semi_supervised.build(*parts, 4, len(prior))
    torch.testing.assert_close(model.label_prior().probs, torch.tensor(prior))
