from __future__ import annotations

import hashlib
import json
import math
import os
import shlex
import subprocess
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from pydantic import BaseModel

import tutvae
from tutvae.data.corpus import Corpus, Images, Texts
from tutvae.experiments import (
    ClassificationExperiment,
    TextExperiment,
    load_experiment,
    validate_experiment,
)
from tutvae.experiments import provenance as origin
from tutvae.experiments import records as results
from tutvae.experiments.provenance import data_sha256, hardware, provenance
from tutvae.experiments.records import (
    check_writable,
    read_result,
    read_results,
    recorded_folder,
    recorded_result,
    significant,
    write_result,
)
from tutvae.experiments.schema import (
    CURVES,
    ClassificationRecord,
    ImageRecord,
    SweepRecord,
    TextRecord,
    _Configuration,
    _Corpus,
)
from tutvae.experiments.tables import summary, summary_table

REPOSITORY = Path(__file__).parents[2]
COMMITTED = sorted((REPOSITORY / "results").glob("*.json"))


def undescribed(record: BaseModel | Any, where: str = "") -> list[str]:
    """The keys of a record that its schema does not have."""
    if isinstance(record, dict) and (known := KEYS.get(where.rpartition(".")[2])):
        return [f"{where}.{key}" for key in record.keys() - known]
    if isinstance(record, BaseModel):
        extra = [] if type(record) in OPEN else [f"{where}.{key}" for key in record.model_extra]
        items = [(key, getattr(record, key)) for key in type(record).model_fields]
    else:
        extra = []
        items = list(record.items() if isinstance(record, dict) else enumerate(record))
    inner = [(key, x) for key, x in items if isinstance(x, BaseModel | dict | list)]
    return extra + [fault for key, x in inner for fault in undescribed(x, f"{where}.{key}")]


SCHEMAS = {
    "image": ImageRecord,
    "text": TextRecord,
    "sweep": SweepRecord,
    "classification": ClassificationRecord,
}
FACTORS = {"category", "stars", "person", "tense"}
# Of what the schema takes for a dict of one type.
KEYS: dict[str, set[str]] = {
    "versions": {"python", "tutvae", "torch", "numpy"},
    "curves": {*CURVES, "valid_reconstruction", "valid_kl", "rate"},
    "accuracy": {"valid", "test"},
    "entropy": {"value", "standard_error"},
    "bayes_accuracy": {"value", "standard_error"},
    **{factor: {"accuracy", "nats", "entropy"} for factor in FACTORS},
}
# Validated as an experiment.
OPEN = (_Configuration, _Corpus)
OF_VAE = ("epochs", "reconstruction", "kl")


def check(record: dict[str, Any]) -> None:
    """Assert that a record holds everything, and that its numbers agree with each other."""
    experiment = validate_experiment(record["configuration"])
    is_sweep = isinstance(experiment, TextExperiment) and experiment.is_sweep
    schema = SCHEMAS["sweep" if is_sweep else experiment.kind]
    assert undescribed(schema.model_validate(record)) == []
    assert experiment.name == record["name"]
    assert record["command"].startswith("tutvae ")
    for run in record.get("runs", []):
        assert "commit" in run
    if isinstance(experiment, ClassificationExperiment):
        check_classifiers(record, experiment)
        return
    if not is_sweep:
        check_run(record, experiment)
        return
    runs = experiment.runs()
    assert [run.label for run in runs] == [f"{r['variant']}-{r['seed']}" for r in record["runs"]]
    for run, outcome in zip(runs, record["runs"], strict=True):
        check_run(outcome, run.experiment)


def check_classifiers(record: dict[str, Any], experiment: ClassificationExperiment) -> None:
    """Assert that every run is there, and tells what its method does."""
    runs = experiment.runs()
    keys = ("variant", "method", "labels", "seed")
    assert [run.label for run in runs] == [
        "-".join(str(outcome[key]) for key in keys) for outcome in record["runs"]
    ]
    for run, outcome in zip(runs, record["runs"], strict=True):
        is_vae = run.keys["method"] == "semi_supervised"
        assert set(OF_VAE) & set(outcome) == (set(OF_VAE) if is_vae else set())
        assert ("chosen" in outcome) != ("parameters" in outcome)
        if is_vae:
            assert outcome["epochs"] == run.experiment.training.epochs
    is_reviews = experiment.corpus.name == "reviews"
    assert ("bayes_accuracy" in record) == is_reviews


