from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from tutvae.data.corpora import CORPORA
from tutvae.data.corpus import Corpus, Texts
from tutvae.experiments.data import CorpusSection, ReviewsSection
from tutvae.reviews.grammar import ReviewGrammar


def reviews(**values: Any) -> ReviewsSection:
    return ReviewsSection(name="reviews", documents=(400, 20, 30), **values)


def named(**table: Any) -> CorpusSection:
    section = CorpusSection.checked(table)
    assert isinstance(section, CorpusSection)
    return section


def texts(count: int, word: str, labelled: bool = False) -> Texts:
    """Documents `word_0 x`, `word_1 x` and so on."""
    documents = [f"{word}_{n} x" for n in range(count)]
    return Texts(documents, [n % 3 for n in range(count)] if labelled else None)


@pytest.fixture
def corpora(monkeypatch: pytest.MonkeyPatch) -> dict[str, Corpus[Texts]]:
    """What the loaders of the named corpora return."""
    found = {
        "ptb": Corpus("ptb", texts(9, "a"), texts(7, "b"), texts(5, "c")),
        "ag_news": Corpus("ag-news", texts(8, "a", True), texts(6, "b", True), texts(4, "c", True)),
        "yahoo": Corpus("yahoo", texts(9, "a"), texts(1_020, "b"), texts(5, "c")),
    }

    def loader(name: str) -> Callable[[], Corpus[Texts]]:
        def load() -> Corpus[Texts]:
            return found[name]

        return load

    for name in found:
        monkeypatch.setitem(CORPORA, name, CORPORA[name]._replace(load=loader(name)))
    return found


class TestReviews:
    def test_it_is_the_grammar_s_own_corpus(self) -> None:
        encoded = reviews(sentences=(2, 3), nouns=3, label="stars", seed=5).build()
        expected = ReviewGrammar(sentences=(2, 3), nouns=3).corpus(400, 20, 30, 5, "stars")
        for split in ("train", "valid", "test"):
            assert getattr(encoded.texts, split).texts == getattr(expected, split).texts
            tokens = getattr(encoded, split)
            assert tokens.labels.tolist() == getattr(expected, split).labels
            row = tokens.batch([3]).tokens[0]
            assert encoded.tokenizer.decode(row) == getattr(expected, split).texts[3]

    def test_the_section_offers_all_that_the_grammar_does(self) -> None:
        assert reviews().grammar() == ReviewGrammar()
        assert {field.name for field in fields(ReviewGrammar)} < set(ReviewsSection.model_fields)

    def test_the_vocabulary_is_that_of_the_training_documents(self) -> None:
        encoded = reviews().build()
        words = {word for text in encoded.texts.train.texts for word in text.split()}
        assert set(encoded.tokenizer.tokens[4:]) == words

    def test_a_smaller_vocabulary(self) -> None:
        assert len(reviews(vocabulary_size=17).build().tokenizer) == 17

    def test_cut_documents(self) -> None:
        with pytest.warns(UserWarning, match="were cut to the first 6"):
            encoded = reviews(max_length=6).build()
        assert encoded.test.lengths.max() == 6


