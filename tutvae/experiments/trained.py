"""The trained model of a run folder."""

from __future__ import annotations

from pathlib import Path

from tutvae.data.tokenization import Tokenizer
from tutvae.experiments.images import PIXELS, ImageExperiment
from tutvae.experiments.sections import Experiment
from tutvae.experiments.text_models import build_model
from tutvae.experiments.text_sections import TextExperiment
from tutvae.models.text_vae import LanguageModel, TextVAE
from tutvae.models.vae import VAE
from tutvae.training.checkpoints import load_weights
from tutvae.training.run_folder import RunFolder

Trained = VAE | TextVAE | LanguageModel


def load_trained(experiment: Experiment, folder: Path) -> tuple[Trained, Tokenizer | None]:
    """Build the model of a single run and give it the weights that the run kept.

    Args:
        experiment: what the run was.
        folder: its run folder.

    Returns:
        The model, on the CPU, and the tokenizer if it is of texts.

    Raises:
        FileNotFoundError: weights or tokenizer are not there.
        ValueError: they are damaged, or those of another model.
    """
    kept = RunFolder(folder)
    tokenizer: Tokenizer | None = None
    model: Trained
    if isinstance(experiment, TextExperiment):
        tokenizer = Tokenizer.load(kept.tokenizer)
        model = build_model(experiment, tokenizer)
    elif isinstance(experiment, ImageExperiment):
        model = VAE(PIXELS[experiment.corpus.name], **experiment.model.model_dump())
    else:
        raise TypeError(f"a {type(experiment).__name__} describes no single run")
    load_weights(model, kept.weights)
    return model, tokenizer