def check_run(outcome: dict[str, Any], experiment: Any) -> None:
    """Assert that the numbers of one run agree with each other and with its description."""
    latent_size = experiment.model.latent_size
    epochs = {len(curve) for curve in outcome["curves"].values()}
    assert len(epochs) == 1
    if getattr(experiment.training, "patience", None) is None:
        assert epochs == {experiment.training.epochs}
    else:
        assert max(epochs) <= experiment.training.epochs
    assert set(outcome["reports"]) <= {"valid", "test"}
    assert set(outcome.get("probes", {})) <= FACTORS
    for split, report in outcome["reports"].items():
        samples = experiment.evaluation.importance_samples
        if isinstance(experiment, TextExperiment):
            samples = experiment.evaluation.samples_of(split)
        assert report["importance_samples"] == (samples if latent_size else 1)
        assert len(report["kl_per_dimension"]) == latent_size
        assert report["active_units"] <= latent_size
        assert report["bound"] == pytest.approx(report["reconstruction"] + report["kl"], rel=1e-5)
        assert report["kl"] == pytest.approx(sum(report["kl_per_dimension"]), rel=1e-4, abs=1e-6)
        nll, bound = report["importance_weighted_nll"], report["bound"]
        # From one sample they are two estimates of the same, from different draws.
        one_draw = latent_size > 0 and report["importance_samples"] == 1
        assert nll == pytest.approx(bound, rel=0.01) if one_draw else nll <= bound * (1 + 1e-6)
        if isinstance(experiment, TextExperiment):
            length = report["tokens"] / report["examples"]
            perplexity = math.exp(report["importance_weighted_nll"] / length)
            assert report["perplexity"] == pytest.approx(perplexity, rel=1e-4)
            assert report["mutual_information"] <= report["mutual_information_ceiling"] + 1e-4
    if isinstance(experiment, TextExperiment):
        assert ("probes" in outcome) == (experiment.evaluation.factors and latent_size > 0)
        assert ("receptive_field" in outcome) == (experiment.decoder.kind == "dilated_cnn")
        assert ("initialisation_seconds" in outcome) == (experiment.initialisation is not None)
        assert ("best_epoch" in outcome) == (experiment.training.weights == "best")
        aggressive = experiment.training.aggressive
        assert ("aggressive" in outcome) == (aggressive is not None)
        if aggressive is not None:
            rounds = len(outcome["aggressive"]["mutual_information"])
            assert 1 <= rounds <= aggressive.max_rounds
            assert outcome["aggressive"]["decoder_steps"] == rounds * aggressive.round_steps


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.stem)
def test_the_results_of_the_project(path: Path) -> None:
    """Each is what its experiment file describes, and names no folder of somebody's machine."""
    record = read_result(path)
    check(record)
    described = load_experiment(REPOSITORY / "experiments" / f"{path.stem}.toml")
    assert validate_experiment(record["configuration"]) == described
    assert not any(word.startswith("/") for word in shlex.split(record["command"]))


def test_the_record_of_a_run_holds_everything(
    digits_run: tuple[Any, dict[str, Any]], tmp_path: Path
) -> None:
    record = digits_run[1]
    path = write_result(record, tmp_path)
    assert path == tmp_path / "tiny_digits.json"
    check(read_result(path))
    assert read_result(path) == json.loads(json.dumps(record))  # tuples become lists


def test_the_record_of_a_run_of_texts_holds_everything(
    reviews_run: tuple[Any, dict[str, Any]], tmp_path: Path
) -> None:
    check(read_result(write_result(reviews_run[1], tmp_path)))


