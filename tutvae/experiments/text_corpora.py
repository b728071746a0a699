"""The text corpora of experiments: what `[corpus]` says, loaded and encoded."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from tutvae.data import corpora
from tutvae.data.batches.text import EncodedTexts
from tutvae.data.corpora import YAHOO_HELD_OUT
from tutvae.data.corpus import Corpus, Texts
from tutvae.data.tokenization import Tokenizer
from tutvae.experiments.records import data_sha256
from tutvae.experiments.sections import Section
from tutvae.reviews.grammar import Label, ReviewGrammar

# More types than any corpus has.
ALL_TYPES = 2**31 - 1


class TextCorpusSection(Section):
    """What every `[corpus]` of texts says.

    Attributes:
        vocabulary_size: the V most frequent types have ids, marks included; all by default.
        max_length: longer documents are cut to so many tokens, marks included.
    """

    vocabulary_size: Annotated[int, Field(ge=5)] | None = None
    max_length: Annotated[int, Field(ge=2)] | None = None


class ReviewsSection(TextCorpusSection):
    """`[corpus]` with `name = "reviews"`: numbers of documents, and a `ReviewGrammar`.

    Attributes:
        documents: how many to fit on, to choose on and to report on.
        label: what the labels hold, as in `ReviewGrammar.sample`.
        seed: of the documents, apart from the seeds of the runs.
    """

    name: Literal["reviews"]
    documents: Annotated[tuple[PositiveInt, PositiveInt, PositiveInt], Field(strict=False)]
    label: Label = "category"
    seed: NonNegativeInt = 0
    sentences: Annotated[tuple[int, int], Field(strict=False)] = ReviewGrammar.sentences
    openings: int = ReviewGrammar.openings
    follow_ups: int = ReviewGrammar.follow_ups
    nouns: int = ReviewGrammar.nouns
    verbs: int = ReviewGrammar.verbs
    adjectives: int = ReviewGrammar.adjectives
    fillers: int = ReviewGrammar.fillers
    persons: int = ReviewGrammar.persons
    tenses: int = ReviewGrammar.tenses
    vagueness: float = ReviewGrammar.vagueness
    star_noise: float = ReviewGrammar.star_noise
    label_noise: float = ReviewGrammar.label_noise

    @model_validator(mode="after")
    def _grammar_is_possible(self) -> ReviewsSection:
        """The grammar itself says what is out of range."""
        self.grammar()
        return self

    def grammar(self) -> ReviewGrammar:
        """Make the grammar that the section describes."""
        return ReviewGrammar(**{f.name: getattr(self, f.name) for f in fields(ReviewGrammar)})


class NamedCorpusSection(TextCorpusSection):
    """`[corpus]` with the name of a real corpus.

    Attributes:
        train_size: at most so many training documents, the first ones.
        valid_size: at most so many validation documents, the first ones.
        train_on: "valid" trains on the validation documents of Yang et al.'s Yahoo, a tenth of
            the published data, less the last 1,000, which are then for validation.
    """

    name: Literal["ptb", "yahoo", "yelp", "ag_news"]
    train_size: PositiveInt | None = None
    valid_size: PositiveInt | None = None
    train_on: Literal["train", "valid"] = "train"

    @model_validator(mode="after")
    def _train_on_is_for_yahoo(self) -> NamedCorpusSection:
        """Of the others, the training documents are at hand."""
        if self.name != "yahoo" and self.train_on != "train":
            raise ValueError("train_on goes with yahoo alone")
        return self


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


def load_texts(
    section: ReviewsSection | NamedCorpusSection, tokenizer: Tokenizer | None = None
) -> EncodedCorpus:
    """Load or write the texts that an experiment names, and encode them.

    Args:
        section: the description.
        tokenizer: by default one whose vocabulary is that of the training split.

    Raises:
        FileNotFoundError: the corpus is not at hand.
        ValueError: its files are not those that the section speaks of.
    """
    if isinstance(section, ReviewsSection):
        texts: Corpus[Texts] = section.grammar().corpus(
            *section.documents, seed=section.seed, label=section.label
        )
    else:
        texts = _named(section)
    if tokenizer is None:
        tokenizer = Tokenizer.train(
            texts.train.texts, max_vocabulary=section.vocabulary_size or ALL_TYPES
        )

    def encoded(split: Texts) -> EncodedTexts:
        return EncodedTexts(
            tokenizer.encode(split.texts),
            split.labels,
            pad_id=tokenizer.pad_id,
            max_length=section.max_length,
        )

    return EncodedCorpus(
        texts, tokenizer, encoded(texts.train), encoded(texts.valid), encoded(texts.test)
    )


def _named(section: NamedCorpusSection) -> Corpus[Texts]:
    """Load a real corpus and cut it to size."""
    corpus: Corpus[Texts] = getattr(corpora, section.name)()
    if section.name == "yahoo":
        corpus = _train_on(corpus, section.train_on)
    return replace(
        corpus,
        train=_first(corpus.train, section.train_size),
        valid=_first(corpus.valid, section.valid_size),
    )


def _train_on(corpus: Corpus[Texts], split: str) -> Corpus[Texts]:
    """Yahoo as the section wants it, so that a tenth never passes for the whole."""
    is_tenth = corpus.name == "yahoo-tenth"
    if split == "train":
        if is_tenth:
            raise ValueError(
                "the folder of Yahoo Answers has no training documents: set corpus.train_on to "
                '"valid", and say beside every figure that it is a tenth of the data'
            )
        return corpus
    if is_tenth:
        return corpus
    kept = len(corpus.valid) - YAHOO_HELD_OUT
    if kept < 1:
        raise ValueError(f"{len(corpus.valid)} validation documents are too few to train on")
    return replace(
        corpus,
        train=_part(corpus.valid, slice(kept)),
        valid=_part(corpus.valid, slice(kept, None)),
    )


def _first(texts: Texts, count: int | None) -> Texts:
    """The first documents of a split, or all."""
    return _part(texts, slice(count))


def _part(texts: Texts, part: slice) -> Texts:
    """Some documents of a split, with their labels."""
    labels = None if texts.labels is None else texts.labels[part]
    return Texts(texts.texts[part], labels, label_names=texts.label_names)
