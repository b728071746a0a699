"""Recorded runs beside published figures, in the same units."""

import math
import statistics
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tutvae.data.readers.files import read_toml
from tutvae.experiments.tables import aligned, of_variants

FIGURES = Path(__file__).with_name("published.toml")
GRADES = {"read": "V", "computed": "C"}
AS_PUBLISHED = ("bound", "nll", "kl", "mutual_information", "printed_perplexity")
OF_THE_CODE = ("kl", "mutual_information", "mutual_information_ceiling", "active_units")
AS_REPORTED = ("bound", "perplexity", *OF_THE_CODE)


@dataclass(frozen=True)
class Row:
    """What one model achieves on a test set, ours or a published one, in nats a document.

    A figure that nobody reported is None. Those that are not told here are as in `Report`.

    Attributes:
        corpus: its name, such as "ptb".
        model: a recorded run, RUN or RUN/VARIANT; or the model as its source calls it.
        source: of a published figure, with its table; None for a recorded run.
        grade: of a published figure: "V", read in a copy of the source; "C", computed from files.
        samples: how many samples the NLL is from, 1 where it is exact.
        tokens_per_document: L, predicted tokens a document that was measured, or of the test set.
        perplexity: exp(NLL / L), of the bound where no NLL is known.
        printed_perplexity: what the source prints, with the L that it counts.
        minutes: of training, a run.
        seeds: runs that the figures are means of; None for a published row.
        differs: what to know before comparing.
    """

    corpus: str
    model: str
    source: str | None = None
    grade: str | None = None
    bound: float | None = None
    nll: float | None = None
    samples: int | None = None
    kl: float | None = None
    mutual_information: float | None = None
    mutual_information_ceiling: float | None = None
    active_units: float | None = None
    tokens_per_document: float | None = None
    perplexity: float | None = None
    printed_perplexity: float | None = None
    minutes: float | None = None
    seeds: int | None = None
    differs: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The fields that are known, ready for JSON."""
        return {name: value for name, value in asdict(self).items() if value not in (None, "")}


@dataclass(frozen=True)
class Comparison:
    """A published figure and the recorded runs that answer it."""

    published: Row
    ours: tuple[Row, ...]

    def to_dict(self) -> dict[str, Any]:
        """Both, ready for JSON."""
        return {"published": self.published.to_dict(), "ours": [row.to_dict() for row in self.ours]}


def published_corpora() -> dict[str, dict[str, Any]]:
    """What is known of the published corpora, by name: L counts the end mark. Chapter 10.

    >>> tutvae.published_corpora()["ptb"]["tokens_per_document"]
    21.917
    """
    return read_toml(FIGURES)["corpora"]


def published_rows(corpus: str | None = None) -> list[Row]:
    """The published figures, of one corpus or all, with perplexities at its L. Chapter 10.

    >>> {row.corpus for row in tutvae.published_rows("yahoo")}
    {'yahoo'}
    """
    return [row for row, _ in _published_rows() if corpus in (None, row.corpus)]


def recorded_rows(record: dict[str, Any]) -> list[Row]:
    """What a record says of the test set, a row a variant, means over the seeds. Chapter 10.

    >>> (row,) = tutvae.recorded_rows(tutvae.recorded_result("mnist_vae"))
    >>> row.model, row.samples
    ('mnist_vae', 1000)
    """
    return [_recorded(record, variant, runs) for variant, runs in of_variants(record).items()]


def compare(records: Iterable[dict[str, Any]]) -> list[Comparison]:
    """Find each published figure that a recorded run answers, with those runs. Chapter 10."""
    recorded = {row.model: row for record in records for row in recorded_rows(record)}
    answered = (
        Comparison(row, tuple(recorded[name] for name in names if name in recorded))
        for row, names in _published_rows()
    )
    return [comparison for comparison in answered if comparison.ours]


def table(rows: Iterable[Row], width: int | None = None) -> str:
    """Lay figures out, a line a row; what differs is told once, below.

    Rows of one record or source, one after the other, stand below its name. The last columns are
    left out where they do not fit into the `width` of a terminal.
    """
    rows = list(rows)
    notes = list(dict.fromkeys(row.differs for row in rows if row.differs))
    marks = {note: f" ({number})" for number, note in enumerate(notes, 1)}
    groups, names = zip(*map(_names, rows), strict=True)
    names = tuple(x + marks.get(row.differs, "") for x, row in zip(names, rows, strict=True))
    columns = [[title, *map(cell, rows)] for title, cell in COLUMNS.items()]
    columns = [column for column in columns if any(column[1:])]
    for shown in range(max(1, len(columns)), 0, -1):  # at least the most important one
        head, *body = aligned(list(zip(("", *names), *columns[:shown], strict=True)))
        if width is None or len(head) <= width:
            break
    lines = [head]
    for before, group, line in zip(("", *groups), groups, body, strict=False):
        lines += [line] if group in ("", before) else [group, line]
    lines += [f"({number}) {note}" for number, note in enumerate(notes, 1)]
    if hidden := ", ".join(title for title, *_ in columns[shown:]):
        lines.append(f"not shown, as the terminal is too narrow: {hidden}")
    return "\n".join(lines)


def _published_rows() -> Iterator[tuple[Row, list[str]]]:
    """Each published figure as a row, and the names of the runs that answer it."""
    content = read_toml(FIGURES)
    for figure in content["figures"]:
        L = content["corpora"][figure["corpus"]]["tokens_per_document"]
        nats = figure.get("nll", figure.get("bound"))
        row = Row(
            figure["corpus"],
            figure["model"],
            source=f"{figure['source']}, {figure['table']}",
            grade=GRADES[figure["grade"]],
            tokens_per_document=L,
            perplexity=None if nats is None else math.exp(nats / L),
            differs=figure.get("differs", ""),
            **{name: figure.get(name) for name in AS_PUBLISHED},
        )
        yield row, figure.get("beside", [])


def _recorded(record: dict[str, Any], variant: str, runs: list[dict[str, Any]]) -> Row:
    reports = [run["reports"]["test"] for run in runs]
    corpus = record["configuration"]["corpus"]
    training = [
        run["train_seconds"]
        + run.get("initialisation_seconds", 0.0)
        + run.get("aggressive", {}).get("seconds", 0.0)
        for run in runs
    ]

    def mean(name: str, share: int = 1) -> float | None:
        return statistics.mean(r[name] / share for r in reports) if name in reports[0] else None

    measured: dict[str, Any] = {name: mean(name) for name in AS_REPORTED}
    return Row(
        corpus["name"],
        f"{record['name']}/{variant}" if variant else record["name"],
        nll=mean("importance_weighted_nll"),
        samples=reports[0]["importance_samples"],
        tokens_per_document=mean("tokens", reports[0]["examples"]),
        minutes=statistics.mean(training) / 60,
        seeds=len(runs),
        differs=_differences(corpus, reports[0]["examples"]),
        **measured,
    )


def _differences(corpus: dict[str, Any], examples: int) -> str:
    """How the data of a run differ from those of the published figures."""
    found = []
    if corpus.get("train_on") == "valid":
        found.append(
            "fitted on the validation documents, a tenth as many, with a vocabulary of its own"
        )
    if corpus.get("train_size") is not None:
        found.append(f"fitted on {corpus['train_size']:,} documents")
    known = published_corpora().get(corpus["name"])
    if known is not None and examples != known["test_documents"]:
        found.append(f"measured on {examples:,} of {known['test_documents']:,} test documents")
    return "; ".join(found)


def _names(row: Row) -> tuple[str, str]:
    """Under which heading a row stands, "" for none, and what it is called there."""
    if row.source is not None:
        return f"{row.source} [{row.grade}]", f"  {row.model}"
    record, _, variant = row.model.partition("/")
    return (record, f"  {variant}") if variant else ("", record)


def _shown(value: float | None, decimals: int = 2) -> str:
    return "" if value is None else f"{value:.{decimals}f}"


# The columns of a table, from the most important on, and what a row has there.
COLUMNS: dict[str, Callable[[Row], str]] = {
    "NLL": lambda row: _shown(row.nll),
    "L": lambda row: _shown(row.tokens_per_document if row.perplexity else None),
    "PPL": lambda row: _shown(row.perplexity),
    "bound": lambda row: _shown(row.bound),
    "KL": lambda row: _shown(row.kl),
    "samples": lambda row: "exact" if row.samples == 1 else _shown(row.samples, 0),
    "MI": lambda row: _shown(row.mutual_information),
    "at most": lambda row: _shown(row.mutual_information_ceiling),
    "units": lambda row: _shown(row.active_units, 0),
    "minutes": lambda row: _shown(row.minutes, 0),
}
