from __future__ import annotations

import hashlib
import json
import os
import shlex
import subprocess
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, ClassVar

import jsonschema
import numpy as np
import pytest
import torch

import tutvae
from tutvae import results
from tutvae.data.corpus import Corpus, Images
from tutvae.experiments import Experiment, load_experiment
from tutvae.results import (
    data_sha256,
    hardware,
    provenance,
    read_result,
    recorded_result,
    summary,
    write_result,
)

REPOSITORY = Path(__file__).parents[1]
COMMITTED = sorted((REPOSITORY / "results").glob("*.json"))

STRING = {"type": "string", "minLength": 1}
COUNT = {"type": "integer", "minimum": 1}
NATS = {"type": "number"}


def closed(properties: dict[str, Any], optional: tuple[str, ...] = ()) -> dict[str, Any]:
    """The schema of an object with these keys and no others."""
    return {
        "type": "object",
        "properties": properties,
        "required": [key for key in properties if key not in optional],
        "additionalProperties": False,
    }


REPORT = closed(
    {
        "examples": COUNT,
        "reconstruction": NATS,
        "kl": {"type": "number", "minimum": 0},
        "importance_weighted_nll": NATS,
        "importance_samples": COUNT,
        "active_units": {"type": "integer", "minimum": 0},
        "kl_per_dimension": {"type": "array", "items": {"type": "number"}, "minItems": 1},
        "bound": NATS,
        "mutual_information": {"type": "number", "minimum": 0},
        "mutual_information_ceiling": {"type": "number", "minimum": 0},
        "tokens": COUNT,
        "perplexity": {"type": "number", "minimum": 1},
    },
    optional=("mutual_information", "mutual_information_ceiling", "tokens", "perplexity"),
)
CURVE = {"type": "array", "items": {"type": "number"}, "minItems": 1}
SCHEMA = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    **closed(
        {
            "name": {"type": "string", "pattern": r"^[\w-]+$"},
            "command": {"type": "string", "pattern": "^tutvae "},
            "started": {
                "type": "string",
                "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00$",
            },
            "commit": {"type": ["string", "null"], "pattern": r"^[0-9a-f]{40}(\+changes)?$"},
            "hardware": closed(
                {
                    "accelerator": {"type": ["string", "null"]},
                    "processor": STRING,
                    "cores": COUNT,
                    "threads": COUNT,
                }
            ),
            "versions": closed(dict.fromkeys(("python", "tutvae", "torch", "numpy"), STRING)),
            "configuration": {"type": "object"},  # validated as an Experiment
            "data_sha256": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
            "train_seconds": {"type": "number", "minimum": 0},
            "examples_per_second": COUNT,
            "curves": closed(
                {
                    "epoch": CURVE,
                    "step": CURVE,
                    "kl_weight": CURVE,
                    "learning_rate": CURVE,
                    "train_reconstruction": CURVE,
                    "train_kl": CURVE,
                    "valid_reconstruction": CURVE,
                    "valid_kl": CURVE,
                },
                optional=("valid_reconstruction", "valid_kl"),
            ),
            "reports": closed({"valid": REPORT, "test": REPORT}, optional=("valid",)),
        }
    ),
}


def check(record: dict[str, Any]) -> None:
    """Assert that a record holds everything, and that its numbers agree with each other."""
    jsonschema.validate(record, SCHEMA)
    experiment = Experiment.model_validate(record["configuration"])
    assert experiment.name == record["name"]
    for curve in record["curves"].values():
        assert len(curve) == experiment.training.epochs
    for report in record["reports"].values():
        assert report["importance_samples"] == experiment.evaluation.importance_samples
        assert len(report["kl_per_dimension"]) == experiment.model.latent_size
        assert report["active_units"] <= experiment.model.latent_size
        assert report["bound"] == pytest.approx(report["reconstruction"] + report["kl"])
        assert report["kl"] == pytest.approx(sum(report["kl_per_dimension"]), rel=1e-4)
        assert report["importance_weighted_nll"] <= report["bound"]


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.stem)
def test_the_results_of_the_project(path: Path) -> None:
    """Each is what its experiment file describes, and names no folder of somebody's machine."""
    record = read_result(path)
    check(record)
    described = load_experiment(REPOSITORY / "experiments" / f"{path.stem}.toml")
    assert Experiment.model_validate(record["configuration"]) == described
    assert not any(word.startswith("/") for word in shlex.split(record["command"]))


