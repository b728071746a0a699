from __future__ import annotations

import math
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tutvae.data.batches.images import ImageBatches
from tutvae.data.corpora import CORPORA, Entry, digits
from tutvae.data.corpus import Corpus, Images
from tutvae.evaluation.report import evaluate
from tutvae.experiments import (
    load_experiment,
    run_experiment,
    validate_experiment,
)
from tutvae.models import VAE

Run = tuple[VAE, dict[str, Any]]


class TestRunning:
    def test_the_model_is_the_one_described(self, digits_run: Run) -> None:
        model, _ = digits_run
        assert (model.data_size, model.latent_size) == (64, 4)
        assert [p.shape[0] for p in model.parameters() if p.ndim == 2] == [32, 4, 4, 32, 64]

    def test_the_record_repeats_the_configuration(self, digits_run: Run, digits_toml: Path) -> None:
        _, record = digits_run
        assert record["name"] == "tiny_digits"
        assert record["command"] == "tutvae train tiny_digits.toml"
        configuration = validate_experiment(record["configuration"])
        assert configuration == load_experiment(digits_toml)

    def test_the_curves_are_those_of_the_run(self, digits_run: Run) -> None:
        curves = digits_run[1]["curves"]
        assert curves["epoch"] == list(range(1, 21))
        assert curves["step"] == [26 * epoch for epoch in range(1, 21)]  # 1,297 images by 50
        cosine = [0.0025 * (1 + math.cos(math.pi * epoch / 20)) for epoch in range(20)]
        assert curves["learning_rate"] == pytest.approx(cosine, abs=1e-6)
        assert curves["train_reconstruction"][-1] < curves["train_reconstruction"][0]
        assert curves["valid_kl"][-1] > 0

    def test_the_reports_are_those_of_the_model(self, digits_run: Run) -> None:
        model, record = digits_run
        for name, split in (("valid", digits().valid), ("test", digits().test)):
            batches = ImageBatches(split, 500, shuffle=False, seed=3)
            report = evaluate(model, batches, importance_samples=7).to_dict()
            assert record["reports"][name] == report
            assert report["examples"] == len(split)
            assert report["importance_weighted_nll"] < report["bound"]

    def test_it_learns(self, digits_run: Run) -> None:
        """Better than the best independent pixels, which know nothing of each other."""
        corpus = digits()
        p = corpus.train.pixels.mean(0).clamp(1e-3, 1 - 1e-3)
        x = corpus.test.pixels
        independent = -(x * p.log() + (1 - x) * (1 - p).log()).sum(1).mean().item()
        assert digits_run[1]["reports"]["test"]["bound"] < independent - 1

    def test_it_repeats_under_its_seed(self, digits_run: Run, digits_toml: Path) -> None:
        model, record = digits_run
        torch.manual_seed(123)
        again, record_again = run_experiment(load_experiment(digits_toml), "again")
        for key in ("configuration", "data_sha256", "curves", "reports"):
            assert record_again[key] == record[key]
        assert all(
            torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True)
        )

    def test_another_seed_is_another_run(self, digits_run: Run, digits_toml: Path) -> None:
        settings = ["seed=4", "training.epochs=1"]
        _, record = run_experiment(load_experiment(digits_toml, settings), "other")
        assert record["curves"]["train_kl"][0] != digits_run[1]["curves"]["train_kl"][0]
        assert record["data_sha256"] == digits_run[1]["data_sha256"]


class TestMnist:
    @pytest.fixture
    def no_mnist(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "mnist").mkdir()
        monkeypatch.setenv("TUTVAE_DATA", str(tmp_path))

    @pytest.mark.usefixtures("no_mnist")
    def test_files_that_are_not_there(self, digits_toml: Path) -> None:
        experiment = load_experiment(digits_toml, ["corpus.name=mnist"])
        with pytest.raises(FileNotFoundError, match="train-images"):
            run_experiment(experiment, "tutvae train")

    def test_nothing_held_out_means_no_validation(
        self, digits_toml: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As for the published run; with digits in the place of MNIST's."""
        asked: list[int] = []

        def small_mnist(valid_size: int) -> Corpus[Images]:
            asked.append(valid_size)
            return replace(digits(), valid=Images(torch.zeros(0, 64), torch.zeros(0), 8, 8))

        monkeypatch.setitem(CORPORA, "mnist", Entry(small_mnist))
        settings = ["corpus.name=mnist", "corpus.valid_size=0", "training.epochs=1"]
        _, record = run_experiment(load_experiment(digits_toml, settings), "tutvae train")
        assert asked == [0]
        assert list(record["reports"]) == ["test"]
        assert "valid_kl" not in record["curves"]

    @pytest.mark.data
    def test_the_real_files(self, real_data: Path, digits_toml: Path) -> None:
        settings = ["corpus.name=mnist", "corpus.valid_size=0"]
        corpus = load_experiment(digits_toml, settings).load()
        sizes = [len(split) for split in (corpus.train, corpus.valid, corpus.test)]
        assert sizes == [60_000, 0, 10_000]


def test_divergence_is_told(digits_toml: Path) -> None:
    experiment = load_experiment(digits_toml, ["training.learning_rate=1e30"])
    with pytest.raises(FloatingPointError, match="learning rate 1e\\+30"):
        run_experiment(experiment, "tutvae train")


class TestCorpora:
    def test_what_a_loader_may_be_told_is_a_key(
        self, digits_toml: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A corpus is one entry in the registry, and trained on by its name; D is the data's."""

        def stripes(folder: str | None = None, *, count: int, seed: int = 1) -> Corpus[Images]:
            assert (folder, count, seed) == (None, 9, 0)
            images = Images(torch.eye(6).repeat(2, 1)[:count], torch.zeros(count), 2, 3)
            return Corpus("stripes", images, images, images)

        monkeypatch.setitem(CORPORA, "stripes", Entry(stripes))
        settings = ["corpus.name=stripes", "corpus.count=9", "corpus.seed=0", "training.epochs=1"]
        experiment = load_experiment(digits_toml, settings)
        model, record = run_experiment(experiment, "tutvae train")
        assert isinstance(model, VAE)
        assert model.data_size == 6
        assert record["reports"]["test"]["examples"] == 9
        assert pickle.loads(pickle.dumps(experiment)) == experiment

    def test_the_configuration_has_the_keys_of_the_file_alone(self, digits_toml: Path) -> None:
        """A run folder of an older version, which knew fewer of them, stays the same run's."""
        settings = ["corpus.name=mnist", "corpus.valid_size=0"]
        mnist = load_experiment(digits_toml, settings).configuration()["corpus"]
        assert mnist == {"name": "mnist", "valid_size": 0}
        assert load_experiment(digits_toml).configuration()["corpus"] == {"name": "digits"}

    @pytest.mark.parametrize(
        ("setting", "fault"),
        [
            ("corpus.valid_size=0", r"corpus\.valid_size: .* the keys here are name, seed$"),
            ("corpus.name=ptb", r"corpus: name should be .*'digits'.*, not 'ptb'"),
            ("corpus.seed=-1", r"corpus\.seed: .* greater than or equal to 0"),
        ],
    )
    def test_a_wrong_key_is_named(self, digits_toml: Path, setting: str, fault: str) -> None:
        with pytest.raises(ValueError, match=fault):
            load_experiment(digits_toml, [setting])