def test_the_record_of_a_sweep_holds_everything(sweep_run: dict[str, Any], tmp_path: Path) -> None:
    check(read_result(write_result(sweep_run, tmp_path)))


def test_the_record_of_classifiers_holds_everything(
    classification_run: dict[str, Any], tmp_path: Path
) -> None:
    check(read_result(write_result(classification_run, tmp_path)))


MEASURES = {
    "examples": 300,
    "reconstruction": 90.0,
    "kl": 7.25,
    "bound": 97.25,
    "importance_weighted_nll": 96.0,
    "importance_samples": 7,
    "active_units": 1,
    "kl_per_dimension": [7.25],
}
CURVES = ("epoch", "step", "kl_weight", "learning_rate", "train_reconstruction", "train_kl")
RECORD: dict[str, Any] = {
    "name": "run",
    "command": "tutvae train run.toml",
    "started": "2026-01-31T12:00:00+00:00",
    "commit": None,
    "hardware": {"accelerator": None, "processor": "abacus", "cores": 2, "threads": 1},
    "versions": {"python": "3.11", "tutvae": "0", "torch": "2", "numpy": "1"},
    "configuration": {"name": "run", "corpus": {"name": "digits"}, "training": {"epochs": 1}},
    "data_sha256": "0" * 64,
    "train_seconds": 1.5,
    "examples_per_second": 100,
    "curves": {name: [1] for name in CURVES},
    "reports": {"test": MEASURES},
    "note": "ä",
}


def changed(path: str, value: Any, record: dict[str, Any] = RECORD) -> dict[str, Any]:
    """A record with another value; `...` takes it away."""
    record = json.loads(json.dumps(record))
    *keys, last = [int(key) if key.isdigit() else key for key in path.split(".")]
    table = record
    for key in keys:
        table = table[key]
    if value is ...:
        del table[last]
    else:
        table[last] = value
    return record


class TestWriting:
    def test_round_trip(self, tmp_path: Path) -> None:
        path = write_result(RECORD, tmp_path / "new" / "folder")
        assert path == tmp_path / "new" / "folder" / "run.json"
        assert read_result(path) == RECORD
        assert read_result(str(path)) == RECORD

    def test_a_key_a_line(self, tmp_path: Path) -> None:
        lines = write_result(RECORD, tmp_path).read_text(encoding="utf-8").splitlines()
        assert lines[0] == "{"
        assert lines[-1] == "}"
        assert [line.split('"')[1] for line in lines[1:-1]] == list(RECORD)

    def test_a_run_of_a_sweep_a_line(self, tmp_path: Path) -> None:
        record = {"name": "run", "runs": [{"seed": 0, "x": [{"a": 1}]}, {"seed": 1}]}
        path = write_result(record, tmp_path)
        assert json.loads(path.read_text()) == record
        assert path.read_text().splitlines()[2:-1] == [
            '  "runs": [',
            '    {"seed": 0, "x": [{"a": 1}]},',
            '    {"seed": 1}',
            "  ]",
        ]

    def test_a_newer_record_replaces_the_older(self, tmp_path: Path) -> None:
        write_result(RECORD, tmp_path)
        write_result({**RECORD, "note": "newer"}, tmp_path)
        assert read_result(tmp_path / "run.json")["note"] == "newer"
        assert len(list(tmp_path.iterdir())) == 1

    def test_what_a_killed_process_left_is_swept_away(self, tmp_path: Path) -> None:
        """Of this record: another one may be being written at this moment."""
        (tmp_path / ".run.json.x3_9abcd").write_text("{")
        (tmp_path / ".running.json.x3_9abcd").write_text("{")
        write_result(RECORD, tmp_path)
        names = sorted(path.name for path in tmp_path.iterdir())
        assert names == [".running.json.x3_9abcd", "run.json"]

    def test_a_failure_leaves_the_older(self, tmp_path: Path) -> None:
        """The disk is full half-way through the file."""
        resource = pytest.importorskip("resource", reason="file size limits are POSIX")
        write_result(RECORD, tmp_path)
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
        try:
            with pytest.raises(OSError, match="too large"):
                write_result({**RECORD, "note": "n" * 200}, tmp_path)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert read_result(tmp_path / "run.json") == RECORD

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_numbers_that_json_cannot_hold(self, tmp_path: Path, value: float) -> None:
        with pytest.raises(ValueError, match="JSON"):
            write_result({**RECORD, "note": [value]}, tmp_path)
        assert list(tmp_path.iterdir()) == []


