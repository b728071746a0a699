from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tutvae.experiments import TextExperiment, load_experiment
from tutvae.experiments import published as module
from tutvae.experiments.published import (
    Row,
    compare,
    published_corpora,
    published_rows,
    recorded_rows,
    table,
)
from tutvae.experiments.records import recorded_result

REPOSITORY = Path(__file__).parents[2]


def report(**changes: Any) -> dict[str, Any]:
    """A report on PTB's test set."""
    terms = {"bound": 102.5, "importance_weighted_nll": 101.0, "importance_samples": 500, "kl": 3.0}
    rest = {
        "examples": 3761,
        "tokens": 82_742,
        "active_units": 4,
        "perplexity": 100.0,
        "mutual_information": 2.5,
    }
    return terms | rest | {"mutual_information_ceiling": 7.6} | changes


def record(name: str = "ptb_vae", **changes: Any) -> dict[str, Any]:
    """A results file of one run, as far as these functions read it."""
    run = {"train_seconds": 120.0, "reports": {"test": report()}}
    return {"name": name, "configuration": {"corpus": {"name": "ptb"}}, **run, **changes}


def sweep(*runs: dict[str, Any], name: str = "ptb_remedies") -> dict[str, Any]:
    """A results file of a sweep."""
    return {"name": name, "configuration": {"corpus": {"name": "ptb"}}, "runs": list(runs)}


class TestPublished:
    def test_every_figure_says_where_it_is_from(self) -> None:
        for row in published_rows():
            assert row.source
            assert row.grade in ("V", "C")
            assert row.seeds is None

    def test_no_row_comes_twice(self) -> None:
        rows = [(row.corpus, row.source, row.model) for row in published_rows()]
        assert len(rows) == len(set(rows)) > 20

    def test_terms_add_up(self) -> None:
        """Bowman et al. print 99 + 2; Sentence-VAE 103.967 + 7.269."""
        whole = [f for f in module.read_toml(module.FIGURES)["figures"] if "reconstruction" in f]
        assert len(whole) == 2
        for figure in whole:
            assert figure["bound"] == pytest.approx(
                figure["reconstruction"] + figure["kl"], abs=0.01
            )

    @pytest.mark.parametrize("source", ["Texar", "Yang"])
    def test_perplexities_at_the_same_length_are_those_printed(self, source: str) -> None:
        rows = [r for r in published_rows() if r.source.startswith(source) and r.printed_perplexity]
        assert rows
        for row in rows:
            assert row.perplexity == pytest.approx(row.printed_perplexity, abs=0.06)

    def test_one_at_another_length_is_not(self) -> None:
        """101 nats are perplexity 119 with 21.1 tokens a sentence, and 100 with 21.9."""
        row = next(r for r in published_rows("ptb") if r.bound == 101.0)
        assert row.printed_perplexity == 119.0
        assert row.perplexity == pytest.approx(math.exp(101 / 21.917), rel=1e-6)

    def test_a_corpus(self) -> None:
        assert {row.corpus for row in published_rows("yelp")} == {"yelp"}
        assert set(published_corpora()) == {row.corpus for row in published_rows()}

    def test_he_et_al_s_language_model(self) -> None:
        row = next(r for r in published_rows("yahoo") if r.model == "LSTM language model")
        assert (row.nll, row.bound, row.kl) == (328.1, None, None)
        assert row.perplexity == pytest.approx(math.exp(328.1 / 79.867))

    def test_the_runs_that_answer_are_described(self) -> None:
        names = {name for _, answers in module._published_rows() for name in answers}
        assert len(names) > 5
        for name in names:
            file, _, variant = name.partition("/")
            experiment = load_experiment(REPOSITORY / "experiments" / f"{file}.toml")
            assert isinstance(experiment, TextExperiment)
            assert experiment.is_sweep == bool(variant)
            assert not variant or variant in {run.variant for run in experiment.runs()}


