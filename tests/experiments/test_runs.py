from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Literal

import pytest
import torch
from safetensors.torch import load_file, save_file

import tutvae
from tutvae import load_run, reconstruct, sample_texts
from tutvae.experiments import load_experiment, run_experiment
from tutvae.experiments.records import recorded_result
from tutvae.experiments.runs import evaluate_run, export_run
from tutvae.models import VAE, LanguageModel, TextVAE


def record_of(folder: Path) -> dict[str, dict[str, dict[str, float]]]:
    return json.loads((folder / "record.json").read_text())


@pytest.fixture
def copy(run_folders: dict[str, Path], tmp_path: Path) -> Path:
    """The folder of a VAE of texts, to be changed."""
    return Path(shutil.copytree(run_folders["vae"], tmp_path / "copy"))


class TestLoading:
    @pytest.mark.parametrize(
        ("name", "kind"), [("vae", TextVAE), ("language_model", LanguageModel), ("images", VAE)]
    )
    def test_a_model_ready_to_use(
        self, run_folders: dict[str, Path], name: str, kind: type
    ) -> None:
        run = load_run(str(run_folders[name]))
        assert run.folder == run_folders[name]
        assert type(run.model) is kind
        assert not run.model.training
        assert (run.tokenizer is None) == (kind is VAE)
        weights = load_file(run.folder / "weights.safetensors")
        assert all(torch.equal(x, weights[key]) for key, x in run.model.state_dict().items())

    def test_what_it_was(self, run_folders: dict[str, Path], reviews_toml: Path) -> None:
        run = load_run(run_folders["vae"])
        assert run.experiment == load_experiment(reviews_toml)
        assert run.data_sha256 == record_of(run.folder)["data_sha256"]

    def test_it_writes_and_reads_texts(self, run_folders: dict[str, Path]) -> None:
        run = load_run(run_folders["vae"])
        texts = sample_texts(run.model, run.tokenizer, 3)
        assert len(reconstruct(run.model, run.tokenizer, texts)) == 3

    def test_a_run_of_a_sweep(self, reviews_toml: Path, tmp_path: Path) -> None:
        settings = ["variants.a.model.latent_size=2", "training.epochs=1", "seeds=[1, 6]"]
        run_experiment(load_experiment(reviews_toml, settings), "x", folder=tmp_path)
        run = load_run(tmp_path / "a-6")
        assert run.model.latent_size == 2
        assert run.experiment.seed == 6
        message = r"is no run, but holds 2 of them: choose one, such as .*a-1$"
        with pytest.raises(FileNotFoundError, match=message):
            load_run(tmp_path)

    def test_tied_weights(self, reviews_toml: Path, tmp_path: Path) -> None:
        """They are kept once, and are one again."""
        from tutvae.experiments import run_experiment

        settings = ["decoder.tied=true", "decoder.embedding_size=13", "training.epochs=1"]
        trained, _ = run_experiment(load_experiment(reviews_toml, settings), "x", folder=tmp_path)
        decoder = load_run(tmp_path).model.decoder
        assert decoder.embedding.weight is decoder.output.weight
        assert torch.equal(decoder.output.weight, trained.decoder.output.weight)

    def test_without_the_hash_of_its_data(self, copy: Path) -> None:
        configuration = json.loads((copy / "configuration.json").read_text())
        del configuration["data_sha256"]
        (copy / "configuration.json").write_text(json.dumps(configuration))
        assert load_run(copy).data_sha256 is None

    def test_nothing_is_written(self, copy: Path) -> None:
        before = {path.name: path.stat().st_mtime_ns for path in copy.iterdir()}
        evaluate_run(load_run(copy))
        assert {path.name: path.stat().st_mtime_ns for path in copy.iterdir()} == before