class TestAnotherRecordOfTheSameName:
    @pytest.mark.parametrize(
        ("path", "value", "difference"),
        [
            ("configuration.training.epochs", 2, r"its configuration\.training\.epochs is 1, now"),
            ("configuration.seed", 3, r"its configuration\.seed is None, now it is 3"),
            ("data_sha256", "1" * 64, "its data_sha256 is 0+, now it is 1+"),
        ],
    )
    @pytest.mark.parametrize("function", [write_result, check_writable])
    def test_it_is_never_overwritten(
        self, tmp_path: Path, function: Any, path: str, value: Any, difference: str
    ) -> None:
        before = write_result(RECORD, tmp_path).read_bytes()
        with pytest.raises(ValueError, match=rf"run\.json holds .*{difference}.*--results"):
            function(changed(path, value), tmp_path)
        assert (tmp_path / "run.json").read_bytes() == before

    def test_a_default_that_was_not_written_down_is_no_difference(
        self, digits_run: tuple[Any, dict[str, Any]], tmp_path: Path
    ) -> None:
        record = digits_run[1]
        older = changed("configuration.kind", ..., record)
        write_result(older, tmp_path)
        write_result(record, tmp_path)
        assert read_result(tmp_path / "tiny_digits.json")["configuration"] == json.loads(
            json.dumps(record["configuration"])
        )

    def test_a_sweep_may_grow_and_never_shrink(
        self, sweep_run: dict[str, Any], tmp_path: Path
    ) -> None:
        runs = [{k: x for k, x in run.items() if k != "hardware"} for run in sweep_run["runs"]]
        fewer = {**sweep_run, "runs": runs[:2]}
        fewer = changed("configuration.variants", {"vae": {}}, fewer)
        write_result(fewer, tmp_path)
        write_result(sweep_run, tmp_path)
        assert len(read_result(tmp_path / "tiny_sweep.json")["runs"]) == 6
        with pytest.raises(ValueError, match=r"its configuration\.variants\.language_model is "):
            write_result(fewer, tmp_path)

    def test_a_foreign_file_is_left_alone(self, tmp_path: Path) -> None:
        (tmp_path / "run.json").write_text("[]")
        with pytest.raises(ValueError, match=r"run\.json is not a results file"):
            write_result(RECORD, tmp_path)
        assert (tmp_path / "run.json").read_text() == "[]"


class TestBeforeTheTraining:
    DRAFT: ClassVar = {key: RECORD[key] for key in ("name", "configuration")}

    def test_nothing_is_left_behind(self, tmp_path: Path) -> None:
        check_writable(self.DRAFT, tmp_path / "results")
        assert list((tmp_path / "results").iterdir()) == []
        path = write_result(RECORD, tmp_path)
        check_writable(self.DRAFT, tmp_path)
        check_writable({"name": "run"}, tmp_path)
        assert read_result(path) == RECORD

    def test_a_name_that_is_too_long_for_a_file(self, tmp_path: Path) -> None:
        with pytest.raises(OSError, match="name too long"):
            check_writable({**self.DRAFT, "name": "n" * 250}, tmp_path)

    def test_a_folder_that_cannot_be_written_to(self, tmp_path: Path) -> None:
        (tmp_path / "taken").write_text("a file")
        with pytest.raises(OSError, match="taken"):
            check_writable(self.DRAFT, tmp_path / "taken")


