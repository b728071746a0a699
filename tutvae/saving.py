"""Trained models: saved, loaded and shared, in one line each."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tutvae.model_folder import TrainedModel, read, save

if TYPE_CHECKING:
    from tutvae.estimators import SentenceVAE

__all__ = ["TrainedModel", "load", "push_to_hub", "save"]

# Trained models that come with the package, each as `save` wrote it, and another name for one.
PRETRAINED, ALIASES = Path(__file__).parent / "pretrained", {"sentences": "sentences-8"}
HUB = "hub:"
NEEDED = ["configuration.json", "weights.safetensors", "tokenizer.json", "README.md"]


def load(source: str | Path) -> TrainedModel | SentenceVAE:
    """Load a trained model: a saved estimator, or else a `TrainedModel`. Chapter 10.

    Either has `model_` and `tokenizer_`, and is asked with texts.

    Args:
        source: a folder that `save`, `fit` with a `run_folder` or `tutvae train` wrote (of `fit`,
            with the weights of its best epoch, or else its last checkpoint); "sentences-8", which
            is also "sentences", or "sentences-24", VAEs of everyday sentences that come with the
            package, whose codes hold so many nats; or "hub:OWNER/NAME", on the Hugging Face Hub.

    Raises:
        FileNotFoundError: there is no such folder or no model in it, or a run is not finished.
        ImportError: the Hub is wanted and `huggingface_hub` is not installed.
        ValueError: a file is damaged, or the tokenizer or the weights are those of another model.

    >>> trained = tutvae.load("sentences")
    >>> trained.model_.latent_size, trained.tokenizer_
    (32, Tokenizer(V=6000))
    """
    trained = load_trained(source)
    if "estimator" not in trained.configuration:
        return trained
    # Not imported at the top: scikit-learn comes with them, a second that others do without.
    from tutvae.estimators import SemiSupervisedClassifier, SentenceVAE

    made: tuple[type[SentenceVAE], ...] = (SentenceVAE, SemiSupervisedClassifier)
    by_name = {estimator.__name__: estimator for estimator in made}
    estimator = by_name.get(trained.configuration["estimator"])
    return trained if estimator is None else estimator.from_trained(trained)


def load_trained(source: str | Path) -> TrainedModel:
    """Load a trained model as what its folder says, an estimator's, too; see `load`."""
    name = Path(source).as_posix()
    shipped = PRETRAINED / ALIASES.get(name, name)
    if name.startswith(HUB):
        source = _hub().snapshot_download(name.removeprefix(HUB), allow_patterns=NEEDED)
    elif not Path(source).exists() and (shipped / "configuration.json").exists():
        source = shipped
    return read(source)


def push_to_hub(folder: str | Path, repo_id: str, *, private: bool = True) -> None:
    """Upload a folder of `save` to the Hugging Face Hub, where `load` reads it. Chapter 10.

    Args:
        folder: of the model; nothing but what `load` needs is uploaded, and the model card.
        repo_id: "OWNER/NAME"; the repository is made where it does not exist.
        private: whether a new repository is for its owner alone.

    FileNotFoundError if the folder holds no finished weights; ImportError without
    `huggingface_hub`; ValueError if the model cannot be loaded from the folder.

    >>> tutvae.push_to_hub("my_model", "OWNER/NAME")  # doctest: +SKIP
    >>> trained = tutvae.load("hub:OWNER/NAME")  # doctest: +SKIP
    """
    if not (read(folder).folder / "weights.safetensors").exists():
        raise FileNotFoundError(f"{folder} holds checkpoints only: save the model, and push that")
    api = _hub().HfApi()
    api.create_repo(repo_id, private=private, exist_ok=True)
    api.upload_folder(repo_id=repo_id, folder_path=folder, allow_patterns=NEEDED)


def _hub() -> Any:
    try:
        return import_module("huggingface_hub")
    except ImportError as error:
        remedy = 'pip install "tutvae[hub]"'
        raise ImportError(f"the Hugging Face Hub needs another package: {remedy}") from error
