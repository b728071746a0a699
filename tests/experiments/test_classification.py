from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tutvae.data.batches.labelled import label_subset
from tutvae.data.batches.text import EncodedTexts
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

METHODS = ["bag_of_words", "lstm", "lstm_init", "codes", "semi_supervised"]
TIMES = ("train_seconds", "tokens_per_second", "initialisation_seconds")
SHARED = ["all-language_model-1", "all-vae-1"]
LABELS = [f"all-{method}-{labels}-1" for method in METHODS for labels in (10, 40)]


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
        return lambda split: np.full(len(split), 2), {"parameters": 1, "seconds": 0.0}

    monkeypatch.setattr(methods, "METHODS", dict.fromkeys(METHODS, stub))
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
        finished = sorted(path.parent.name for path in tmp_path.glob("*/record.json"))
        assert finished == sorted(SHARED + LABELS)
        with_weights = sorted(path.parent.name for path in tmp_path.glob("*/weights.safetensors"))
        assert with_weights == sorted(SHARED)
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
        corpus = load_experiment(classification_toml).load()
        run = train("methods=['lstm']", "labels=[10]")["runs"][0]
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
        texts = load_experiment(classification_toml).load().train
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

        def spy(model: Any, batches: Any, *, epochs: int, **options: Any) -> History:
            assert epochs == 1
            steps.append(len(list(batches)))
            return History()

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

        fit = methods.fit
        monkeypatch.setattr(methods, "fit", spy)
        train(f"methods=['{method}']", "labels=[10]", "initialisation.vaes=true")
        weights = load_file(tmp_path / "all-language_model-1" / "weights.safetensors")
        assert len(states) == 1
        for key, value in states[0].items():
            assert torch.equal(value, weights[f"decoder.lstm.{key}"])


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
        first = train("labels=[10]")
        assert done == SHARED + [label for label in LABELS if "-10-" in label]
        done.clear()
        shutil.rmtree(tmp_path / "all-codes-10-1")
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

    def test_what_a_changed_section_does_not_concern_is_kept(
        self, train: Callable[..., dict[str, Any]], done: list[str], tmp_path: Path
    ) -> None:
        train("labels=[10]")
        done.clear()
        with pytest.raises(ValueError, match=r"all-lstm-10-1 holds another run: its classifier\."):
            train("labels=[10]", "classifier.steps=8")
        for label in ("all-lstm-10-1", "all-lstm_init-10-1"):
            shutil.rmtree(tmp_path / label)
        train("labels=[10]", "classifier.steps=8")
        assert done == ["all-lstm-10-1", "all-lstm_init-10-1"]

    def test_a_shared_model_that_is_not_at_hand_is_trained_again_where_it_is_needed(
        self, train: Callable[..., dict[str, Any]], done: list[str], tmp_path: Path
    ) -> None:
        settings = ["methods=['bag_of_words', 'codes']"]
        results = tmp_path / "results"
        first = train(*settings, "labels=[10]", results=results)
        for path in tmp_path.glob("all-*"):
            shutil.rmtree(path)
        done.clear()
        assert train(*settings, "labels=[10]", results=results) == first
        assert done == []
        record = train(*settings, "labels=[10, 20]", results=results)
        assert done == ["all-vae-1", "all-bag_of_words-20-1", "all-codes-20-1"]
        assert [run for run in record["runs"] if run["labels"] == 10] == first["runs"]

    @pytest.mark.parametrize("method", ["lstm", "semi_supervised"])
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
        settings = [f"methods=['{method}']", "labels=[10]"]
        with pytest.raises(KilledError):
            train(*settings)
        steps.clear()
        stop = None
        torch.rand(5)  # the next process has another random state
        (run,) = without_times(train(*settings)["runs"])
        assert min(steps) == 3
        expected = [r for r in classification_run["runs"] if r["method"] == method]
        assert run == without_times(expected)[0]

    @pytest.mark.parametrize("method", ["codes", "semi_supervised"])
    def test_with_a_tied_decoder(self, train: Callable[..., dict[str, Any]], method: str) -> None:
        """Its one matrix is kept once, and read as both."""
        settings = ["decoder.tied=true", "decoder.embedding_size=13", "initialisation.vaes=true"]
        record = train(f"methods=['{method}']", "labels=[10]", *settings)
        assert 0 <= record["runs"][0]["accuracy"]["test"] <= 1

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
        corpus = EncodedCorpus(None, None, texts, texts, texts)
        monkeypatch.setattr(CorpusSection, "build", lambda section: corpus)
        with pytest.raises(ValueError, match="the corpus has no labels"):
            train()