class TestReading:
    @pytest.mark.parametrize(
        "content", ["", "{", "[1, 2]", '{"name": "x"}', '"reports"', "null", "5", "[" * 100_000]
    )
    def test_another_file(self, tmp_path: Path, content: str) -> None:
        path = tmp_path / "x.json"
        path.write_text(content)
        with pytest.raises(ValueError, match=r"x\.json is not a results file.*Move it elsewhere"):
            read_result(path)

    def test_bytes_that_are_no_text(self, tmp_path: Path) -> None:
        (tmp_path / "x.json").write_bytes(b"\xff\xfe")
        with pytest.raises(ValueError, match=r"x\.json is not a results file"):
            read_result(tmp_path / "x.json")

    @pytest.mark.parametrize(
        ("path", "value", "fault"),
        [
            ("reports", ..., "reports: Field required"),
            ("reports.test", ..., "reports: it has no 'test'"),
            ("reports.test.kl", ..., "reports.test.kl: Field required"),
            ("reports.test.kl", None, "reports.test.kl: Input should be a valid number"),
            ("reports.test.kl", "3", "reports.test.kl: Input should be a valid number"),
            ("reports.test.kl", float("nan"), "reports.test.kl: Input should be a finite number"),
            ("reports.test.mutual_information", None, "mutual_information: Input should be"),
            ("curves.train_kl", ..., "curves: it has no 'train_kl'"),
            ("curves.train_kl", [float("inf")], "curves.train_kl.0: Input should be a finite"),
            ("configuration", None, "configuration: Input should be a valid dictionary"),
            ("configuration.corpus", {}, "configuration.corpus.name: Field required"),
            ("configuration.corpus.name", ["ptb"], "corpus.name: Input should be a valid string"),
            ("configuration.kind", "text", "tokens_per_second: Field required, and 5 more"),
            ("configuration.kind", "classification", "majority_accuracy: Field required"),
            ("hardware.threads", 0, "hardware.threads: Input should be greater than or equal"),
            ("versions.torch", ..., "versions: it has no 'torch'"),
            ("name", "../x", "name: String should match pattern"),
        ],
    )
    def test_an_incomplete_one_names_the_key(
        self, tmp_path: Path, path: str, value: Any, fault: str
    ) -> None:
        (tmp_path / "x.json").write_text(json.dumps(changed(path, value)))
        with pytest.raises(ValueError, match=r"x\.json is not a results file") as caught:
            read_result(tmp_path / "x.json")
        assert fault in str(caught.value)
        assert "pydantic" not in str(caught.value)

    @pytest.mark.parametrize(
        ("path", "value", "fault"),
        [
            ("runs", [], "runs: List should have at least 1 item"),
            ("runs.1.variant", ..., "runs.1.variant: Field required"),
            ("runs.0.reports.test.perplexity", ..., "runs.0.reports.test.perplexity: Field req"),
            ("runs.0.hardware", {}, "runs.0.hardware.accelerator: Field required"),
        ],
    )
    def test_an_incomplete_sweep_names_the_run(
        self, tmp_path: Path, sweep_run: dict[str, Any], path: str, value: Any, fault: str
    ) -> None:
        (tmp_path / "x.json").write_text(json.dumps(changed(path, value, sweep_run)))
        with pytest.raises(ValueError, match=r"x\.json is not a results file") as caught:
            read_result(tmp_path / "x.json")
        assert fault in str(caught.value)

    def test_no_file(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match=r"x\.json"):
            read_result(tmp_path / "x.json")

    def test_all_of_a_folder_by_name(self, tmp_path: Path) -> None:
        for name in ("second", "first"):
            write_result({**RECORD, "name": name}, tmp_path)
        (tmp_path / "notes.txt").write_text("no results file")
        assert [record["name"] for record in read_results(tmp_path)] == ["first", "second"]

    def test_a_folder_without_any(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match="no results file"):
            read_results(tmp_path)


