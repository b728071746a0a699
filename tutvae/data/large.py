"""Corpora larger than memory: tokenised once into files, or streamed.

Either way a window of documents is in memory at a time, of which `WindowedBatches` makes batches.
"""

import hashlib
import json
import warnings
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from tutvae.data.batches.windows import Window
from tutvae.data.readers.files import write_beside
from tutvae.data.readers.utf8 import read_lines
from tutvae.data.tokenization import Tokenizer, require_documents, require_string

# Documents in memory while they are written.
WRITTEN_AT_ONCE = 5_000
# Documents that stand together in a window whatever the shuffling: one read of the disk.
BLOCK = 500
ANEW = "Delete the folder and tokenise anew."
# How the files hold ids, and where each document ends.
ID, END = np.dtype("<i4"), np.dtype("<i8")


class Lines:
    """Text files with a document a line, read anew at each iteration and never held in memory.

    `files` are UTF-8 text, unpacked on the way if a name ends in `.gz`. One that does not exist is
    a FileNotFoundError; one that is broken is a ValueError while it is read. The page on scaling.
    """

    def __init__(self, files: Sequence[str | Path]) -> None:
        self.files = [Path(file) for file in files]
        for file in self.files:
            if not file.is_file():
                raise FileNotFoundError(f"there is no file {file}")

    def __iter__(self) -> Iterator[str]:
        """Yield the lines without white space around them; blank ones are left out."""
        lines = chain.from_iterable(map(read_lines, self.files))
        return filter(None, map(str.strip, lines))

    @property
    def fingerprint(self) -> list[Any]:
        """What tells these files from others, their names, sizes and times of change."""
        return [[x.name, x.stat().st_size, x.stat().st_mtime_ns] for x in self.files]


