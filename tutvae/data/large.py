"""Corpora larger than memory: tokenised once into memory-mapped files, or streamed.

Either way a window of documents is in memory at a time, of which
`WindowedBatches` makes batches. The memory does not grow with the corpus.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import warnings
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, count, islice
from pathlib import Path
from typing import Any

import numpy as np

from tutvae.data.batches.windows import Window
from tutvae.data.readers.files import write_beside
from tutvae.data.tokenization import Tokenizer

# Documents in one file, which is opened anew for each block.
SHARD = 50_000
# Documents in memory while they are written.
WRITTEN_AT_ONCE = 5_000
# Documents that stand together in a window whatever the shuffling: one read of the disk.
BLOCK = 500


class Lines:
    """Text files with a document a line, read anew at each iteration and never held in memory.

    Args:
        files: UTF-8 text, unpacked on the way if a name ends in `.gz`.

    Raises:
        FileNotFoundError: a file does not exist.

    Source: chapter 10.
    """

    def __init__(self, files: Sequence[str | Path]) -> None:
        self.files = [Path(file) for file in files]
        for file in self.files:
            if not file.is_file():
                raise FileNotFoundError(f"there is no file {file}")

    def __iter__(self) -> Iterator[str]:
        """Yield the lines without their ends; blank ones are left out."""
        for file in self.files:
            opener: Any = gzip.open if file.suffix == ".gz" else open
            with opener(file, "rt", encoding="utf-8") as lines:
                for line in lines:
                    if text := line.strip():
                        yield text

    @property
    def fingerprint(self) -> list[Any]:
        """What tells these files from others, their names, sizes and times of change."""
        stats = [(file.name, file.stat()) for file in self.files]
        return [[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats]


class MappedTexts:
    """Documents that were tokenised into Arrow files on the disk; see `tokenize_once`.

    Args:
        folder: holds `about.json` and shards of Arrow, `tokens-00000.arrow` and so on.

    Attributes:
        documents: how many there are, N.
        tokens: of all of them, start and end marks included.
        pad_id: id that fills the shorter rows of a batch.

    Raises:
        FileNotFoundError: the folder holds no tokenised corpus.

    Source: chapter 10.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        about = self.folder / "about.json"
        if not about.is_file():
            raise FileNotFoundError(f"{folder} holds no tokenised corpus: make it by tokenize_once")
        self.about = json.loads(about.read_text(encoding="utf-8"))
        self.documents: int = self.about["documents"]
        self.tokens: int = self.about["tokens"]
        self.pad_id: int = self.about["pad_id"]
        self._shard: int = self.about["documents_a_shard"]

    def __len__(self) -> int:
        """The number of documents N."""
        return self.documents

    def windows(self, size: int, skip: int, random: np.random.Generator | None) -> Iterator[Window]:
        """Yield windows of blocks that lie anywhere in the file, or one after the other."""
        block = min(BLOCK, size)
        starts = np.arange(0, self.documents, block)
        if random is not None:
            random.shuffle(starts)
        blocks = size // block
        for first in range(skip * blocks, len(starts), blocks):
            yield self._read(starts[first : first + blocks].tolist(), block)

    def describe(self) -> dict[str, Any]:
        """The numbers of documents and tokens, and the tokenizer."""
        return {name: self.about[name] for name in ("documents", "tokens", "tokenizer")}

    def _read(self, starts: list[int], block: int) -> Window:
        """Copy some blocks into memory."""
        blocks = [self._block(start, min(start + block, self.documents)) for start in starts]
        positions = [
            np.arange(start, start + len(documents))
            for start, documents in zip(starts, blocks, strict=True)
        ]
        return np.concatenate(positions), list(chain(*blocks))

    def _block(self, start: int, stop: int) -> list[np.ndarray]:
        """Copy the documents from `start` to before `stop` into memory."""
        from datasets import Dataset

        documents: list[np.ndarray] = []
        while start < stop:
            shard, first = divmod(start, self._shard)
            last = min(first + stop - start, self._shard)
            # Mapped for this block only: pages once read would count as ours for ever, and to
            # open one large file would mean to look all through it.
            dataset = Dataset.from_file(str(_shard_path(self.folder, shard)))
            column = dataset.with_format("arrow")[first:last]["ids"].combine_chunks()
            ids = column.flatten().to_numpy().copy()
            documents += np.split(ids, np.cumsum(column.value_lengths().to_numpy())[:-1])
            start += last - first
        return documents


