"""Folders with a trained model: all that it takes to use it, written and read."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tutvae.data.corpora import CORPORA
from tutvae.data.tokenization import Tokenizer
from tutvae.evaluation.report import Report
from tutvae.generation.text_model import TextModel
from tutvae.models.description import build, describe
from tutvae.models.text_vae import check_tokenizer
from tutvae.training import checkpoints
from tutvae.training.checkpoints import said_of, write_or_explain
from tutvae.training.run_folder import RunFolder

A_MODEL = (
    "a trained model is in a folder that tutvae.save, fit(run_folder=...) or `tutvae train` "
    "wrote: runs/NAME, or runs/NAME/VARIANT-SEED"
)
CARD = Path(__file__).with_name("model_card.md")


@dataclass(eq=False)
class TrainedModel(TextModel):
    """A trained model and what belongs to it; one of texts is asked with texts. Chapter 10.

    Attributes:
        folder: where it was read.
        model_: on the CPU, in eval mode. (A name with an underscore behind it was learnt.)
        tokenizer_: the one that a model of texts was trained with, where the folder has one.
        configuration: of a run of `tutvae train`, every setting, and the hash of its data.
        label_names: of the classes, in their order, where they were given.
        report: what the model achieved on its test set, where that was measured.
        max_length: longer documents are cut to so many tokens, as in training; None cuts none.

    >>> trained = tutvae.load("sentences-24")
    >>> trained.reconstruct(["I can't swim."])
    ["i can't swim."]
    """

    folder: Path
    model_: Any
    tokenizer_: Tokenizer | None
    configuration: dict[str, Any]
    label_names: list[str] | None
    report: Report | None
    max_length: int | None = None

    def _model(self) -> Any:
        if self.tokenizer_ is None:
            raise ValueError(f"{self.folder} has no tokenizer, so its model reads no texts")
        return self.model_


def save(
    model: nn.Module,
    folder: str | Path,
    *,
    tokenizer: Tokenizer | None = None,
    configuration: Mapping[str, Any] | None = None,
    label_names: Sequence[str] | None = None,
    report: Report | None = None,
    bits: checkpoints.Bits = 32,
) -> Path:
    """Write a model and all that `tutvae.load` needs into a new folder; return that. Chapter 10.

    Beside `weights.safetensors` that is `configuration.json`, `tokenizer.json` where there is a
    tokenizer, and `README.md`, a model card with the sizes, the measurements and how to load it.

    Args:
        model: one of `tutvae.models`, on any device; see `describe` for decoders of your own.
        folder: is made; it may exist if there is nothing in it.
        tokenizer: the one that a model of texts was trained with.
        configuration: what the run was, ready for JSON.
        label_names: of the classes, in their order.
        report: what the model achieved.
        bits: of a weight in the file, 8, 16 or 32; they are read as 32.

    Raises:
        FileExistsError: there is something in the folder.
        OSError: the folder cannot be written to, or the disk is full.
        TypeError: the configuration cannot be put into JSON, or it is no model but what has one.
        ValueError: the model cannot be described, or tokenizer or names are of another one.

    >>> from tempfile import mkdtemp
    >>> folder = tutvae.save(tutvae.VAE(data_size=64, latent_size=2), mkdtemp())
    >>> tutvae.load(folder).model_.latent_size
    2
    """
    if isinstance(model, TextModel):
        raise TypeError("an estimator is saved by its own save(folder), and else its model_ is")
    target = RunFolder(folder)
    if target.path.exists() and any(target.path.iterdir()):
        raise FileExistsError(f"{target.path} is not empty: choose another folder")
    described_as = describe(model)
    configuration = json.loads(json.dumps(dict(configuration or {})))
    names = None if label_names is None else list(label_names)
    _check_parts(model, tokenizer, names)
    target.path.mkdir(parents=True, exist_ok=True)
    if tokenizer is not None:
        tokenizer.save(target.tokenizer)
    about = {"configuration": configuration, "label_names": names}
    about["report"] = None if report is None else report.to_dict()
    checkpoints.save_weights(model, target.weights, bits=bits, **about)
    card = CARD.read_text("utf-8").format(
        kind=described_as["class"],
        name=target.path.name,
        version=version("tutvae"),
        weights=sum(parameter.numel() for parameter in model.parameters()),
        precision="" if bits == 32 else f" of {bits} bits",
        description=json.dumps(described_as, indent=2),
    )
    if report is not None:
        card += f"\n## Measured\n\n```\n{report}\n```\n"
    corpus = configuration.get("corpus")
    entry = CORPORA.get(str(corpus.get("name"))) if isinstance(corpus, dict) else None
    if entry and entry.credit:
        card += f"\n## Data\n\n{entry.credit}\n"
    if names is not None:
        card += "\n## Labels\n\n" + "".join(f"- {i}: {name}\n" for i, name in enumerate(names))
    write_or_explain(target.path / "README.md", card.encode())
    # Last: without it, there is no model.
    write_or_explain(target.configuration, (json.dumps(configuration, indent=2) + "\n").encode())
    return target.path


def read(folder: str | Path) -> TrainedModel:
    """Read the model in a folder, with the arguments and errors of `tutvae.load`."""
    kept = RunFolder(folder)
    configuration = _configuration(kept)
    weights = _weights(kept, configuration)
    if configuration.get("kind") == "text" and not kept.tokenizer.exists():
        remedy = "without which the model of texts cannot be used: copy it there, too"
        raise FileNotFoundError(f"{kept.path} has no {kept.tokenizer.name}, {remedy}")
    model = _model(weights, configuration)
    tokenizer = Tokenizer.load(kept.tokenizer) if kept.tokenizer.exists() else None
    names = said_of(weights, "label_names")
    _check_parts(model, tokenizer, names)
    achieved = said_of(weights, "report")
    if achieved is None and kept.record.exists():
        achieved = json.loads(kept.record.read_text("utf-8")).get("reports", {}).get("test")
    report = None if achieved is None else report_of(achieved)
    said = configuration.get("parameters" if "estimator" in configuration else "corpus")
    cut = said.get("max_length") if isinstance(said, dict) else None
    return TrainedModel(kept.path, model, tokenizer, configuration, names, report, cut)


def _configuration(kept: RunFolder) -> dict[str, Any]:
    if not kept.path.is_dir():
        raise FileNotFoundError(f"there is no folder {kept.path}: {A_MODEL}")
    if kept.configuration.exists():
        return kept.read_configuration()
    if inner := sorted(path.parent for path in kept.path.glob(f"*/{kept.configuration.name}")):
        some = f"holds {len(inner)} of them: choose one, such as {inner[0]}"
        raise FileNotFoundError(f"{kept.path} is no model, but {some}")
    raise FileNotFoundError(f"{kept.path} holds no model: {A_MODEL}")


def _weights(kept: RunFolder, configuration: dict[str, Any]) -> Path:
    """The file of a folder's weights; those of `tutvae train` must be finished."""
    weights = checkpoints.best_weights(kept.path)
    if kept.weights.exists() or ("kind" not in configuration and weights.exists()):
        return weights
    if kept.record.exists():
        gone = f"the run in {kept.path} is finished, but its {kept.weights.name} is gone"
        remedy = "copy it there, or remove the folder and train anew. (Classifiers keep none.)"
        raise FileNotFoundError(f"{gone}: {remedy}")
    if "kind" not in configuration:
        raise FileNotFoundError(f"{kept.path} holds no weights yet: call the same `fit` again")
    done = len(kept.metrics.read_text("utf-8").splitlines()) if kept.metrics.exists() else 0
    epochs = configuration["training"]["epochs"]
    raise FileNotFoundError(
        f"the run in {kept.path} is not finished, {done} of {epochs} epochs are done and there is "
        f"no {kept.weights.name} yet: start the same `tutvae train` again, and it goes on"
    )


