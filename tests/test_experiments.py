from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tutvae.data.corpora import digits
from tutvae.data.corpus import Corpus, Images
from tutvae.data.images import ImageBatches
from tutvae.evaluation import evaluate
from tutvae.experiments import Experiment, load_corpus, load_experiment, run_experiment
from tutvae.models import VAE

REPOSITORY = Path(__file__).parents[1]

Run = tuple[VAE, dict[str, Any]]


def changed(path: Path, tmp_path: Path, old: str, new: str) -> Path:
    """A copy of an experiment file in which `old` reads `new`."""
    text = path.read_text()
    assert text.count(old) == 1
    copy = tmp_path / "changed.toml"
    copy.write_text(text.replace(old, new))
    return copy


class TestLoading:
    def test_what_the_file_says(self, digits_toml: Path) -> None:
        experiment = load_experiment(digits_toml)
        assert (experiment.name, experiment.seed) == ("tiny_digits", 3)
        assert experiment.corpus.name == "digits"
        assert experiment.model.latent_size == 4
        assert experiment.model.hidden_sizes == (32,)
        assert experiment.training.epochs == 20
        assert experiment.training.learning_rate == 0.005
        assert experiment.evaluation.importance_samples == 7

    @pytest.mark.parametrize(
        "path", sorted((REPOSITORY / "experiments").glob("*.toml")), ids=lambda path: path.stem
    )
    def test_the_files_of_the_project(self, path: Path) -> None:
        assert load_experiment(path).name == path.stem

    @pytest.mark.parametrize(
        ("old", "new", "messages"),
        [
            (
                "epochs = 20",
                "epoch = 20",
                ["training.epochs: Field required", "training.epoch: Ext"],
            ),
            ("seed = 3", "", ["seed: Field required"]),
            ("seed = 3", "seed = -1", ["seed: ", "greater than or equal to 0"]),
            ('name = "digits"', 'name = "digit"', ["corpus.name: ", "'mnist' or 'digits'"]),
            ("latent_size = 4", "latent_size = 0", ["model.latent_size: ", "greater than 0"]),
            ("latent_size = 4", 'latent_size = "4"', ["model.latent_size: ", "valid integer"]),
            ("latent_size = 4", "latent_size = true", ["model.latent_size: ", "valid integer"]),
            ("[32]", "[32, 1.5]", ["model.hidden_sizes.1: ", "valid integer"]),
            ("[32]", "32", ["model.hidden_sizes: ", "valid tuple"]),
            ("0.005", "nan", ["training.learning_rate: ", "greater than 0"]),
            ('"tiny_digits"', '"../tiny"', ["name: ", "match pattern"]),
            ("[evaluation]", "[evaluations]", ["evaluation: Field required", "evaluations: Extra"]),
        ],
    )
    def test_the_message_names_the_key_and_what_is_allowed(
        self, digits_toml: Path, tmp_path: Path, old: str, new: str, messages: list[str]
    ) -> None:
        path = changed(digits_toml, tmp_path, old, new)
        with pytest.raises(ValueError, match="does not describe an experiment") as caught:
            load_experiment(path)
        assert str(path) in str(caught.value)
        for message in messages:
            assert message in str(caught.value)

    def test_every_fault_is_named_at_once(self, digits_toml: Path) -> None:
        with pytest.raises(ValueError, match="seed") as caught:
            load_experiment(digits_toml, ["seed=-1", "training.epochs=0", "model.depth=2"])
        for key in ("seed", "training.epochs", "model.depth"):
            assert f"\n{key}: " in str(caught.value)

    @pytest.mark.parametrize("content", [b"name = ", b"\xff\xfe", b"a = 1\na = 2"])
    def test_a_file_that_is_not_toml(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "x.toml"
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"x\.toml is not valid TOML: "):
            load_experiment(path)

    def test_a_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match=r"nowhere\.toml"):
            load_experiment(tmp_path / "nowhere.toml")


class TestSettings:
    def test_they_change_values_of_every_type(self, digits_toml: Path) -> None:
        settings = [
            "name=other",
            "seed = 8",
            "corpus.name='mnist'",
            "model.hidden_sizes=[5]",
            "training.learning_rate=1e-4",
        ]
        experiment = load_experiment(digits_toml, settings)
        assert experiment.name == "other"
        assert experiment.seed == 8
        assert experiment.corpus.name == "mnist"
        assert experiment.model.hidden_sizes == (5,)
        assert experiment.training.learning_rate == 1e-4
        assert experiment.training.epochs == 20  # as the file says

    def test_the_last_one_counts(self, digits_toml: Path) -> None:
        assert load_experiment(digits_toml, ["seed=1", "seed=2"]).seed == 2

    @pytest.mark.parametrize("setting", ["seed", "training.epochs:3", ""])
    def test_without_an_equals_sign(self, digits_toml: Path, setting: str) -> None:
        with pytest.raises(ValueError, match=rf"section\.key=value, not '{setting}'"):
            load_experiment(digits_toml, [setting])

    def test_a_value_is_no_section(self, digits_toml: Path) -> None:
        with pytest.raises(ValueError, match="'seed', which is not a section"):
            load_experiment(digits_toml, ["seed.x=1"])

    @pytest.mark.parametrize("setting", ["optimiser.name=adam", "=3", "training.epochs=many"])
    def test_what_the_file_may_not_say_they_may_not_either(
        self, digits_toml: Path, setting: str
    ) -> None:
        with pytest.raises(ValueError, match="does not describe an experiment"):
            load_experiment(digits_toml, [setting])


class TestRunning:
    def test_the_model_is_the_one_described(self, digits_run: Run) -> None:
        model, _ = digits_run
        assert (model.data_size, model.latent_size) == (64, 4)
        assert [p.shape[0] for p in model.parameters() if p.ndim == 2] == [32, 4, 4, 32, 64]

    def test_the_record_repeats_the_configuration(self, digits_run: Run, digits_toml: Path) -> None:
        _, record = digits_run
        assert record["name"] == "tiny_digits"
        assert record["command"] == "tutvae train tiny_digits.toml"
        configuration = Experiment.model_validate(record["configuration"])
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

        monkeypatch.setattr("tutvae.experiments.mnist", small_mnist)
        settings = ["corpus.name=mnist", "corpus.valid_size=0", "training.epochs=1"]
        _, record = run_experiment(load_experiment(digits_toml, settings), "tutvae train")
        assert asked == [0]
        assert list(record["reports"]) == ["test"]
        assert "valid_kl" not in record["curves"]

    @pytest.mark.data
    def test_the_real_files(self, real_data: Path, digits_toml: Path) -> None:
        settings = ["corpus.name=mnist", "corpus.valid_size=0"]
        corpus = load_corpus(load_experiment(digits_toml, settings).corpus)
        sizes = [len(split) for split in (corpus.train, corpus.valid, corpus.test)]
        assert sizes == [60_000, 0, 10_000]


def test_divergence_is_told(digits_toml: Path) -> None:
    experiment = load_experiment(digits_toml, ["training.learning_rate=1e30"])
    with pytest.raises(FloatingPointError, match="learning rate 1e\\+30"):
        run_experiment(experiment, "tutvae train")


def test_the_digits_have_a_split_of_their_own(tmp_path: Path) -> None:
    text = (Path(__file__).parents[1] / "experiments" / "mnist_vae.toml").read_text()
    path = tmp_path / "digits.toml"
    path.write_text(text.replace('name = "mnist"', 'name = "digits"'))
    with pytest.raises(ValueError, match="valid_size goes with mnist alone"):
        load_experiment(path)
