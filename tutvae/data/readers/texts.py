"""The user's own documents: text, CSV, TSV and JSON-lines files, and Hugging Face datasets."""

import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tutvae.data.corpus import Corpus, Texts
from tutvae.data.readers.rows import Row, dataset_rows, file_rows

SPLITS = ("train", "valid", "test")
# What others call the validation split.
VALID_NAMES = ("valid", "validation", "val", "dev")
# What a byte that is not UTF-8 is read as, and what half an emoji escaped in JSON gives.
SURROGATES = re.compile("[\ud800-\udfff]")


class Documents(NamedTuple):
    """A split before its labels are numbers."""

    texts: list[str]
    labels: list[str] | None
    label_names: Sequence[str] | None = None


def from_files(
    train: Any,
    valid: Any = None,
    test: Any = None,
    *,
    text: str = "text",
    label: str | None = None,
    label_names: Sequence[str] | None = None,
    missing_labels: bool = False,
    name: str | None = None,
    held_out: float = 0.1,
    seed: int = 0,
) -> Corpus[Texts]:
    r"""Load your own documents.

    A file is read by its suffix, with or without `.gz` after it: `.txt` holds a document a
    line; `.csv` and `.tsv` have a header line; `.jsonl`, `.ndjson` and `.json` hold an object
    a line. Files are UTF-8, with or without a byte-order mark, with any line ends.

    White space around a document is dropped and blank documents are skipped. Bytes that are
    not UTF-8 become the replacement character �. A warning says how many of either there were.

    Args:
        train: path of a file, or a Hugging Face `Dataset`, or a `DatasetDict` of all splits.
        valid: the validation split, likewise, or else held out of `train`.
        test: the test split, likewise, or else held out of `train`.
        text: the column of the documents; of no account for a text file.
        label: the column of the classes, if wanted.
        label_names: the classes in the order of their numbers, 0 ... K - 1; by default a
            dataset's own order, else sorted, by value where all are numbers.
        missing_labels: whether a document may have no class; its label is then -1.
        name: what to call the corpus; by default after the training file.
        held_out: the fraction of `train` that becomes each missing split, at least a document.
        seed: of that draw.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a file has no known format, no UTF-8 text, no documents or no such column.

    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp(), "mine.csv")
    >>> size = path.write_text("text,stars\n" + "so good,5\nso bad,1\n" * 50)
    >>> tutvae.from_files(path, label="stars").train
    Texts(N=80, with labels of 2 classes)

    Chapter 3.
    """
    sources = _sources(train, valid, test)
    documents = {split: _read(x, text, label, missing_labels) for split, x in sources.items()}
    splits = hold_out(to_texts(documents, label_names), held_out, seed)
    default = Path(train).name.split(".")[0] if isinstance(train, (str, Path)) else "dataset"
    return Corpus(name or default, **splits)


def clean_rows(
    rows: Iterable[Row], what: str, label: str | None, missing_labels: bool = False
) -> Documents:
    """Collect the documents of `what`, cleaned as `from_files` says, and their labels if any."""
    texts: list[str] = []
    labels: list[str] = []
    blank = replaced = 0
    for number, (document, category) in enumerate(rows, 1):
        if document is not None and not isinstance(document, str):
            kind = type(document).__name__
            raise ValueError(f"{what}: the text of document {number} is a {kind}")
        clean, surrogates = SURROGATES.subn("�", (document or "").strip())
        if not clean:
            blank += 1
            continue
        texts.append(clean)
        replaced += surrogates > 0
        if label is not None:
            labels.append(_label(category, label, what, number, missing_labels))
    if not texts:
        raise ValueError(f"{what} holds no documents")
    said = [f"blank documents skipped: {blank}"] if blank else []
    said += [f"documents with bytes that are not UTF-8, now �: {replaced}"] if replaced else []
    if said:
        warnings.warn(f"{what}: {'; '.join(said)}", stacklevel=4)
    return Documents(texts, labels if label is not None else None)