@pytest.mark.usefixtures("corpora")
class TestNamed:
    def test_as_it_is(self, corpora: dict[str, Corpus[Texts]]) -> None:
        encoded = named(name="ptb").build()
        assert [len(x) for x in (encoded.train, encoded.valid, encoded.test)] == [9, 7, 5]
        assert encoded.texts.test == corpora["ptb"].test

    def test_cut_to_size(self, corpora: dict[str, Corpus[Texts]]) -> None:
        section = named(name="ag_news", train_size=5, valid_size=2)
        encoded = section.build()
        full = corpora["ag_news"]
        for split, size in (("train", 5), ("valid", 2), ("test", 4)):
            assert getattr(encoded.texts, split).texts == getattr(full, split).texts[:size]
            assert getattr(encoded.texts, split).labels == getattr(full, split).labels[:size]
            assert len(getattr(encoded, split)) == size
        words = {word for text in encoded.texts.train.texts for word in text.split()}
        assert set(encoded.tokenizer.tokens[4:]) == words

    def test_equally_many_of_each_class(self, corpora: dict[str, Corpus[Texts]]) -> None:
        full, classes = corpora["ag_news"].train, len(set(corpora["ag_news"].train.labels or ()))
        part = named(name="ag_news", train_per_class=1).build().texts.train
        assert sorted(part.labels or ()) == list(range(classes))
        pairs = set(zip(full.texts, full.labels or (), strict=True))
        assert set(zip(part.texts, part.labels or (), strict=True)) <= pairs
        with pytest.raises(ValueError, match="too few to draw"):
            named(name="ag_news", train_per_class=len(full)).build()

    def test_what_a_loader_may_be_told_is_a_key(
        self, monkeypatch: pytest.MonkeyPatch, corpora: dict[str, Corpus[Texts]]
    ) -> None:
        """A corpus is one entry in the registry, and trained on by its name."""

        def mine(
            train: Any, folder: str | Path | None = None, *, held_out: int = 1
        ) -> Corpus[Texts]:
            assert (train, folder, held_out) == ("a.txt", "here", 3)
            return corpora["ptb"]

        monkeypatch.setitem(CORPORA, "mine", CORPORA["ptb"]._replace(load=mine))
        section = named(name="mine", train="a.txt", folder="here", held_out=3, train_size=2)
        assert section.build().texts.train.texts == corpora["ptb"].train.texts[:2]
        assert pickle.loads(pickle.dumps(section)) == section
        with pytest.raises(ValueError, match="Field required"):
            named(name="mine")

    def test_byte_pairs_that_are_rare_are_no_tokens(
        self, corpora: dict[str, Corpus[Texts]]
    ) -> None:
        tokenizer = named(name="ag_news", tokenizer="bpe").train_tokenizer(
            ["often"] * 10 + ["rarely"] * 9
        )
        often, rarely = tokenizer.encode(["often", "rarely"])
        assert len(often) == 3  # between its marks
        assert len(rarely) > 3

    def test_images_are_none_of_texts(self) -> None:
        with pytest.raises(ValueError, match=r"name should be .reviews. or .*, not .mnist."):
            named(name="mnist")

    def test_the_published_yahoo(self, corpora: dict[str, Corpus[Texts]]) -> None:
        assert named(name="yahoo").build().texts.train == corpora["yahoo"].train

    def test_a_tenth_of_it(self, corpora: dict[str, Corpus[Texts]]) -> None:
        """The last thousand validation documents are held out, as in the smaller layout."""
        encoded = named(name="yahoo", train_on="valid").build()
        documents = corpora["yahoo"].valid.texts
        assert encoded.texts.train.texts == documents[:20]
        assert encoded.texts.valid.texts == documents[20:]
        assert encoded.texts.test == corpora["yahoo"].test

    def test_where_only_the_tenth_is(self, corpora: dict[str, Corpus[Texts]]) -> None:
        tenth = Corpus("yahoo-tenth", texts(6, "a"), texts(5, "b"), texts(4, "c"))
        corpora["yahoo"] = tenth
        section = named(name="yahoo", train_on="valid", train_size=3)
        assert section.build().texts.train.texts == tenth.train.texts[:3]
        with pytest.raises(ValueError, match=r'set corpus\.train_on to "valid"'):
            named(name="yahoo").build()

    def test_too_few_documents_for_a_tenth(self, corpora: dict[str, Corpus[Texts]]) -> None:
        corpora["yahoo"] = Corpus("yahoo", texts(9, "a"), texts(1_000, "b"), texts(5, "c"))
        with pytest.raises(ValueError, match="1000 validation documents are too few"):
            named(name="yahoo", train_on="valid").build()


@pytest.mark.data
class TestRealData:
    def test_all_of_ptb_s_types_have_ids(self, real_data: Path) -> None:
        encoded = named(name="ptb").build()
        assert len(encoded.tokenizer) == 9_999 + 3  # <unk> is a type of it; <pad>, <bos>, <eos>
        predicted = int(encoded.test.lengths.sum()) - len(encoded.test)
        assert round(predicted / len(encoded.test), 3) == 21.917

    def test_a_tenth_of_yahoo(self, real_data: Path) -> None:
        encoded = named(name="yahoo", train_on="valid", valid_size=30).build()
        sizes = [len(x) for x in (encoded.train, encoded.valid, encoded.test)]
        assert sizes == [9_000, 30, 10_000]
