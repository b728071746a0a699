"""Finding, opening and checking the files of a corpus."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import os
import tempfile
import urllib.error
import urllib.request
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
            raise FileNotFoundError(
                f"no folder {path}: give the folder that holds {name}'s files, or none and set "
                f"{DATA_VARIABLE} to the folder that holds {name}/; with neither, they are fetched"
            )
        return path
    root = os.environ.get(DATA_VARIABLE)
    candidate = Path(root) / name if root else None
    return candidate if candidate is not None and candidate.is_dir() else None


def cache_folder(name: str) -> Path:
    """Say where to keep downloads: `$TUTVAE_DATA/name`, or `~/.cache/tutvae/name`."""
    root = os.environ.get(DATA_VARIABLE)
    return (Path(root) if root else Path.home() / ".cache" / "tutvae") / name


def has_file(folder: Path, name: str) -> bool:
    """Whether `find_file` would find it."""
    return any((folder / file).is_file() for file in (name, f"{name}.gz"))


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
    packed = path.read_bytes()
    try:
        return gzip.decompress(packed)
    except (EOFError, OSError, zlib.error) as error:
        raise ValueError(f"{path} is not a whole gzip file ({error}): fetch it again") from error


def decode(content: bytes, where: str) -> str:
    """Read UTF-8, without its byte order mark.

    Raises:
        ValueError: it is not UTF-8; the message names `where` it is from, and the position.
    """
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{where} is not UTF-8, at byte {error.start}") from error


def split_lines(text: str) -> list[str]:
    r"""The lines of a text, which end at `\n`, `\r\n` or `\r` and nowhere else."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return lines if lines[-1] else lines[:-1]


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


def write_beside(path: str | Path, content: bytes) -> None:
    """Write a whole file, or leave the one that is there: beside it first, then renamed over it.

    Raises:
        FileNotFoundError: the folder of `path` does not exist.
        OSError: the folder cannot be written to, or the disk is full.
    """
    path = Path(path)
    descriptor, partial = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(partial, 0o644)  # mkstemp's files are their owner's alone
        os.replace(partial, path)
    except BaseException:
        os.unlink(partial)
        raise


def download(url: str, path: Path, sha256: str) -> None:
    """Fetch `url` into `path`, once it is seen to be the published file.

    Raises:
        OSError: the address cannot be reached, or the file not written.
        ValueError: what came has another SHA-256.
    """
    try:
        with urllib.request.urlopen(url, timeout=60) as response:
            content = response.read()
    except urllib.error.HTTPError as error:
        error.close()
        raise OSError(f"{url}: {error}") from error
    except http.client.HTTPException as error:
        raise OSError(f"{url} broke off: {error!r}") from error
    check_sha256(content, sha256, url)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_beside(path, content)
