"""Documents of one's own, from a shell: the experiment file that their training goes by."""

import json
import re
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer

from tutvae.data.readers.files import read_toml, write_beside
from tutvae.data.readers.texts import from_files
from tutvae.experiments.experiment import Experiment
from tutvae.experiments.sweeps import apply_setting, validate_experiment
from tutvae.training.run_folder import RunFolder

COMMENTS = read_toml(Path(__file__).with_suffix(".toml"))


def new(
    file: Annotated[Path, typer.Argument(help="The experiment file to write, such as my.toml.")],
    label_column: Annotated[str | None, typer.Option(help="With classes, of this column.")] = None,
) -> None:
    """Write an experiment file for documents of your own, with comments, to be changed."""
    if file.suffix != ".toml":
        raise ValueError(f"{file} must end in .toml")
    if file.exists():
        raise FileExistsError(f"{file} is there already: choose another name")
    documents = Path(f"{file.stem}.csv")
    write_beside(file, to_toml(_described(documents, "text", label_column)).encode())
    typer.echo(f"wrote {file}: change it, then run tutvae train {file}")


def own_experiment(
    documents: Path, text: str, label: str | None, settings: list[str], runs: Path
) -> Experiment:
    """Describe the training on a file of documents, and write it down beside its run."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # training reads it, too, and tells what is odd
        corpus = from_files(documents, text=text, label=label, missing_labels=label is not None)
    table = _described(documents, text, label, documents=len(corpus.train))
    for setting in settings:
        apply_setting(setting, table)
    experiment = validate_experiment(table)
    kept = RunFolder(runs / experiment.name)
    if not kept.configuration.exists():  # that of a run that has begun stays with it
        kept.path.mkdir(parents=True, exist_ok=True)
        write_beside(kept.path / "experiment.toml", to_toml(table).encode())
    return experiment


def _described(
    file: Path, text: str, label: str | None, documents: int | None = None
) -> dict[str, Any]:
    """What the estimator with its defaults would do with so many documents, many unless said."""
    # Not imported at the top: scikit-learn comes with them, a second that most commands do without.
    from tutvae.estimators import MANY, SemiSupervisedClassifier, SentenceVAE

    corpus: dict[str, Any] = {"name": "files", "train": str(file), "text": text}
    if label is not None:
        corpus |= {"label": label, "missing_labels": True}
    estimator = SentenceVAE() if label is None else SemiSupervisedClassifier()
    table = estimator.description(documents or MANY, **corpus)
    return table | {"name": re.sub(r"[^\w-]+", "-", file.name.split(".")[0]) or "own"}


def to_toml(table: dict[str, Any]) -> str:
    """Write the tables of an experiment as TOML, with a comment where one helps."""
    sections = {key: value for key, value in table.items() if isinstance(value, dict)}
    lines = [_line("", key, value) for key, value in table.items() if key not in sections]
    for name, section in sections.items():
        lines += ["", f"[{name}]", *(_line(f"{name}.", *entry) for entry in section.items())]
    return "\n".join(lines) + "\n"


def _line(section: str, key: str, value: Any) -> str:
    line = f"{key} = {_value(value)}"
    comment = COMMENTS.get(section + key)
    return line if comment is None else f"{line:<28} # {comment}"


def _value(value: Any) -> str:
    """A value, which JSON writes as TOML does unless it is a table."""
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key} = {_value(x)}' for key, x in value.items())}}}"
    return json.dumps(value, ensure_ascii=False)