def _model(weights: Path, configuration: dict[str, Any]) -> Any:
    """Build the model that a file of weights describes, on the CPU, in eval mode."""
    description = said_of(weights, "model")
    if description is None:
        checkpoints.load_tensors(weights)  # which says what is wrong with a damaged file
        remedy = "build it and give them to it by tutvae.training.checkpoints.load_weights"
        raise ValueError(f"{weights} does not say which model its weights are of: {remedy}")
    owner = said_of(weights, "configuration")
    if owner is not None and (different := checkpoints.difference(owner, configuration)):
        what = "the weights of another run than"
        raise ValueError(f"{weights} holds {what} {weights.parent} says: {different}")
    with torch.random.fork_rng(devices=()):  # what it draws is overwritten
        model = build(description)
    checkpoints.load_weights(model, weights)
    for name, values in model.state_dict().items():
        if not torch.isfinite(values).all():
            fault = f"{weights} holds numbers that are not finite, in {name!r}: it is damaged"
            remedy = "Train anew, with a smaller learning rate"
            raise ValueError(f"{fault}, or of a training that diverged. {remedy}")
    return model.eval()


def _check_parts(model: Any, tokenizer: Tokenizer | None, names: list[str] | None) -> None:
    """Raise ValueError for the tokenizer, or the names of classes, of another model."""
    if tokenizer is not None:
        part = model.decoder if hasattr(model, "decoder") else model.encoder
        check_tokenizer(tokenizer, getattr(part, "vocabulary_size", 0))
    if names is not None and len(names) != getattr(model, "classes", len(names)):
        raise ValueError(f"{len(names)} label names do not go with {model.classes} classes")


def report_of(table: dict[str, Any]) -> Report:
    """Make a report of what a record, or a file of weights, tells of it."""
    values = {field.name: table[field.name] for field in fields(Report) if field.name in table}
    return Report(**values | {"kl_per_dimension": tuple(table["kl_per_dimension"])})
