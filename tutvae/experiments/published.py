"""Recorded runs beside published figures, in the same units."""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FIGURES = Path(__file__).with_name("published.toml")
GRADES = {"read": "V", "computed": "C"}


@dataclass(frozen=True)
class Row:
    """What one model achieves on a test set, ours or a published one, in nats a document.

    A figure that nobody reported is None. A bound and an importance-weighted NLL are two things:
    each has its place.

    Attributes:
        corpus: its name, such as "ptb".
        model: a recorded run, RUN or RUN/VARIANT; or the model as its source calls it.
        source: of a published figure, with its table; None for a recorded run.
        grade: how a published figure was checked: "V", read in a copy of the source, or "C",
            computed from files.
        bound: reconstruction + KL.
        nll: importance-weighted NLL, exact without a code.
        samples: how many samples the NLL is from, 1 where it is exact; None if not known.
        kl: to the prior.
        mutual_information: between documents and codes.
        mutual_information_ceiling: the most that could be measured.
        active_units: latent dimensions in use, a mean over the seeds.
        perplexity: exp(NLL / L), of the bound where no NLL is known. L is the number of predicted
            tokens a document: those that were measured, and for a published row those of the
            corpus's test set.
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
    """What is known of the published corpora, by name.

    Returns:
        `test_documents`, `tokens_per_document` (L, the end mark included) and its `grade`.

    Chapter 10.
    """
    return _published()["corpora"]


def published_rows(corpus: str | None = None) -> list[Row]:
    """The published figures, of one corpus or all; perplexities are at the L of the corpus.

    Chapter 10.
    """
    return [row for row, _ in _figures() if corpus in (None, row.corpus)]


def recorded_rows(record: dict[str, Any]) -> list[Row]:
    """What a results file says of the test set, a row a variant; means over the seeds.

    Args:
        record: as `read_result` gives it. One of classifiers has no rows.

    Chapter 10.
    """
    variants: dict[str, list[dict[str, Any]]] = {}
    for run in record.get("runs", [record]):
        if "reports" in run:
            variants.setdefault(run.get("variant", ""), []).append(run)
    return [_recorded(record, variant, runs) for variant, runs in variants.items()]


def compare(records: Iterable[dict[str, Any]]) -> list[Comparison]:
    """Line up recorded runs with the published figures that they answer.

    Args:
        records: as `read_result` gives them.

    Returns:
        Each published figure that a recorded run answers, with those runs.

    Chapter 10.
    """
    ours = {row.model: row for record in records for row in recorded_rows(record)}
    lined_up = [
        Comparison(row, tuple(ours[name] for name in answers if name in ours))
        for row, answers in _figures()
    ]
    return [comparison for comparison in lined_up if comparison.ours]


def table(rows: Iterable[Row]) -> str:
    """Tell the figures in lines of equal width, a line a row and a line what differs."""
    rows = list(rows)
    names = [_name(row) for row in rows]
    width = max(map(len, ["model", *names]))
    lines = [f"{'model':<{width}}" + "".join(f"{title:>11}" for title in COLUMNS)]
    for name, row in zip(names, rows, strict=True):
        cells = (cell(row) for cell in COLUMNS.values())
        lines.append(f"{name:<{width}}" + "".join(f"{cell:>11}" for cell in cells))
        if row.differs:
            lines.append(f"  differs: {row.differs}")
    return "\n".join(lines)


def _published() -> dict[str, Any]:
    """The data file, parsed."""
    return tomllib.loads(FIGURES.read_text(encoding="utf-8"))


def _figures() -> list[tuple[Row, list[str]]]:
    """Each published figure as a row, and the names of the runs that answer it."""
    content = _published()
    found = []
    for figure in content["figures"]:
        L = content["corpora"][figure["corpus"]]["tokens_per_document"]
        names = ("bound", "nll", "kl", "mutual_information", "printed_perplexity")
        row = Row(
            figure["corpus"],
            figure["model"],
            source=f"{figure['source']}, {figure['table']}",
            grade=GRADES[figure["grade"]],
            differs=figure.get("differs", ""),
            **{name: figure.get(name) for name in names},
        )
        found.append((_with_perplexity(row, L), figure.get("beside", [])))
    return found


def _with_perplexity(row: Row, tokens_per_document: float) -> Row:
    """Add the perplexity, of the NLL or else of the bound."""
    nats = row.bound if row.nll is None else row.nll
    return row if nats is None else replace(row, perplexity=math.exp(nats / tokens_per_document))


def _recorded(record: dict[str, Any], variant: str, runs: list[dict[str, Any]]) -> Row:
    """One variant of a results file as a row."""
    reports = [run["reports"]["test"] for run in runs]
    configuration = record["configuration"]
    corpus = configuration["corpus"]["name"]

    def mean(name: str) -> float | None:
        return statistics.mean(r[name] for r in reports) if name in reports[0] else None

    return Row(
        corpus,
        f"{record['name']}/{variant}" if variant else record["name"],
        bound=mean("bound"),
        nll=mean("importance_weighted_nll"),
        samples=reports[0]["importance_samples"],
        kl=mean("kl"),
        mutual_information=mean("mutual_information"),
        mutual_information_ceiling=mean("mutual_information_ceiling"),
        active_units=mean("active_units"),
        perplexity=mean("perplexity"),
        minutes=statistics.mean(map(_seconds, runs)) / 60,
        seeds=len(runs),
        differs=_differences(configuration["corpus"], reports[0]["examples"]),
    )


def _seconds(run: dict[str, Any]) -> float:
    """How long a run trained, with all that came before."""
    before = run.get("initialisation_seconds", 0.0) + run.get("aggressive", {}).get("seconds", 0.0)
    return run["train_seconds"] + before


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


def _name(row: Row) -> str:
    """What stands at the start of a row's line."""
    return row.model if row.source is None else f"{row.source} [{row.grade}]: {row.model}"


def _shown(value: float | None, decimals: int = 2) -> str:
    """A number, or nothing."""
    return "" if value is None else f"{value:.{decimals}f}"


# The columns of a table: their titles, and what a row has there.
COLUMNS: dict[str, Callable[[Row], str]] = {
    "bound": lambda row: _shown(row.bound),
    "NLL": lambda row: _shown(row.nll),
    "samples": lambda row: "exact" if row.samples == 1 else _shown(row.samples, 0),
    "KL": lambda row: _shown(row.kl),
    "MI": lambda row: _shown(row.mutual_information),
    "at most": lambda row: _shown(row.mutual_information_ceiling),
    "units": lambda row: _shown(row.active_units, 0),
    "perplexity": lambda row: _shown(row.perplexity),
    "minutes": lambda row: _shown(row.minutes, 0),
}