class StreamedTexts:
    """Documents that are tokenised as they come, epoch after epoch, and never kept.

    Shuffling reorders them within a window; the windows come in the stream's order.

    Args:
        texts: strings, from their first on at each iteration: `Lines`, or the text column of a
            streaming dataset of `datasets`, `dataset["text"]`. Not a generator.
        tokenizer: turns them into ids.
        max_length: longer documents are cut to so many tokens.

    Raises:
        TypeError: `texts` can be iterated over but once.

    Source: chapter 10.
    """

    def __init__(
        self, texts: Iterable[str], tokenizer: Tokenizer, *, max_length: int | None = None
    ) -> None:
        if isinstance(texts, Iterator):
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
        return {"tokenizer": _hash(self.tokenizer), "max_length": self.max_length}


def tokenize_once(
    texts: Iterable[str],
    tokenizer: Tokenizer,
    folder: str | Path,
    *,
    max_length: int | None = None,
) -> MappedTexts:
    """Tokenise a corpus into Arrow files, unless that was done before.

    Args:
        texts: the documents, for example `Lines`; they are never all in memory.
        tokenizer: turns them into ids.
        folder: where they are kept. If they are there already, from the same tokenizer, length
            and texts, they are taken as they are.
        max_length: longer documents are cut to so many tokens; a warning says how many were.

    Returns:
        The tokenised corpus.

    Raises:
        OSError: the folder cannot be written to, or the disk is full.
        ValueError: there are no documents, or the folder holds another corpus.

    Source: chapter 10.
    """
    folder = Path(folder)
    wanted = {
        "tokenizer": _hash(tokenizer),
        "max_length": max_length,
        "texts": getattr(texts, "fingerprint", None),
    }
    if (folder / "about.json").exists():
        mapped = MappedTexts(folder)
        _check_same(folder, mapped.about, wanted)
        return mapped
    folder.mkdir(parents=True, exist_ok=True)
    counts = _write_shards(texts, tokenizer, folder, max_length)
    if counts["documents"] == 0:
        raise ValueError("there are no documents to tokenise")
    if counts["cut"]:
        warnings.warn(
            f"{counts['cut']} of {counts['documents']} documents have more than {max_length} "
            f"tokens and were cut to the first {max_length}",
            stacklevel=2,
        )
    about = wanted | counts | {"pad_id": tokenizer.pad_id, "documents_a_shard": SHARD}
    # Last: without it, what was written counts for nothing.
    write_beside(folder / "about.json", (json.dumps(about, indent=2) + "\n").encode())
    return MappedTexts(folder)


def _write_shards(
    texts: Iterable[str], tokenizer: Tokenizer, folder: Path, max_length: int | None
) -> dict[str, int]:
    """Write the ids of all documents; return how many there are, of how many tokens, and cut."""
    counts = {"documents": 0, "tokens": 0, "cut": 0}
    stream = iter(texts)
    for shard in count():
        documents = islice(stream, SHARD)
        first = next(documents, None)
        if first is None:
            break
        path = _shard_path(folder, shard)
        _write_arrow(chain([first], documents), tokenizer, path, max_length, counts)
    return counts


def _write_arrow(
    texts: Iterator[str],
    tokenizer: Tokenizer,
    path: Path,
    max_length: int | None,
    counts: dict[str, int],
) -> None:
    """Write the ids of a shard's documents, and add to the counts."""
    from datasets import Features, Sequence, Value
    from datasets.arrow_writer import ArrowWriter

    features = Features({"ids": Sequence(Value("int32"))})
    with ArrowWriter(features=features, path=str(path), writer_batch_size=WRITTEN_AT_ONCE) as file:
        while chunk := list(islice(texts, WRITTEN_AT_ONCE)):
            whole = tokenizer.encode(chunk)
            ids = [document[:max_length] for document in whole]
            file.write_batch({"ids": ids})
            counts["documents"] += len(ids)
            counts["tokens"] += sum(map(len, ids))
            counts["cut"] += sum(len(a) < len(b) for a, b in zip(ids, whole, strict=True))
        file.finalize()


def _shard_path(folder: Path, shard: int) -> Path:
    """Where a shard is."""
    return folder / f"tokens-{shard:05}.arrow"


def _check_same(folder: Path, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Raise ValueError where a folder's corpus is not the wanted one."""
    different = [name for name, value in wanted.items() if found[name] != value]
    if different:
        raise ValueError(
            f"{folder} holds a corpus tokenised from other {', '.join(different)}: choose another "
            "folder, or delete this one to tokenise anew"
        )


def _hash(tokenizer: Tokenizer) -> str:
    """What tells a tokenizer from another."""
    return hashlib.sha256(tokenizer.backend.to_str().encode()).hexdigest()[:16]
