from __future__ import annotations

import errno
import json
import os
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from tutvae import (
    LSTMEncoder,
    TextClassifier,
    interpolate_texts,
    load,
    reconstruct,
    sample_texts,
    save,
)
from tutvae.cli.main import app
from tutvae.reviews.grammar import ReviewGrammar

runner = CliRunner()


def tutvae(*arguments: object, **options: Any) -> Any:
    return runner.invoke(app, list(map(str, arguments)), **options)


@pytest.fixture
def vae(run_folders: dict[str, Path]) -> Path:
    return run_folders["vae"]


@pytest.fixture(scope="session")
def documents() -> list[str]:
    """Reviews of which the model has seen every word."""
    grammar = ReviewGrammar(sentences=(1, 2), openings=2, nouns=2)
    return list(grammar.corpus(260, 41, 53).train.texts[:2])


class TestEvaluate:
    def test_what_the_run_found(self, vae: Path) -> None:
        report = json.loads((vae / "record.json").read_text())["reports"]["test"]
        result = tutvae("evaluate", vae)
        assert result.exit_code == 0, result.output
        first, *rows = result.stdout.splitlines()
        assert first.startswith(f"{vae}, test: 53 examples")
        assert rows[2].split() == ["bound", f"{report['bound']:.2f}"]
        assert result.stderr == ""

    def test_json(self, vae: Path) -> None:
        result = tutvae("evaluate", vae, "--split", "valid", "--importance-samples", 3, "--json")
        report = json.loads(result.stdout)
        assert (report["run"], report["split"]) == (str(vae), "valid")
        assert (report["examples"], report["importance_samples"]) == (41, 3)
        assert report["bound"] == pytest.approx(report["reconstruction"] + report["kl"])

    def test_images(self, run_folders: dict[str, Path]) -> None:
        result = tutvae("evaluate", run_folders["images"], "--json")
        assert json.loads(result.stdout)["examples"] == 300