class TestRecorded:
    def test_a_run(self) -> None:
        (row,) = recorded_rows(record())
        assert (row.corpus, row.model, row.source, row.seeds) == ("ptb", "ptb_vae", None, 1)
        assert (row.bound, row.nll, row.samples, row.kl) == (102.5, 101.0, 500, 3.0)
        assert (row.mutual_information, row.mutual_information_ceiling) == (2.5, 7.6)
        assert (row.active_units, row.minutes, row.differs) == (4, 2.0, "")

    @pytest.mark.parametrize("corpus", ["ptb", "reviews"])
    def test_its_perplexity_is_of_the_documents_that_were_measured(self, corpus: str) -> None:
        (row,) = recorded_rows(record(configuration={"corpus": {"name": corpus}}))
        assert row.perplexity == 100.0

    def test_variants_are_means_over_the_seeds(self) -> None:
        runs = [
            {"variant": "plain", "train_seconds": s, "reports": {"test": report(bound=b, kl=k)}}
            for s, b, k in ((60.0, 104.0, 0.0), (120.0, 106.0, 0.5))
        ]
        other = {"variant": "linear", "train_seconds": 30.0, "reports": {"test": report()}}
        plain, linear = recorded_rows(sweep(*runs, other))
        assert (plain.model, linear.model) == ("ptb_remedies/plain", "ptb_remedies/linear")
        assert (plain.bound, plain.kl, plain.minutes, plain.seeds) == (105.0, 0.25, 1.5, 2)

    def test_minutes_hold_what_came_before(self) -> None:
        before = {"initialisation_seconds": 60.0, "aggressive": {"seconds": 30.0}}
        (row,) = recorded_rows(record(**before))
        assert row.minutes == 3.5

    @pytest.mark.parametrize(
        ("corpus", "examples", "words"),
        [
            ({"name": "ptb"}, 3761, ""),
            ({"name": "ptb"}, 1000, "measured on 1,000 of 3,761 test documents"),
            ({"name": "ptb", "train_size": 5000}, 3761, "fitted on 5,000 documents"),
            (
                {"name": "yahoo", "train_on": "valid"},
                10_000,
                "fitted on the validation documents, a tenth as many",
            ),
            ({"name": "yahoo", "train_on": "train"}, 10_000, ""),
        ],
    )
    def test_what_differs(self, corpus: dict[str, Any], examples: int, words: str) -> None:
        reports = {"test": report(examples=examples)}
        (row,) = recorded_rows(record(configuration={"corpus": corpus}, reports=reports))
        assert (words in row.differs) if words else row.differs == ""

    def test_images(self, digits_run: tuple[Any, dict[str, Any]]) -> None:
        (row,) = recorded_rows(digits_run[1])
        assert row.perplexity is None
        assert row.bound == digits_run[1]["reports"]["test"]["bound"]

    def test_texts_and_sweeps(
        self, reviews_run: tuple[Any, dict[str, Any]], sweep_run: dict[str, Any]
    ) -> None:
        assert [row.model for row in recorded_rows(reviews_run[1])] == ["tiny_reviews"]
        names = [row.model for row in recorded_rows(sweep_run)]
        assert names == [f"tiny_sweep/{name}" for name in ("vae", "language_model", "cnn")]

    def test_classifiers_have_none(self, classification_run: dict[str, Any]) -> None:
        assert recorded_rows(classification_run) == []


class TestComparing:
    def test_each_published_figure_with_the_runs_that_answer_it(self) -> None:
        run = {"variant": "linear", "train_seconds": 30.0, "reports": {"test": report()}}
        found = {
            (comparison.published.source, comparison.published.model): [
                row.model for row in comparison.ours
            ]
            for comparison in compare([record(), sweep(run), record("another")])
        }
        assert found["Texar, README of its VAE example", "VAE, LSTM decoder"] == ["ptb_vae"]
        assert found["timbmg/Sentence-VAE, README", "VAE"] == ["ptb_vae", "ptb_remedies/linear"]
        assert all(found.values())

    def test_nothing_recorded(self) -> None:
        assert compare([]) == []

    def test_ready_for_json(self) -> None:
        comparison = compare([record()])[0].to_dict()
        assert json.loads(json.dumps(comparison)) == comparison
        assert "nll" not in comparison["published"]  # not known, so not there
        assert comparison["ours"][0]["kl"] == 3.0


