from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from safetensors.torch import load_file

from tutvae.experiments import fitting, images, load_experiment, run_experiment, texts
from tutvae.models import TextVAE
from tutvae.training.checkpoints import load_tensors, save_tensors

FINISHED = ["configuration.json", "metrics.jsonl", "record.json", "weights.safetensors"]
OF_TEXTS = sorted([*FINISHED, "tokenizer.json"])
TIMES = ("started", "commit", "train_seconds", "initialisation_seconds")
RATES = ("tokens_per_second", "examples_per_second")
INITIALISED = "initialisation.epochs=2"
AGGRESSIVE = "training.aggressive={window=2, max_encoder_steps=4, round_steps=3, max_rounds=2}"
BEST = ["training.weights=best", "training.learning_rate=0.3", "training.patience=3"]


class KilledError(Exception):
    pass


def without_times(record: dict[str, Any]) -> dict[str, Any]:
    rest = {key: value for key, value in record.items() if key not in TIMES + RATES}
    if "aggressive" in rest:
        rest["aggressive"] = {k: v for k, v in rest["aggressive"].items() if k != "seconds"}
    return rest


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def same_weights(one: Any, other: Any) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[int]]:
    """Let training, the n-th in the process, stop at a step; it returns the steps that are done."""

    def kill(at: int | None, module: Any = fitting, training: int = 1) -> list[int]:
        steps: list[int] = []
        trainings = 0

        def deadly(model: Any, train: Any, **options: Any) -> Any:
            nonlocal trainings
            trainings += 1
            number, kl_weight = trainings, options.get("kl_weight", 1.0)

            def schedule(step: int) -> float:
                if step == at and number == training:
                    raise KilledError
                steps.append(step)
                return kl_weight(step) if callable(kl_weight) else kl_weight

            options |= {"kl_weight": schedule, "checkpoint_minutes": 0}
            return fit(model, train, **options)

        monkeypatch.setattr(module, "fit", deadly)
        return steps

    fit = fitting.fit
    return kill


