from __future__ import annotations

from pathlib import Path

import pytest

from tutvae.experiments import load_experiment, validate_experiment
from tutvae.experiments.classification_sections import (
    ClassificationExperiment,
    classification_runs,
    shared_runs,
)


def described(path: Path, *settings: str) -> ClassificationExperiment:
    experiment = load_experiment(path, settings)
    assert isinstance(experiment, ClassificationExperiment)
    return experiment


class TestRuns:
    def test_every_method_with_every_number_of_labels_and_every_seed(
        self, classification_toml: Path
    ) -> None:
        runs = classification_runs(described(classification_toml, "seeds=[3, 1]"))
        methods = ["bag_of_words", "lstm", "lstm_init", "codes", "semi_supervised"]
        assert [run.label for run in runs] == [
            f"all-{method}-{labels}-{seed}"
            for method in methods
            for labels in (10, 40)
            for seed in (3, 1)
        ]
        assert [(run.method, run.labels, run.seed) for run in runs[:3]] == [
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
        runs = {run.label: run.experiment for run in classification_runs(experiment)}
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
        for run in classification_runs(described(classification_toml)):
            table = run.experiment.configuration()
            optional = {"classifier", "initialisation", "semi_supervised", "variants"}
            assert optional & set(table) == used[run.method]
            assert validate_experiment(table) == run.experiment
            assert classification_runs(run.experiment)[0].experiment == run.experiment


class TestShared:
    def models(self, path: Path, *settings: str) -> dict[str, list[str]]:
        runs = classification_runs(described(path, "labels=[10]", *settings))
        return {run.method: [shared.label for shared in shared_runs(run)] for run in runs}

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
        language_model, vae = (
            run.experiment for run in shared_runs(classification_runs(experiment)[0])
        )
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
