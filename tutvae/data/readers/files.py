"""Finding, opening and checking the files of a corpus."""

import errno
import gzip
import hashlib
import http.client
import os
import secrets
import stat
import sys
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DATA_VARIABLE = "TUTVAE_DATA"


def read_toml(path: Path) -> dict[str, Any]:
    """Read a table that comes with the package."""
    return tomllib.loads(path.read_text(encoding="utf-8"))


SHA256 = read_toml(Path(__file__).with_name("sha256.toml"))


def local_folder(name: str, folder: str | Path | None = None) -> Path | None:
    """Find a corpus: in `folder`, which must exist; else in `$TUTVAE_DATA/name` if that exists."""
    if folder is not None:
        path = Path(folder)
        if not path.is_dir():
            raise FileNotFoundError(
                f"no folder {path}: give the folder that holds {name}'s files, or none and set "
                f"{DATA_VARIABLE} to the folder that holds {name}/; with neither, they are fetched"
            )
        return path
    path = cache_folder(name)
    return path if os.environ.get(DATA_VARIABLE) and path.is_dir() else None


def cache_folder(name: str) -> Path:
    """Say where to keep downloads: `$TUTVAE_DATA/name`, or `~/.cache/tutvae/name`."""
    root = os.environ.get(DATA_VARIABLE)
    return (Path(root) if root else Path.home() / ".cache" / "tutvae") / name


def has_file(folder: Path, name: str) -> bool:
    """Whether `find_file` would find it."""
    return any((folder / file).is_file() for file in (name, f"{name}.gz"))


def find_file(folder: Path, name: str) -> Path:
    """Return `folder/name`, or `folder/name.gz`; FileNotFoundError if neither exists."""
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise FileNotFoundError(f"{folder} holds neither {name} nor {name}.gz")


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Open a file to read bytes from, unpacked if its name ends in `.gz`; ValueError if broken."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            yield file
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path} is not a whole gzip file ({error}): fetch it again") from error


def read_bytes(path: Path) -> bytes:
    """Read a whole file; see `opened`."""
    with opened(path) as file:
        return file.read()


def check_sha256(content: bytes, expected: str, what: str) -> None:
    """Raise ValueError if the SHA-256 of `content`, of `what`, is not the published one."""
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        raise ValueError(
            f"{what} is not the published file: its SHA-256 is {found}, expected {expected}. "
            "Fetch it again, or load your own data by another function."
        )


def write_beside(path: str | Path, content: bytes) -> None:
    """Write a whole file, or leave the one that is there: beside it first, then renamed over it.

    A file that is there keeps its permissions. What a symbolic link points to is written. A folder
    that does not exist is a FileNotFoundError.
    """
    path = Path(os.path.realpath(path))
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {path.parent}: make it first")
    kept = stat.S_IMODE(path.stat().st_mode) if path.exists() else None
    mode = 0o666 if kept is None else kept  # less the umask
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with open(partial, "xb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
            file.write(content)
            file.flush()
            _synchronise(file.fileno())
        if kept is not None:
            with suppress(PermissionError):  # some file systems have no permissions to set
                os.chmod(partial, kept)
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _synchronise(descriptor: int) -> None:
    """Have the bytes on the disk, where the file system can."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise


def missing(name: str, folder: str, reason: str) -> FileNotFoundError:
    """The error for a corpus that is nowhere."""
    return FileNotFoundError(
        f"the files of {name} are not here: give their folder (folder=...), or set "
        f"{DATA_VARIABLE} to the folder that holds {folder}/; {reason}"
    )


def fetch_once(url: str, folder: Path, name: str, sha256: str | None = None) -> None:
    """Download a file of the corpus `name` into a folder, unless it is there; see `download`."""
    path = folder / Path(url).name
    if has_file(folder, path.name):
        return
    try:
        download(url, path, sha256)
    except OSError as error:
        reason = f"{path.name} could not be fetched into {folder}: {error}"
        raise missing(name, name, reason) from error


def download(url: str, path: Path, sha256: str | None = None) -> None:
    """Fetch `url` into `path`: OSError if that fails, ValueError if it has another SHA-256."""
    try:
        with urllib.request.urlopen(url, timeout=60) as response:
            content = response.read()
    except urllib.error.HTTPError as error:
        error.close()
        raise OSError(f"{url}: {error}") from error
    except http.client.HTTPException as error:
        raise OSError(f"{url} broke off: {error!r}") from error
    if sha256 is not None:
        check_sha256(content, sha256, url)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_beside(path, content)
