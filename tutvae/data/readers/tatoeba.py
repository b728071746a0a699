"""Everyday sentences from Tatoeba: the files, and which sentence belongs to which split."""

import bz2
import hashlib
from collections.abc import Iterator
from pathlib import Path

from tutvae.data.corpus import Corpus, Texts
from tutvae.data.readers.files import find_file, has_file, read_bytes
from tutvae.data.readers.utf8 import decode

FILES = LINES, EXPORT = "eng.txt", "eng_sentences.tsv.bz2"
EXPORT_URL = f"https://downloads.tatoeba.org/exports/per_language/eng/{EXPORT}"
CREDIT = "Sentences of https://tatoeba.org and https://www.manythings.org/anki, under CC BY 2.0 FR."
# Of a thousand hashes: below the first bound for testing, below the second for validation.
TEST_BELOW, VALID_BELOW = 26, 52


def read(folder: Path) -> Corpus[Texts]:
    """Read the sentences in a folder, each once, and put each into its split."""
    splits: dict[str, list[str]] = {"train": [], "valid": [], "test": []}
    for sentence in dict.fromkeys(_sentences(folder)):
        splits[split_of(sentence)].append(sentence)
    return Corpus("tatoeba", *(Texts(sentences) for sentences in splits.values()))


def split_of(sentence: str) -> str:
    """The split of a sentence: the same in any order, any file and any capitals."""
    digest = hashlib.sha256(sentence.lower().encode()).hexdigest()
    number = int(digest[:8], 16) % 1000
    if number < TEST_BELOW:
        return "test"
    return "valid" if number < VALID_BELOW else "train"


def _sentences(folder: Path) -> Iterator[str]:
    """The sentences of either file; the export has a number and a language before each."""
    if has_file(folder, LINES) or not (folder / EXPORT).is_file():
        path = find_file(folder, LINES)
        text = decode(read_bytes(path), str(path))
        yield from filter(None, map(str.strip, text.splitlines()))
        return
    path = folder / EXPORT
    try:
        text = decode(bz2.decompress(path.read_bytes()), str(path))
    except (OSError, EOFError) as error:
        raise ValueError(f"{path} is not a whole bzip2 file ({error}): fetch it again") from error
    for number, line in enumerate(text.splitlines(), 1):
        columns = line.split("\t")
        if len(columns) != 3:
            raise ValueError(f"{path}, line {number}: 3 columns are expected, not {len(columns)}")
        yield columns[2].strip()
