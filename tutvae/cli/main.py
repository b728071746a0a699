"""The command line: a function a command; those that use a run are in `tutvae.cli.runs`."""

import os
import platform
import shlex
import shutil
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Argument, Option

import tutvae
from tutvae.cli.console import Answer, command, is_terminal, note
from tutvae.cli.own import new, own_experiment
from tutvae.cli.runs import OF_RUNS
from tutvae.data.corpora import whereabouts
from tutvae.data.readers.files import DATA_VARIABLE
from tutvae.evaluation.verdict import empty_code_line
from tutvae.experiments import load_experiment, records, run_experiment
from tutvae.experiments.provenance import hardware
from tutvae.experiments.published import Row, compare, published_rows, recorded_rows, table
from tutvae.experiments.tables import summary_table
from tutvae.model_folder import report_of
from tutvae.training.engine import rank_and_world_size
from tutvae.training.loop import pick_device
from tutvae.training.run_folder import RunFolder

SHOWN_VERSIONS = ("torch", "numpy", "tokenizers")

app = typer.Typer(
    help="Variational autoencoders for text: train recorded experiments and use their models.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"tutvae {tutvae.__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, Option("--version", is_eager=True, callback=_show_version, help="Show the version.")
    ] = False,
) -> None:
    """What stands before the commands."""


def train(
    experiment: Annotated[
        Path, Argument(help="An experiment file, TOML; or documents: .txt, .csv, .tsv, .jsonl.")
    ],
    text_column: Annotated[str, Option(help="The column of your documents.")] = "text",
    label_column: Annotated[
        str | None, Option(help="The column of their classes, which may be blank.")
    ] = None,
    settings: Annotated[
        list[str] | None, Option("--set", help="Change a value: section.key=value.")
    ] = None,
    results: Annotated[Path, Option(help="Where to write NAME.json.")] = Path("results"),
    runs: Annotated[Path, Option(help="Where to keep the run, in NAME/.")] = Path("runs"),
    jobs: Annotated[int, Option(min=1, help="Runs of a sweep at a time, a thread each.")] = 1,
) -> None:
    """Fit and evaluate an experiment; write its results file and its model.

    Of documents of your own, the experiment is what tutvae.SentenceVAE would do or, with classes,
    tutvae.SemiSupervisedClassifier. It is written down beside the run, to be changed and repeated.

    If it is interrupted, the same command goes on where it stopped. What is finished is not done
    again. Under torchrun, its processes share the batches.
    """
    if experiment.suffix == ".toml":
        described = load_experiment(experiment, settings or [])
    else:
        described = own_experiment(experiment, text_column, label_column, settings or [], runs)
    typed = shlex.join(["tutvae", *sys.argv[1:]])
    kept = RunFolder(runs / described.name)
    was_finished, is_first = kept.record.exists(), rank_and_world_size()[0] == 0
    # Before hours of training, not after.
    kept.path.mkdir(parents=True, exist_ok=True)
    records.check_writable({"name": described.name}, results)
    if kept.last.exists() and not was_finished and is_first:
        note(f"found an interrupted run in {kept.path}")
    try:
        _, record = run_experiment(described, typed, folder=kept.path, results=results, jobs=jobs)
    except KeyboardInterrupt:
        note("\nstopped: the same command goes on from the last checkpoint")
        raise
    if is_first:
        _tell_outcome(record, f"wrote {results / described.name}.json and {kept.path}")
        if was_finished:
            note(
                f"{kept.path} was finished before, so nothing was trained. To train it anew, "
                "remove that folder; to train beside it, give another name: --set name=..."
            )


def _tell_outcome(record: dict[str, Any], written: str) -> None:
    if "runs" in record:
        typer.echo(summary_table(record))
    for split, report in record.get("reports", {}).items():
        nll, samples = report["importance_weighted_nll"], report["importance_samples"]
        how = f"{samples} samples" if report["kl_per_dimension"] else "exact"
        accuracy = record.get("accuracy", {}).get(split)
        right = "" if accuracy is None else f", accuracy {accuracy:.3f}"
        typer.echo(f"{split}: bound {report['bound']:.2f}, NLL {nll:.2f} ({how}){right}")
        if split == "test" and (line := empty_code_line(report_of(report))):
            note(line)
    typer.echo(written)


def results(
    folder: Annotated[
        Path | None,
        Argument(help="The folder: results, or without that the records in the package."),
    ] = None,
) -> Answer:
    """Show recorded runs on their test sets, ours beside published ones."""
    if folder is None:
        folder = Path("results")
        if not folder.is_dir():
            folder = records.recorded_folder()
            note(f"no folder results/ here: these records come with the package, in {folder}")
    found = records.read_results(folder)
    rows = [row for record in found for row in recorded_rows(record)]
    content = {"recorded": [row.to_dict() for row in rows]}
    content["comparisons"] = [comparison.to_dict() for comparison in compare(found)]
    return _tables(found, rows), content


def _tables(found: list[dict[str, Any]], rows: list[Row]) -> str:
    """A table for each corpus, then one for each record of classifiers."""
    width = shutil.get_terminal_size().columns if is_terminal(sys.stdout) else None
    parts = []
    for corpus in dict.fromkeys(row.corpus for row in rows):
        ours = [row for row in rows if row.corpus == corpus]
        parts.append(f"{corpus}, test set, nats a document")
        if ours[0].perplexity:
            parts.append("PPL = exp(NLL / L), of the bound without an NLL; L tokens a document")
        parts.append(table([*ours, *published_rows(corpus)], width) + "\n")
    for record in found:
        if not recorded_rows(record):
            heading = f"{record['name']}, accuracy on the test set"
            parts.append(f"{heading}\n{summary_table(record)}\n")
    return "\n".join(parts).rstrip()


def info() -> Answer:
    """Show versions, the device, its threads, and which corpora are at hand."""
    facts: dict[str, Any] = {
        "tutvae": tutvae.__version__,
        "python": platform.python_version(),
        **{name: version(name) for name in SHOWN_VERSIONS},
        "device": str(pick_device()),
        **hardware(),
        DATA_VARIABLE: os.environ.get(DATA_VARIABLE),
    }
    rows, data = facts | {DATA_VARIABLE: facts[DATA_VARIABLE] or "not set"}, {}
    for name, (folder, found) in whereabouts().items():
        data[name] = {"found": found, "folder": folder and str(folder)}
        where = f", set {DATA_VARIABLE}" if folder is None else f" in {folder}"
        rows[name] = f"{'found' if found else 'not found'}{where}"
    width = max(map(len, rows))
    lines = [f"{name:<{width}}  {value}" for name, value in rows.items() if value is not None]
    return lines, facts | {"data": data}


COMMANDS: list[Any] = [train, new, *OF_RUNS, results, info]
for function in COMMANDS:
    app.command()(command(function))


if __name__ == "__main__":
    app(prog_name="tutvae")