class TestRuns:
    def test_every_method_with_every_number_of_labels_and_every_seed(
        self, classification_toml: Path
    ) -> None:
        runs = described(classification_toml, "seeds=[3, 1]").runs()
        methods = ["bag_of_words", "lstm", "lstm_init", "codes", "semi_supervised"]
        assert [run.label for run in runs] == [
            f"all-{method}-{labels}-{seed}"
            for method in methods
            for labels in (10, 40)
            for seed in (3, 1)
        ]
        assert [(*run.keys.values(), run.seed) for run in runs[:3]] == [
            ("bag_of_words", 10, 3),
            ("bag_of_words", 10, 1),
            ("bag_of_words", 40, 3),
        ]

    def test_a_variant_may_have_methods_labels_and_seeds_of_its_own(
        self, classification_toml: Path
    ) -> None:
        experiment = described(
            classification_toml,
            "methods=['lstm']",
            "variants.base.model.latent_size=2",
            "variants.cnn.decoder={kind='dilated_cnn', embedding_size=4, channels=6}",
            "variants.cnn.methods=['semi_supervised', 'codes']",
            "variants.cnn.labels=[7]",
            "variants.cnn.seeds=[8, 9]",
        )
        runs = {run.label: run.experiment for run in experiment.runs()}
        assert list(runs) == [
            "base-lstm-10-1",
            "base-lstm-40-1",
            "cnn-semi_supervised-7-8",
            "cnn-semi_supervised-7-9",
            "cnn-codes-7-8",
            "cnn-codes-7-9",
        ]
        assert runs["base-lstm-40-1"].model.latent_size == 2
        assert runs["cnn-codes-7-9"].model.latent_size == 3
        assert runs["cnn-codes-7-9"].decoder.kind == "dilated_cnn"

    def test_a_run_is_an_experiment_without_what_it_does_not_use(
        self, classification_toml: Path
    ) -> None:
        """So that another [classifier] does not make the VAEs run anew."""
        used = {
            "bag_of_words": set(),
            "lstm": {"classifier"},
            "lstm_init": {"classifier", "initialisation"},
            "codes": set(),
            "semi_supervised": {"semi_supervised"},
        }
        for run in described(classification_toml).runs():
            table = run.experiment.configuration()
            optional = {"classifier", "initialisation", "semi_supervised", "variants"}
            assert optional & set(table) == used[run.keys["method"]]
            assert validate_experiment(table) == run.experiment
            assert run.experiment.runs()[0].experiment == run.experiment


class TestShared:
    def models(self, path: Path, *settings: str) -> dict[str, list[str]]:
        runs = described(path, "labels=[10]", *settings).runs()
        return {run.keys["method"]: [start.label for start in run.starts.values()] for run in runs}

    def test_what_starts_from_what(self, classification_toml: Path) -> None:
        assert self.models(classification_toml) == {
            "bag_of_words": [],
            "lstm": [],
            "lstm_init": ["all-language_model-1"],
            "codes": ["all-vae-1"],
            "semi_supervised": [],
        }

    def test_vaes_may_start_from_the_language_model(self, classification_toml: Path) -> None:
        assert self.models(classification_toml, "initialisation.vaes=true") == {
            "bag_of_words": [],
            "lstm": [],
            "lstm_init": ["all-language_model-1"],
            "codes": ["all-language_model-1", "all-vae-1"],
            "semi_supervised": ["all-language_model-1"],
        }

    def test_they_are_experiments_with_texts(self, classification_toml: Path) -> None:
        settings = ["initialisation.vaes=true", "methods=['codes']", "labels=[10]"]
        experiment = described(classification_toml, *settings)
        language_model, vae = (run.experiment for run in experiment.runs()[0].starts.values())
        for text in (language_model, vae):
            assert text.corpus == experiment.corpus
            assert text.seed == 1
            assert validate_experiment(text.configuration()) == text
        assert language_model.model.latent_size == 0
        assert language_model.training.epochs == 1
        assert language_model.decoder.kind == "lstm"
        assert language_model.decoder.hidden_size == experiment.encoder.hidden_size
        assert vae.training.model_dump(exclude={"aggressive"}) == experiment.training.model_dump()
        assert vae.decoder == experiment.decoder
        assert vae.model.latent_size == 3
        assert vae.initialisation is not None
        assert vae.initialisation.epochs == 1


class TestFaults:
    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            (["labels=[]"], "labels: List should have at least one number"),
            (["labels=[0]"], r"labels\.0: "),
            (["seeds=[2, 2]"], "seeds must differ"),
            (["methods=['lstm', 'lstm']"], "methods must differ"),
            (["methods=['svm']"], r"methods\.0: Input should be 'bag_of_words'"),
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
        [
            ("classifier", "lstm"),
            ("initialisation", "lstm_init"),
            ("semi_supervised", "semi_supervised"),
        ],
    )
    def test_a_method_without_its_section(
        self, classification_toml: Path, section: str, method: str
    ) -> None:
        table = described(classification_toml).configuration()
        del table[section]
        with pytest.raises(ValueError, match=rf"'{method}' needs a section \[{section}\]"):
            validate_experiment(table)
        others = {method, "lstm_init"}
        table["methods"] = [name for name in table["methods"] if name not in others]
        validate_experiment(table)


def test_the_temperature_may_fall(classification_toml: Path) -> None:
    setting = "semi_supervised.temperature={rate=0.1, floor=0.25}"
    section = described(classification_toml, setting).semi_supervised
    assert section is not None
    assert not isinstance(section.temperature, float)
    temperature = section.temperature.build()
    assert [temperature(0), temperature(1000)] == [1.0, 0.25]
