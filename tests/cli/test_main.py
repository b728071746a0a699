from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from filelock import FileLock
from safetensors.torch import load_file
from typer.testing import CliRunner

import tutvae
from tutvae.cli.main import app
from tutvae.data.batches.text import Batches
from tutvae.data.tokenization import Tokenizer
from tutvae.experiments import load_experiment, run_experiment
from tutvae.experiments.records import read_result, recorded_folder, write_result
from tutvae.models import VAE, LSTMDecoder, LSTMEncoder, TextVAE
from tutvae.reviews.grammar import ReviewGrammar

runner = CliRunner()


@pytest.fixture
def folders(tmp_path: Path) -> list[str]:
    """The options that keep what a run writes in a folder of the test."""
    return ["--results", str(tmp_path / "results"), "--runs", str(tmp_path / "runs")]


class TestTrain:
    def test_it_writes_the_results_and_the_weights(
        self,
        digits_toml: Path,
        folders: list[str],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(sys, "argv", ["/bin/tutvae", "train", "a file.toml"])
        settings = ["--set", "training.epochs=1", "--set", "name=short"]
        result = runner.invoke(app, ["train", str(digits_toml), *folders, *settings])
        assert result.exit_code == 0, result.output
        record = read_result(tmp_path / "results" / "short.json")
        assert record["command"] == "tutvae train 'a file.toml'"
        assert record["configuration"]["training"]["epochs"] == 1

        model = VAE(64, 4, (32,))
        weights = tmp_path / "runs" / "short" / "weights.safetensors"
        model.load_state_dict(load_file(weights))
        report = record["reports"]["test"]
        with torch.no_grad():  # the weights are the trained ones: close to the reported bound
            corpus = tutvae.digits().test
            batches = tutvae.data.batches.images.ImageBatches(corpus, 500, shuffle=False, seed=3)
            again = tutvae.evaluate(model, batches, importance_samples=7)
        assert again.bound == pytest.approx(report["bound"], rel=1e-4)

        valid, test, wrote = result.stdout.splitlines()
        assert valid.startswith("valid: bound ")
        nll = report["importance_weighted_nll"]
        assert test == f"test: bound {report['bound']:.2f}, NLL {nll:.2f} (7 samples)"
        assert str(weights.parent) in wrote
        assert str(tmp_path / "results" / "short.json") in wrote

    def test_texts_come_with_their_tokenizer(
        self, reviews_toml: Path, folders: list[str], tmp_path: Path
    ) -> None:
        settings = ["--set", "training.epochs=1"]
        result = runner.invoke(app, ["train", str(reviews_toml), *folders, *settings])
        assert result.exit_code == 0, result.output
        kept = tmp_path / "runs" / "tiny_reviews"
        tokenizer = Tokenizer.load(kept / "tokenizer.json")
        decoder = LSTMDecoder(len(tokenizer), 8, 13, 3)
        model = TextVAE(LSTMEncoder(len(tokenizer), 7, 11, 3), decoder)
        model.load_state_dict(load_file(kept / "weights.safetensors"))
        test = ReviewGrammar(sentences=(1, 2), openings=2, nouns=2).corpus(260, 41, 53).test
        batches = Batches.from_texts(test, tokenizer, batch_size=20, shuffle=False)
        report = read_result(tmp_path / "results" / "tiny_reviews.json")["reports"]["test"]
        again = tutvae.evaluate(model, batches, importance_samples=6)
        assert again.bound == pytest.approx(report["bound"], rel=1e-5)

    def test_a_sweep(self, sweep_toml: Path, folders: list[str], tmp_path: Path) -> None:
        """Its table is on standard output, a line for each run on standard error."""
        settings = ["--set", "training.epochs=1", "--set", "variants.cnn.training.epochs=1"]
        result = runner.invoke(app, ["train", str(sweep_toml), *folders, *settings])
        assert result.exit_code == 0, result.output
        header, *rows, wrote = result.stdout.splitlines()
        assert header.split()[:2] == ["variant", "seeds"]
        assert [row.split()[:2] for row in rows] == [
            ["vae", "2"],
            ["language_model", "2"],
            ["cnn", "2"],
        ]
        assert wrote.startswith("wrote ")
        assert [line.split(":")[0] for line in result.stderr.splitlines()] == [
            "[1/6] vae-1",
            "[2/6] vae-4",
            "[3/6] language_model-1",
            "[4/6] language_model-4",
            "[5/6] cnn-1",
            "[6/6] cnn-4",
        ]
        record = read_result(tmp_path / "results" / "tiny_sweep.json")
        assert len(record["runs"]) == 6
        kept = tmp_path / "runs" / "tiny_sweep"
        labels = sorted(f"{run['variant']}-{run['seed']}" for run in record["runs"])
        assert sorted(path.parent.name for path in kept.glob("*/record.json")) == labels
        assert sorted(path.parent.name for path in kept.glob("*/weights.safetensors")) == labels

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            (["training.epochs=none"], "training.epochs: Input should be a valid integer"),
            (["epochs"], "section.key=value"),
            (["corpus.name=mnist"], "holds neither train-images"),
            (["training.learning_rate=1e30"], "at step 1, with learning rate 1e+30"),
        ],
    )
    def test_an_error_is_one_message_and_exit_code_1(
        self,
        digits_toml: Path,
        folders: list[str],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        settings: list[str],
        message: str,
    ) -> None:
        (tmp_path / "mnist").mkdir()
        monkeypatch.setenv("TUTVAE_DATA", str(tmp_path))
        options = [option for setting in settings for option in ("--set", setting)]
        result = runner.invoke(app, ["train", str(digits_toml), *folders, *options])
        assert result.exit_code == 1
        assert result.output.startswith("error: ")
        assert message in result.output
        assert "Traceback" not in result.output
        assert isinstance(result.exception, SystemExit)
        assert not list(tmp_path.glob("results/*"))

    def test_a_missing_file(self, folders: list[str]) -> None:
        result = runner.invoke(app, ["train", "nowhere.toml", *folders])
        assert result.exit_code == 1
        assert "nowhere.toml" in result.output

    def test_debug_shows_where_the_error_arose(self, digits_toml: Path, folders: list[str]) -> None:
        arguments = ["train", str(digits_toml), *folders, "--set", "seed=-1", "--debug"]
        result = runner.invoke(app, arguments)
        assert result.exit_code == 1
        assert isinstance(result.exception, ValueError)
        assert "seed" in str(result.exception)

    @pytest.mark.parametrize("option", ["--results", "--runs"])
    def test_a_folder_that_cannot_be_written_to_is_noticed_before_training(
        self, digits_toml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str
    ) -> None:
        def train(*_: object, **__: object) -> None:
            pytest.fail("it trained")

        monkeypatch.setattr("tutvae.cli.main.run_experiment", train)
        monkeypatch.chdir(tmp_path)
        (tmp_path / "taken").write_text("a file")
        result = runner.invoke(app, ["train", str(digits_toml), option, str(tmp_path / "taken")])
        assert result.exit_code == 1
        assert "taken" in result.output

    def test_a_programming_error_is_not_hidden(
        self, digits_toml: Path, folders: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def train(*_: object, **__: object) -> None:
            raise ZeroDivisionError

        monkeypatch.setattr("tutvae.cli.main.run_experiment", train)
        result = runner.invoke(app, ["train", str(digits_toml), *folders])
        assert isinstance(result.exception, ZeroDivisionError)


class TestGoingOn:
    def test_killed_at_any_moment(
        self, reviews_toml: Path, folders: list[str], tmp_path: Path
    ) -> None:
        """By SIGKILL, in its third epoch; the same command ends as if nothing had happened."""
        arguments = ["train", str(reviews_toml), *folders, "--set", "training.epochs=15"]
        program = "from tutvae.cli.main import app; app()"
        metrics = tmp_path / "runs" / "tiny_reviews" / "metrics.jsonl"
        with subprocess.Popen([sys.executable, "-c", program, *arguments]) as process:
            while not metrics.exists() or len(metrics.read_text().splitlines()) < 2:
                assert process.poll() is None, "it ended before it could be killed"
                time.sleep(0.01)
            process.kill()
        assert not (tmp_path / "results" / "tiny_reviews.json").exists()
        result = runner.invoke(app, arguments)
        assert result.exit_code == 0, result.output
        assert "found an interrupted run" in result.stderr
        expected = run_experiment(load_experiment(reviews_toml, ["training.epochs=15"]), "alone")[1]
        record = read_result(tmp_path / "results" / "tiny_reviews.json")
        for key in ("configuration", "data_sha256", "curves", "reports", "probes"):
            assert record[key] == expected[key]

    def test_a_finished_run_is_not_done_again(
        self, reviews_toml: Path, folders: list[str], tmp_path: Path
    ) -> None:
        """Not even where its results file was lost."""
        arguments = ["train", str(reviews_toml), *folders, "--set", "training.epochs=1"]
        assert runner.invoke(app, arguments).exit_code == 0
        path = tmp_path / "results" / "tiny_reviews.json"
        before = path.read_bytes()
        path.unlink()
        result = runner.invoke(app, arguments)
        assert result.exit_code == 0, result.output
        assert "was finished before, so nothing was trained" in result.stderr
        assert path.read_bytes() == before
        other = runner.invoke(app, [*arguments, "--set", "training.epochs=2"])
        assert other.exit_code == 1
        assert "its training.epochs is 1, now it is 2" in other.output
        assert path.read_bytes() == before

    def test_a_sweep_says_what_is_there(
        self, reviews_toml: Path, folders: list[str], tmp_path: Path
    ) -> None:
        arguments = ["train", str(reviews_toml), *folders, "--set", "training.epochs=1"]
        assert runner.invoke(app, [*arguments, "--set", "seeds=[1]"]).exit_code == 0
        result = runner.invoke(app, [*arguments, "--set", "seeds=[1, 2]"])
        first, second = result.stderr.splitlines()
        assert first.startswith("[1/2] finished before")
        assert second.startswith("[2/2] all-2: ")

    def test_one_at_a_time(self, reviews_toml: Path, folders: list[str], tmp_path: Path) -> None:
        kept = tmp_path / "runs" / "tiny_reviews"
        kept.mkdir(parents=True)
        with FileLock(kept / ".lock"):
            result = runner.invoke(app, ["train", str(reviews_toml), *folders])
        assert result.exit_code == 1
        assert result.output.startswith("error: another process is writing to ")

    def test_a_person_who_stops_it_is_told_how_to_go_on(
        self, reviews_toml: Path, folders: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def stopped(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr("tutvae.cli.main.run_experiment", stopped)
        result = runner.invoke(app, ["train", str(reviews_toml), *folders])
        assert result.exit_code == 130
        assert "the same command goes on" in result.stderr


class TestResults:
    @pytest.fixture
    def folder(
        self,
        digits_run: tuple[Any, dict[str, Any]],
        sweep_run: dict[str, Any],
        classification_run: dict[str, Any],
        tmp_path: Path,
    ) -> Path:
        """Results files of three kinds, the sweep's as if it were of the Penn Treebank."""
        configuration = {**sweep_run["configuration"], "corpus": {"name": "ptb"}}
        for record in (
            digits_run[1],
            {**sweep_run, "name": "ptb_remedies", "configuration": configuration},
            classification_run,
        ):
            write_result(record, tmp_path)
        return tmp_path

    def test_tables(self, folder: Path) -> None:
        result = runner.invoke(app, ["results", str(folder)])
        assert result.exit_code == 0, result.output
        ptb, digits, labels = result.output.split("\n\n")
        lines = ptb.splitlines()
        assert lines[0] == "ptb, test set, nats a document"
        assert lines[1].startswith("PPL = exp(NLL / L)")
        assert lines[2].split()[:3] == ["NLL", "L", "PPL"]
        assert lines[3] == "ptb_remedies"
        assert [line.split()[0] for line in lines[4:7]] == ["vae", "language_model", "cnn"]
        assert "Texar, README of its VAE example [V]\n  VAE, LSTM decoder " in ptb
        assert digits.splitlines()[0] == "digits, test set, nats a document"
        assert "PPL" not in digits
        assert labels.splitlines()[0] == "tiny_labels, accuracy on the test set"
        assert "semi_supervised" in labels

    def test_nll_tokens_and_perplexity_of_every_row_belong_together(self, folder: Path) -> None:
        content = json.loads(runner.invoke(app, ["results", str(folder), "--json"]).output)
        for row in content["recorded"][:3]:
            expected = math.exp(row["nll"] / row["tokens_per_document"])
            # Each is a mean over two seeds.
            assert row["perplexity"] == pytest.approx(expected, rel=5e-3)

    @pytest.mark.parametrize("columns", [80, 120])
    def test_no_line_is_wider_than_the_terminal(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, columns: int
    ) -> None:
        monkeypatch.setenv("COLUMNS", str(columns))
        monkeypatch.setattr("tutvae.cli.main.is_terminal", lambda stream: True)
        lines = runner.invoke(app, ["results", str(folder)]).output.splitlines()
        assert max(map(len, lines)) <= columns
        assert any("too narrow" in line for line in lines) == (columns == 80)

    def test_without_a_folder_those_of_the_package(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        result = runner.invoke(app, ["results"])
        assert result.exit_code == 0, result.output
        assert "ptb_remedies" in result.stdout
        assert result.stderr.startswith("no folder results/ here: these records come with the")
        assert str(recorded_folder()) in result.stderr
        (tmp_path / "results").mkdir()
        result = runner.invoke(app, ["results"])
        assert result.output.startswith("error: there is no results file in results")

    @pytest.mark.parametrize("content", ["", "null", "[]", "5", "{}", "[" * 100_000, '{"runs": 3}'])
    def test_a_foreign_file(self, folder: Path, content: str) -> None:
        (folder / "foreign.json").write_text(content)
        result = runner.invoke(app, ["results", str(folder)])
        assert result.exit_code == 1
        (line,) = result.output.splitlines()
        assert line.startswith(f"error: {folder / 'foreign.json'} is not a results file")

    def test_json(self, folder: Path) -> None:
        result = runner.invoke(app, ["results", str(folder), "--json"])
        assert result.exit_code == 0, result.output
        content = json.loads(result.output)
        models = [row["model"] for row in content["recorded"]]
        assert models == [
            *(f"ptb_remedies/{x}" for x in ("vae", "language_model", "cnn")),
            "tiny_digits",
        ]
        assert content["comparisons"] == []  # no variant of these names answers a published figure

    def test_an_empty_folder(self, tmp_path: Path) -> None:
        result = runner.invoke(app, ["results", str(tmp_path)])
        assert result.exit_code == 1
        assert result.output.startswith("error: there is no results file in ")


class TestInfo:
    FACTS: ClassVar = {"tutvae", "python", "torch", "numpy", "tokenizers", "device"}
    MACHINE: ClassVar = {"accelerator", "processor", "cores", "threads"}

    def test_json(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TUTVAE_DATA", str(tmp_path))
        (tmp_path / "ptb").mkdir()
        (tmp_path / "ptb" / "ptb.train.txt.gz").touch()
        result = runner.invoke(app, ["info", "--json"])
        assert result.exit_code == 0
        facts = json.loads(result.output)
        assert set(facts) == self.FACTS | self.MACHINE | {"TUTVAE_DATA", "data"}
        assert facts["tutvae"] == tutvae.__version__
        assert facts["torch"] == torch.__version__
        assert facts["threads"] == torch.get_num_threads()
        assert facts["TUTVAE_DATA"] == str(tmp_path)
        assert facts["data"]["ptb"] == {"found": True, "folder": str(tmp_path / "ptb")}
        assert facts["data"]["mnist"] == {"found": False, "folder": str(tmp_path / "mnist")}

    def test_lines(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("TUTVAE_DATA", raising=False)
        monkeypatch.setenv("HOME", str(tmp_path))
        result = runner.invoke(app, ["info"])
        assert result.exit_code == 0
        rows = dict(line.split(maxsplit=1) for line in result.output.splitlines())
        assert rows["tutvae"] == tutvae.__version__
        assert rows["TUTVAE_DATA"] == "not set"
        assert rows["ptb"] == f"not found in {tmp_path / '.cache' / 'tutvae' / 'ptb'}"
        assert rows["yelp"] == "not found, set TUTVAE_DATA"
        assert json.loads(runner.invoke(app, ["info", "--json"]).output)["TUTVAE_DATA"] is None


class TestAsAModule:
    @staticmethod
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-m", *arguments], capture_output=True, text=True)

    @pytest.mark.parametrize("module", ["tutvae", "tutvae.cli.main"])
    def test_it_is_the_command_line(self, module: str) -> None:
        done = self.run(module, "train", "--help")
        assert done.returncode == 0, done.stderr
        assert "Usage: tutvae train [OPTIONS] " in done.stdout

    def test_the_folder_of_the_command_line_says_that_it_is_none(self) -> None:
        done = self.run("tutvae.cli", "--help")
        assert done.returncode == 1
        assert "cannot be directly executed" in done.stderr


def test_version() -> None:
    result = runner.invoke(app, ["--version"])
    assert (result.exit_code, result.output) == (0, f"tutvae {tutvae.__version__}\n")


def test_without_arguments_it_explains_itself() -> None:
    result = runner.invoke(app, [])
    commands = ("train", "evaluate", "sample", "reconstruct", "interpolate", "results", "info")
    for command in commands:
        assert command in result.output


@pytest.mark.parametrize(
    "arguments", [["fly"], ["train"], ["train", "x.toml", "--jobs", "0"], ["info", "--xml"]]
)
def test_wrong_usage_is_exit_code_2(arguments: list[str]) -> None:
    result = runner.invoke(app, arguments)
    assert result.exit_code == 2
    assert "Traceback" not in result.output
