"""Building tokenizers of Hugging Face's `tokenizers` library."""

import re
from collections.abc import Iterable, Iterator
from typing import Any

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

PAD, BOS, EOS, UNK = MARKS = ("<pad>", "<bos>", "<eos>", "<unk>")
# The library reserves memory for all byte pairs that there may be, and aborts where it gets none.
MOST_WORDS, MOST_PIECES = 2**31 - 1, 10_000_000


def train_words(
    texts: Iterable[str],
    max_vocabulary: int,
    min_frequency: int,
    uncased: bool,
    split_punctuation: bool,
) -> tokenizers.Tokenizer:
    """Count the words between white space; ValueError if none is left or has room."""
    options = _options(max_vocabulary, min_frequency, len(MARKS) + 1, MOST_WORDS)
    trainer = trainers.WordLevelTrainer(**options)
    backend = word_backend([], unk=UNK, marks=())
    if uncased:
        backend.normalizer = normalizers.Lowercase()
    if split_punctuation:
        backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.train_from_iterator(_without_marks(texts), trainer)
    if backend.get_vocab_size() == len(MARKS):
        raise ValueError("there is nothing to train a tokenizer on: no word came often enough")
    return backend


def word_backend(words: list[str], unk: str | None, marks: Iterable[str]) -> tokenizers.Tokenizer:
    """A word-level tokenizer in which `words[i]` has the id i."""
    ids = {word: index for index, word in enumerate(words)}
    model = models.WordLevel(ids, unk_token=unk) if unk else models.WordLevel(ids)
    backend = tokenizers.Tokenizer(model)
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.add_special_tokens(list(marks))
    return backend


def train_bpe(
    texts: Iterable[str], max_vocabulary: int, min_frequency: int, uncased: bool
) -> tokenizers.Tokenizer:
    """Learn byte-level byte-pair merges; ValueError if there is no room for the 256 bytes."""
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    options = _options(max_vocabulary, min_frequency, len(MARKS) + len(alphabet), MOST_PIECES)
    trainer = trainers.BpeTrainer(**options, initial_alphabet=alphabet)
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=uncased)
    backend.decoder = decoders.ByteLevel()
    if uncased:  # then a word has the same tokens wherever it stands, also at the beginning
        backend.normalizer = normalizers.Lowercase()
        backend.decoder = decoders.Sequence([backend.decoder, decoders.Strip(" ", 1, 0)])
    backend.train_from_iterator(_without_marks(texts), trainer)
    return backend


def from_str(serialized: str, source: str) -> tokenizers.Tokenizer:
    """Read a backend; the library raises bare Exceptions."""
    try:
        return tokenizers.Tokenizer.from_str(serialized)
    except Exception as error:
        raise ValueError(f"{source} is not a tokenizer's JSON: {error}") from error


def covers(model: models.Model, word: str) -> bool:
    """Whether the model's tokens make up the whole word."""
    try:
        tokens = model.tokenize(word)
    except Exception:  # the library raises bare Exceptions; word-level models raise one here
        return False
    return sum(token.offsets[1] - token.offsets[0] for token in tokens) == len(word.encode())


def _without_marks(texts: Iterable[str]) -> Iterator[str]:
    """Drop spelt-out marks, which are no words to be counted."""
    marks = re.compile("|".join(MARKS))
    return (marks.sub(" ", text) for text in texts)


def _options(max_vocabulary: int, min_frequency: int, least: int, most: int) -> dict[str, Any]:
    """The options of both trainers; ValueError for sizes that leave no room, or too much."""
    if not least <= max_vocabulary <= most:
        limit = f"at least {least}" if max_vocabulary < least else f"at most {most}"
        raise ValueError(f"max_vocabulary must be {limit}, not {max_vocabulary}")
    if min_frequency < 0:
        raise ValueError(f"min_frequency must be at least 0, not {min_frequency}")
    sizes = {"vocab_size": max_vocabulary, "min_frequency": min_frequency}
    return {**sizes, "special_tokens": list(MARKS), "show_progress": False}