class TestExporting:
    @pytest.mark.parametrize("name", ["vae", "language_model", "images"])
    def test_it_is_the_run_in_half_the_precision(
        self, run_folders: dict[str, Path], tmp_path: Path, name: str
    ) -> None:
        run = load_run(run_folders[name])
        kept = export_run(run, tmp_path / "new" / name)
        of_texts = [] if name == "images" else ["tokenizer.json"]
        names = sorted(["configuration.json", "weights.safetensors", *of_texts])
        assert sorted(path.name for path in kept.iterdir()) == names
        size = (run.folder / "weights.safetensors").stat().st_size
        assert (kept / "weights.safetensors").stat().st_size < 0.6 * size
        again = load_run(kept)
        assert again.experiment == run.experiment
        for key, x in again.model.state_dict().items():
            assert x.dtype == torch.float32
            assert torch.equal(x, run.model.state_dict()[key].half().float())
        found, expected = (evaluate_run(x, "valid", importance_samples=2) for x in (again, run))
        assert found.bound == pytest.approx(expected.bound, rel=1e-3)

    def test_a_folder_with_something_in_it(
        self, run_folders: dict[str, Path], copy: Path, tmp_path: Path
    ) -> None:
        before = {path.name: path.read_bytes() for path in copy.iterdir()}
        with pytest.raises(FileExistsError, match="copy is not empty: choose another"):
            export_run(load_run(run_folders["vae"]), copy)
        assert {path.name: path.read_bytes() for path in copy.iterdir()} == before
        (tmp_path / "empty").mkdir()
        assert load_run(export_run(load_run(copy), tmp_path / "empty")).tokenizer is not None


