from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from safetensors.torch import load_file

from tutvae.experiments import TextExperiment, images, load_experiment, run_experiment, text
from tutvae.experiments.records import read_result
from tutvae.models import TextVAE
from tutvae.training.checkpoints import load_tensors, save_tensors
from tutvae.training.run_folder import RunFolder

FINISHED = ["configuration.json", "metrics.jsonl", "record.json", "weights.safetensors"]
OF_TEXTS = sorted([*FINISHED, "tokenizer.json"])
TIMES = ("started", "commit", "train_seconds", "initialisation_seconds")
RATES = ("tokens_per_second", "examples_per_second")
INITIALISED = "initialisation.epochs=2"
ALL = ["vae-1", "vae-4", "language_model-1", "language_model-4", "cnn-1", "cnn-4"]
AGGRESSIVE = "training.aggressive={window=2, max_encoder_steps=4, round_steps=3, max_rounds=2}"
BEST = ["training.weights=best", "training.learning_rate=0.3", "training.patience=3"]


def described(path: Path, *settings: str) -> TextExperiment:
    experiment = load_experiment(path, settings)
    assert isinstance(experiment, TextExperiment)
    return experiment


def finished(folder: Path) -> list[str]:
    """The labels of the runs that a sweep has kept."""
    return sorted(path.parent.name for path in folder.glob("*/record.json"))


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

    def kill(at: int | None, module: Any = text, training: int = 1) -> list[int]:
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

    fit = text.fit
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
        monkeypatch.setattr("tutvae.experiments.data.data_sha256", lambda texts: "other")
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
            patch.setattr(text, "evaluate", measure)
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
            stop, kl_weight = stops[-1], options["kl_weight"]

            def schedule(step: int) -> float:
                if step == 0:
                    stops.pop()  # the phase has begun
                if step == stop:
                    raise KilledError
                return float(kl_weight(step))

            return fit_aggressively(model, train, **{**options, "kl_weight": schedule})

        fit_aggressively = text.fit_aggressively
        monkeypatch.setattr(text, "fit_aggressively", deadly)
        return stops

    @pytest.mark.parametrize(
        ("inside", "step", "phases_begun"),
        [(4, None, 2), (None, 0, 1), (None, 1, 1), (None, 20, 1)],
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

    def test_of_a_sweep_whose_description_changed_it_is_left_alone(
        self, reviews_toml: Path, tmp_path: Path, killed: Callable[..., list[int]]
    ) -> None:
        settings = [AGGRESSIVE, "seeds=[0]", "training.epochs=1"]
        killed(3)
        with pytest.raises(KilledError):
            run_experiment(load_experiment(reviews_toml, settings), "now", folder=tmp_path)
        before = (tmp_path / "all-0" / "aggressive.safetensors").read_bytes()
        other = load_experiment(reviews_toml, [*settings, "training.aggressive.round_steps=2"])
        with pytest.raises(ValueError, match=r"all-0 holds another run: its training\.aggressive"):
            run_experiment(other, "now", folder=tmp_path)
        assert (tmp_path / "all-0" / "aggressive.safetensors").read_bytes() == before


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


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The seeds of the runs that were really done, in a sweep of one process."""
    seeds: list[int] = []

    def spy(experiment: TextExperiment, *arguments: Any) -> Any:
        seeds.append(experiment.seed or 0)
        return train(experiment, *arguments)

    train = TextExperiment.train
    monkeypatch.setattr(TextExperiment, "train", spy)
    return seeds


@pytest.fixture
def sweep(reviews_toml: Path, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Run a sweep of three seeds in the folder of the test."""

    def run(*settings: str, **options: Any) -> dict[str, Any]:
        common = ["seeds=[3, 4, 5]", "training.epochs=1", "evaluation.factors=false"]
        experiment = described(reviews_toml, *common, *settings)
        return run_experiment(experiment, "tutvae train", folder=tmp_path / "runs", **options)[1]

    return run


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Where that sweep keeps its runs."""
    return tmp_path / "runs"


class TestSweeping:
    def test_the_record_has_every_run_in_order(self, sweep_run: dict[str, Any]) -> None:
        runs = sweep_run["runs"]
        assert [f"{run['variant']}-{run['seed']}" for run in runs] == ALL
        assert "reports" not in sweep_run
        assert sweep_run["entropy"]["standard_error"] > 0
        assert [run.get("receptive_field") for run in runs] == [None] * 4 + [15] * 2

    def test_a_run_is_the_same_as_by_itself(
        self, sweep_run: dict[str, Any], reviews_toml: Path
    ) -> None:
        """Whatever ran before it in the process."""
        model, record = run_experiment(described(reviews_toml, "seed=4"), "alone")
        assert model is not None
        alone = {**without_times(record), "variant": "vae", "seed": 4}
        run = without_times(sweep_run["runs"][1])
        assert {key: alone[key] for key in run} == run
        assert record["data_sha256"] == sweep_run["data_sha256"]

    def test_several_at_a_time_come_to_the_same(
        self,
        sweep_run: dict[str, Any],
        sweep_toml: Path,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(torch, "get_num_threads", lambda: 3)  # of this process
        command = "tutvae train --jobs 2"
        _, record = run_experiment(described(sweep_toml), command, folder=tmp_path, jobs=2)
        assert list(map(without_times, record["runs"])) == list(
            map(without_times, sweep_run["runs"])
        )
        assert record["hardware"]["threads"] == 1
        assert finished(tmp_path) == sorted(ALL)
        assert sorted(path.name for path in tmp_path.glob("*/")) == sorted(ALL)
        out, err = capsys.readouterr()
        assert out == ""
        lines = err.splitlines()
        assert [line.split()[0] for line in lines] == [f"[{n}/6]" for n in range(1, 7)]
        assert sorted(line.split()[1] for line in lines) == sorted(f"{label}:" for label in ALL)

    def test_a_folder_is_needed(self, sweep_toml: Path) -> None:
        with pytest.raises(ValueError, match="a sweep needs a folder"):
            run_experiment(described(sweep_toml), "tutvae train")


class TestGoingOn:
    def test_what_is_finished_is_not_done_again(
        self, sweep: Callable[..., dict[str, Any]], done: list[int], runs: Path
    ) -> None:
        first = sweep()
        shutil.rmtree(runs / "all-4")
        second = sweep()
        assert done == [3, 4, 5, 4]
        assert second["runs"][0] == first["runs"][0]  # to the second of its training
        assert list(map(without_times, second["runs"])) == list(map(without_times, first["runs"]))

    def test_it_is_kept_at_once(
        self,
        sweep: Callable[..., dict[str, Any]],
        runs: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """The second run is killed."""

        def killed(experiment: TextExperiment, *arguments: Any) -> Any:
            if experiment.seed == 4:
                raise KeyboardInterrupt
            return train(experiment, *arguments)

        train = TextExperiment.train
        monkeypatch.setattr(TextExperiment, "train", killed)
        with pytest.raises(KeyboardInterrupt):
            sweep()
        assert finished(runs) == ["all-3"]
        kept = json.loads((runs / "all-3" / "record.json").read_text())
        assert kept["configuration"]["seed"] == 3

    def test_an_interrupted_run_goes_on(
        self,
        sweep: Callable[..., dict[str, Any]],
        runs: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """The second run is killed in its second epoch; what it needed is gone in the end."""
        two = "training.epochs=2"
        expected = sweep(two)
        shutil.rmtree(runs / "all-4")

        def deadly(self: RunFolder, records: list[dict[str, float]]) -> None:
            if len(records) == 2:
                raise KeyboardInterrupt
            write(self, records)

        write = RunFolder.write_metrics
        with monkeypatch.context() as patch:
            patch.setattr(RunFolder, "write_metrics", deadly)
            with pytest.raises(KeyboardInterrupt):
                sweep(two)
        epochs: list[int] = []
        monkeypatch.setattr(RunFolder, "write_metrics", lambda _, found: epochs.append(len(found)))
        assert list(map(without_times, sweep(two)["runs"])) == list(
            map(without_times, expected["runs"])
        )
        assert epochs == [2]
        assert not list(runs.glob("*/last.safetensors"))
        (runs / "all-4" / "last.safetensors").touch()  # as if a kill had come before
        sweep(two)
        assert not list(runs.glob("*/last.safetensors"))
        assert len(list(runs.glob("*/weights.safetensors"))) == 3

    @pytest.mark.parametrize("setting", ["training.learning_rate=0.02", "corpus.seed=1"])
    def test_a_changed_description_removes_nothing(
        self, sweep: Callable[..., dict[str, Any]], done: list[int], runs: Path, setting: str
    ) -> None:
        sweep("seeds=[3]")
        before = {path: path.read_bytes() for path in runs.glob("*/*")}
        with pytest.raises(ValueError, match=r"all-3 holds another run: its .*begin anew"):
            sweep("seeds=[3]", setting)
        assert {path: path.read_bytes() for path in runs.glob("*/*")} == before
        assert done == [3]
        shutil.rmtree(runs / "all-3")
        sweep("seeds=[3]", setting)
        assert done == [3, 3]

    def test_changed_data_remove_nothing(
        self,
        sweep: Callable[..., dict[str, Any]],
        done: list[int],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        sweep("seeds=[3]")
        monkeypatch.setattr("tutvae.experiments.data.data_sha256", lambda corpus: "another")
        with pytest.raises(ValueError, match=r"its data_sha256 is .*, now it is another"):
            sweep("seeds=[3]")
        assert done == [3]

    @pytest.mark.parametrize("content", ["", '{"outcome"', "{}", "null", "[]", "5"])
    def test_a_file_that_is_no_record_is_named(
        self, sweep: Callable[..., dict[str, Any]], runs: Path, content: str
    ) -> None:
        sweep("seeds=[3]")
        (runs / "all-3" / "record.json").write_text(content)
        with pytest.raises(ValueError, match=r"all-3/record\.json is no record of a run .* anew"):
            sweep("seeds=[3]")

    def test_divergence_names_the_run(
        self, sweep: Callable[..., dict[str, Any]], runs: Path
    ) -> None:
        settings = [
            "variants.good.training.epochs=1",
            "variants.bad.training.optimizer=sgd",
            "variants.bad.training.learning_rate=1e30",
        ]
        with pytest.raises(FloatingPointError, match=r"bad-3: the loss is .* learning rate 1e\+30"):
            sweep(*settings)
        assert finished(runs) == ["good-3", "good-4", "good-5"]


class TestGoingOnFromTheRecord:
    def test_it_is_written_after_every_run(
        self,
        sweep: Callable[..., dict[str, Any]],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        def killed(experiment: TextExperiment, *arguments: Any) -> Any:
            if experiment.seed == 5:
                raise KilledError
            return train(experiment, *arguments)

        train = TextExperiment.train
        monkeypatch.setattr(TextExperiment, "train", killed)
        with pytest.raises(KilledError):
            sweep(results=tmp_path)
        record = read_result(tmp_path / "tiny_reviews.json")
        assert [run["seed"] for run in record["runs"]] == [3, 4]
        for run in record["runs"]:
            assert run["hardware"]["threads"] == torch.get_num_threads()
            assert "commit" in run

    def test_a_machine_without_the_folders_does_the_rest_alone(
        self, sweep: Callable[..., dict[str, Any]], done: list[int], tmp_path: Path, runs: Path
    ) -> None:
        first = sweep("seeds=[3]", results=tmp_path)
        shutil.rmtree(runs)
        record = sweep("seeds=[3, 4]", results=tmp_path)
        assert done == [3, 4]
        assert record["runs"][0] == first["runs"][0]
        assert read_result(tmp_path / "tiny_reviews.json") == json.loads(json.dumps(record))
        before = (tmp_path / "tiny_reviews.json").read_bytes()
        shutil.rmtree(runs)
        assert sweep("seeds=[3, 4]", results=tmp_path) == record
        assert done == [3, 4]
        assert (tmp_path / "tiny_reviews.json").read_bytes() == before

    def test_a_record_from_before_runs_had_their_own_hardware(
        self, sweep: Callable[..., dict[str, Any]], done: list[int], tmp_path: Path, runs: Path
    ) -> None:
        sweep("seeds=[3]", results=tmp_path)
        path = tmp_path / "tiny_reviews.json"
        old = read_result(path)
        del old["runs"][0]["hardware"]
        del old["configuration"]["training"]["precision"]  # as if the key were newer, too
        old["hardware"]["cores"] = 77
        path.write_text(json.dumps(old))
        shutil.rmtree(runs)
        record = sweep("seeds=[3, 4]", results=tmp_path)
        assert done == [3, 4]
        assert [run["hardware"]["cores"] for run in record["runs"]] == [77, os.cpu_count()]

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            (["training.epochs=2"], "the run all-3: its training.epochs is 1, now it is 2"),
            (["corpus.seed=1"], "the run all-3: its corpus.seed is 0, now it is 1"),
            (["seeds=[4]"], "tells of a run all-3 that is not described"),
            (["model.latent_size=0"], "the run all-3: its model.latent_size is 3, now it is 0"),
        ],
    )
    def test_a_record_of_another_configuration_is_never_overwritten(
        self,
        sweep: Callable[..., dict[str, Any]],
        done: list[int],
        tmp_path: Path,
        runs: Path,
        settings: list[str],
        message: str,
    ) -> None:
        sweep("seeds=[3]", results=tmp_path)
        path = tmp_path / "tiny_reviews.json"
        before = path.read_bytes()
        shutil.rmtree(runs)
        with pytest.raises(ValueError, match=f"tiny_reviews.json .*{message}.*--set name="):
            sweep("seeds=[3]", *settings, results=tmp_path)
        assert done == [3]
        assert path.read_bytes() == before

    def test_nor_is_that_of_a_single_run(
        self, reviews_toml: Path, tmp_path: Path, done: list[int]
    ) -> None:
        experiment = described(reviews_toml, "training.epochs=1")
        run_experiment(experiment, "then", results=tmp_path)
        before = (tmp_path / "tiny_reviews.json").read_bytes()
        for setting in ("training.epochs=2", "seeds=[0]"):
            other = described(reviews_toml, "training.epochs=1", setting)
            with pytest.raises(ValueError, match="is the record of another configuration"):
                run_experiment(other, "now", folder=tmp_path / "runs", results=tmp_path)
        assert len(done) == 1
        assert (tmp_path / "tiny_reviews.json").read_bytes() == before


def test_at_most_four_frames_from_the_command_to_fit(
    reviews_toml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from typer.testing import CliRunner

    from tutvae.cli.main import app

    frames: list[str] = []

    def stop(*_: Any, **__: Any) -> None:
        package = str(Path(text.__file__).parents[1])
        stack = [f for f in traceback.extract_stack() if f.filename.startswith(package)]
        frames.extend(frame.name for frame in stack)
        raise KilledError

    monkeypatch.setattr(text, "fit", stop)
    folders = ["--results", str(tmp_path), "--runs", str(tmp_path)]
    CliRunner().invoke(app, ["train", str(reviews_toml), *folders])
    assert len(frames[frames.index("train") :]) <= 5, frames


class TestSeveralProcesses:
    @pytest.mark.parametrize("name", ["TERM", "HUP", "KILL"])
    def test_workers_end_with_their_parent(
        self, reviews_toml: Path, tmp_path: Path, name: str
    ) -> None:
        # A test that runs under nohup has its children not hear of a hang-up.
        program = "import signal; signal.signal(signal.SIGHUP, signal.SIG_DFL); "
        program += "from tutvae.cli.main import app; app()"
        settings = ["--set", "seeds=[1, 2]", "--set", "training.epochs=100000", "--jobs", "2"]
        folders = ["--results", str(tmp_path), "--runs", str(tmp_path)]
        arguments = ["train", str(reviews_toml), *folders, *settings]
        kept = [tmp_path / "tiny_reviews" / f"all-{seed}" for seed in (1, 2)]
        with subprocess.Popen([sys.executable, "-c", program, *arguments]) as process:
            while not all((folder / "metrics.jsonl").exists() for folder in kept):
                assert process.poll() is None, "it ended before it could be killed"
                time.sleep(0.1)
            process.send_signal(getattr(signal, f"SIG{name}"))
            process.wait(timeout=60)
        for folder in kept:  # a worker holds the lock of its run as long as it lives
            FileLock(folder / ".lock").acquire(timeout=30).lock.release()

    def test_torchrun_trains_on_the_union_of_the_batches(
        self, reviews_toml: Path, tmp_path: Path
    ) -> None:
        """The first process alone writes and prints."""
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        torchrun += ["--nproc-per-node", "2", "-m", "tutvae"]
        folders = ["--results", str(tmp_path), "--runs", str(tmp_path / "runs")]
        settings = ["--set", "training.epochs=2", "--set", "training.weights=best"]
        arguments = ["train", str(reviews_toml), *folders, *settings]
        done = subprocess.run([*torchrun, *arguments], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("wrote ") == 1
        record = read_result(tmp_path / "tiny_reviews.json")
        assert record["curves"]["step"] == [5, 10]  # 260 documents by 2 x 32
        assert visible(tmp_path / "runs" / "tiny_reviews") == OF_TEXTS
