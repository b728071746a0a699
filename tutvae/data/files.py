"""Finding, opening and checking the files of a corpus."""

from __future__ import annotations

import gzip
import hashlib
import os
import zlib
from pathlib import Path

DATA_VARIABLE = "TUTVAE_DATA"


def local_folder(name: str, folder: str | Path | None = None) -> Path | None:
    """Find the folder that holds the corpus `name`.

    Args:
        name: the corpus's folder name, such as "ptb".
        folder: the folder itself, where the caller knows it.

    Returns:
        `folder` if given; else `$TUTVAE_DATA/name` if that exists; else None.

    Raises:
        FileNotFoundError: `folder` was given and is not a folder.
    """
    if folder is not None:
        path = Path(folder)
        if not path.is_dir():
            raise FileNotFoundError(f"no folder {path}: give the folder that holds {name}'s files")
        return path
    root = os.environ.get(DATA_VARIABLE)
    candidate = Path(root) / name if root else None
    return candidate if candidate is not None and candidate.is_dir() else None


def find_file(folder: Path, name: str) -> Path:
    """Return `folder/name`, or `folder/name.gz` where only that exists.

    Raises:
        FileNotFoundError: neither exists.
    """
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise FileNotFoundError(f"{folder} holds neither {name} nor {name}.gz")


def read_bytes(path: Path) -> bytes:
    """Read a whole file, unpacked if its name ends in `.gz`.

    Raises:
        ValueError: the gzip file is truncated or corrupt.
    """
    if path.suffix != ".gz":
        return path.read_bytes()
    try:
        return gzip.decompress(path.read_bytes())
    except (EOFError, OSError, zlib.error) as error:
        raise ValueError(f"{path} is not a whole gzip file ({error}): fetch it again") from error


def check_sha256(content: bytes, expected: str, what: str) -> None:
    """Compare the SHA-256 of `content` with the published one.

    Raises:
        ValueError: they differ; the message names `what` and both sums.
    """
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        raise ValueError(
            f"{what} is not the published file: its SHA-256 is {found}, expected {expected}. "
            "Fetch it again, or load your own data by another function."
        )
