"""Layouts in which corpora of texts are published: from a folder to a corpus."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tutvae.data.backends import UNK
from tutvae.data.corpus import Corpus, Texts
from tutvae.data.readers import hub
from tutvae.data.readers.files import check_sha256, find_file, local_folder, read_bytes
from tutvae.data.readers.rows import Row, file_rows, table_rows
from tutvae.data.readers.texts import SPLITS, clean_rows, from_files, hold_out, to_texts


def lines(path: Path, name: str, pattern: str, sha256: Mapping[str, str]) -> Corpus[Texts]:
    """Read a file a split, called by `pattern`, with a document a line and a known `sha256`."""
    files = {split: find_file(path, pattern.format(split=split)) for split in SPLITS}
    for split, file in files.items():
        check_sha256(read_bytes(file), sha256[split], str(file))
    return from_files(*files.values(), name=name)


def json_lines(
    name: str,
    hub_name: str,
    label_names: Sequence[str] | None = None,
    splits: Sequence[str] = SPLITS,
    hub_text: str = "text",
) -> Callable[..., Corpus[Texts]]:
    """Make a loader of `train.jsonl` and so on, objects with the keys "text" and "label".

    They lie in a folder called `name`, and without that come from the Hub by `hub_name`. Classes
    are sorted by default. Splits without a file are held out of the training documents. On the
    Hub the column of the documents is called `hub_text`.
    """

    def load(folder: str | Path | None = None) -> Corpus[Texts]:
        if (path := local_folder(name, folder)) is None:
            dataset = hub.fetch(hub_name, name, name)
            return from_files(dataset, text=hub_text, label="label", name=hub_name.split("/")[1])
        files: dict[str, Any] = {split: find_file(path, f"{split}.jsonl") for split in splits}
        return from_files(**files, label="label", label_names=label_names, name=name)

    return load


def class_title_content(path: Path, name: str, label_names: Sequence[str]) -> Corpus[Texts]:
    """Read train.csv and test.csv of Zhang et al. (2015), which have no header line.

    The class is a number, 1 ... K; the title, which often tells it, is left out.
    """
    columns = ("class", "title", "content")
    documents = {}
    for split in ("train", "test"):
        file = find_file(path, f"{split}.csv")
        rows = table_rows(file, ",", "content", "class", columns)
        documents[split] = clean_rows(rows, str(file), "class")
    splits = to_texts(documents, [str(number + 1) for number in range(len(label_names))])
    named = {split: replace(x, label_names=label_names) for split, x in splits.items()}
    return Corpus(name, **hold_out(named, 0.1, seed=0))


def published(path: Path, name: str) -> Corpus[Texts]:
    """Read NAME.train.txt and so on, the layout of Yang et al. (2017).

    A line is a document, or a class, a tab and a document; the word `_UNK` becomes `<unk>`.
    ValueError where some lines have a tab and others do not.
    """
    files = {split: find_file(path, f"{name}.{split}.txt") for split in SPLITS}
    label = "class" if any("\t" in document for document, _ in _lines_of(files["train"])) else None
    splits = {x: clean_rows(_lines_of(file, label), str(file), label) for x, file in files.items()}
    return Corpus(name, **to_texts(splits))


def published_documents(file: Path) -> list[str]:
    """Read one file of Yang et al. without classes."""
    return clean_rows(_lines_of(file), str(file), None).texts


def _lines_of(file: Path, label: str | None = None) -> Iterator[Row]:
    """Yield the lines, or documents and classes where there is a `label`; documents may be empty.

    None of the words that the corpora really hold contains `_UNK`.
    """
    for number, (line, _) in enumerate(file_rows(file, "text", None), 1):
        category, tab, document = line.partition("\t")
        if label and line.strip() and not tab:
            raise ValueError(
                f"{file}, line {number} has no tab, as other lines do: write a class and a tab "
                "before every document, or before none"
            )
        text = document if label else line
        yield text.replace("_UNK", UNK), category
