from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tutvae.experiments import TextExperiment, load_experiment, run_experiment
from tutvae.experiments import sweeps as module
from tutvae.experiments.sweeps import merged, sweep_runs
from tutvae.training.run_folder import RunFolder

TIMES = ("started", "train_seconds", "tokens_per_second")
ALL = ["vae-1", "vae-4", "language_model-1", "language_model-4", "cnn-1", "cnn-4"]
LEAVES = st.one_of(st.integers(), st.lists(st.integers(), max_size=2))
TABLES = st.recursive(
    st.dictionaries(st.sampled_from("abc"), LEAVES, max_size=3),
    lambda inner: st.dictionaries(st.sampled_from("abc"), LEAVES | inner, max_size=3),
    max_leaves=8,
)


def described(path: Path, *settings: str) -> TextExperiment:
    experiment = load_experiment(path, settings)
    assert isinstance(experiment, TextExperiment)
    return experiment


def without_times(run: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in run.items() if key not in TIMES}


def finished(folder: Path) -> list[str]:
    """The labels of the runs that a sweep has kept."""
    return sorted(path.stem for path in folder.glob("*.json"))


def leaves(table: dict[str, Any], path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """Every value that is no table, by its keys."""
    found: dict[tuple[str, ...], Any] = {}
    for key, value in table.items():
        inner = isinstance(value, dict)
        found |= leaves(value, (*path, key)) if inner else {(*path, key): value}
    return found


class TestMerging:
    @given(TABLES, TABLES)
    def test_what_the_second_says_holds_and_the_rest_is_the_first_s(
        self, first: dict[str, Any], second: dict[str, Any]
    ) -> None:
        before = deepcopy((first, second))
        result = leaves(merged(first, second))
        assert (first, second) == before
        of_second = leaves(second)
        assert all(result[keys] == value for keys, value in of_second.items())
        for keys, value in result.items():
            assert of_second.get(keys, leaves(first).get(keys)) == value

    @given(TABLES)
    def test_nothing_and_itself_change_nothing(self, table: dict[str, Any]) -> None:
        assert merged(table, {}) == table == merged(table, table) == merged({}, table)

    @pytest.mark.parametrize("key", ["kind", "schedule"])
    def test_a_table_of_another_kind_replaces(self, key: str) -> None:
        table = {"x": {key: "lstm", "size": 3, "rate": 0.5}, "y": 1}
        assert merged(table, {"x": {key: "cnn", "width": 2}}) == {
            "x": {key: "cnn", "width": 2},
            "y": 1,
        }
        assert merged(table, {"x": {key: "lstm", "size": 4}}) == {
            "x": {key: "lstm", "size": 4, "rate": 0.5},
            "y": 1,
        }


class TestRuns:
    def test_every_variant_with_every_seed(self, sweep_toml: Path) -> None:
        runs = sweep_runs(described(sweep_toml))
        assert [run.label for run in runs] == ALL
        assert [run.experiment.seed for run in runs] == [1, 4] * 3
        for run in runs:
            experiment = run.experiment
            assert not experiment.is_sweep
            assert experiment.name == "tiny_sweep"
            is_cnn = run.variant == "cnn"
            assert experiment.decoder.kind == ("dilated_cnn" if is_cnn else "lstm")
            assert experiment.training.epochs == (3 if is_cnn else 4)
            assert experiment.model.latent_size == (0 if run.variant == "language_model" else 3)
            assert experiment.training.batch_size == 32

    def test_seeds_alone(self, reviews_toml: Path) -> None:
        runs = sweep_runs(described(reviews_toml, "seeds=[7, 5]"))
        assert [run.label for run in runs] == ["all-7", "all-5"]

    def test_variants_alone(self, reviews_toml: Path) -> None:
        experiment = described(reviews_toml, "variants.a.model.latent_size=2", "seed=9")
        assert experiment.is_sweep
        assert [run.label for run in sweep_runs(experiment)] == ["a-9"]

    def test_neither(self, reviews_toml: Path) -> None:
        assert not described(reviews_toml).is_sweep

    @pytest.mark.parametrize("key", ["name", "seed", "seeds", "corpus", "variants", "kind"])
    def test_what_a_variant_may_not_change(self, sweep_toml: Path, key: str) -> None:
        message = rf"\nvariants\.vae\.{key}: All runs of a sweep have this in common"
        with pytest.raises(ValueError, match=message):
            described(sweep_toml, f"variants.vae.{key}=3")


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The seeds of the runs that were really done, in a sweep of one process."""
    seeds: list[int] = []

    def spy(experiment: TextExperiment, *arguments: Any, **options: Any) -> Any:
        seeds.append(experiment.seed or 0)
        return train(experiment, *arguments, **options)

    train = module.train_and_measure
    monkeypatch.setattr(module, "train_and_measure", spy)
    return seeds


@pytest.fixture
def sweep(reviews_toml: Path, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Run a sweep of three seeds in the folder of the test."""

    def run(*settings: str) -> dict[str, Any]:
        common = ["seeds=[3, 4, 5]", "training.epochs=1", "evaluation.factors=false"]
        experiment = described(reviews_toml, *common, *settings)
        return run_experiment(experiment, "tutvae train", folder=tmp_path)[1]

    return run


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
        self, sweep: Callable[..., dict[str, Any]], done: list[int], tmp_path: Path
    ) -> None:
        first = sweep()
        (tmp_path / "all-4.json").unlink()
        second = sweep()
        assert done == [3, 4, 5, 4]
        assert second["runs"][0] == first["runs"][0]  # to the second of its training
        assert list(map(without_times, second["runs"])) == list(map(without_times, first["runs"]))

    def test_it_is_kept_at_once(
        self,
        sweep: Callable[..., dict[str, Any]],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """The second run is killed."""

        def killed(experiment: TextExperiment, *arguments: Any, **options: Any) -> Any:
            if experiment.seed == 4:
                raise KeyboardInterrupt
            return train(experiment, *arguments, **options)

        train = module.train_and_measure
        monkeypatch.setattr(module, "train_and_measure", killed)
        with pytest.raises(KeyboardInterrupt):
            sweep()
        assert finished(tmp_path) == ["all-3"]
        kept = json.loads((tmp_path / "all-3.json").read_text())
        assert kept["configuration"]["seed"] == 3

    def test_an_interrupted_run_goes_on(
        self,
        sweep: Callable[..., dict[str, Any]],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """The second run is killed in its second epoch; what it needed is gone in the end."""
        two = "training.epochs=2"
        expected = sweep(two)
        shutil.rmtree(tmp_path / "all-4")
        (tmp_path / "all-4.json").unlink()

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
        assert not list(tmp_path.glob("*/last.safetensors"))
        (tmp_path / "all-4" / "last.safetensors").touch()  # as if a kill had come before
        sweep(two)
        assert not list(tmp_path.glob("*/last.safetensors"))
        assert len(list(tmp_path.glob("*/weights.safetensors"))) == 3

    @pytest.mark.parametrize(
        "setting", ["training.learning_rate=0.02", "corpus.seed=1", "corpus.nouns=3"]
    )
    def test_a_changed_description_is_run_anew(
        self, sweep: Callable[..., dict[str, Any]], done: list[int], setting: str
    ) -> None:
        before = sweep("seeds=[3]")
        after = sweep("seeds=[3]", setting)
        assert done == [3, 3]
        assert after["runs"][0]["reports"] != before["runs"][0]["reports"]
        again = sweep("seeds=[3]", setting)
        assert again["runs"] == after["runs"]
        assert done == [3, 3]

    def test_a_run_from_before_a_key_was_added_has_its_default(
        self, sweep: Callable[..., dict[str, Any]], done: list[int], tmp_path: Path
    ) -> None:
        sweep("seeds=[3]")
        path = tmp_path / "all-3.json"
        kept = json.loads(path.read_text())
        del kept["configuration"]["training"]["precision"]
        path.write_text(json.dumps(kept))
        sweep("seeds=[3]")
        assert done == [3]

    def test_so_are_changed_data(
        self,
        sweep: Callable[..., dict[str, Any]],
        done: list[int],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        sweep("seeds=[3]")
        monkeypatch.setattr("tutvae.experiments.text_corpora.data_sha256", lambda corpus: "another")
        sweep("seeds=[3]")
        assert done == [3, 3]

    @pytest.mark.parametrize("content", ["", '{"outcome"', "{}"])
    def test_a_file_that_is_no_run_is_done_anew(
        self,
        sweep: Callable[..., dict[str, Any]],
        done: list[int],
        tmp_path: Path,
        content: str,
    ) -> None:
        (tmp_path / "all-3.json").write_text(content)
        sweep("seeds=[3]")
        assert done == [3]

    def test_divergence_names_the_run(
        self, sweep: Callable[..., dict[str, Any]], tmp_path: Path
    ) -> None:
        settings = [
            "variants.good.training.epochs=1",
            "variants.bad.training.optimizer=sgd",
            "variants.bad.training.learning_rate=1e30",
        ]
        with pytest.raises(FloatingPointError, match=r"bad-3: the loss is .* learning rate 1e\+30"):
            sweep(*settings)
        assert finished(tmp_path) == ["good-3", "good-4", "good-5"]
