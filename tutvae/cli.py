"""The command line: `tutvae train`, `tutvae results` and `tutvae info`."""

from __future__ import annotations

import json
import os
import platform
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(
    help="Variational autoencoders for text: train recorded experiments.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


@contextmanager
def readable_errors(debug: bool) -> Iterator[None]:
    """Turn an expected error into one message and exit code 1."""
    try:
        yield
    except (OSError, ValueError, FloatingPointError) as error:
        if debug:
            raise
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None


@app.command()
def train(
    experiment: Annotated[Path, typer.Argument(help="An experiment file, TOML.")],
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Change a value: section.key=value.")
    ] = None,
    results: Annotated[Path, typer.Option(help="Where to write NAME.json.")] = Path("results"),
    runs: Annotated[
        Path, typer.Option(help="Where to save the weights, and the finished runs of a sweep.")
    ] = Path("runs"),
    jobs: Annotated[
        int, typer.Option(min=1, help="Runs of a sweep at a time, each with one thread.")
    ] = 1,
    debug: Debug = False,
) -> None:
    """Fit and evaluate an experiment; write its results file and its weights."""
    with readable_errors(debug):
        from tutvae.experiments import load_experiment, run_experiment
        from tutvae.results import summary_table, write_result

        described = load_experiment(experiment, settings or [])
        command = shlex.join(["tutvae", *sys.argv[1:]])
        folder = runs / described.name
        # Before hours of training, not after.
        for needed in (folder, results):
            needed.mkdir(parents=True, exist_ok=True)
        _, record = run_experiment(described, command, folder=folder, jobs=jobs)
        path = write_result(record, results)
        if "runs" in record:
            typer.echo(summary_table(record))
        for split, report in record.get("reports", {}).items():
            nll, samples = report["importance_weighted_nll"], report["importance_samples"]
            typer.echo(f"{split}: bound {report['bound']:.2f}, NLL {nll:.2f} ({samples} samples)")
        typer.echo(f"wrote {path} and {folder}")


@app.command()
def results(
    folder: Annotated[Path, typer.Argument(help="The folder of results files.")] = Path("results"),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    debug: Debug = False,
) -> None:
    """Show recorded runs on their test sets, ours beside published ones."""
    with readable_errors(debug):
        from tutvae.published import compare, recorded_rows
        from tutvae.results import read_results

        records = read_results(folder)
        if as_json:
            content = {
                "recorded": [row.to_dict() for x in records for row in recorded_rows(x)],
                "comparisons": [comparison.to_dict() for comparison in compare(records)],
            }
            typer.echo(json.dumps(content))
        else:
            typer.echo(_tables(records))


def _tables(records: list[dict[str, Any]]) -> str:
    """A table for each corpus, then one for each record of classifiers."""
    from tutvae.published import published_corpora, published_rows, recorded_rows, table
    from tutvae.results import summary_table

    rows = [row for record in records for row in recorded_rows(record)]
    parts = []
    for corpus in dict.fromkeys(row.corpus for row in rows):
        known = published_corpora().get(corpus)
        tokens = "" if known is None else f", {known['tokens_per_document']} tokens a document"
        ours = [row for row in rows if row.corpus == corpus]
        parts.append(f"{corpus}, test set, nats a document{tokens}")
        parts.append(table([*ours, *published_rows(corpus)]) + "\n")
    for record in records:
        if not recorded_rows(record):
            parts.append(f"{record['name']}, accuracy on the test set\n{summary_table(record)}\n")
    return "\n".join(parts).rstrip()


@app.command()
def info(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show versions, the device and where data is looked for."""
    import torch

    import tutvae
    from tutvae.data.files import DATA_VARIABLE
    from tutvae.training import pick_device

    facts = {
        "tutvae": tutvae.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": str(pick_device()),
        DATA_VARIABLE: os.environ.get(DATA_VARIABLE, "not set"),
    }
    if as_json:
        typer.echo(json.dumps(facts))
    else:
        typer.echo("\n".join(f"{name:<12} {value}" for name, value in facts.items()))
