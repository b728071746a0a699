"""The commands that ask a trained model about texts."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import tutvae
from tutvae.cli.main import app

runner = CliRunner()
TEXTS = ["Ann likes tea.", 'Bob says "no", twice.', "Grüße an Zoë"]


def command(*arguments: object, **options: Any) -> Any:
    return runner.invoke(app, list(map(str, arguments)), **options)


def answered(*arguments: object, **options: Any) -> Any:
    result = command(*arguments, **options)
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    return result.stdout


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with classes, hardly trained."""
    texts = [f"{who} likes {what}." for who in ("Ann", "Bob") for what in "abcdefgh"]
    model = tutvae.SemiSupervisedClassifier(
        epochs=1,
        embedding_size=6,
        hidden_size=7,
        latent_size=2,
        vocabulary_size=290,
        device="cpu",
        progress=False,
    )
    with pytest.warns(UserWarning, match="the code is empty"):
        model.fit(texts, ["one", "two words"] * 8)
    return model.save(tmp_path_factory.mktemp("models") / "classifier")


class TestEncode:
    def test_a_table_of_texts_and_codes(self, run: Path) -> None:
        head, *rows = csv.reader(answered("encode", run, *TEXTS).splitlines())
        assert head == ["text", "z0", "z1"]
        assert [row[0] for row in rows] == TEXTS
        codes = np.array([row[1:] for row in rows], dtype=float)
        np.testing.assert_allclose(codes, tutvae.load(run).transform(TEXTS), rtol=1e-4)

    def test_into_a_file(self, run: Path, tmp_path: Path) -> None:
        for name in ("codes.npy", "codes.csv"):
            result = command("encode", run, "--out", tmp_path / name, *TEXTS)
            assert result.stdout == ""
            assert result.stderr == f"wrote {tmp_path / name}: 3 codes of 2 numbers\n"
        codes = tutvae.load(run).transform(TEXTS)
        np.testing.assert_allclose(np.load(tmp_path / "codes.npy"), codes, rtol=1e-5, atol=1e-6)
        printed = answered("encode", run, *TEXTS)
        assert (tmp_path / "codes.csv").read_text("utf-8") == printed


class TestClassify:
    def test_the_likeliest_class_and_its_probability(self, run: Path) -> None:
        model = tutvae.load(run)
        q = model.predict_proba(TEXTS)
        expected = [
            f"{name}\t{p:.2f}" for name, p in zip(model.predict(TEXTS), q.max(1), strict=True)
        ]
        assert answered("classify", run, *TEXTS).splitlines() == expected

    def test_json_has_every_probability(self, run: Path) -> None:
        rows = json.loads(answered("classify", run, *TEXTS, "--json"))
        assert [row["text"] for row in rows] == TEXTS
        for row in rows:
            assert set(row["probabilities"]) == {"one", "two words"}
            assert sum(row["probabilities"].values()) == pytest.approx(1)
            assert row["label"] == max(row["probabilities"], key=row["probabilities"].get)


class TestImpute:
    def test_blanks_are_filled(self, run: Path) -> None:
        (filled,) = answered("impute", run, "Ann ?? a.", "--blank", "??").splitlines()
        assert [filled] == tutvae.load(run).impute(["Ann ?? a."], blank="??")
        (row,) = json.loads(answered("impute", run, "Ann ?? a.", "--blank", "??", "--json"))
        assert row == {"text": "Ann ?? a.", "filled": filled}


class TestCluster:
    def test_every_text_has_a_cluster(self, run: Path) -> None:
        lines = answered("cluster", run, *TEXTS, "-k", 2).splitlines()
        numbers, texts = zip(*(line.split("\t") for line in lines), strict=True)
        assert set(numbers) == {"0", "1"}
        assert sorted(numbers) == list(numbers)
        assert sorted(texts) == sorted(TEXTS)
        rows = json.loads(answered("cluster", run, *TEXTS, "-k", 2, "--json"))
        assert [f"{row['cluster']}\t{row['text']}" for row in rows] == lines


class TestDiagnose:
    def test_what_python_says(self, run: Path) -> None:
        printed = answered("diagnose", run, *TEXTS)
        found = json.loads(answered("diagnose", run, *TEXTS, "--json"))
        assert found["report"]["examples"] == 3
        assert printed.startswith("not well")
        assert [finding["name"] for finding in found["findings"]]


@pytest.mark.parametrize("name", ["encode", "classify", "impute", "diagnose"])
def test_texts_come_from_standard_input_too(run: Path, name: str) -> None:
    piped = answered(name, run, input="\ufeff" + "\r\n".join(TEXTS) + "\r\n")
    assert piped == answered(name, run, *TEXTS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["encode", "nowhere", "a"], "there is no folder nowhere"),
        (["encode", "RUN", "a", "--out", "codes.txt"], "codes.txt must end in .csv or .npy"),
        (["encode", "RUN", "a", "--out", "nowhere/codes.csv"], "there is no folder "),
        (["encode", "LANGUAGE_MODEL", "a"], "has no code"),
        (["encode", "IMAGES", "a"], "holds a model of images"),
        (["classify", "VAE", "a"], "knows no classes: train with --label-column"),
        (["classify", "IMAGES", "a"], "holds a model of images"),
        (["cluster", "RUN", "a", "b"], "2 documents are too few for 5 clusters"),
        (["cluster", "RUN", "a", "-k", "1"], "1 documents are too few for 1 clusters"),
        (["impute", "RUN", "a_b"], "the blank '_' is part of a word"),
        (["impute", "IMAGES", "a"], "holds a model of images"),
        (["diagnose", "IMAGES", "a"], "holds a model of images"),
    ],
)
def test_what_a_person_can_mend(
    run: Path,
    run_folders: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    folders = {name.upper(): str(folder) for name, folder in run_folders.items()}
    folders["RUN"] = str(run)
    result = command(*(folders.get(argument, argument) for argument in arguments))
    assert result.exit_code == 1
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert message in line


@pytest.mark.parametrize("name", ["encode", "classify", "impute", "cluster", "diagnose"])
def test_no_text_at_all_is_told(run: Path, name: str) -> None:
    result = command(name, run, input="")
    assert result.exit_code == 1
    assert result.stderr == "error: there are no texts: give at least one\n"
