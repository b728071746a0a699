"""The text corpora of experiments: what `[corpus]` says, loaded and encoded."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Annotated, Any, Literal, get_type_hints

import numpy as np
from pydantic import BeforeValidator, Field, SerializeAsAny, model_validator

from tutvae.data.backends import MOST_PIECES
from tutvae.data.batches.labelled import label_subset
from tutvae.data.batches.text import EncodedTexts
from tutvae.data.corpora import CORPORA, YAHOO_HELD_OUT
from tutvae.data.corpus import Corpus, Texts
from tutvae.data.tokenization import Tokenizer
from tutvae.experiments.experiment import Section, section_like
from tutvae.experiments.keys import Count, CountOrZero, Listed, Seed
from tutvae.experiments.provenance import data_sha256
from tutvae.reviews.grammar import Label, ReviewGrammar

# More types than any corpus has.
ALL_TYPES = 2**31 - 1
# So often a pair must occur to become one token of byte-pair encoding: what follows a token that
# was met two or three times, a decoder cannot learn. With 4,000 sentences it saves two nats each.
OFTEN_ENOUGH = 10


@dataclass(frozen=True, eq=False)
class EncodedCorpus:
    """A corpus of texts with its tokenizer and the token ids of its splits."""

    texts: Corpus[Texts]
    tokenizer: Tokenizer
    train: EncodedTexts
    valid: EncodedTexts
    test: EncodedTexts

    @cached_property
    def sha256(self) -> str:
        """The hash of the texts and labels of all splits; see `data_sha256`."""
        return data_sha256(self.texts)


class CorpusSection(Section):
    """What every `[corpus]` of texts says."""

    name: str
    # "bpe" makes tokens of byte-pair encoding, "words", the default, of words.
    tokenizer: Literal["bpe", "words"] | None = None
    # The V most frequent types have ids, marks included; all by default. Of byte-pair encoding
    # they are fewer where few pairs occur ten times.
    vocabulary_size: Annotated[int, Field(ge=5, le=ALL_TYPES)] | None = None
    # Longer documents are cut to so many tokens, marks included.
    max_length: Annotated[int, Field(ge=2, le=ALL_TYPES)] | None = None
    uncased: bool = False  # capital letters are read as small ones
    split_punctuation: bool = False  # of words: each mark is one of its own

    @classmethod
    def chosen(cls, table: Any) -> type[Section]:
        """The reviews' section, or that of the corpus by its name in `CORPORA`."""
        if isinstance(table, dict) and table.get("name") == "reviews":
            return ReviewsSection
        return section_named(table, Texts, NamedCorpusSection, "reviews")

    @abstractmethod
    def read(self) -> Corpus[Texts]:
        """Load or write the texts."""

    def train_tokenizer(self, texts: Sequence[str]) -> Tokenizer:
        """Build the vocabulary of some documents."""
        in_pieces = self.tokenizer == "bpe"
        size = self.vocabulary_size or (MOST_PIECES if in_pieces else ALL_TYPES)
        options: Any = {"model": "bpe", "min_frequency": OFTEN_ENOUGH} if in_pieces else {}
        options |= self.model_dump(include={"uncased", "split_punctuation"})
        return Tokenizer.train(texts, max_vocabulary=size, **options)

    def build(self, tokenizer: Tokenizer | None = None) -> EncodedCorpus:
        """Load or write the texts; encode them, by default with the training split's vocabulary.

        FileNotFoundError if the corpus is not at hand; ValueError if its files are others.
        """
        texts = self.read()
        splits = (texts.train, texts.valid, texts.test)
        tokenizer = tokenizer or self.train_tokenizer(texts.train.texts)
        options: dict[str, Any] = {"pad_id": tokenizer.pad_id, "max_length": self.max_length}
        encoded = (EncodedTexts(tokenizer.encode(x.texts), x.labels, **options) for x in splits)
        return EncodedCorpus(texts, tokenizer, *encoded)


def section_named(table: Any, split: type, base: type[Section], *others: str) -> type[Section]:
    """The section of a corpus of `CORPORA`, derived from `base`, by the `name` in a table.

    Its loader's annotation says what it is made of: `split` is `Texts` or `Images`. ValueError if
    no such corpus is called so; the message tells the `others`, which no loader loads, too.
    """
    name = table.get("name") if isinstance(table, dict) else None
    known: dict[str, Any] = {
        corpus: entry.load
        for corpus, entry in CORPORA.items()
        if get_type_hints(entry.load).get("return") == Corpus[split]  # type: ignore[valid-type]
    }
    if name not in list(known):
        names = " or ".join(map(repr, [*others, *known]))
        raise ValueError(f"name should be {names}, not {name!r}")
    return section_like(known[name], base, CountOrZero)