class MappedTexts:
    """Documents that were tokenised into files on the disk; see `tokenize_once`.

    Its `folder` holds `about.json`, all ids end to end in `tokens.bin`, and where each document
    ends in `ends.bin`. There are so many `documents`, N, of so many `tokens` with their marks.
    A folder with no such corpus is a FileNotFoundError, one with a broken one a ValueError.
    The page on scaling.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        about = self.folder / "about.json"
        if not about.is_file():
            raise FileNotFoundError(f"{folder} holds no tokenised corpus: make it by tokenize_once")
        try:
            self.about = json.loads(about.read_bytes())
            numbers = [int(self.about[name]) for name in ("documents", "tokens", "pad_id")]
            self.documents, self.tokens, self.pad_id = numbers
            sizes = [(self.folder / name).stat().st_size for name in ("tokens.bin", "ends.bin")]
        except (KeyError, OSError, TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"{about} is not from tokenize_once: {error!r}. {ANEW}") from error
        if sizes != [ID.itemsize * self.tokens, END.itemsize * self.documents]:
            raise ValueError(f"{folder}: its files are not as long as {about} says. {ANEW}")

    def __len__(self) -> int:
        return self.documents

    def windows(self, size: int, skip: int, random: np.random.Generator | None) -> Iterator[Window]:
        """Yield windows of blocks that lie anywhere in the file, or one after the other."""
        block = min(BLOCK, size)
        starts = np.arange(0, self.documents, block)
        if random is not None:
            random.shuffle(starts)
        blocks = size // block
        for first in range(skip * blocks, len(starts), blocks):
            chosen = starts[first : first + blocks].tolist()
            read = [self._read(start, min(start + block, self.documents)) for start in chosen]
            positions, documents = zip(*read, strict=True)
            yield np.concatenate(positions), list(chain(*documents))

    def describe(self) -> dict[str, Any]:
        """The numbers of documents and tokens, and the tokenizer."""
        return {name: self.about[name] for name in ("documents", "tokens", "tokenizer")}

    def _read(self, start: int, stop: int) -> Window:
        # Read and not mapped: pages once read would count as ours for ever.
        bounds = np.zeros(stop - start + 1, dtype=END)
        first = max(start - 1, 0)
        ends = np.fromfile(self.folder / "ends.bin", END, stop - first, offset=END.itemsize * first)
        bounds[-len(ends) :] = ends
        begin, end = int(bounds[0]), int(bounds[-1])
        ids = np.fromfile(self.folder / "tokens.bin", ID, end - begin, offset=ID.itemsize * begin)
        return np.arange(start, stop), np.split(ids, bounds[1:-1] - begin)


class StreamedTexts:
    """Documents that are tokenised as they come, epoch after epoch, and never kept.

    Shuffling reorders them within a window; the windows come in the stream's order. The `texts` are
    strings, from their first on at each iteration: `Lines`, or a column of a streaming dataset,
    `dataset["text"]`. A generator, which can be iterated over only once, or one string is a
    TypeError. Documents are cut to `max_length` tokens. The page on scaling.
    """

    def __init__(
        self, texts: Iterable[str], tokenizer: Tokenizer, *, max_length: int | None = None
    ) -> None:
        if isinstance(require_documents(texts), Iterator):
            raise TypeError(
                "texts can be read only once, and training reads them every epoch: give Lines, "
                "or another iterable that starts anew"
            )
        self.texts = texts
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.pad_id = tokenizer.pad_id

    def windows(self, size: int, skip: int, random: np.random.Generator | None) -> Iterator[Window]:
        """Yield windows in the order of the stream."""
        stream = iter(self.texts)
        start = sum(1 for _ in islice(stream, skip * size))
        while texts := list(islice(stream, size)):
            ids = self.tokenizer.encode(texts)
            documents = [np.array(x[: self.max_length], dtype=np.int32) for x in ids]
            yield np.arange(start, start + len(texts)), documents
            start += len(texts)

    def describe(self) -> dict[str, Any]:
        """The tokenizer and the greatest length."""
        return {"tokenizer": self.tokenizer.fingerprint, "max_length": self.max_length}


def tokenize_once(
    texts: Iterable[str], tokenizer: Tokenizer, folder: str | Path, *, max_length: int | None = None
) -> MappedTexts:
    """Tokenise a corpus into files, unless that was done before. The page on scaling.

    Args:
        texts: the documents, for example `Lines`; they are never all in memory.
        tokenizer: turns them into ids.
        folder: where they are kept, and taken from if they are there already, from the same
            tokenizer, length and texts. To tell, texts other than `Lines` are read once more.
        max_length: longer documents are cut to so many tokens; a warning says how many were.

    TypeError if a document is not a string, or `texts` is one; ValueError if there are no
    documents, or the folder holds another corpus.
    """
    folder = Path(folder)
    known, sha256 = getattr(texts, "fingerprint", None), hashlib.sha256()
    hashed = _hashed(require_documents(texts), sha256)
    wanted = {"tokenizer": tokenizer.fingerprint, "max_length": max_length}
    if (folder / "about.json").exists():
        mapped = MappedTexts(folder)
        if known is None:
            deque(hashed, maxlen=0)  # reads them all
        wanted["texts"] = known or sha256.hexdigest()
        if different := [name for name, x in wanted.items() if mapped.about.get(name) != x]:
            raise ValueError(
                f"{folder} holds a corpus tokenised from other {', '.join(different)}: choose "
                "another folder, or delete this one to tokenise anew"
            )
        return mapped
    folder.mkdir(parents=True, exist_ok=True)
    counts = _write(hashed, tokenizer, folder, max_length)
    if counts["documents"] == 0:
        raise ValueError("there are no documents to tokenise")
    if cut := counts["cut"]:
        said = f"{cut} of {counts['documents']} documents have more than {max_length} tokens"
        warnings.warn(f"{said} and were cut to the first {max_length}", stacklevel=2)
    about = {**wanted, "texts": known or sha256.hexdigest(), **counts, "pad_id": tokenizer.pad_id}
    # Last: without it, what was written counts for nothing.
    write_beside(folder / "about.json", (json.dumps(about, indent=2) + "\n").encode())
    return MappedTexts(folder)


def _hashed(texts: Iterable[str], sha256: Any) -> Iterator[str]:
    for number, text in enumerate(texts):
        # With its length, so that no two corpora look alike.
        content = require_string(text, number).encode(errors="surrogatepass")
        sha256.update(b"%d:%s" % (len(content), content))
        yield text


def _write(
    texts: Iterable[str], tokenizer: Tokenizer, folder: Path, max_length: int | None
) -> dict[str, int]:
    """Write the ids of all documents; return how many there are, of how many tokens, and cut."""
    counts = {"documents": 0, "tokens": 0, "cut": 0}
    stream = iter(texts)
    with (folder / "tokens.bin").open("wb") as tokens, (folder / "ends.bin").open("wb") as ends:
        while chunk := list(islice(stream, WRITTEN_AT_ONCE)):
            whole = tokenizer.encode(chunk)
            ids = [document[:max_length] for document in whole]
            lengths = np.fromiter(map(len, ids), END)
            tokens.write(np.fromiter(chain.from_iterable(ids), ID).tobytes())
            ends.write((counts["tokens"] + np.cumsum(lengths)).astype(END).tobytes())
            counts["documents"] += len(ids)
            counts["tokens"] += int(lengths.sum())
            counts["cut"] += sum(len(a) < len(b) for a, b in zip(ids, whole, strict=True))
    return counts