class TestFolder:
    def test_what_a_finished_run_leaves(self, reviews_toml: Path, tmp_path: Path) -> None:
        experiment = load_experiment(reviews_toml, [INITIALISED])
        model, record = run_experiment(experiment, "tutvae train x", folder=tmp_path / "run")
        kept = tmp_path / "run"
        assert visible(kept) == OF_TEXTS
        configuration = json.loads((kept / "configuration.json").read_text())
        assert configuration.pop("data_sha256") == record["data_sha256"]
        assert configuration == experiment.configuration()
        assert json.loads((kept / "record.json").read_text()) == record
        assert len((kept / "metrics.jsonl").read_text().splitlines()) == 4
        weights = load_file(kept / "weights.safetensors")
        assert weights.keys() == model.state_dict().keys()
        assert all(torch.equal(weights[name], x) for name, x in model.state_dict().items())

    def test_without_one_nothing_is_written(
        self, reviews_toml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        run_experiment(load_experiment(reviews_toml, [INITIALISED, *BEST]), "tutvae train x")
        assert list(tmp_path.iterdir()) == []

    def test_a_finished_run_is_not_done_again(
        self, reviews_toml: Path, tmp_path: Path, killed: Callable[..., list[int]]
    ) -> None:
        """Its record tells what was done then."""
        experiment = load_experiment(reviews_toml)
        first, record = run_experiment(experiment, "then", folder=tmp_path)
        killed(0)
        (tmp_path / "last.safetensors").touch()  # the kill came after the record
        again, record_again = run_experiment(experiment, "now", folder=tmp_path)
        assert record_again == record
        assert record_again["command"] == "then"
        assert same_weights(first, again)
        assert visible(tmp_path) == OF_TEXTS

    @pytest.mark.parametrize("finished", [True, False])
    def test_a_folder_of_another_run_is_left_alone(
        self,
        reviews_toml: Path,
        tmp_path: Path,
        killed: Callable[..., list[int]],
        finished: bool,
    ) -> None:
        if finished:
            run_experiment(load_experiment(reviews_toml), "then", folder=tmp_path)
        else:
            killed(20)
            with pytest.raises(KilledError):
                run_experiment(load_experiment(reviews_toml), "then", folder=tmp_path)
        before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
        for setting, message in (
            ("training.epochs=5", "its training.epochs is 4, now it is 5"),
            ("corpus.seed=1", "its corpus.seed is 0, now it is 1"),
        ):
            with pytest.raises(ValueError, match=f"holds another run: {message}.*begin anew"):
                run_experiment(load_experiment(reviews_toml, [setting]), "now", folder=tmp_path)
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before

    def test_other_data_are_another_run(
        self, reviews_toml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run_experiment(load_experiment(reviews_toml), "then", folder=tmp_path)
        monkeypatch.setattr("tutvae.experiments.text_corpora.data_sha256", lambda texts: "other")
        with pytest.raises(ValueError, match=r"its data_sha256 is .* now it is other"):
            run_experiment(load_experiment(reviews_toml), "now", folder=tmp_path)

    def test_a_folder_in_use(self, reviews_toml: Path, tmp_path: Path) -> None:
        with FileLock(tmp_path / ".lock"):
            with pytest.raises(BlockingIOError, match="another process is writing to"):
                run_experiment(load_experiment(reviews_toml), "now", folder=tmp_path)
            assert visible(tmp_path) == []


class TestInterrupted:
    @pytest.mark.parametrize("step", [1, 9, 20])
    def test_it_goes_on_inside_its_epoch(
        self,
        reviews_toml: Path,
        reviews_run: Any,
        tmp_path: Path,
        killed: Callable[..., list[int]],
        step: int,
    ) -> None:
        """And ends with the record and the weights of a run that was left alone."""
        experiment = load_experiment(reviews_toml)
        killed(step)
        with pytest.raises(KilledError):
            run_experiment(experiment, "tutvae train tiny_reviews.toml", folder=tmp_path)
        torch.rand(step)  # the next process has another random state
        steps = killed(None)
        command = reviews_run[1]["command"]
        model, record = run_experiment(experiment, command, folder=tmp_path)
        assert set(steps) == set(range(step, 36))
        assert without_times(record) == without_times(reviews_run[1])
        assert same_weights(model, reviews_run[0])
        assert visible(tmp_path) == OF_TEXTS

    @pytest.mark.parametrize(("training", "step"), [(1, 5), (1, 13), (2, 0), (2, 14)])
    def test_with_an_initialisation(
        self,
        reviews_toml: Path,
        tmp_path: Path,
        killed: Callable[..., list[int]],
        training: int,
        step: int,
    ) -> None:
        """In the language model, between the two, or after it."""
        experiment = load_experiment(reviews_toml, [INITIALISED])
        expected = run_experiment(experiment, "now")
        killed(step, training=training)
        with pytest.raises(KilledError):
            run_experiment(experiment, "now", folder=tmp_path)
        steps = killed(None)
        model, record = run_experiment(experiment, "now", folder=tmp_path)
        assert len(set(steps)) <= 36
        assert (0 in steps) == (training == 1 or step == 0)
        assert without_times(record) == without_times(expected[1])
        assert same_weights(model, expected[0])
        assert visible(tmp_path) == OF_TEXTS

    def test_while_it_is_measured(
        self,
        reviews_toml: Path,
        reviews_run: Any,
        tmp_path: Path,
        killed: Callable[..., list[int]],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Then the trained weights are there already."""

        def measure(*_: Any, **__: Any) -> None:
            raise KilledError

        experiment = load_experiment(reviews_toml)
        with monkeypatch.context() as patch:
            patch.setattr(texts, "measure_texts", measure)
            with pytest.raises(KilledError):
                run_experiment(experiment, "now", folder=tmp_path)
        weights = load_file(tmp_path / "weights.safetensors")
        steps = killed(None)
        model, record = run_experiment(experiment, reviews_run[1]["command"], folder=tmp_path)
        assert steps == []
        assert without_times(record) == without_times(reviews_run[1])
        assert all(torch.equal(weights[name], x) for name, x in model.state_dict().items())

    def test_the_time_adds_up(
        self, reviews_toml: Path, tmp_path: Path, killed: Callable[..., list[int]]
    ) -> None:
        experiment = load_experiment(reviews_toml)
        killed(30)
        with pytest.raises(KilledError):
            run_experiment(experiment, "now", folder=tmp_path)
        last = tmp_path / "last.safetensors"
        tensors, about = load_tensors(last)
        save_tensors(last, tensors, about | {"seconds": 1000.0})
        _, record = run_experiment(experiment, "now", folder=tmp_path)
        assert 1000 < record["train_seconds"] < 2000
        assert record["tokens_per_second"] < 100

    def test_images(
        self, digits_toml: Path, tmp_path: Path, killed: Callable[..., list[int]]
    ) -> None:
        experiment = load_experiment(digits_toml, ["training.epochs=2"])
        expected = run_experiment(experiment, "now")
        killed(30, images)
        with pytest.raises(KilledError):
            run_experiment(experiment, "now", folder=tmp_path)
        steps = killed(None, images)
        model, record = run_experiment(experiment, "now", folder=tmp_path)
        assert min(steps) == 30
        assert without_times(record) == without_times(expected[1])
        assert same_weights(model, expected[0])
        assert visible(tmp_path) == FINISHED


class TestAggressivePhase:
    """In an interrupted run, whose language model is trained before, in a folder of its own."""

    @pytest.fixture
    def phases(self, monkeypatch: pytest.MonkeyPatch) -> list[int | None]:
        """Where each phase is to stop, by the decoder's step, from the back; None not at all."""
        stops: list[int | None] = []

        def deadly(model: Any, train: Any, **options: Any) -> Any:
            stop, kl_weight = stops.pop(), options["kl_weight"]

            def schedule(step: int) -> float:
                if step == stop:
                    raise KilledError
                return float(kl_weight(step))

            return fit_aggressively(model, train, **{**options, "kl_weight": schedule})

        fit_aggressively = fitting.fit_aggressively
        monkeypatch.setattr(fitting, "fit_aggressively", deadly)
        return stops

    @pytest.mark.parametrize(
        ("inside", "step", "phases_begun"),
        [(4, None, 2), (None, 0, 2), (None, 1, 1), (None, 20, 1)],
    )
    def test_the_record_is_that_of_a_run_left_alone(
        self,
        reviews_toml: Path,
        tmp_path: Path,
        killed: Callable[..., list[int]],
        phases: list[int | None],
        inside: int | None,
        step: int | None,
        phases_begun: int,
    ) -> None:
        """Killed in the phase, before the first checkpoint after it, after that, and later."""
        experiment = load_experiment(reviews_toml, [INITIALISED, AGGRESSIVE])
        phases += [None]
        expected = run_experiment(experiment, "now")
        phases += [None, None, inside]
        killed(step, training=2)
        with pytest.raises(KilledError):
            run_experiment(experiment, "now", folder=tmp_path)
        torch.rand(5)  # the next process has another random state
        killed(None)
        model, record = run_experiment(experiment, "now", folder=tmp_path)
        assert 3 - len(phases) == phases_begun
        assert record["aggressive"]["decoder_steps"] > 0
        assert without_times(record) == without_times(expected[1])
        assert same_weights(model, expected[0])
        assert visible(tmp_path) == OF_TEXTS

    def test_its_folder_is_that_of_this_run(
        self, reviews_toml: Path, tmp_path: Path, killed: Callable[..., list[int]]
    ) -> None:
        """Another run of a sweep with the same label begins anew."""
        settings = [AGGRESSIVE, "seeds=[0]", "training.epochs=1"]
        killed(3)
        with pytest.raises(KilledError):
            run_experiment(load_experiment(reviews_toml, settings), "now", folder=tmp_path)
        assert (tmp_path / "all-0" / "aggressive.json").exists()
        killed(None)
        other = load_experiment(reviews_toml, [*settings, "training.aggressive.round_steps=2"])
        _, record = run_experiment(other, "now", folder=tmp_path)
        phase = record["runs"][0]["aggressive"]
        assert phase["decoder_steps"] == 2 * len(phase["mutual_information"])
        assert visible(tmp_path / "all-0") == [name for name in OF_TEXTS if name != "record.json"]


class TestBestWeights:
    """Of an epoch in the middle: with a KL that costs nothing, the bound first falls, then rises.

    It does so by more than a nat, so that no rounding chooses another epoch.
    """

    FITTED = (
        "training.learning_rate_schedule=constant",
        "training.learning_rate=0.01",
        "training.kl_weight=0",
    )

    def test_those_of_the_best_epoch_are_measured_and_kept(
        self, reviews_toml: Path, tmp_path: Path
    ) -> None:
        settings = [*BEST, *self.FITTED, "training.epochs=12"]
        model, record = run_experiment(
            load_experiment(reviews_toml, settings), "now", folder=tmp_path
        )
        curves, epoch = record["curves"], record["best_epoch"]
        pairs = zip(curves["valid_reconstruction"], curves["valid_kl"], strict=True)
        bounds = [sum(pair) for pair in pairs]
        best, second = sorted(bounds)[:2]
        assert bounds[epoch - 1] == best < second - 0.5
        assert 1 < epoch < len(bounds)
        short = [*self.FITTED, f"training.epochs={epoch}"]
        expected, _ = run_experiment(load_experiment(reviews_toml, short), "now")
        assert same_weights(model, expected)
        weights = load_file(tmp_path / "weights.safetensors")
        assert all(torch.equal(weights[name], x) for name, x in expected.state_dict().items())
        assert visible(tmp_path) == OF_TEXTS

    def test_they_need_no_folder(self, reviews_toml: Path, tmp_path: Path) -> None:
        experiment = load_experiment(reviews_toml, BEST)
        model, record = run_experiment(experiment, "now")
        kept, record_kept = run_experiment(experiment, "now", folder=tmp_path)
        assert isinstance(model, TextVAE)
        assert same_weights(model, kept)
        assert without_times(record) == without_times(record_kept)

    def test_the_last_ones_are_not_called_the_best(self, reviews_run: Any) -> None:
        assert "best_epoch" not in reviews_run[1]