class TestRecordedRuns:
    @pytest.fixture
    def package(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """The folder where the module believes that it lies."""
        (tmp_path / "tutvae").mkdir()
        monkeypatch.setattr(results, "PACKAGE", tmp_path / "tutvae")
        return tmp_path / "tutvae"

    @pytest.mark.parametrize("folder", ["results", "tutvae/recorded"])
    def test_beside_the_package_or_in_it(self, package: Path, folder: str) -> None:
        write_result(RECORD, package.parent / folder)
        assert recorded_result("run") == RECORD
        assert recorded_folder() == package.parent / folder

    def test_an_unknown_run(self, package: Path) -> None:
        for name in ("run", "second"):
            write_result({**RECORD, "name": name}, package.parent / "results")
        with pytest.raises(FileNotFoundError, match=r"no recorded run 'third'.*: run, second$"):
            recorded_result("third")

    def test_none_at_all(self, package: Path) -> None:
        with pytest.raises(FileNotFoundError, match="there are: none"):
            recorded_result("run")

    @pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.stem)
    def test_those_of_the_project(self, path: Path) -> None:
        assert recorded_result(path.stem) == read_result(path)


class TestSummary:
    def test_provenance_and_figures(self, digits_run: tuple[Any, dict[str, Any]]) -> None:
        record = {**digits_run[1], "commit": "0123456789abcdef", "train_seconds": 600.0}
        report = record["reports"]["test"]
        lines = summary(record).splitlines()
        assert lines[0] == record["command"]
        assert "commit 0123456789ab, " in lines[1]
        assert record["started"][:10] in lines[1]
        assert f"torch {record['versions']['torch']}, 10 minutes" in lines[2]
        assert "300 test examples" in lines[4]
        names = ["reconstruction", "kl", "bound", "importance_weighted_nll"]
        figures = [f"{report[name]:.2f}" for name in names]
        assert [line.split()[-1] for line in lines[5:9]] == figures
        assert lines[9].endswith(f"{report['active_units']} of 4")
        assert "NLL, 7 samples" in lines[8]

    def test_another_split(self, digits_run: tuple[Any, dict[str, Any]]) -> None:
        assert "200 valid examples" in summary(digits_run[1], "valid")

    def test_outside_a_checkout(self, digits_run: tuple[Any, dict[str, Any]]) -> None:
        assert "commit unknown, " in summary({**digits_run[1], "commit": None})


class TestSummaryOfTexts:
    def test_perplexity_and_mutual_information(
        self, reviews_run: tuple[Any, dict[str, Any]]
    ) -> None:
        report = reviews_run[1]["reports"]["test"]
        lines = summary(reviews_run[1]).splitlines()
        L = report["tokens"] / report["examples"]
        place = lines.index(f"    perplexity            {report['perplexity']:8.2f}")
        assert lines[place - 1] == f"    L, tokens a document  {L:8.2f}"
        assert lines[place - 2].startswith("    NLL, ")
        assert f"    mutual information    {report['mutual_information']:8.2f}" in lines
        assert "53 test examples" in lines[4]

    def test_a_sweep(self, sweep_run: dict[str, Any]) -> None:
        record = sweep_run | {"runs": [run | {"train_seconds": 30.0} for run in sweep_run["runs"]]}
        lines = summary(record).splitlines()
        assert lines[0] == "tutvae train tiny_sweep.toml"
        assert lines[2].endswith(" 3 minutes of training")
        assert "\n".join(lines[4:]) == summary_table(sweep_run)


