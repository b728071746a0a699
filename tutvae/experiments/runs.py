"""Trained models, with what belongs to them, from the folders of their runs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from tutvae.data.tokenization import Tokenizer
from tutvae.evaluation.report import Report
from tutvae.experiments.images import ImageExperiment
from tutvae.experiments.records import data_sha256
from tutvae.experiments.sweeps import validate_experiment
from tutvae.experiments.text import TextExperiment
from tutvae.models.text_vae import LanguageModel, TextVAE
from tutvae.models.vae import VAE
from tutvae.training.checkpoints import save_weights, write_or_explain
from tutvae.training.run_folder import RunFolder

# Trained models that come with the package, each as `export_run` wrote it.
PRETRAINED = Path(__file__).parents[1] / "pretrained"
A_RUN = "a run is a folder that `tutvae train` wrote: runs/NAME, or runs/NAME/VARIANT-SEED"


@dataclass(frozen=True, eq=False)
class TrainedRun:
    """A trained model and what belongs to it. Chapter 10.

    Attributes:
        folder: where the run was kept.
        experiment: what it was: corpus, sizes, training, evaluation.
        model: a `TextVAE` or `LanguageModel`, or a `VAE` of images; on the CPU, in eval mode.
        tokenizer: the one that a model of texts was trained with; None for images.
        data_sha256: of the data it was trained and measured on; None where that is not known.

    >>> run = tutvae.load_run("ptb")
    >>> run.experiment.corpus.name, run.model.latent_size
    ('ptb', 32)
    """

    folder: Path
    experiment: TextExperiment | ImageExperiment
    model: VAE | TextVAE | LanguageModel
    tokenizer: Tokenizer | None
    data_sha256: str | None


def load_run(folder: str | Path) -> TrainedRun:
    """Load the trained model of a run.

    Args:
        folder: what `tutvae train` or `export_run` wrote: `runs/NAME`, or
            `runs/NAME/VARIANT-SEED` of a sweep, with `configuration.json`, `weights.safetensors`
            (loaded in 32 bits) and, for texts, `tokenizer.json`. Or "ptb", a small VAE of the
            Penn Treebank's sentences, which comes with the package.

    Raises:
        FileNotFoundError: there is no such folder, no run in it, or the run is not finished.
        ValueError: a file is damaged, or the weights are those of another model.

    >>> tutvae.load_run("ptb").tokenizer
    Tokenizer(V=10002)

    Source: chapter 10.
    """
    shipped = RunFolder(PRETRAINED / folder)
    is_shipped = not Path(folder).exists() and shipped.configuration.exists()
    kept = shipped if is_shipped else RunFolder(folder)
    experiment, data_sha256 = _described(kept)
    if not kept.weights.exists():
        if kept.record.exists():
            raise FileNotFoundError(
                f"the run in {folder} is finished, but its {kept.weights.name} is gone: copy it "
                "there, or remove the folder and train anew"
            )
        epochs = len(kept.metrics.read_text("utf-8").splitlines()) if kept.metrics.exists() else 0
        raise FileNotFoundError(
            f"the run in {folder} is not finished, {epochs} of {experiment.training.epochs} epochs "
            f"are done and there is no {kept.weights.name} yet: start the same `tutvae train` "
            "again, and it goes on where it stopped"
        )
    if experiment.kind == "text" and not kept.tokenizer.exists():
        raise FileNotFoundError(
            f"{folder} has no {kept.tokenizer.name}, without which the model of texts cannot be "
            "used: copy it there, too"
        )
    model, tokenizer = experiment.load_trained(kept)
    for name, values in model.state_dict().items():
        if not torch.isfinite(values).all():
            raise ValueError(
                f"{kept.weights} holds numbers that are not finite, in {name!r}: it is damaged, or "
                "of a training that diverged. Train anew, with a smaller learning rate"
            )
    return TrainedRun(kept.path, experiment, model.eval(), tokenizer, data_sha256)


def export_run(run: TrainedRun, folder: str | Path) -> Path:
    """Write what `load_run` needs of a run into a new folder, the weights in 16 bits; return it.

    Raises:
        FileExistsError: there is something in the folder.
        OSError: the folder cannot be written to, or the disk is full.

    Source: chapter 10.
    """
    source, target = RunFolder(run.folder), RunFolder(folder)
    if target.path.exists() and any(target.path.iterdir()):
        raise FileExistsError(f"{target.path} is not empty: choose another folder")
    target.path.mkdir(parents=True, exist_ok=True)
    if run.tokenizer is not None:
        run.tokenizer.save(target.tokenizer)
    save_weights(run.model, target.weights, half=True)
    # Last: without it, there is no run.
    write_or_explain(target.configuration, source.configuration.read_bytes())
    return target.path


def evaluate_run(
    run: TrainedRun,
    split: Literal["valid", "test"] = "test",
    *,
    importance_samples: int | None = None,
    progress: bool | None = None,
) -> Report:
    """Measure a run's model as the run itself did: on its corpus, on the same documents.

    Args:
        run: what `load_run` gave; its model may be on any device.
        split: the part of the corpus.
        importance_samples: S, where they are not the run's own on that split.
        progress: show a bar; by default only where somebody watches.

    Raises:
        FileNotFoundError: the corpus is not at hand.
        ValueError: the data at hand are not those of the run, or there is no such split.

    Source: Burda et al. (2016), section 5. Chapter 10.
    """
    experiment: Any = run.experiment
    data = experiment.load() if run.tokenizer is None else experiment.load(run.tokenizer)
    if run.data_sha256 not in (None, data_sha256(getattr(data, "texts", data))):
        raise ValueError(
            f"the data at hand are not those of {run.folder}, by their SHA-256: figures on them "
            "would not compare. To measure the model on texts of your own, use tutvae.evaluate"
        )
    if split not in ("valid", "test") or len(getattr(data, split)) == 0:
        raise ValueError(f"the run's corpus has no split {split!r} to measure on")
    return experiment.measure(
        run.model, data, split, importance_samples=importance_samples, progress=progress
    )


def _described(kept: RunFolder) -> tuple[TextExperiment | ImageExperiment, str | None]:
    """What the run in a folder was, and the hash of its data."""
    if not kept.path.is_dir():
        raise FileNotFoundError(f"there is no folder {kept.path}: {A_RUN}")
    if not kept.configuration.exists():
        inner = sorted(path.parent for path in kept.path.glob(f"*/{kept.configuration.name}"))
        if inner:
            some = f"holds {len(inner)} of them: choose one, such as {inner[0]}"
            raise FileNotFoundError(f"{kept.path} is no run, but {some}")
        raise FileNotFoundError(f"{kept.path} holds no run: {A_RUN}")
    try:
        table = json.loads(kept.configuration.read_text(encoding="utf-8"))
        sha = table.pop("data_sha256", None)
        experiment = validate_experiment(table)
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        fault = str(error).splitlines()[0]
        raise ValueError(
            f"{kept.configuration} describes no run of an experiment file ({fault}). The weights "
            "of a run of your own are read by tutvae.training.checkpoints.load_weights"
        ) from error
    if experiment.is_sweep or not isinstance(experiment, ImageExperiment | TextExperiment):
        raise ValueError(f"{kept.configuration} describes many models, not one")
    return experiment, sha
