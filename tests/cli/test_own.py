"""Documents of one's own, trained on from a shell: `tutvae train my.csv` and `tutvae new`."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

import tutvae
from tutvae.cli.main import app
from tutvae.cli.own import to_toml
from tutvae.experiments import load_experiment, text
from tutvae.experiments.sweeps import tomllib

runner = CliRunner()
SMALL = {
    "corpus.vocabulary_size": 290,
    "encoder.embedding_size": 6,
    "encoder.hidden_size": 7,
    "decoder.embedding_size": 6,
    "decoder.hidden_size": 7,
    "model.latent_size": 2,
    "training.epochs": 2,
    "evaluation.importance_samples": 2,
}
SETTINGS = [part for key, value in SMALL.items() for part in ("--set", f"{key}={value}")]
TEXTS = [f"{who} likes {what}." for who in ("Ann", "Bob", "Cy", "Dora") for what in "abcdefgh"]
LABELS = ["so so" if text.startswith("Ann") else "-1.5" for text in TEXTS]


def command(*arguments: object, **options: Any) -> Any:
    return runner.invoke(app, list(map(str, arguments)), **options)


def train(documents: str | Path, *arguments: object) -> Any:
    result = command("train", documents, *SETTINGS, *arguments)
    assert result.exit_code == 0, result.output
    return result


def weights(run: str) -> dict[str, torch.Tensor]:
    return load_file(Path("runs", run, "weights.safetensors"))


def same_weights(one: str, other: str) -> bool:
    left, right = weights(one), weights(other)
    return all(torch.equal(x, right[name]) for name, x in left.items())


def described(run: str) -> dict[str, Any]:
    return tomllib.loads(Path("runs", run, "experiment.toml").read_text("utf-8"))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def table() -> Path:
    """Documents with a class, of which every third is not known."""
    labels = [label if i % 3 else "" for i, label in enumerate(LABELS)]
    rows = [
        f'{i},"{text}",{label}\n' for i, (text, label) in enumerate(zip(TEXTS, labels, strict=True))
    ]
    path = Path("my.csv")
    path.write_text("id,sentence,mood\n" + "".join(rows))
    return path


class Interrupting(list[Any]):
    """Batches whose second reader presses Ctrl-C."""

    readers = 0

    def __iter__(self) -> Iterator[Any]:
        self.readers += 1
        if self.readers == 2:
            raise KeyboardInterrupt
        return super().__iter__()


class TestTrain:
    @pytest.mark.parametrize(
        ("name", "lines"),
        [
            ("my.txt", TEXTS),
            ("my.csv", ["text", *TEXTS]),
            ("my.tsv", ["n\ttext", *(f"1\t{text}" for text in TEXTS)]),
            ("my.jsonl", [json.dumps({"text": text}) for text in TEXTS]),
            ("my.csv.gz", ["text", *TEXTS]),
            ("Möwe und See.txt", TEXTS),
        ],
    )
    def test_every_format_gives_a_model_and_a_record(self, name: str, lines: list[str]) -> None:
        content = "\ufeff" + "\r\n".join(lines)
        packed = gzip.compress(content.encode()) if name.endswith(".gz") else content.encode()
        Path(name).write_bytes(packed)
        run = "Möwe-und-See" if "M" in name else "my"
        result = train(name)
        assert result.stdout.splitlines()[-1] == f"wrote results/{run}.json and runs/{run}"
        trained = tutvae.load(Path("runs", run))
        assert trained.reconstruct(TEXTS[:2]) == trained.inverse_transform(
            trained.transform(TEXTS[:2])
        )

    def test_the_file_written_beside_the_run_trains_the_same_model_again(self, table: Path) -> None:
        train(table, "--text-column", "sentence", "--label-column", "mood")
        again = command("train", "runs/my/experiment.toml", "--set", "name=again")
        assert again.exit_code == 0, again.output
        assert same_weights("my", "again")

    def test_a_stopped_run_goes_on_with_the_same_command(
        self, table: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        arguments = ["--text-column", "sentence"]
        train(table, *arguments, "--set", "name=whole")
        fit = text.fit

        def stopped(*given: Any, valid: Any, **options: Any) -> Any:
            return fit(*given, valid=Interrupting(valid), **options)

        with monkeypatch.context() as patch:
            patch.setattr(text, "fit", stopped)
            result = command("train", table, *SETTINGS, *arguments)
        assert result.exit_code == 130
        assert "the same command goes on" in result.stderr
        assert "found an interrupted run" in train(table, *arguments).stderr
        assert same_weights("my", "whole")

    def test_an_empty_code_is_told(self, table: Path) -> None:
        rate = ["--set", "training.rate=0.001"]
        result = train(table, "--text-column", "sentence", *rate)
        assert "the code is empty (KL 0." in result.stderr

    def test_blanks_in_a_column_of_classes_are_no_class(self, table: Path) -> None:
        result = train(table, "--text-column", "sentence", "--label-column", "mood")
        assert ", accuracy " in result.stdout
        trained = tutvae.load("runs/my")
        assert isinstance(trained.model_, tutvae.SemiSupervisedTextVAE)
        assert trained.label_names == ["-1.5", "so so"]

    @pytest.mark.parametrize("label", [None, "mood"])
    def test_what_is_written_down_is_what_the_estimator_does(
        self, table: Path, label: str | None
    ) -> None:
        columns = ["--text-column", "sentence"] + (
            [] if label is None else ["--label-column", label]
        )
        train(table, *columns)
        estimator = tutvae.SentenceVAE() if label is None else tutvae.SemiSupervisedClassifier()
        # Of 32 documents, 3 are held out to choose by and 3 to measure on.
        expected, written = estimator.description(26), described("my")
        assert written.pop("name") == "my"
        for key, value in SMALL.items():
            section, name = key.split(".")
            expected[section][name] = value
        about = {"name": "files", "train": "my.csv", "text": "sentence"}
        about |= {} if label is None else {"label": label, "missing_labels": True}
        assert written.pop("corpus") == expected.pop("corpus") | about
        assert written == {key: value for key, value in expected.items() if key != "name"}

    @pytest.mark.parametrize("names", [[], ["one"]])
    def test_fewer_than_two_classes_are_none(self, names: list[str]) -> None:
        rows = [f"{text},{name}" for text in TEXTS for name in names or [""]]
        Path("my.csv").write_text("\n".join(["text,mood", *rows]))
        result = command("train", "my.csv", *SETTINGS, "--label-column", "mood")
        assert result.exit_code == 1
        found = f"error: there are labels of {len(names)} classes, and two are needed\n"
        assert result.stderr == found

    def test_words_instead_of_their_pieces(self, table: Path) -> None:
        train(table, "--text-column", "sentence", "--set", "corpus.tokenizer=words")
        tokenizer = tutvae.load("runs/my").tokenizer_
        assert tokenizer.unk_id in tokenizer.encode(["unheard-of"])[0]

    def test_settings_may_be_tables(self, table: Path) -> None:
        warming = '--set=training.kl_weight={schedule="linear", epochs=1.5}'
        train(table, "--text-column", "sentence", warming)
        assert described("my")["training"]["kl_weight"] == {"schedule": "linear", "epochs": 1.5}

    @pytest.mark.parametrize(
        "other", [["--set", "training.rate=3"], ["--set", "nonsense=3"], ["--label-column", "mood"]]
    )
    def test_a_refused_command_leaves_what_the_first_one_wrote(
        self, table: Path, other: list[str]
    ) -> None:
        train(table, "--text-column", "sentence")
        before = described("my")
        result = command("train", table, *SETTINGS, "--text-column", "sentence", *other)
        assert result.exit_code == 1
        assert described("my") == before

    @pytest.mark.filterwarnings("always")
    def test_a_warning_is_one_line(self) -> None:
        Path("my.csv").write_text("text\n" + "\n".join([*TEXTS, '" "']))
        first, *rest = train("my.csv").stderr.splitlines()
        assert first == "warning: my.csv: blank documents skipped: 1"
        assert not any("blank documents" in line for line in rest)

    @pytest.mark.parametrize(
        ("name", "columns", "message"),
        [
            ("nothing.csv", [], "there is no file nothing.csv"),
            ("a folder", [], "a folder is a folder: name one of its files"),
            ("my.docx", [], "my.docx is in no known format: the suffixes are .txt, .csv"),
            ("my.csv", ["--text-column", "word"], "only 'id', 'sentence', 'mood'"),
            ("my.csv", [], "in a shell with --text-column"),
            (
                "my.csv",
                ["--text-column", "sentence", "--label-column", "tone"],
                "in a shell with --label-column",
            ),
            ("two.txt", [], "2 documents are too few to hold out 1"),
            ("excel.csv", [], "excel.csv has semicolons between its columns: save it with commas"),
            ("my.csv", ["--text-column", "sentence", "--set", "name=a/b"], "name: String should"),
        ],
    )
    def test_what_a_person_can_mend(
        self, table: Path, name: str, columns: list[str], message: str
    ) -> None:
        Path("a folder").mkdir()
        Path("my.docx").write_text("a\n")
        Path("two.txt").write_text("a\nb\n")
        Path("excel.csv").write_text("text;label\r\nso, so;1\r\n")
        result = command("train", name, *columns)
        assert result.exit_code == 1
        assert result.stdout == ""
        (line,) = result.stderr.splitlines()
        assert line.startswith("error: ")
        assert message in line
        assert not Path("runs").exists()


class TestNew:
    def test_the_file_trains_once_it_names_documents(self, table: Path) -> None:
        assert command("new", "mine.toml", "--label-column", "mood").exit_code == 0
        path = Path("mine.toml")
        path.write_text(
            path.read_text()
            .replace('"mine.csv"', '"my.csv"')
            .replace('text = "text" ', 'text = "sentence" ')
        )
        train(path)
        assert tutvae.load("runs/mine").label_names == ["-1.5", "so so"]

    def test_its_comments_change_no_value(self) -> None:
        command("new", "mine.toml")
        estimator = tutvae.SentenceVAE()
        expected = estimator.description(name="files", train="mine.csv", text="text")
        assert tomllib.loads(Path("mine.toml").read_text()) == expected | {"name": "mine"}
        assert Path("mine.toml").read_text().count(" # ") > 5
        load_experiment("mine.toml")

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("there.toml", "there.toml is there already: choose another name"),
            ("my.csv", "my.csv must end in .toml"),
            ("no/such/my.toml", "there is no folder "),
        ],
    )
    def test_what_cannot_be_written_is_explained(self, name: str, message: str) -> None:
        Path("there.toml").write_text("mine")
        result = command("new", name)
        assert result.exit_code == 1
        assert result.stderr.startswith(f"error: {message}")
        assert Path("there.toml").read_text() == "mine"


def test_tables_are_written_as_they_are_read() -> None:
    table = {
        "name": 'a "quoted" \\ name, ä',
        "seeds": [1, 2],
        "corpus": {"flag": True, "rate": 1e-05, "inner": {"a": {"b": [0.5]}, "c": "\t"}},
    }
    assert tomllib.loads(to_toml(table)) == table