def test_the_record_of_a_run_holds_everything(
    digits_run: tuple[Any, dict[str, Any]], tmp_path: Path
) -> None:
    record = digits_run[1]
    path = write_result(record, tmp_path)
    assert path == tmp_path / "tiny_digits.json"
    check(read_result(path))
    assert read_result(path) == json.loads(json.dumps(record))  # tuples become lists


class TestWriting:
    RECORD: ClassVar = {"name": "run", "reports": {"test": {"bound": 97.25}}, "note": "ä"}

    def test_round_trip(self, tmp_path: Path) -> None:
        path = write_result(self.RECORD, tmp_path / "new" / "folder")
        assert path == tmp_path / "new" / "folder" / "run.json"
        assert read_result(path) == self.RECORD
        assert read_result(str(path)) == self.RECORD

    def test_a_key_a_line(self, tmp_path: Path) -> None:
        lines = write_result(self.RECORD, tmp_path).read_text(encoding="utf-8").splitlines()
        assert lines[0] == "{"
        assert lines[-1] == "}"
        assert [line.split('"')[1] for line in lines[1:-1]] == ["name", "reports", "note"]

    def test_a_newer_record_replaces_the_older(self, tmp_path: Path) -> None:
        write_result(self.RECORD, tmp_path)
        write_result({**self.RECORD, "note": "newer"}, tmp_path)
        assert read_result(tmp_path / "run.json")["note"] == "newer"
        assert len(list(tmp_path.iterdir())) == 1

    def test_a_failure_leaves_the_older(self, tmp_path: Path) -> None:
        """The disk is full half-way through the file."""
        resource = pytest.importorskip("resource", reason="file size limits are POSIX")
        write_result(self.RECORD, tmp_path)
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
        try:
            with pytest.raises(OSError, match="too large"):
                write_result({**self.RECORD, "note": "n" * 200}, tmp_path)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert read_result(tmp_path / "run.json") == self.RECORD

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_numbers_that_json_cannot_hold(self, tmp_path: Path, value: float) -> None:
        with pytest.raises(ValueError, match="JSON"):
            write_result({**self.RECORD, "note": [value]}, tmp_path)
        assert list(tmp_path.iterdir()) == []


class TestReading:
    @pytest.mark.parametrize("content", ["", "{", "[1, 2]", '{"name": "x"}', '"reports"'])
    def test_another_file(self, tmp_path: Path, content: str) -> None:
        path = tmp_path / "x.json"
        path.write_text(content)
        with pytest.raises(ValueError, match=r"x\.json is not a results file"):
            read_result(path)

    def test_no_file(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match=r"x\.json"):
            read_result(tmp_path / "x.json")


class TestRecordedRuns:
    @pytest.fixture
    def package(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """The folder where the module believes that it lies."""
        (tmp_path / "tutvae").mkdir()
        monkeypatch.setattr(results, "__file__", str(tmp_path / "tutvae" / "results.py"))
        return tmp_path / "tutvae"

    @pytest.mark.parametrize("folder", ["results", "tutvae/recorded"])
    def test_beside_the_package_or_in_it(self, package: Path, folder: str) -> None:
        write_result(TestWriting.RECORD, package.parent / folder)
        assert recorded_result("run") == TestWriting.RECORD

    def test_an_unknown_run(self, package: Path) -> None:
        for name in ("run", "second"):
            write_result({**TestWriting.RECORD, "name": name}, package.parent / "results")
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
        monkeypatch.setattr(results, "__file__", str(package / "results.py"))
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