class TestSample:
    def test_a_line_each(self, vae: Path) -> None:
        run = load(vae)
        options = ["-n", 4, "--temperature", 0.5, "--top-k", 7, "--top-p", 0.9, "--seed", 2]
        result = tutvae("sample", vae, *options)
        assert result.exit_code == 0, result.output
        expected = sample_texts(
            run.model_, run.tokenizer_, 4, temperature=0.5, top_k=7, top_p=0.9, seed=2
        )
        assert result.stdout.splitlines() == expected
        assert json.loads(tutvae("sample", vae, *options, "--json").stdout) == expected

    def test_ten_by_default_from_a_language_model_too(self, run_folders: dict[str, Path]) -> None:
        run = load(run_folders["language_model"])
        result = tutvae("sample", run.folder)
        assert result.stdout.splitlines() == sample_texts(run.model_, run.tokenizer_, 10)

    def test_temperature_0_is_greedy(self, vae: Path) -> None:
        run = load(vae)
        expected = sample_texts(run.model_, run.tokenizer_, 2, temperature=0.0)
        result = tutvae("sample", vae, "-n", 2, "--temperature", 0)
        assert result.stdout.splitlines() == expected

    def test_whoever_has_read_enough_is_told_nothing(
        self, vae: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Such as `head`."""

        def closed(*_: object) -> None:
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")

        monkeypatch.setattr("tutvae.cli.console.show", closed)
        result = tutvae("sample", vae)
        assert result.exit_code == 1
        assert result.output == ""


class TestReconstruct:
    def test_a_line_for_each_text(self, vae: Path, documents: list[str]) -> None:
        run = load(vae)
        expected = reconstruct(run.model_, run.tokenizer_, documents)
        result = tutvae("reconstruct", vae, *documents)
        assert result.exit_code == 0, result.output
        assert result.stdout.splitlines() == expected
        assert result.stderr == ""
        pairs = json.loads(tutvae("reconstruct", vae, *documents, "--json").stdout)
        assert [pair["text"] for pair in pairs] == documents
        assert [pair["reconstruction"] for pair in pairs] == expected

    def test_from_standard_input(self, vae: Path, documents: list[str]) -> None:
        given = tutvae("reconstruct", vae, *documents).stdout
        piped = tutvae("reconstruct", vae, input="\n".join(documents) + "\n")
        assert piped.stdout == given

    @pytest.mark.parametrize("separator", ["\u2028", "\x85", "\x0c"])
    def test_a_line_ends_at_a_line_end_only(
        self, vae: Path, documents: list[str], separator: str
    ) -> None:
        text = documents[0].replace(" ", separator, 1)
        piped = tutvae("reconstruct", vae, input=f"{text}\r\n{text}\n")
        assert piped.exit_code == 0, piped.output
        assert len(piped.stdout.splitlines()) == 2

    def test_a_byte_order_mark_is_no_part_of_a_text(self, vae: Path, documents: list[str]) -> None:
        piped = tutvae("reconstruct", vae, input=f"\ufeff{documents[0]}\n")
        assert piped.stdout == tutvae("reconstruct", vae, documents[0]).stdout
        assert piped.stderr == ""

    def test_closed_standard_input(self, vae: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("tutvae.cli.console.sys", SimpleNamespace(stdin=None))
        result = tutvae("reconstruct", vae)
        assert result.exit_code == 2
        assert "give texts, or lines on standard input" in result.output

    def test_bytes_that_are_no_text(self, vae: Path, documents: list[str]) -> None:
        piped = tutvae("reconstruct", vae, input=b"good\n\xff\xfe\n")
        assert piped.exit_code == 1
        assert re.match(r"error: standard input.* is not UTF-8", piped.stderr)
        for command in (["reconstruct", vae, "good"], ["interpolate", vae, "good"]):
            result = tutvae(*command, os.fsdecode(b"\xff\xfe"))
            assert result.exit_code == 1
            assert re.match(r"error: text 2 of the command.* is not UTF-8", result.stderr)

    def test_unknown_words_are_told(self, vae: Path, documents: list[str]) -> None:
        text = f"{documents[0]} Zebra qux Zebra <unk>"
        result = tutvae("reconstruct", vae, text, "--json")
        assert result.exit_code == 0
        assert result.stderr == "unknown to the model, and read as <unk>: Zebra qux\n"
        assert len(json.loads(result.stdout)) == 1

    def test_without_texts_where_somebody_types(
        self, vae: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("tutvae.cli.console.is_terminal", lambda stream: True)
        result = tutvae("reconstruct", vae)
        assert result.exit_code == 2
        assert "give texts, or lines on standard input" in result.output


class TestInterpolate:
    def test_a_walk(self, vae: Path, documents: list[str]) -> None:
        run = load(vae)
        expected = interpolate_texts(run.model_, run.tokenizer_, *documents, 7)
        result = tutvae("interpolate", vae, *documents)
        assert result.exit_code == 0, result.output
        assert result.stdout.splitlines() == expected
        shorter = tutvae("interpolate", vae, *documents, "--steps", 3, "--json")
        assert json.loads(shorter.stdout) == interpolate_texts(
            run.model_, run.tokenizer_, *documents, 3
        )


class TestExport:
    def test_a_folder_to_hand_on(self, vae: Path, tmp_path: Path) -> None:
        result = tutvae("export", vae, tmp_path / "new")
        assert result.exit_code == 0, result.output
        size = sum(path.stat().st_size for path in (tmp_path / "new").iterdir()) / 1e6
        assert result.stdout.rstrip() == f"wrote {tmp_path / 'new'}, {size:.1f} MB"
        assert tutvae("sample", tmp_path / "new", "-n", 1).exit_code == 0
        report = json.loads((vae / "record.json").read_text())["reports"]["test"]
        card = (tmp_path / "new" / "README.md").read_text()
        assert f"{report['importance_weighted_nll']:.2f}" in card
        again = tutvae("export", vae, tmp_path / "new")
        assert again.exit_code == 1
        assert "is not empty" in again.stderr


class TestErrors:
    """One line, exit code 1, no traceback."""

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["evaluate", "nowhere"], "there is no folder nowhere"),
            (["sample", "nowhere"], "there is no folder nowhere"),
            (["reconstruct", "nowhere", "a"], "there is no folder nowhere"),
            (["interpolate", "nowhere", "a", "b"], "there is no folder nowhere"),
            (["sample", "IMAGES"], "holds a model of images"),
            (["reconstruct", "IMAGES", "a"], "holds a model of images"),
            (["reconstruct", "LANGUAGE_MODEL", "a"], "a language model, which has no code"),
            (["interpolate", "LANGUAGE_MODEL", "a", "b"], "a language model, which has no code"),
            (["reconstruct", "VAE", "this", " "], "text 2 of 2 is empty"),
            (["interpolate", "VAE", "", "this"], "text 1 of 2 is empty"),
            (["reconstruct", "VAE"], "standard input is empty"),
            (["sample", "VAE", "--top-p", "0"], "top_p above 0"),
        ],
    )
    def test_what_a_person_can_mend(
        self,
        run_folders: dict[str, Path],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        arguments: list[str],
        message: str,
    ) -> None:
        monkeypatch.chdir(tmp_path)
        folders = {name.upper(): str(folder) for name, folder in run_folders.items()}
        result = tutvae(*(folders.get(argument, argument) for argument in arguments))
        assert result.exit_code == 1
        assert result.stdout == ""
        (line,) = result.stderr.splitlines()
        assert line.startswith("error: ")
        assert message in line
        debugged = tutvae(*(folders.get(argument, argument) for argument in arguments), "--debug")
        assert isinstance(debugged.exception, ValueError | FileNotFoundError)

    def test_a_model_that_writes_nothing(self, tmp_path: Path) -> None:
        save(TextClassifier(LSTMEncoder(9, 4, 4, 2), 2), tmp_path / "classifier")
        result = tutvae("sample", tmp_path / "classifier")
        assert result.exit_code == 1
        assert "holds a model of another kind" in result.stderr

    @pytest.mark.parametrize("command", ["evaluate", "sample", "reconstruct", "export"])
    def test_weights_that_are_not_finite(self, vae: Path, tmp_path: Path, command: str) -> None:
        copy = Path(shutil.copytree(vae, tmp_path / "copy"))
        path = copy / "weights.safetensors"
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
        weights = load_file(path)
        weights["decoder.output.bias"][:] = float("nan")
        save_file(weights, path, metadata)
        more = {"reconstruct": ["a"], "export": [tmp_path / "new"]}.get(command, [])
        result = tutvae(command, copy, *more)
        assert result.exit_code == 1
        assert "weights.safetensors holds numbers that are not finite" in result.stderr
        assert result.stdout == ""

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["-n", 10**18], "a number is too large for this computer ("),
            (["-n", 10**20], "a number is too large for this computer ("),
            (["--seed", 10**20], "a seed must lie between 0 and 2^63 - 1, not 1000"),
        ],
    )
    def test_numbers_that_are_too_large(
        self, vae: Path, options: list[object], message: str
    ) -> None:
        result = tutvae("sample", vae, *options)
        assert result.exit_code == 1
        (line,) = result.stderr.splitlines()
        assert line.startswith(f"error: {message}")

    @pytest.mark.parametrize(
        "arguments",
        [
            ["sample"],
            ["sample", "x", "-n", "0"],
            ["sample", "x", "--top-p", "1.5"],
            ["evaluate", "x", "--split", "train"],
            ["evaluate", "x", "-S", "0"],
            ["interpolate", "x", "only one"],
            ["interpolate", "x", "a", "b", "--steps", "1"],
            ["sample", "x", "--temperature", "inf"],
            ["sample", "x", "--temperature", "nan"],
        ],
    )
    def test_wrong_usage_is_exit_code_2(self, arguments: list[str]) -> None:
        result = tutvae(*arguments)
        assert result.exit_code == 2
        assert "Traceback" not in result.output