class TestWhatComesWithThePackage:
    def test_it_reads_and_writes_sentences(self) -> None:
        run = load_run("ptb")
        assert isinstance(run.model, TextVAE)
        assert run.experiment.corpus.name == "ptb"
        sentence = "the company said it will sell its shares"
        assert run.tokenizer.unk_id not in run.tokenizer.encode([sentence])[0]
        assert len(reconstruct(run.model, run.tokenizer, [sentence])[0].split()) > 2

    def test_a_folder_of_that_name_comes_first(
        self, run_folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        shutil.copytree(run_folders["language_model"], tmp_path / "ptb")
        monkeypatch.chdir(tmp_path)
        assert isinstance(load_run("ptb").model, LanguageModel)

    def test_nothing_else_of_the_package_is_taken_for_one(self) -> None:
        with pytest.raises(FileNotFoundError, match=r"no folder \.\./pretrained: "):
            load_run("../pretrained")

    def test_it_is_the_recorded_one(self, real_data: Path) -> None:
        """The bound of a thousand test sentences, on the real data."""
        run = load_run("ptb")
        recorded = recorded_result(run.experiment.name)["reports"]["test"]
        report = evaluate_run(run, importance_samples=1)
        assert report.examples == recorded["examples"]
        assert report.bound == pytest.approx(recorded["bound"], rel=5e-3)
        assert report.kl == pytest.approx(recorded["kl"], rel=2e-3)


class TestWhatCannotBeLoaded:
    def test_no_folder(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match=r"no folder .*nowhere: a run is a folder"):
            load_run(tmp_path / "nowhere")

    def test_no_run(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match=r"holds no run: a run is a folder that"):
            load_run(tmp_path)

    @pytest.mark.parametrize("epochs", [0, 2])
    def test_an_unfinished_one(self, copy: Path, epochs: int) -> None:
        for name in ("weights.safetensors", "record.json"):
            (copy / name).unlink()
        lines = (copy / "metrics.jsonl").read_text().splitlines(keepends=True)
        (copy / "metrics.jsonl").write_text("".join(lines[:epochs]))
        if epochs == 0:
            (copy / "metrics.jsonl").unlink()
        message = f"not finished, {epochs} of 4 epochs are done .* same `tutvae train`"
        with pytest.raises(FileNotFoundError, match=message):
            load_run(copy)

    def test_a_finished_one_whose_weights_are_gone(self, copy: Path) -> None:
        (copy / "weights.safetensors").unlink()
        message = r"is finished, but its weights\.safetensors is gone: copy it there"
        with pytest.raises(FileNotFoundError, match=message):
            load_run(copy)

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_weights_that_are_not_finite(self, copy: Path, value: float) -> None:
        path = copy / "weights.safetensors"
        weights = load_file(path)
        weights["decoder.output.bias"][3] = value
        save_file(weights, path)
        message = r"weights\.safetensors holds numbers that are not finite, in 'decoder\.output\."
        with pytest.raises(ValueError, match=message):
            load_run(copy)

    def test_without_its_tokenizer(self, copy: Path) -> None:
        (copy / "tokenizer.json").unlink()
        with pytest.raises(FileNotFoundError, match=r"copy has no tokenizer\.json"):
            load_run(copy)

    def test_weights_of_another_model(self, copy: Path, run_folders: dict[str, Path]) -> None:
        shutil.copy(run_folders["language_model"] / "weights.safetensors", copy)
        with pytest.raises(ValueError, match=r"weights\.safetensors holds the weights of another"):
            load_run(copy)

    def test_a_tokenizer_of_another_model(self, copy: Path) -> None:
        tutvae.Tokenizer.train(["a b c"]).save(copy / "tokenizer.json")
        with pytest.raises(ValueError, match="holds the weights of another model"):
            load_run(copy)

    def test_damaged_weights(self, copy: Path) -> None:
        path = copy / "weights.safetensors"
        path.write_bytes(path.read_bytes()[:-7])
        with pytest.raises(ValueError, match="no whole checkpoint"):
            load_run(copy)

    @pytest.mark.parametrize(
        "content", ["", "[]", "{}", '{"sizes": 3}', '{"kind": "text"}', "null", "5", "[" * 100_000]
    )
    def test_a_run_of_something_else(self, copy: Path, content: str) -> None:
        (copy / "configuration.json").write_text(content)
        message = r"configuration\.json describes no run of an experiment file \(.+\)"
        with pytest.raises(ValueError, match=message) as caught:
            load_run(copy)
        assert len(str(caught.value).splitlines()) == 1

    @pytest.mark.parametrize("many", ["sweep", "classification"])
    def test_many_models(
        self, copy: Path, sweep_toml: Path, classification_toml: Path, many: str
    ) -> None:
        path = sweep_toml if many == "sweep" else classification_toml
        configuration = load_experiment(path).configuration()
        (copy / "configuration.json").write_text(json.dumps(configuration))
        with pytest.raises(ValueError, match=r"configuration\.json describes many models"):
            load_run(copy)


class TestEvaluating:
    @pytest.mark.parametrize("name", ["vae", "language_model", "images"])
    @pytest.mark.parametrize("split", ["valid", "test"])
    def test_it_finds_what_the_run_found(
        self, run_folders: dict[str, Path], name: str, split: str
    ) -> None:
        found = evaluate_run(load_run(run_folders[name]), split).to_dict()
        expected = record_of(run_folders[name])["reports"][split]
        assert found.pop("kl_per_dimension") == pytest.approx(
            expected.pop("kl_per_dimension"), rel=1e-5
        )
        assert found == pytest.approx(expected, rel=1e-5)

    @pytest.mark.parametrize("split", ["valid", "test"])
    def test_in_the_run_s_precision_with_its_samples(
        self, reviews_toml: Path, tmp_path: Path, split: Literal["valid", "test"]
    ) -> None:
        from tutvae.experiments import run_experiment

        settings = ["precision=bf16", "valid_importance_samples=2", "factors=false"]
        experiment = load_experiment(reviews_toml, [f"evaluation.{x}" for x in settings])
        _, record = run_experiment(experiment, "x", folder=tmp_path)
        report, expected = evaluate_run(load_run(tmp_path), split), record["reports"][split]
        assert report.importance_samples == (2 if split == "valid" else 6)
        for name in ("bound", "importance_weighted_nll"):
            assert getattr(report, name) == pytest.approx(expected[name], rel=1e-6)

    def test_with_other_samples(self, run_folders: dict[str, Path]) -> None:
        report = evaluate_run(load_run(run_folders["vae"]), importance_samples=2)
        assert report.importance_samples == 2

    def test_the_same_documents(self, reviews_toml: Path, tmp_path: Path) -> None:
        """Where the run was content with some of them."""
        settings = ["evaluation.max_examples=12", "training.epochs=1"]
        run_experiment(load_experiment(reviews_toml, settings), "x", folder=tmp_path)
        found = evaluate_run(load_run(tmp_path))
        assert found.examples == 12
        assert found.bound == pytest.approx(record_of(tmp_path)["reports"]["test"]["bound"])

    def test_it_knows_the_words_by_the_run_s_tokenizer(self, copy: Path) -> None:
        """Whatever order the ids would have now."""
        run = load_run(copy)
        words = run.tokenizer.tokens[4:]
        other = tutvae.Tokenizer.train([" ".join(sorted(words))])
        assert len(other) == len(run.tokenizer)
        other.save(copy / "tokenizer.json")
        right = evaluate_run(run).bound
        assert evaluate_run(load_run(copy)).bound > right + 1

    def test_other_data_are_refused(
        self, run_folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("tutvae.experiments.runs.data_sha256", lambda texts: "other")
        with pytest.raises(ValueError, match=r"data at hand are not those of .*vae"):
            evaluate_run(load_run(run_folders["vae"]))

    def test_a_split_that_is_not_there(self, run_folders: dict[str, Path]) -> None:
        with pytest.raises(ValueError, match="no split 'train'"):
            evaluate_run(load_run(run_folders["vae"]), "train")  # type: ignore[arg-type]