def to_texts(
    splits: Mapping[str, Documents], label_names: Sequence[str] | None = None
) -> dict[str, Texts]:
    """Finish splits: their labels are numbered by `label_names`, or in sorted order."""
    names = _label_names(list(splits.values()), label_names)
    return {split: _texts(documents, names) for split, documents in splits.items()}


def _sources(train: Any, valid: Any, test: Any) -> dict[str, Any]:
    """The given splits by name, a DatasetDict taken apart."""
    if isinstance(train, Mapping):
        if valid is not None or test is not None:
            raise ValueError("give a DatasetDict alone: it holds all the splits")
        if "train" not in train:
            raise ValueError(f"the DatasetDict has no train split, only {', '.join(train)}")
        valid = next((train[name] for name in VALID_NAMES if name in train), None)
        train, test = train["train"], train.get("test")
    given = zip(SPLITS, (train, valid, test), strict=True)
    return {split: source for split, source in given if source is not None}


def _read(source: Any, text: str, label: str | None, missing_labels: bool) -> Documents:
    if isinstance(source, (str, Path)):
        rows = file_rows(Path(source), text, label)
        return clean_rows(rows, str(source), label, missing_labels)
    features = getattr(source, "features", None) or {}
    names = getattr(features.get(label), "names", None)
    rows = dataset_rows(source, text, label, names)
    documents = clean_rows(rows, "the dataset", label, missing_labels)
    return documents._replace(label_names=names)


def _label(category: Any, label: str, what: str, number: int, may_miss: bool) -> str:
    """A label as a string; none is empty."""
    name = "" if category is None else str(category).strip()
    if not name and not may_miss:
        raise ValueError(f"{what}: document {number} has no {label!r}")
    if SURROGATES.search(name):
        raise ValueError(f"{what}: the {label!r} of document {number} is not UTF-8: {name!a}")
    return name


def hold_out(splits: dict[str, Texts], held_out: float, seed: int) -> dict[str, Texts]:
    """Fill each missing split with documents of the training split, which loses them."""
    if not (missing := [split for split in SPLITS if split not in splits]):
        return splits
    if not 0 < held_out < 1:
        raise ValueError(f"held_out must be between 0 and 1, not {held_out}")
    order = np.random.default_rng(seed).permutation(len(splits["train"]))
    size = max(1, round(held_out * len(order)))
    if size * len(missing) >= len(order):
        raise ValueError(
            f"{len(order)} documents are too few to hold out {size} for each of "
            f"{' and '.join(missing)} and have some left to train on"
        )
    parts = {split: order[i * size : (i + 1) * size] for i, split in enumerate(missing)}
    parts["train"] = np.sort(order[len(missing) * size :])
    return splits | {split: splits["train"].part(positions) for split, positions in parts.items()}


def _label_names(splits: list[Documents], given: Sequence[str] | None) -> Sequence[str]:
    """The classes in order: as given, as the dataset has them, or sorted."""
    if given is None and splits[0].label_names:
        return splits[0].label_names
    if given is None:
        found = sorted({label for split in splits for label in split.labels or () if label})
        with suppress(ValueError):  # by value where all are numbers, else by the alphabet
            return sorted(found, key=float)
        return found
    names = tuple(map(str, given))
    if len(set(names)) < len(names):
        raise ValueError(f"label_names has a class twice: {', '.join(names)}")
    return names


def _texts(split: Documents, names: Sequence[str]) -> Texts:
    if split.labels is None:
        return Texts(split.texts)
    index = {name: i for i, name in enumerate(names)} | {"": -1}
    if unknown := sorted(set(split.labels) - set(index)):
        raise ValueError(f"the label {unknown[0]!r} is not one of {', '.join(names)}")
    return Texts(split.texts, [index[label] for label in split.labels], label_names=names)
