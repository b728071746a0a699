"""Tokenizers: documents as strings to token ids and back."""

import hashlib
import json
import re
from collections.abc import Iterable
from itertools import combinations, islice, takewhile
from pathlib import Path
from typing import Any, Literal

import tokenizers

from tutvae.data import backends
from tutvae.data.backends import BOS, EOS, PAD, UNK
from tutvae.data.readers.files import write_beside
from tutvae.data.readers.utf8 import decode

# The library's encodings are some 100 bytes a token, so they are made a few at a time.
ENCODED_AT_ONCE = 1000
# More rows than the embedding of any model has.
LARGEST_SIZE = 2**24


class Tokenizer:
    """A `tokenizers.Tokenizer` that knows its padding, start, end and unknown marks.

    Make one with `train`, `load`, `from_tokenizers` or `from_torchtext`. Its `backend` is the
    `tokenizers.Tokenizer` that does the work. A vocabulary that lacks a mark, has one for two
    roles, or has ids from 2^24 on, is a ValueError.

    Attributes:
        pad_id: id of the padding, which fills a batch's shorter rows and is never predicted.
        bos_id: id of the start mark, the first input.
        eos_id: id of the end mark, the last target.
        unk_id: id of the mark for everything outside the vocabulary; None if there is none.

    >>> tokenizer = tutvae.Tokenizer.train(["a good fish", "a bad fish"])
    >>> tokenizer.encode(["a fish", "a good cat"])
    [[1, 4, 5, 2], [1, 4, 7, 3, 2]]
    >>> tokenizer.decode([1, 4, 7, 3, 2])
    'a good <unk>'

    Source: chapter 3.
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        *,
        pad: str = PAD,
        bos: str = BOS,
        eos: str = EOS,
        unk: str | None = UNK,
    ) -> None:
        self.backend = backend
        self.pad_id = _id_of(backend, "pad", pad)
        self.bos_id = _id_of(backend, "bos", bos)
        self.eos_id = _id_of(backend, "eos", eos)
        self.unk_id = None if unk is None else _id_of(backend, "unk", unk)
        self._marks = {"pad": pad, "bos": bos, "eos": eos, "unk": unk}
        for (other, taken), (role, mark) in combinations(self._marks.items(), 2):
            if mark == taken:
                raise ValueError(
                    f"{mark!r} cannot be both {other} and {role}, or no text could end: add "
                    f"one by existing.add_special_tokens(['<{role}>']), and say {role}='<{role}>'"
                )
        self._size = _size_of(backend)
        # Longest first: one mark may begin another.
        structural = sorted((pad, bos, eos), key=len, reverse=True)
        self._structural = re.compile("|".join(map(re.escape, structural)))
        self._known_words: set[str] = set()

    @classmethod
    def train(
        cls,
        texts: Iterable[str],
        *,
        model: Literal["words", "bpe"] = "words",
        max_vocabulary: int = 20_000,
        min_frequency: int = 1,
        uncased: bool = False,
        split_punctuation: bool = False,
    ) -> "Tokenizer":
        """Build a vocabulary from training documents; without any text it is a ValueError.

        The marks `<pad> <bos> <eos> <unk>` get the ids 0 to 3; `<unk>` in a text is that mark.

        Args:
            texts: the documents.
            model: "words", the strings between white space, most frequent first; or "bpe",
                byte-level byte-pair encoding, to which nothing is unknown.
            max_vocabulary: the largest vocabulary V, with the marks; a ValueError if too small.
            min_frequency: how often a word, or a pair of units, must occur to have an id.
            uncased: read capital letters as small ones.
            split_punctuation: each mark is a word of its own, so that "good." holds "good"; in
                byte-pair encoding they stand apart in any case.

        Source: Sennrich et al. (2016) for byte-pair encoding. Chapter 3.
        """
        if model not in ("words", "bpe"):
            raise ValueError(f'model must be "words" or "bpe", not {model!r}')
        options = (require_documents(texts), max_vocabulary, min_frequency, uncased)
        if model == "bpe":
            return cls(backends.train_bpe(*options))
        return cls(backends.train_words(*options, split_punctuation))

    @classmethod
    def from_tokenizers(
        cls,
        existing: tokenizers.Tokenizer | str | Path,
        *,
        pad: str = PAD,
        bos: str = BOS,
        eos: str = EOS,
        unk: str | None = UNK,
    ) -> "Tokenizer":
        """Take over any tokenizer of Hugging Face's `tokenizers`; the original is not changed.

        `existing` is the tokenizer, or the path of its JSON file. `pad`, `bos`, `eos` and `unk`
        are its marks, for example "[PAD]", "[CLS]" (or "<s>"), "[SEP]" (or "</s>") and "[UNK]";
        `unk` is None where it has none. A vocabulary that lacks a mark, or a file that is no
        tokenizer, is a ValueError.
        """
        if isinstance(existing, tokenizers.Tokenizer):
            _size_of(existing)  # the library needs minutes to write out huge ids
            serialized = existing.to_str()
        else:
            serialized = decode(Path(existing).read_bytes(), str(existing))
        backend = backends.from_str(serialized, str(existing))
        backend.no_padding()
        backend.no_truncation()
        return cls(backend, pad=pad, bos=bos, eos=eos, unk=unk)

    @classmethod
    def from_torchtext(
        cls, vocab: Any, *, pad: str = PAD, bos: str = BOS, eos: str = EOS, unk: str = UNK
    ) -> "Tokenizer":
        """Turn a torchtext vocabulary into a word tokenizer with the same ids.

        Missing padding, start and end marks are added after the last word. A missing unknown
        mark is not: then a word outside the vocabulary is an error. `vocab` has `.itos` (torchtext
        up to 0.8) or `.get_itos()` (from 0.9), else it is a TypeError. Its marks are as for
        `from_tokenizers`; that of the start is often "<sos>".
        """
        if not hasattr(vocab, "get_itos") and not hasattr(vocab, "itos"):
            kind = type(vocab).__name__
            raise TypeError(f"a {kind} is no torchtext vocabulary: no .itos nor .get_itos()")
        words = list(vocab.get_itos() if hasattr(vocab, "get_itos") else vocab.itos)
        known = unk if unk in words else None
        words += [mark for mark in (pad, bos, eos) if mark not in words]
        backend = backends.word_backend(words, known, filter(None, (pad, bos, eos, known)))
        return cls(backend, pad=pad, bos=bos, eos=eos, unk=known)

    def encode(self, texts: Iterable[str]) -> list[list[int]]:
        """Turn N documents into N lists of token ids, each from its start mark to its end mark.

        A padding, start or end mark that a text spells out becomes the unknown mark.

        A document that is not a string is a TypeError; one that is not Unicode text, or holds an
        unknown word where there is no unknown mark, a ValueError.
        """
        documents = (self._prepared(*each) for each in enumerate(require_documents(texts)))
        encoded: list[list[int]] = []
        while chunk := list(islice(documents, ENCODED_AT_ONCE)):
            try:
                encodings = self.backend.encode_batch(chunk, add_special_tokens=False)
            except TypeError as error:  # that is what the library says of a lone surrogate
                advice = 'replace it with text.encode(errors="replace").decode()'
                raise ValueError(f"a document holds half of a surrogate pair: {advice}") from error
            encoded += [[self.bos_id, *encoding.ids, self.eos_id] for encoding in encodings]
        return encoded

    def decode(self, ids: Iterable[int]) -> str:
        """Turn one document's token ids, a list or a tensor `[T]`, into text.

        Unknown marks are shown; what follows the first end mark is left out. An id outside the
        vocabulary is a ValueError.
        """
        given = ids.tolist() if hasattr(ids, "tolist") else ids
        tokens = list(takewhile(lambda token: token != self.eos_id, given))
        for token in tokens:
            if not 0 <= token < len(self):
                raise ValueError(f"the id {token} is outside the vocabulary of {len(self)}")
        kept = [token for token in tokens if token not in (self.pad_id, self.bos_id)]
        return self.backend.decode(kept, skip_special_tokens=False)

    def save(self, path: str | Path) -> None:
        """Write one JSON file, which `load` reads."""
        write_beside(path, self._serialized())

    @classmethod
    def load(cls, path: str | Path) -> "Tokenizer":
        """Read what `save` wrote; anything else is a ValueError."""
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            marks = {role: content["marks"][role] for role in ("pad", "bos", "eos", "unk")}
            serialized = json.dumps(content["tokenizer"])
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise ValueError(
                f"{path} was not written by Tokenizer.save; a file of the tokenizers library "
                "is read by Tokenizer.from_tokenizers"
            ) from error
        return cls(backends.from_str(serialized, str(path)), **marks)

    @property
    def fingerprint(self) -> str:
        """What tells this tokenizer from others, a hash of its vocabulary, rules and marks."""
        return hashlib.sha256(self._serialized()).hexdigest()[:16]

    @property
    def tokens(self) -> list[str]:
        """The vocabulary in the order of the ids, V strings."""
        return [self.backend.id_to_token(index) or "" for index in range(len(self))]

    def __len__(self) -> int:
        """The size of the vocabulary V: every id is below it."""
        return self._size

    def __repr__(self) -> str:
        return f"Tokenizer(V={len(self)})"

    def _serialized(self) -> bytes:
        """The JSON that `load` reads."""
        content = {"marks": self._marks, "tokenizer": json.loads(self.backend.to_str())}
        return json.dumps(content, ensure_ascii=False).encode()

    def _prepared(self, number: int, text: str) -> str:
        """Replace spelt-out structural marks; without an unknown mark, insist on known words."""
        require_string(text, number)
        unk = self._marks["unk"]
        if unk is None:
            self._require_known(text)
            return text
        return self._structural.sub(lambda _: unk, text)

    def _require_known(self, text: str) -> None:
        """Raise ValueError for a word that the vocabulary does not cover."""
        normalizer, pre_tokenizer = self.backend.normalizer, self.backend.pre_tokenizer
        clean = normalizer.normalize_str(text) if normalizer else text
        pieces = pre_tokenizer.pre_tokenize_str(clean) if pre_tokenizer else [(clean, (0, 0))]
        words = {word for word, _ in pieces} - self._known_words
        unknown = self._structural.findall(text)
        unknown += [word for word in words if not backends.covers(self.backend.model, word)]
        if unknown:
            raise ValueError(
                f"the word {unknown[0]!r} is outside the vocabulary, and the tokenizer has no "
                "unknown mark to stand for it: train one that has, or leave the word out"
            )
        self._known_words |= words


def require_documents(texts: Iterable[str]) -> Iterable[str]:
    """Return `texts`, unless they are one string, whose characters would pass for documents."""
    if isinstance(texts, str):
        raise TypeError("texts must be a list of documents, not one string: write [text]")
    return texts


def require_string(text: str, number: int) -> str:
    """Return document `number` if it is a string."""
    if not isinstance(text, str):
        kind = type(text).__name__
        raise TypeError(f"document {number} is a {kind}, not a string: leave out what is missing")
    return text


def _size_of(backend: tokenizers.Tokenizer) -> int:
    """One more than the largest id, which must not be huge: there may be gaps, but few."""
    ids = backend.get_vocab().values()
    if max(ids) >= LARGEST_SIZE:
        raise ValueError(
            f"the vocabulary has an id {max(ids)}, and a model needs a row for each id up to the "
            f"largest: number its {len(ids)} tokens from 0"
        )
    return max(ids) + 1


def _id_of(backend: tokenizers.Tokenizer, role: str, mark: str) -> int:
    """The id of a mark that must be there."""
    if (index := backend.token_to_id(mark)) is None:
        raise ValueError(
            f"the vocabulary has no {mark!r}: say what its mark is called with {role}=..., "
            f"or add one with add_special_tokens([{mark!r}])"
        )
    return index
