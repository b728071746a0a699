"""Bytes as UTF-8 text, and its lines: from files, arguments and standard input alike."""

import codecs
import io
from collections.abc import Iterator
from pathlib import Path

from tutvae.data.readers.files import opened


def read_lines(path: Path) -> Iterator[str]:
    """Read a text file of any size line by line; see `decode` and `split_lines`."""
    with opened(path) as file:
        for number, line in enumerate(file, 1):
            yield from split_lines(decode(line, str(path), first_line=number))


def decode(content: bytes, where: str, *, errors: str = "strict", first_line: int = 1) -> str:
    """Decode UTF-8 text, and drop its byte-order mark; ValueError if it is something else.

    The error calls the text `where` and counts its lines from `first_line`.
    """
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in content:
        raise ValueError(f"{where} is not UTF-8 text: save it as such, or add .gz if it is packed")
    try:
        return content.decode("utf-8-sig", errors)
    except UnicodeDecodeError as error:
        before = split_lines(content[: error.start].decode("utf-8") + "|")
        byte = len(before[-1].encode())
        raise ValueError(
            f"{where}, line {first_line + len(before) - 1}, byte {byte} is not UTF-8 "
            f"({content[error.start]:#04x}): save the text as UTF-8"
        ) from error


def split_lines(text: str) -> list[str]:
    r"""Split at \n, \r\n and \r; `str.splitlines` also splits within some documents."""
    return [line.removesuffix("\n") for line in io.StringIO(text, newline=None)]
