"""The command line: a function a command; those that use a run are in `tutvae.cli.runs`."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer

from tutvae.cli import runs as of_runs
from tutvae.cli.console import AsJson, Debug, note, readable_errors, show

SHOWN_VERSIONS = ("torch", "numpy", "tokenizers")

app = typer.Typer(
    help="Variational autoencoders for text: train recorded experiments and use their models.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@app.command()
def train(
    experiment: Annotated[Path, typer.Argument(help="An experiment file, TOML.")],
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Change a value: section.key=value.")
    ] = None,
    results: Annotated[Path, typer.Option(help="Where to write NAME.json.")] = Path("results"),
    runs: Annotated[
        Path, typer.Option(help="Where to keep the run, in NAME/, or the runs of a sweep.")
    ] = Path("runs"),
    jobs: Annotated[
        int, typer.Option(min=1, help="Runs of a sweep at a time, each with one thread.")
    ] = 1,
    debug: Debug = False,
) -> None:
    """Fit and evaluate an experiment; write its results file and its model.

    If it is interrupted, the same command goes on where it stopped. What is finished is not done
    again. Under torchrun, its processes share the batches.
    """
    with readable_errors(debug):
        from tutvae.experiments import load_experiment, run_experiment
        from tutvae.experiments.records import summary_table
        from tutvae.training.engine import rank_and_world_size
        from tutvae.training.run_folder import RunFolder

        described = load_experiment(experiment, settings or [])
        command = shlex.join(["tutvae", *sys.argv[1:]])
        kept = RunFolder(runs / described.name)
        was_finished, was_begun = kept.record.exists(), kept.last.exists()
        # Before hours of training, not after.
        for needed in (kept.path, results):
            needed.mkdir(parents=True, exist_ok=True)
        if was_begun and not was_finished and rank_and_world_size()[0] == 0:
            note(f"found an interrupted run in {kept.path}")
        try:
            _, record = run_experiment(
                described, command, folder=kept.path, results=results, jobs=jobs
            )
        except KeyboardInterrupt:
            note("\nstopped: the same command goes on from the last checkpoint")
            raise
        if rank_and_world_size()[0] > 0:  # the first process tells
            return
        if "runs" in record:
            typer.echo(summary_table(record))
        for split, report in record.get("reports", {}).items():
            nll, samples = report["importance_weighted_nll"], report["importance_samples"]
            how = f"{samples} samples" if report["kl_per_dimension"] else "exact"
            typer.echo(f"{split}: bound {report['bound']:.2f}, NLL {nll:.2f} ({how})")
        typer.echo(f"wrote {results / described.name}.json and {kept.path}")
        if was_finished:
            note(
                f"{kept.path} was finished before, so nothing was trained. To train it anew, "
                "remove that folder; to train beside it, give another name: --set name=..."
            )


for command in (
    of_runs.evaluate,
    of_runs.sample,
    of_runs.reconstruct,
    of_runs.interpolate,
    of_runs.export,
):
    app.command()(command)


@app.command()
def results(
    folder: Annotated[Path, typer.Argument(help="The folder of results files.")] = Path("results"),
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Show recorded runs on their test sets, ours beside published ones."""
    with readable_errors(debug):
        from tutvae.experiments.published import compare, recorded_rows
        from tutvae.experiments.records import read_results

        records = read_results(folder)
        content = {
            "recorded": [row.to_dict() for x in records for row in recorded_rows(x)],
            "comparisons": [comparison.to_dict() for comparison in compare(records)],
        }
        show(_tables(records), content, as_json)


def _tables(records: list[dict[str, Any]]) -> str:
    """A table for each corpus, then one for each record of classifiers."""
    from tutvae.experiments.published import published_corpora, published_rows, recorded_rows, table
    from tutvae.experiments.records import summary_table

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
def info(as_json: AsJson = False) -> None:
    """Show versions, the device, its threads, and which corpora are at hand."""
    import tutvae
    from tutvae.data.corpora import whereabouts
    from tutvae.data.readers.files import DATA_VARIABLE
    from tutvae.experiments.records import hardware
    from tutvae.training.loop import pick_device

    places = whereabouts()
    facts: dict[str, Any] = {
        "tutvae": tutvae.__version__,
        "python": platform.python_version(),
        **{name: version(name) for name in SHOWN_VERSIONS},
        "device": str(pick_device()),
        **hardware(),
        DATA_VARIABLE: os.environ.get(DATA_VARIABLE),
    }
    width = max(map(len, [*facts, *places]))
    told = facts | {DATA_VARIABLE: facts[DATA_VARIABLE] or "not set"}
    lines = [f"{name:<{width}}  {value}" for name, value in told.items() if value is not None]
    for name, (folder, found) in places.items():
        where = f", set {DATA_VARIABLE}" if folder is None else f" in {folder}"
        lines.append(f"{name:<{width}}  {'found' if found else 'not found'}{where}")
    data = {
        name: {"found": place.found, "folder": place.folder and str(place.folder)}
        for name, place in places.items()
    }
    show(lines, facts | {"data": data}, as_json)