class TestAccuracyTable:
    @staticmethod
    def run(variant: str, method: str, labels: int, accuracy: float) -> dict[str, Any]:
        both = {"test": accuracy, "valid": accuracy + 0.1}
        return {"variant": variant, "method": method, "labels": labels, "accuracy": both}

    @pytest.fixture
    def record(self) -> dict[str, Any]:
        runs = [
            self.run("all", "lstm", 100, 0.5),
            self.run("all", "lstm", 100, 0.7),
            self.run("all", "lstm", 25, 0.25),
            self.run("cnn", "semi_supervised", 100, 0.875),
        ]
        return {"runs": runs, "majority_accuracy": 0.26}

    def test_methods_by_labels(self, record: dict[str, Any]) -> None:
        header, lstm, vae, majority = summary_table(record).splitlines()
        assert header.split() == ["labels", "25", "100"]
        # The deviation of 0.5 and 0.7 from their mean, as of a sample.
        spread = "0.60 \N{PLUS-MINUS SIGN} 0.14"
        assert lstm.split(maxsplit=3) == ["all", "lstm", "0.25", spread]
        assert vae.split() == ["cnn", "semi_supervised", "0.88"]
        assert vae.index("0.88") > lstm.index("0.25")
        assert len(header) == len(lstm) == len(vae)
        assert majority == "the largest class alone: 0.26 on test"

    def test_the_best_possible(self, record: dict[str, Any]) -> None:
        record["bayes_accuracy"] = {"value": 0.95, "standard_error": 0.001}
        assert summary_table(record).splitlines()[-1] == "the best possible: 0.95"

    def test_another_split(self, record: dict[str, Any]) -> None:
        assert "0.35" in summary_table(record, "valid").splitlines()[1]

    def test_the_summary_counts_the_minutes_of_all_runs(
        self, classification_run: dict[str, Any]
    ) -> None:
        record = classification_run | {
            "runs": [run | {"train_seconds": 12.0} for run in classification_run["runs"]],
        }
        lines = summary(record).splitlines()
        assert lines[2].endswith(" 2 minutes of training")
        assert "\n".join(lines[4:]) == summary_table(record)


class TestSummaryTable:
    @staticmethod
    def run(variant: str, bound: float) -> dict[str, Any]:
        keys = ("importance_weighted_nll", "kl", "mutual_information", "perplexity")
        report = {key: bound + n for n, key in enumerate(keys, 1)} | {"bound": bound}
        shifted = {key: value + 100 for key, value in report.items()}
        counts = {"tokens": 150, "examples": 60}
        reports = {"test": report | counts, "valid": shifted | counts}
        return {"variant": variant, "reports": reports}

    def test_mean_and_spread_over_the_seeds(self) -> None:
        runs = [self.run("a", 2.0), self.run("longer_name", 5.0), self.run("a", 4.0)]
        header, first, second = summary_table({"runs": runs}).splitlines()
        titles = ["variant", "seeds", "bound", "KL", "MI", "NLL", "L", "perplexity"]
        assert header.split() == titles
        # The deviation of 2 and 4 from their mean, as of a sample: the root of 2.
        cells = [f"{mean}.00 \N{PLUS-MINUS SIGN} 1.41" for mean in (3, 5, 6, 4, 7)]
        cells.insert(4, "2.50")
        assert first.split() == ["a", "2", *" ".join(cells).split()]
        assert second.split()[2:] == ["5.00", "7.00", "8.00", "6.00", "2.50", "9.00"]
        assert len(first) == len(second) == len(header)

    def test_another_split(self) -> None:
        table = summary_table({"runs": [self.run("a", 2.0)]}, "valid")
        assert table.splitlines()[1].split()[2] == "102.00"


class TestSignificant:
    def test_floats_at_any_depth(self) -> None:
        value = {"a": [123456.0, 0.00123456], "b": {"c": (1.0, None)}, "n": 123456, "s": "1.23456"}
        assert significant(value, 3) == {
            "a": [123000.0, 0.00123],
            "b": {"c": [1.0, None]},
            "n": 123456,
            "s": "1.23456",
        }


def corpus() -> Corpus[Images]:
    def split(count: int, value: float) -> Images:
        return Images(torch.full((count, 6), value), torch.arange(count), 2, 3)

    return Corpus("toy", split(5, 0.2), split(2, 0.4), split(3, 0.6))


