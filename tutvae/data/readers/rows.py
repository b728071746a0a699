"""Texts and labels as they stand in files and data sets, row by row."""

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tutvae.data.readers.files import read_bytes
from tutvae.data.readers.utf8 import decode, split_lines

DELIMITERS = {".csv": ",", ".tsv": "\t"}
JSON_SUFFIXES = (".jsonl", ".ndjson", ".json")

Row = tuple[Any, Any]  # a text and a label


def file_rows(path: Path, text: str, label: str | None) -> Iterator[Row]:
    """Yield a file's texts and labels as they stand there, None for a blank line's.

    Bytes that are not UTF-8 are read as lone surrogates.
    """
    if path.is_dir():
        raise ValueError(f"{path} is a folder: name one of its files")
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    suffix = (path.with_suffix("") if path.suffix == ".gz" else path).suffix.lower()
    if suffix in DELIMITERS:
        return table_rows(path, DELIMITERS[suffix], text, label)
    if suffix in JSON_SUFFIXES:
        return _json_rows(path, text, label)
    if suffix != ".txt":
        raise ValueError(
            f"{path} is in no known format: the suffixes are .txt, "
            f"{', '.join((*DELIMITERS, *JSON_SUFFIXES))}, and each of them with .gz"
        )
    if label is not None:
        raise ValueError(f"{path} has no columns, so no label {label!r}: use CSV or JSON lines")
    return ((line, None) for line in split_lines(_decoded(path)))


def dataset_rows(
    dataset: Any, text: str, label: str | None, names: Sequence[str] | None
) -> Iterator[Row]:
    """Yield the rows of a Hugging Face dataset, class numbers as names."""
    if not (hasattr(dataset, "select_columns") and hasattr(dataset, "__len__")):
        kind = type(dataset).__name__
        raise TypeError(f"cannot read a {kind}: give a path or a Hugging Face Dataset")
    _check_columns("the dataset", dataset.column_names, text, label)
    wanted = [text] if label is None else [text, label]
    columns = dataset.select_columns(wanted).with_format(None)[:]
    for position, document in enumerate(columns[text]):
        category = columns[label][position] if label else None
        if names is not None and category is not None:
            category = names[category] if category >= 0 else None
        yield document, category


def _decoded(path: Path) -> str:
    """A file's text; bytes that are not UTF-8 as surrogates."""
    return decode(read_bytes(path), str(path), errors="surrogateescape")


def table_rows(
    path: Path, delimiter: str, text: str, label: str | None, columns: Sequence[str] | None = None
) -> Iterator[Row]:
    """Yield the rows of a CSV or TSV file; without `columns`, its first line names them."""
    lines = (f"{line}\n" for line in split_lines(_decoded(path)))
    # The module's limit of 131,072 characters a field is below some documents.
    limit = csv.field_size_limit(2**31 - 1)
    try:
        table = csv.DictReader(lines, columns, delimiter=delimiter, strict=True)
        _check_columns(path, table.fieldnames or [], text, label)
        for row in table:
            _check_row(f"{path}, line {table.line_num}", row, delimiter)
            yield row[text], row[label] if label else None
    except csv.Error as error:
        start = table.line_num + 1
        raise ValueError(f"{path}, in the row that starts on line {start}: {error}") from error
    finally:
        csv.field_size_limit(limit)


def _check_row(where: str, row: dict[Any, Any], delimiter: str) -> None:
    """Raise ValueError for a row with too many fields, or of several rows joined by quotes."""
    if None in row:
        raise ValueError(
            f"{where} has more fields than the header: "
            "put quotes around a text that holds the delimiter"
        )
    # Few write both into one text; a quotation mark that is not closed joins rows with both.
    if delimiter == "\t" and any({"\t", "\n"} <= set(value or "") for value in row.values()):
        raise ValueError(
            f"{where} ends a quoted text that holds tabs and line ends: if it is several rows, "
            'double the quotation marks within a text and put others around it ("""So,"" he said")'
        )


def _json_rows(path: Path, text: str, label: str | None) -> Iterator[Row]:
    for number, line in enumerate(split_lines(_decoded(path)), 1):
        if not line.strip():
            yield None, None
            continue
        where = f"{path}, line {number}"
        hint = "; of a JSON array, write each object on a line" if line.lstrip()[0] == "[" else ""
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{where} is not JSON: {error}{hint}") from error
        if not isinstance(row, dict):
            raise ValueError(f"{where} is not a JSON object{hint}")
        _check_columns(where, list(row), text, label)
        yield row[text], row[label] if label else None


def _check_columns(where: Path | str, columns: Sequence[str], text: str, label: str | None) -> None:
    """Raise ValueError where a wanted column is missing or not the only one of its name."""
    if len(columns) == 1 and ";" in columns[0]:
        raise ValueError(f"{where} has semicolons between its columns: save it with commas")
    found = f", only {', '.join(map(repr, columns))}" if columns else " nor any other"
    for role, column in (("text", text), ("label", label)):
        if column is not None and column not in columns:
            raise ValueError(
                f"{where} has no column {column!r}{found}: name the right one with {role}=..., "
                f"or in a shell with --{role}-column"
            )
        if columns.count(column) > 1:
            raise ValueError(f"{where} has several columns {column!r}: rename all but one")
