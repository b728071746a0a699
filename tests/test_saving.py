from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

import tutvae
from tutvae import (
    VAE,
    Batches,
    LanguageModel,
    LSTMDecoder,
    LSTMEncoder,
    Report,
    TextClassifier,
    TextVAE,
    Tokenizer,
    fit,
    load,
    push_to_hub,
    reconstruct,
    sample_texts,
    save,
    saving,
)
from tutvae.experiments import load_experiment, run_experiment
from tutvae.training.checkpoints import save_tensors

TEXTS = ["the soup was good", "the fish was cold", "we liked it"]
REPORT = Report(9, 1.5, 0.25, 1.7, 5, 1, (0.25, 0.0), tokens=30)


def same_weights(model: nn.Module, other: nn.Module) -> bool:
    state = other.state_dict()
    return all(torch.equal(x, state[name]) for name, x in model.state_dict().items())


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def change_weights(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Write a file of weights anew; what it says stays."""
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    weights = load_file(path)
    change(weights)
    save_file(weights, path, metadata)


def train_on_texts(model: Any, tokenizer: Tokenizer, folder: Path, **options: Any) -> None:
    batches = Batches.from_texts(TEXTS, tokenizer, batch_size=2)
    options = {"epochs": 2, "run_folder": folder, "device": "cpu"} | options
    fit(model, batches, valid=batches, **options)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(TEXTS)


@pytest.fixture
def model(tokenizer: Tokenizer) -> TextVAE:
    return TextVAE.lstm(tokenizer, embedding_size=5, hidden_size=6, latent_size=2, pooling="max")


@pytest.fixture
def copy(run_folders: dict[str, Path], tmp_path: Path) -> Path:
    """The folder of a VAE of texts that `tutvae train` wrote, to be changed."""
    return Path(shutil.copytree(run_folders["vae"], tmp_path / "copy"))


class TestSaving:
    def test_what_is_saved_is_loaded(
        self, model: TextVAE, tokenizer: Tokenizer, tmp_path: Path
    ) -> None:
        configuration = {"corpus": "mine", "sizes": (3, 4)}
        folder = save(model, tmp_path / "a" / "b", tokenizer=tokenizer, configuration=configuration)
        trained = load(folder)
        assert trained.folder == tmp_path / "a" / "b"
        assert type(trained.model_) is TextVAE
        assert not trained.model_.training
        assert same_weights(trained.model_, model)
        assert trained.tokenizer_ is not None
        assert trained.tokenizer_.fingerprint == tokenizer.fingerprint
        assert trained.configuration == {"corpus": "mine", "sizes": [3, 4]}
        assert trained.label_names is trained.report is None

    def test_without_anything_else(self, tmp_path: Path) -> None:
        trained = load(save(VAE(6, 2, [4]), tmp_path))
        assert trained.tokenizer_ is None
        assert trained.configuration == {}
        assert names_in(tmp_path) == ["README.md", "configuration.json", "weights.safetensors"]

    def test_labels_and_measurements(self, tmp_path: Path) -> None:
        model = TextClassifier(LSTMEncoder(9, 4, 4, 2), 2)
        trained = load(save(model, tmp_path, label_names=("bad", "good"), report=REPORT))
        assert trained.label_names == ["bad", "good"]
        assert trained.report == REPORT

    def test_half_the_precision(self, model: TextVAE, tmp_path: Path) -> None:
        trained = load(save(model, tmp_path, bits=16))
        for name, x in trained.model_.state_dict().items():
            assert x.dtype == torch.float32
            assert torch.equal(x, model.state_dict()[name].half().float())

    @pytest.mark.parametrize("corpus", [{}, {"name": "mine"}, {"name": [1]}, "mine"], ids=str)
    def test_a_configuration_of_one_s_own(
        self, model: TextVAE, tmp_path: Path, corpus: Any
    ) -> None:
        folder = save(model, tmp_path / "mine", configuration={"corpus": corpus})
        assert "## Data" not in (folder / "README.md").read_text("utf-8")

    def test_the_card_is_one_for_the_hub(self, model: TextVAE, tmp_path: Path) -> None:
        save(model, tmp_path / "mine", report=REPORT, bits=16)
        card = (tmp_path / "mine" / "README.md").read_text("utf-8")
        assert card.startswith("---\nlibrary_name: tutvae\ntags:\n- TextVAE\n---\n\n# mine\n")
        weights = sum(x.numel() for x in model.parameters())
        for part in (
            f"version {tutvae.__version__}, with {weights:,} weights of 16 bits",
            '"pooling": "max"',
            'tutvae.load("mine")',
            str(REPORT),
        ):
            assert part in card

    def test_the_card_names_the_classes(self, tmp_path: Path) -> None:
        model = TextClassifier(LSTMEncoder(9, 4, 4, 2), 2)
        card = save(model, tmp_path, label_names=["bad", "good"]) / "README.md"
        assert card.read_text("utf-8").endswith("## Labels\n\n- 0: bad\n- 1: good\n")

    def test_a_folder_with_something_in_it(self, model: TextVAE, tmp_path: Path) -> None:
        (tmp_path / "mine").touch()
        with pytest.raises(FileExistsError, match="is not empty: choose another folder"):
            save(model, tmp_path)
        assert names_in(tmp_path) == ["mine"]

    @pytest.mark.parametrize(
        ("options", "error", "message"),
        [
            ({"tokenizer": Tokenizer.train(["a b"])}, ValueError, "the tokenizer has 6 tokens"),
            ({"label_names": ["a"]}, ValueError, "1 label names do not go with 2 classes"),
            ({"configuration": {"x": object()}}, TypeError, "not JSON serializable"),
        ],
    )
    def test_what_does_not_go_together_leaves_no_folder(
        self, tmp_path: Path, options: dict[str, Any], error: type[Exception], message: str
    ) -> None:
        model = TextClassifier(LSTMEncoder(9, 4, 4, 2), 2)
        with pytest.raises(error, match=message):
            save(model, tmp_path / "new", **options)
        assert not (tmp_path / "new").exists()

    def test_a_model_of_a_class_of_one_s_own(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=r"Linear is neither one of tutvae\.models nor"):
            save(nn.Linear(2, 3), tmp_path / "new")


class TestRunsOfFit:
    def test_a_folder_of_fit_has_all_that_the_model_needs(
        self, model: TextVAE, tokenizer: Tokenizer, tmp_path: Path
    ) -> None:
        train_on_texts(model, tokenizer, tmp_path, configuration={"seed": 3})
        trained = load(tmp_path)
        assert trained.configuration == {"seed": 3}
        assert trained.tokenizer_ is not None
        assert len(sample_texts(trained.model_, trained.tokenizer_, 2)) == 2

    def test_the_best_epoch_comes_before_the_last_and_the_saved_before_both(
        self, tokenizer: Tokenizer, tmp_path: Path
    ) -> None:
        model = LanguageModel(LSTMDecoder(len(tokenizer), 4, 4))
        worse = torch.optim.SGD(model.parameters(), lr=0.1, maximize=True)
        train_on_texts(model, tokenizer, tmp_path, optimizer=worse, epochs=3)
        assert not same_weights(load(tmp_path).model_, model)
        (tmp_path / "best.safetensors").unlink()
        assert same_weights(load(tmp_path).model_, model)

    def test_no_epoch_yet(self, model: TextVAE, tokenizer: Tokenizer, tmp_path: Path) -> None:
        train_on_texts(model, tokenizer, tmp_path, epochs=0)
        with pytest.raises(FileNotFoundError, match="no weights yet: call the same `fit` again"):
            load(tmp_path)


class TestRunsOfTheCommand:
    @pytest.mark.parametrize(
        ("name", "kind"), [("vae", TextVAE), ("language_model", LanguageModel), ("images", VAE)]
    )
    def test_a_model_ready_to_use(
        self, run_folders: dict[str, Path], name: str, kind: type
    ) -> None:
        trained = load(str(run_folders[name]))
        assert trained.folder == run_folders[name]
        assert type(trained.model_) is kind
        assert not trained.model_.training
        assert (trained.tokenizer_ is None) == (kind is VAE)
        weights = load_file(trained.folder / "weights.safetensors")
        state = trained.model_.state_dict()
        assert all(torch.equal(x, weights[key]) for key, x in state.items())

    def test_what_it_was_and_achieved(self, run_folders: dict[str, Path]) -> None:
        trained = load(run_folders["vae"])
        assert trained.configuration["name"] == "tiny_reviews"
        record = json.loads((trained.folder / "record.json").read_text())
        assert trained.configuration["data_sha256"] == record["data_sha256"]
        assert trained.report is not None
        assert trained.report.bound == pytest.approx(record["reports"]["test"]["bound"])
        assert len(trained.report.kl_per_dimension) == 3

    def test_it_writes_and_reads_texts(self, run_folders: dict[str, Path]) -> None:
        trained = load(run_folders["vae"])
        texts = sample_texts(trained.model_, trained.tokenizer_, 3)
        assert len(reconstruct(trained.model_, trained.tokenizer_, texts)) == 3

    def test_a_run_of_a_sweep(self, reviews_toml: Path, tmp_path: Path) -> None:
        settings = ["variants.a.model.latent_size=2", "training.epochs=1", "seeds=[1, 6]"]
        run_experiment(load_experiment(reviews_toml, settings), "x", folder=tmp_path)
        trained = load(tmp_path / "a-6")
        assert trained.model_.latent_size == 2
        assert trained.configuration["seed"] == 6
        message = r"is no model, but holds 2 of them: choose one, such as .*a-1$"
        with pytest.raises(FileNotFoundError, match=message):
            load(tmp_path)

    def test_tied_weights(self, reviews_toml: Path, tmp_path: Path) -> None:
        """They are kept once, and are one again."""
        settings = ["decoder.tied=true", "decoder.embedding_size=13", "training.epochs=1"]
        trained, _ = run_experiment(load_experiment(reviews_toml, settings), "x", folder=tmp_path)
        decoder = load(tmp_path).model_.decoder
        assert decoder.embedding.weight is decoder.output.weight
        assert torch.equal(decoder.output.weight, trained.decoder.output.weight)

    def test_loading_draws_nothing_and_writes_nothing(self, copy: Path) -> None:
        before = {path.name: path.stat().st_mtime_ns for path in copy.iterdir()}
        torch.manual_seed(3)
        expected = torch.rand(2)
        torch.manual_seed(3)
        load(copy)
        assert torch.equal(torch.rand(2), expected)
        assert {path.name: path.stat().st_mtime_ns for path in copy.iterdir()} == before


class TestWhatComesWithThePackage:
    @pytest.mark.parametrize(("name", "rate"), [("sentences-8", 8), ("sentences-24", 24)])
    def test_it_reads_and_writes_sentences(self, name: str, rate: float) -> None:
        trained = load(name)
        assert type(trained.model_) is TextVAE
        assert trained.configuration["corpus"]["name"] == "tatoeba"
        assert trained.report.kl == pytest.approx(rate, abs=0.3)
        assert trained.reconstruct(["I can't swim."]) == ["i can't swim."]

    def test_the_sentences_are_those_of_eight_nats(self) -> None:
        one, other = load("sentences"), load("sentences-8")
        assert one.configuration == other.configuration

    @pytest.mark.parametrize("name", ["sentences-8", "sentences-24"])
    def test_whose_sentences_they_are_is_said(self, name: str) -> None:
        card = (saving.PRETRAINED / name / "README.md").read_text("utf-8")
        assert "https://tatoeba.org" in card
        assert "CC BY 2.0 FR" in card

    @pytest.mark.parametrize("name", ["sentences-8", "sentences-24"])
    def test_it_is_small(self, name: str) -> None:
        size = sum(path.stat().st_size for path in (saving.PRETRAINED / name).iterdir())
        assert size < 6.5e6

    def test_a_folder_of_that_name_comes_first(
        self, run_folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        shutil.copytree(run_folders["language_model"], tmp_path / "sentences")
        monkeypatch.chdir(tmp_path)
        assert type(load("sentences").model_) is LanguageModel

    def test_nothing_else_of_the_package_is_taken_for_one(self) -> None:
        with pytest.raises(FileNotFoundError, match=r"no folder \.\./pretrained: "):
            load("../pretrained")


class TestWhatCannotBeLoaded:
    def test_no_folder(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match=r"no folder .*nowhere: a trained model is in"):
            load(tmp_path / "nowhere")

    def test_no_model(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match="holds no model: a trained model is in a"):
            load(tmp_path)

    @pytest.mark.parametrize("epochs", [0, 2])
    def test_an_unfinished_run(self, copy: Path, epochs: int) -> None:
        """Although it has a checkpoint: the command goes on from there."""
        (copy / "record.json").unlink()
        (copy / "weights.safetensors").rename(copy / "best.safetensors")
        lines = (copy / "metrics.jsonl").read_text().splitlines(keepends=True)
        (copy / "metrics.jsonl").write_text("".join(lines[:epochs]))
        if epochs == 0:
            (copy / "metrics.jsonl").unlink()
        message = f"not finished, {epochs} of 4 epochs are done .* same `tutvae train`"
        with pytest.raises(FileNotFoundError, match=message):
            load(copy)

    def test_a_finished_run_whose_weights_are_gone(self, copy: Path) -> None:
        (copy / "weights.safetensors").unlink()
        message = r"is finished, but its weights\.safetensors is gone: copy it there"
        with pytest.raises(FileNotFoundError, match=message):
            load(copy)

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_weights_that_are_not_finite(self, copy: Path, value: float) -> None:
        path = copy / "weights.safetensors"
        change_weights(path, lambda weights: weights["decoder.output.bias"].fill_(value))
        message = r"weights\.safetensors holds numbers that are not finite, in 'decoder\.output\."
        with pytest.raises(ValueError, match=message):
            load(copy)

    def test_without_its_tokenizer(self, copy: Path) -> None:
        (copy / "tokenizer.json").unlink()
        with pytest.raises(FileNotFoundError, match=r"copy has no tokenizer\.json"):
            load(copy)

    def test_weights_of_another_run(self, copy: Path, run_folders: dict[str, Path]) -> None:
        shutil.copy(run_folders["language_model"] / "weights.safetensors", copy)
        message = r"weights of another run than .*copy says: its model\.latent_size is 0"
        with pytest.raises(ValueError, match=message):
            load(copy)

    def test_weights_that_do_not_fit_their_description(self, copy: Path) -> None:
        change_weights(copy / "weights.safetensors", lambda weights: weights.popitem())
        with pytest.raises(ValueError, match=r"weights\.safetensors holds the weights of another"):
            load(copy)

    def test_a_tokenizer_of_another_model(self, copy: Path) -> None:
        Tokenizer.train(["a b c"]).save(copy / "tokenizer.json")
        with pytest.raises(ValueError, match="the tokenizer has 7 tokens, the model"):
            load(copy)

    def test_damaged_weights(self, copy: Path) -> None:
        path = copy / "weights.safetensors"
        path.write_bytes(path.read_bytes()[:-7])
        with pytest.raises(ValueError, match="no whole checkpoint"):
            load(copy)

    def test_weights_that_do_not_say_what_their_model_is(self, copy: Path) -> None:
        path = copy / "weights.safetensors"
        save_tensors(path, load_file(path), {"configuration": None})
        with pytest.raises(ValueError, match="does not say which model its weights are of: build"):
            load(copy)

    @pytest.mark.parametrize("content", ["", "null", "5", "[3]", "[" * 100_000])
    def test_a_configuration_that_is_none(self, copy: Path, content: str) -> None:
        (copy / "configuration.json").write_text(content)
        with pytest.raises(ValueError, match=r"configuration\.json is no JSON object"):
            load(copy)


class FakeHub(ModuleType):
    """The Hub as a folder on this machine."""

    def __init__(self, root: Path) -> None:
        super().__init__("huggingface_hub")
        self.root = root
        self.private: dict[str, bool] = {}
        self.HfApi = lambda: SimpleNamespace(
            create_repo=self.create_repo, upload_folder=self.upload_folder
        )

    def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool) -> None:
        self.private.setdefault(repo_id, private)
        (self.root / repo_id).mkdir(parents=True, exist_ok=exist_ok)

    def upload_folder(
        self, *, repo_id: str, folder_path: str | Path, allow_patterns: list[str]
    ) -> None:
        for name in set(allow_patterns) & set(names_in(Path(folder_path))):
            shutil.copy(Path(folder_path) / name, self.root / repo_id)

    def snapshot_download(self, repo_id: str, *, allow_patterns: list[str]) -> str:
        snapshot = self.root / "snapshots" / repo_id
        snapshot.mkdir(parents=True, exist_ok=True)
        for name in set(allow_patterns) & set(names_in(self.root / repo_id)):
            shutil.copy(self.root / repo_id / name, snapshot)
        return str(snapshot)


class TestHub:
    @pytest.fixture
    def hub(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
        hub = FakeHub(tmp_path / "hub")
        monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
        return hub

    def test_what_is_pushed_is_loaded(
        self, hub: FakeHub, model: TextVAE, tokenizer: Tokenizer, tmp_path: Path
    ) -> None:
        folder = save(model, tmp_path / "mine", tokenizer=tokenizer)
        push_to_hub(folder, "me/mine")
        assert hub.private == {"me/mine": True}
        trained = load("hub:me/mine")
        assert same_weights(trained.model_, model)
        assert trained.tokenizer_ is not None
        assert names_in(trained.folder) == names_in(folder)
        push_to_hub(folder, "me/mine", private=False)

    def test_only_what_loading_needs_is_pushed(
        self, hub: FakeHub, run_folders: dict[str, Path]
    ) -> None:
        push_to_hub(run_folders["vae"], "me/vae")
        expected = ["configuration.json", "tokenizer.json", "weights.safetensors"]
        assert names_in(hub.root / "me" / "vae") == expected

    def test_checkpoints_are_not_pushed(
        self, hub: FakeHub, model: TextVAE, tokenizer: Tokenizer, tmp_path: Path
    ) -> None:
        train_on_texts(model, tokenizer, tmp_path / "run")
        with pytest.raises(FileNotFoundError, match="checkpoints only: save the model, and push"):
            push_to_hub(tmp_path / "run", "me/run")
        assert hub.private == {}

    def test_without_the_hub_s_package(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "huggingface_hub", None)
        with pytest.raises(ImportError, match=r'pip install "tutvae\[hub\]"'):
            load("hub:me/mine")