class TestDataSha256:
    def test_it_is_the_sum_of_all_pixels_and_labels_in_order(self) -> None:
        toy, digest = corpus(), hashlib.sha256()
        for split in (toy.train, toy.valid, toy.test):
            for tensor in (split.pixels, split.labels):
                digest.update(tensor.numpy().tobytes())
        assert data_sha256(toy) == digest.hexdigest() == data_sha256(corpus())

    @pytest.mark.parametrize("name", ["train", "valid", "test"])
    def test_every_pixel_and_label_counts(self, name: str) -> None:
        for field in ("pixels", "labels"):
            toy = corpus()
            split = getattr(toy, name)
            tensor = getattr(split, field).clone()
            tensor.view(-1)[-1] += 1 if field == "labels" else 0.1
            edited = replace(toy, **{name: replace(split, **{field: tensor})})
            assert data_sha256(edited) != data_sha256(toy)

    def test_it_is_the_sum_of_all_documents_and_labels(self) -> None:
        toy = Corpus("toy", Texts(["a b", "c"], [1, 0]), Texts(["d"]), Texts(["\ud800"], [2]))
        lines = ['"a b"', '"c"', "[1, 0]", '"d"', "null", '"\\ud800"', "[2]"]
        expected = hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()
        assert data_sha256(toy) == expected

    def test_every_document_and_label_counts(self) -> None:
        def toy(*train: str, labels: tuple[int, ...] = (0, 1), valid: str = "c") -> str:
            return data_sha256(Corpus("toy", Texts(train, labels), Texts([valid]), Texts(["d"])))

        sums = [
            toy("a", "b"),
            toy("a", "b", labels=(1, 1)),
            toy("b", "a"),
            toy("a", "b", valid="C"),
            toy("a\nb", labels=(0,)),
            toy("a", "b", "c", valid="d"),
        ]
        assert len(set(sums)) == len(sums)


class TestProvenance:
    def test_when(self) -> None:
        started = datetime.fromisoformat(provenance()["started"])
        assert started.utcoffset() == timedelta(0)
        assert abs(datetime.now(timezone.utc) - started) < timedelta(minutes=1)

    def test_on_what(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        facts = hardware()
        assert facts["accelerator"] is None
        assert facts["cores"] == os.cpu_count()
        assert facts["threads"] == torch.get_num_threads()
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Abacus 9000")
        assert hardware()["accelerator"] == "Abacus 9000"

    def test_with_what(self) -> None:
        versions = provenance()["versions"]
        assert set(versions) == {"python", "tutvae", "torch", "numpy"}
        assert torch.__version__.startswith(versions["torch"])
        assert versions["numpy"] == np.__version__
        assert versions["tutvae"] == tutvae.__version__


class TestCommit:
    @pytest.fixture
    def checkout(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """A git repository with a package folder, which the module believes to be its own."""
        monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
        package = tmp_path / "tutvae"
        package.mkdir()
        (package / "results.py").write_text("1")
        monkeypatch.setattr(origin, "PACKAGE", package)
        return tmp_path

    def git(self, folder: Path, *command: str) -> str:
        identity = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
        identity += ["-c", "commit.gpgsign=false"]
        done = subprocess.run(
            ["git", "-C", str(folder), *identity, *command],
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    def commit(self, checkout: Path, files: str) -> str:
        self.git(checkout, "init")
        self.git(checkout, "add", files)
        self.git(checkout, "commit", "--message", "A commit")
        return self.git(checkout, "rev-parse", "HEAD")

    def test_a_clean_checkout(self, checkout: Path) -> None:
        head = self.commit(checkout, "tutvae")
        (checkout / "notes.txt").write_text("outside the package")
        assert provenance()["commit"] == head

    def test_a_changed_source_file(self, checkout: Path) -> None:
        head = self.commit(checkout, "tutvae")
        (checkout / "tutvae" / "results.py").write_text("2")
        assert provenance()["commit"] == f"{head}+changes"

    def test_a_new_source_file(self, checkout: Path) -> None:
        head = self.commit(checkout, "tutvae")
        (checkout / "tutvae" / "new.py").write_text("2")
        assert provenance()["commit"] == f"{head}+changes"

    def test_no_checkout(self, checkout: Path) -> None:
        assert provenance()["commit"] is None

    def test_somebody_else_s_checkout(self, checkout: Path) -> None:
        """The package is installed below a project that does not hold its sources."""
        (checkout / "other.py").write_text("3")
        self.commit(checkout, "other.py")
        assert provenance()["commit"] is None

    def test_no_git(self, checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", str(checkout))
        assert provenance()["commit"] is None
