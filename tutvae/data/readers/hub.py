"""Corpora from the Hugging Face Hub."""

from collections.abc import Sequence
from typing import Any

from tutvae.data.readers.files import missing


def fetch(hub_name: str, name: str, folder: str, advice: str = "", **options: Any) -> Any:
    """Load a dataset by `datasets.load_dataset`; FileNotFoundError if that fails."""
    try:
        from datasets import load_dataset

        return load_dataset(hub_name, **options)
    except Exception as error:  # each version of the library raises its own when offline
        reason = f"{hub_name} could not be fetched from the Hugging Face Hub ({error})"
        if isinstance(error, ImportError):
            reason = f"install tutvae[data] to fetch {hub_name} from the Hugging Face Hub"
        raise missing(name, folder, reason + advice) from error


def join_columns(dataset: Any, columns: Sequence[str], label: str) -> Any:
    """Join some columns of a dataset to "text", and call another "label"."""
    joined = dataset.map(lambda row: {"text": " ".join(filter(None, map(row.get, columns)))})
    return joined.rename_column(label, "label").select_columns(["text", "label"])