class TestTokensPerDocument:
    """NLL, L and perplexity of a row belong together."""

    @pytest.mark.parametrize("name", ["ptb_remedies", "ptb_vae", "yahoo_tenth", "yahoo_longer"])
    def test_it_is_that_of_the_documents_that_were_measured(self, name: str) -> None:
        for row in recorded_rows(recorded_result(name)):
            of_all = published_corpora()[row.corpus]["tokens_per_document"]
            assert row.perplexity == pytest.approx(
                math.exp(row.nll / row.tokens_per_document), rel=1e-3
            )
            is_whole = "measured on" not in row.differs
            assert (row.tokens_per_document == pytest.approx(of_all, abs=1e-3)) == is_whole
            assert row.to_dict()["tokens_per_document"] == row.tokens_per_document

    def test_it_is_that_of_the_corpus_for_a_published_row(self) -> None:
        for row in published_rows():
            known = published_corpora()[row.corpus]["tokens_per_document"]
            assert row.tokens_per_document == known

    def test_it_is_shown_where_there_is_a_perplexity_to_go_with_it(self) -> None:
        rows = [row for row in published_rows("ptb") if row.source.startswith("Bowman")]
        _, _, standard, _, inputless, *_ = table(rows).splitlines()
        assert "21.92  100.31" in standard
        assert "21.92" not in inputless

    def test_images_have_none(self, digits_run: tuple[Any, dict[str, Any]]) -> None:
        (row,) = recorded_rows(digits_run[1])
        assert row.tokens_per_document is None


class TestTable:
    ROWS: ClassVar = [
        Row("ptb", "ours", bound=102.5, nll=101.126, samples=500, kl=3.0, perplexity=100.96),
        Row("ptb", "sweep/plain", bound=104.25, nll=104.0, differs="measured on some"),
        Row("ptb", "sweep/linear", bound=103.5, nll=103.25, differs="measured on some"),
        Row("ptb", "VAE", source="Texar, README", grade="V", bound=102.54, differs="nothing"),
        Row("ptb", "language model", nll=101.5, samples=1),
    ]

    def test_columns_line_up(self) -> None:
        head, ours, _, plain, _, _, texar, exact, *_ = table(self.ROWS).splitlines()
        ends = {title: head.index(title) + len(title) for title in ("NLL", "bound", "samples")}
        assert ours[: ends["NLL"]].endswith(" 101.13")
        assert ours[: ends["bound"]].endswith(" 102.50")
        assert ours[: ends["samples"]].endswith(" 500")
        assert texar[: ends["bound"]].endswith(" 102.54")
        assert texar[ends["bound"] :].strip() == ""
        assert exact[: ends["samples"]].endswith(" exact")
        assert len(head) == len(ours) == len(plain) == len(texar) == len(exact)

    def test_variants_and_models_stand_below_their_record_or_source(self) -> None:
        lines = [line.split("  1")[0].rstrip() for line in table(self.ROWS).splitlines()]
        assert lines[1:8] == [
            "ours",
            "sweep",
            "  plain (1)",
            "  linear (1)",
            "Texar, README [V]",
            "  VAE (2)",
            "language model",
        ]

    def test_what_differs_is_told_once(self) -> None:
        lines = table(self.ROWS).splitlines()
        assert lines[8:] == ["(1) measured on some", "(2) nothing"]

    def test_a_column_that_nobody_fills_is_left_out(self) -> None:
        assert table(self.ROWS).split("\n")[0].split() == ["NLL", "PPL", "bound", "KL", "samples"]

    def test_a_narrow_terminal(self) -> None:
        whole = table(self.ROWS).splitlines()
        assert table(self.ROWS, width=len(whole[0])).splitlines() == whole
        *lines, hidden = table(self.ROWS, width=40).splitlines()
        assert max(len(line) for line in lines) <= 40
        assert lines[0].split() == ["NLL", "PPL", "bound"]
        assert hidden == "not shown, as the terminal is too narrow: KL, samples"
