from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, Literal

import pytest

from tutvae import Tokenizer, load, save
from tutvae.experiments import load_experiment, run_experiment
from tutvae.experiments.records import recorded_result
from tutvae.experiments.runs import evaluate_run


def record_of(folder: Path) -> dict[str, dict[str, dict[str, float]]]:
    return json.loads((folder / "record.json").read_text())


def saved(run: Path, folder: Path, configuration: dict[str, Any] | None = None) -> Path:
    """The model of a run, saved, if need be as that of another run."""
    trained = load(run)
    return save(
        trained.model_,
        folder,
        tokenizer=trained.tokenizer_,
        configuration=trained.configuration if configuration is None else configuration,
        bits=16,
    )


class TestEvaluating:
    @pytest.mark.parametrize("name", ["vae", "language_model", "images"])
    @pytest.mark.parametrize("split", ["valid", "test"])
    def test_it_finds_what_the_run_found(
        self, run_folders: dict[str, Path], name: str, split: str
    ) -> None:
        found = evaluate_run(load(run_folders[name]), split).to_dict()
        expected = record_of(run_folders[name])["reports"][split]
        assert found.pop("kl_per_dimension") == pytest.approx(
            expected.pop("kl_per_dimension"), rel=1e-5
        )
        assert found == pytest.approx(expected, rel=1e-5)

    @pytest.mark.parametrize("split", ["valid", "test"])
    def test_in_the_run_s_precision_with_its_samples(
        self, reviews_toml: Path, tmp_path: Path, split: Literal["valid", "test"]
    ) -> None:
        settings = ["precision=bf16", "valid_importance_samples=2", "factors=false"]
        experiment = load_experiment(reviews_toml, [f"evaluation.{x}" for x in settings])
        _, record = run_experiment(experiment, "x", folder=tmp_path)
        report, expected = evaluate_run(load(tmp_path), split), record["reports"][split]
        assert report.importance_samples == (2 if split == "valid" else 6)
        for name in ("bound", "importance_weighted_nll"):
            assert getattr(report, name) == pytest.approx(expected[name], rel=1e-6)

    def test_with_other_samples(self, run_folders: dict[str, Path]) -> None:
        report = evaluate_run(load(run_folders["vae"]), importance_samples=2)
        assert report.importance_samples == 2

    def test_the_same_documents(self, reviews_toml: Path, tmp_path: Path) -> None:
        """Where the run was content with some of them."""
        settings = ["evaluation.max_examples=12", "training.epochs=1"]
        run_experiment(load_experiment(reviews_toml, settings), "x", folder=tmp_path)
        found = evaluate_run(load(tmp_path))
        assert found.examples == 12
        assert found.bound == pytest.approx(record_of(tmp_path)["reports"]["test"]["bound"])

    def test_it_knows_the_words_by_the_run_s_tokenizer(
        self, run_folders: dict[str, Path], tmp_path: Path
    ) -> None:
        """Whatever order the ids would have now."""
        copy = Path(shutil.copytree(run_folders["vae"], tmp_path / "copy"))
        trained = load(copy)
        assert trained.tokenizer_ is not None
        words = trained.tokenizer_.tokens[4:]
        other = Tokenizer.train([" ".join(sorted(words))])
        assert len(other) == len(trained.tokenizer_)
        other.save(copy / "tokenizer.json")
        assert evaluate_run(load(copy)).bound > evaluate_run(trained).bound + 1

    def test_other_data_are_refused(
        self, run_folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("tutvae.experiments.runs.data_sha256", lambda texts: "other")
        with pytest.raises(ValueError, match=r"data at hand are not those of .*vae"):
            evaluate_run(load(run_folders["vae"]))

    def test_a_split_that_is_not_there(self, run_folders: dict[str, Path]) -> None:
        with pytest.raises(ValueError, match="no split 'train'"):
            evaluate_run(load(run_folders["vae"]), "train")  # type: ignore[arg-type]

    @pytest.mark.parametrize("name", ["vae", "language_model", "images"])
    def test_an_export_in_half_the_precision(
        self, run_folders: dict[str, Path], tmp_path: Path, name: str
    ) -> None:
        run = run_folders[name]
        found, expected = (
            evaluate_run(load(folder), "valid", importance_samples=2)
            for folder in (saved(run, tmp_path), run)
        )
        assert found.bound == pytest.approx(expected.bound, rel=1e-3)

    def test_a_configuration_without_the_hash_of_its_data(
        self, run_folders: dict[str, Path], tmp_path: Path
    ) -> None:
        configuration = load(run_folders["vae"]).configuration
        del configuration["data_sha256"]
        trained = load(saved(run_folders["vae"], tmp_path, configuration))
        assert evaluate_run(trained, importance_samples=1).examples == 53

    @pytest.mark.filterwarnings("ignore:.*have more than 42 tokens")
    @pytest.mark.parametrize("rate", [8, 24])
    def test_it_is_the_recorded_one(self, real_data: Path, rate: int) -> None:
        """The bound of the test sentences on the real data, up to the rounding of the weights."""
        trained = load(f"sentences-{rate}")
        rows = recorded_result(trained.configuration["name"])["runs"]
        (recorded,) = (row for row in rows if row["variant"] == f"rate_{rate}")
        report = evaluate_run(trained, importance_samples=1)
        assert report.examples == recorded["reports"]["test"]["examples"]
        assert report.bound == pytest.approx(recorded["reports"]["test"]["bound"], rel=5e-3)
        assert report.kl == pytest.approx(recorded["reports"]["test"]["kl"], rel=2e-3)


class TestWhatCannotBeEvaluated:
    @pytest.mark.parametrize("configuration", [{}, {"sizes": 3}, {"kind": "text"}])
    def test_a_run_of_something_else(
        self, run_folders: dict[str, Path], tmp_path: Path, configuration: dict[str, Any]
    ) -> None:
        trained = load(saved(run_folders["vae"], tmp_path, configuration))
        message = r"describes no run of an experiment file \(.+\): measure .* by tutvae\.evaluate"
        with pytest.raises(ValueError, match=message) as caught:
            evaluate_run(trained)
        assert len(str(caught.value).splitlines()) == 1

    @pytest.mark.parametrize("many", ["sweep", "classification"])
    def test_many_models(
        self,
        run_folders: dict[str, Path],
        sweep_toml: Path,
        classification_toml: Path,
        tmp_path: Path,
        many: str,
    ) -> None:
        path = sweep_toml if many == "sweep" else classification_toml
        configuration = load_experiment(path).configuration()
        trained = load(saved(run_folders["vae"], tmp_path, configuration))
        with pytest.raises(ValueError, match="describes many models, not one"):
            evaluate_run(trained)