class ReviewsSection(section_like(ReviewGrammar, CorpusSection, int)):  # type: ignore[misc]
    """`[corpus]` with `name = "reviews"`: numbers of documents, and what a `ReviewGrammar` is told.

    The `documents` are so many to fit on, to choose on and to report on, from a `seed` apart from
    those of the runs; `label` is what `ReviewGrammar.sample` is told.
    """

    name: Literal["reviews"]
    documents: Annotated[tuple[Count, Count, Count], Listed]
    label: Label = "category"
    seed: Seed = 0
    sentences: Annotated[tuple[int, int], Listed] = ReviewGrammar.sentences

    @model_validator(mode="after")
    def _grammar_is_possible(self) -> "ReviewsSection":
        """The grammar itself says what is out of range."""
        self.grammar()
        return self

    def grammar(self) -> ReviewGrammar:
        """Make the grammar that the section describes."""
        return ReviewGrammar(**{f.name: getattr(self, f.name) for f in fields(ReviewGrammar)})

    def read(self) -> Corpus[Texts]:
        """Write the reviews."""
        return self.grammar().corpus(*self.documents, seed=self.seed, label=self.label)


class NamedCorpusSection(CorpusSection):
    """`[corpus]` with a name of `CORPORA`; what its loader may be told are keys, too.

    `train_size` and `valid_size` are the most documents of these splits, the first ones;
    `train_per_class` draws so many of each class instead. `train_on` "valid" trains on the
    validation documents of Yang et al.'s Yahoo, a tenth of the published data, less the last
    1,000, which are then for validation.
    """

    train_size: Count | None = None
    train_per_class: Count | None = None
    valid_size: Count | None = None
    train_on: Literal["train", "valid"] = "train"

    @model_validator(mode="after")
    def _train_on_is_for_yahoo(self) -> "NamedCorpusSection":
        """Of the others, the training documents are at hand."""
        if self.name != "yahoo" and self.train_on != "train":
            raise ValueError("train_on goes with yahoo alone")
        return self

    def read(self) -> Corpus[Texts]:
        """Load the corpus and cut it to size."""
        options = self.model_dump(exclude=set(NamedCorpusSection.model_fields))
        corpus: Corpus[Texts] = CORPORA[self.name].load(**options)
        if self.name == "yahoo":
            corpus = _train_on(corpus, self.train_on)
        train, valid = corpus.train, corpus.valid
        rows: Sequence[int] | np.ndarray = range(len(train))[: self.train_size]
        if self.train_per_class:
            labels = train.labels or ()
            rows = label_subset(labels, self.train_per_class * len(set(labels)), seed=0)
        train = train.part(rows)
        return replace(corpus, train=train, valid=valid.part(range(len(valid))[: self.valid_size]))


AnyCorpus = Annotated[SerializeAsAny[CorpusSection], BeforeValidator(CorpusSection.checked)]


def labels_of(texts: EncodedTexts) -> np.ndarray:
    """The classes of the documents, `[N]`."""
    if texts.labels is None:
        raise ValueError("the corpus has no labels: there is nothing to classify")
    return texts.labels.numpy()


def _train_on(corpus: Corpus[Texts], split: str) -> Corpus[Texts]:
    """Yahoo as the section wants it, so that a tenth never passes for the whole."""
    is_tenth = corpus.name == "yahoo-tenth"
    if split == "train" and is_tenth:
        raise ValueError(
            "the folder of Yahoo Answers has no training documents: set corpus.train_on to "
            '"valid", and say beside every figure that it is a tenth of the data'
        )
    if split == "train" or is_tenth:
        return corpus
    rows = range(len(corpus.valid))
    if len(rows) <= YAHOO_HELD_OUT:
        raise ValueError(f"{len(rows)} validation documents are too few to train on")
    train, valid = (corpus.valid.part(x) for x in (rows[:-YAHOO_HELD_OUT], rows[-YAHOO_HELD_OUT:]))
    return replace(corpus, train=train, valid=valid)
