"""Tokenizers: training, marks, saving, and taking over other libraries' vocabularies."""

import json
from collections import Counter
from pathlib import Path

import pytest
import tokenizers
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import models, pre_tokenizers, processors

from tutvae.data.tokenization import Tokenizer

TEXTS = ["the cat sat on the mat", "the dog <unk> the cat", "a dog sat"]


def words(**options):
    return Tokenizer.train(TEXTS, **options)


def foreign(vocabulary, unk="[UNK]"):
    model = models.WordLevel(vocabulary, unk_token=unk) if unk else models.WordLevel(vocabulary)
    backend = tokenizers.Tokenizer(model)
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return backend


BERT_MARKS = {"pad": "[PAD]", "bos": "[CLS]", "eos": "[SEP]", "unk": "[UNK]"}
BERT_WORDS = {"cat": 0, "[SEP]": 1, "[PAD]": 2, "sat": 3, "[UNK]": 4, "[CLS]": 5}


class NewVocabulary:
    """The shape of a vocabulary of torchtext 0.9 and later."""

    def __init__(self, words):
        self.words = words

    def get_itos(self):
        return list(self.words)


@pytest.mark.parametrize("model", ["words", "bpe"])
def test_the_marks_have_the_first_ids(model):
    tokenizer = words(model=model)
    assert tokenizer.tokens[:4] == ["<pad>", "<bos>", "<eos>", "<unk>"]
    ids = (tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id, tokenizer.unk_id)
    assert ids == (0, 1, 2, 3)


def test_words_are_ordered_by_frequency_then_alphabet():
    assert words().tokens[4:] == ["the", "cat", "dog", "sat", "a", "mat", "on"]


def test_the_vocabulary_does_not_depend_on_the_order_of_the_documents():
    assert Tokenizer.train(TEXTS[::-1]).tokens == words().tokens


def test_every_id_is_below_the_length_and_used_once():
    tokenizer = words()
    assert len(tokenizer) == 11
    assert repr(tokenizer) == "Tokenizer(V=11)"
    assert sorted(tokenizer.backend.get_vocab().values()) == list(range(11))


def test_encoding_wraps_each_document_in_its_marks():
    tokenizer = words()
    the, dog = tokenizer.tokens.index("the"), tokenizer.tokens.index("dog")
    assert tokenizer.encode(["the dog", ""]) == [[1, the, dog, 2], [1, 2]]


@pytest.mark.parametrize("model", ["words", "bpe"])
def test_a_literal_unk_is_the_unknown_mark(model):
    tokenizer = words(model=model)
    assert tokenizer.encode(["<unk>"]) == [[1, 3, 2]]
    assert tokenizer.tokens.count("<unk>") == 1


def test_a_mark_inside_a_word_ends_it_in_training_and_encoding_alike():
    tokenizer = Tokenizer.train(["the<unk>cat"])
    assert tokenizer.tokens[4:] == ["cat", "the"]
    assert tokenizer.encode(["the<unk>cat"]) == [[1, 5, 3, 4, 2]]


def test_marks_are_no_letters_for_byte_pairs_to_learn():
    tokenizer = Tokenizer.train(["ab <unk>"] * 9, model="bpe", max_vocabulary=270)
    assert [token for token in tokenizer.tokens if "unk" in token] == ["<unk>"]
    assert "ab" in tokenizer.tokens


def test_words_outside_the_vocabulary_are_unknown():
    assert words().encode(["the zebra 😀"])[0][2:] == [3, 3, 2]


@pytest.mark.parametrize("model", ["words", "bpe"])
@pytest.mark.parametrize("mark", ["<pad>", "<bos>", "<eos>"])
def test_a_spelt_out_structural_mark_is_unknown(model, mark):
    tokenizer = words(model=model)
    (ids,) = tokenizer.encode([f"the {mark} cat"])
    assert ids.count(3) == 1
    assert not set(ids[1:-1]) & {0, 1, 2}


def test_punctuation_can_be_split_off():
    tokenizer = Tokenizer.train(["so good.", "(good)"], split_punctuation=True)
    assert tokenizer.decode(tokenizer.encode(["good, (so)."])[0]) == "good <unk> ( so ) ."


def test_max_vocabulary_counts_the_marks_and_keeps_the_most_frequent():
    tokenizer = words(max_vocabulary=6)
    assert tokenizer.tokens[4:] == ["the", "cat"]
    assert len(tokenizer) == 6


def test_min_frequency_drops_rare_words():
    assert words(min_frequency=2).tokens[4:] == ["the", "cat", "dog", "sat"]


@pytest.mark.parametrize(("model", "largest_bad"), [("words", 4), ("bpe", 259)])
def test_a_vocabulary_without_room_is_an_error(model, largest_bad):
    with pytest.raises(ValueError, match=f"at least {largest_bad + 1}, not {largest_bad}"):
        words(model=model, max_vocabulary=largest_bad)
    assert len(words(model=model, max_vocabulary=largest_bad + 1)) == largest_bad + 1


@pytest.mark.parametrize("model", ["words", "bpe"])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_vocabulary": 2**70}, "max_vocabulary must be at most"),
        ({"min_frequency": -1}, "min_frequency must be at least 0, not -1"),
    ],
)
def test_sizes_out_of_range(model, options, message):
    with pytest.raises(ValueError, match=message):
        words(model=model, **options)


def test_byte_pairs_without_number_are_refused_before_the_memory_is_asked_for():
    with pytest.raises(ValueError, match="at most 10000000, not 1000000000"):
        words(model="bpe", max_vocabulary=10**9)


def test_training_on_nothing_is_an_error():
    with pytest.raises(ValueError, match="nothing to train"):
        Tokenizer.train(["  ", "<unk>"])
    with pytest.raises(ValueError, match='"words" or "bpe"'):
        words(model="letters")


def test_one_string_is_not_a_list_of_documents():
    with pytest.raises(TypeError, match=r"write \[text\]"):
        words().encode("the cat")
    with pytest.raises(TypeError, match=r"write \[text\]"):
        Tokenizer.train("the cat")


def test_what_is_no_text_is_said():
    with pytest.raises(TypeError, match="document 1 is a NoneType"):
        words().encode(["the cat", None])
    with pytest.raises(ValueError, match="half of a surrogate pair"):
        words().encode(["the cat", "half \ud83d"])


@pytest.mark.parametrize("token", [-1, 11, 50])
def test_an_id_outside_the_vocabulary_is_not_decoded(token):
    tokenizer = words()
    with pytest.raises(ValueError, match=f"the id {token} is outside the vocabulary of 11"):
        tokenizer.decode([1, 4, token, 2])
    assert tokenizer.decode([1, 4, 2, token]) == "the"


def test_decoding_undoes_encoding():
    tokenizer = words()
    assert [tokenizer.decode(ids) for ids in tokenizer.encode(TEXTS)] == TEXTS


def test_decoding_stops_at_the_end_and_takes_tensors():
    tokenizer = words()
    (ids,) = tokenizer.encode(["the cat"])
    generated = torch.tensor([0, *ids, 0, 4, 2])
    assert tokenizer.decode(generated) == "the cat"


@given(
    st.text(st.characters(exclude_categories=["Cs"]).filter(lambda c: c not in "<>"), max_size=30)
)
def test_byte_pairs_lose_nothing(text):
    tokenizer = BYTE_PAIRS
    (ids,) = tokenizer.encode([text])
    assert tokenizer.decode(ids) == text


BYTE_PAIRS = words(model="bpe", max_vocabulary=270)


def test_byte_pairs_merge_what_is_frequent():
    assert len(BYTE_PAIRS.encode(["the the the"])[0]) < 2 + len("the the the")


def test_encoding_in_pieces_keeps_the_order():
    tokenizer = words()
    texts = [TEXTS[i % 3] for i in range(2_345)]
    assert tokenizer.encode(iter(texts)) == [tokenizer.encode([text])[0] for text in texts]


@pytest.mark.parametrize("model", ["words", "bpe"])
def test_saving_and_loading(model, tmp_path):
    tokenizer = words(model=model)
    tokenizer.save(tmp_path / "tokenizer.json")
    loaded = Tokenizer.load(tmp_path / "tokenizer.json")
    texts = [*TEXTS, "zebra", "", "<unk> 😀 <eos>"]
    assert loaded.encode(texts) == tokenizer.encode(texts)
    assert loaded.tokens == tokenizer.tokens
    assert [path.name for path in tmp_path.iterdir()] == ["tokenizer.json"]


def test_the_names_of_the_marks_are_saved(tmp_path):
    tokenizer = Tokenizer.from_tokenizers(foreign(BERT_WORDS), **BERT_MARKS)
    tokenizer.save(tmp_path / "tokenizer.json")
    loaded = Tokenizer.load(tmp_path / "tokenizer.json")
    assert loaded.encode(["cat zebra"]) == tokenizer.encode(["cat zebra"]) == [[5, 0, 4, 1]]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"marks": {}}',
        '{"tokenizer": 1, "marks": {}}',
        '{"tokenizer": {}, "marks": ["<pad>", "<bos>", "<eos>", "<unk>"]}',
        "[" * 10_000,
    ],
)
def test_loading_another_file_is_an_error(content, tmp_path):
    path = tmp_path / "other.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"other\.json"):
        Tokenizer.load(path)
    with pytest.raises(FileNotFoundError):
        Tokenizer.load(tmp_path / "absent.json")


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "tokenizer.json"
    words().save(path)
    before = path.read_bytes()

    def full_disk(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr("os.replace", full_disk)
    with pytest.raises(OSError, match="No space"):
        words(max_vocabulary=6).save(path)
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_any_tokenizer_is_taken_over_unchanged(tmp_path):
    existing = foreign(BERT_WORDS)
    existing.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 5), ("[SEP]", 1)]
    )
    existing.enable_padding(pad_id=2, pad_token="[PAD]", length=9)
    existing.enable_truncation(3)
    before = existing.to_str()
    existing.save(str(tmp_path / "bert.json"))
    for source in (existing, tmp_path / "bert.json", str(tmp_path / "bert.json")):
        tokenizer = Tokenizer.from_tokenizers(source, **BERT_MARKS)
        assert tokenizer.encode(["cat sat cat zebra"]) == [[5, 0, 3, 0, 4, 1]]
        assert tokenizer.decode([5, 0, 3, 1, 2]) == "cat sat"
        assert tokenizer.pad_id == 2
    assert existing.to_str() == before


@pytest.mark.parametrize("role", ["pad", "bos", "eos", "unk"])
def test_a_missing_mark_is_named(role):
    present = {word: i for i, word in enumerate(BERT_WORDS) if word != BERT_MARKS[role]}
    existing = foreign(present, unk=None if role == "unk" else "[UNK]")
    with pytest.raises(ValueError, match=rf"no '\[{BERT_MARKS[role][1:-1]}\]'.*{role}="):
        Tokenizer.from_tokenizers(existing, **BERT_MARKS)


@pytest.mark.parametrize(
    ("marks", "message"),
    [
        ({"pad": "[SEP]", "eos": "[SEP]"}, r"'\[SEP\]' cannot be both pad and eos.*eos='<eos>'"),
        ({"bos": "[SEP]"}, "both bos and eos"),
        ({"pad": "[CLS]"}, "both pad and bos"),
        ({"unk": "[SEP]"}, "both eos and unk"),
    ],
)
def test_one_mark_for_two_roles_is_refused(marks, message):
    """As in GPT-2: a mark that is never written could end no text."""
    with pytest.raises(ValueError, match=message):
        Tokenizer.from_tokenizers(foreign(BERT_WORDS), **(BERT_MARKS | marks))


def test_an_id_that_asks_for_all_memory_is_refused():
    existing = foreign(BERT_WORDS | {"dog": 4 * 10**9})
    with pytest.raises(ValueError, match=r"has an id 4000000000.*number its 7 tokens from 0"):
        Tokenizer.from_tokenizers(existing, **BERT_MARKS)


def test_the_marks_tell_tokenizers_apart(tmp_path):
    tokenizer = Tokenizer.from_tokenizers(foreign(BERT_WORDS), **BERT_MARKS)
    tokenizer.save(tmp_path / "tokenizer.json")
    assert Tokenizer.load(tmp_path / "tokenizer.json").fingerprint == tokenizer.fingerprint
    swapped = BERT_MARKS | {"bos": "[SEP]", "eos": "[CLS]"}
    other = Tokenizer.from_tokenizers(foreign(BERT_WORDS), **swapped)
    assert other.fingerprint != tokenizer.fingerprint


def test_a_file_that_is_no_tokenizer_is_named(tmp_path):
    path = tmp_path / "other.json"
    path.write_text(json.dumps({"a": 1}))
    with pytest.raises(ValueError, match=r"other\.json"):
        Tokenizer.from_tokenizers(path)


@pytest.mark.parametrize("word", ["zebra", "héé😀", "[SEP]"])
def test_an_unknown_word_without_a_mark_for_it_is_named(word):
    existing = foreign({"cat": 0, "[SEP]": 1, "[PAD]": 2, "[CLS]": 3, "dög": 4}, unk=None)
    tokenizer = Tokenizer.from_tokenizers(existing, **(BERT_MARKS | {"unk": None}))
    assert tokenizer.unk_id is None
    assert tokenizer.encode(["cat dög"]) == [[3, 0, 4, 1]]
    with pytest.raises(ValueError, match=word.replace("[", r"\[").replace("]", r"\]")):
        tokenizer.encode(["cat", f"dög {word} cat"])


def test_byte_pairs_without_unknown_mark_drop_no_letters():
    vocabulary = {"<pad>": 0, "<bos>": 1, "<eos>": 2, "a": 3, "b": 4, "ab": 5}
    backend = tokenizers.Tokenizer(models.BPE(vocabulary, [("a", "b")]))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = Tokenizer.from_tokenizers(backend, unk=None)
    assert tokenizer.encode(["ab ba"]) == [[1, 5, 4, 3, 2]]
    with pytest.raises(ValueError, match="aéb"):
        tokenizer.encode(["ab aéb"])


def torchtext_vocabulary(specials):
    torchtext = pytest.importorskip("torchtext", reason="needs tutvae[torchtext]")
    counts = Counter(word for text in TEXTS for word in text.split() if word != "<unk>")
    return torchtext.vocab.Vocab(counts, specials=specials)


@pytest.mark.parametrize(
    "specials",
    [
        ("<unk>", "<pad>"),
        ("<pad>", "<bos>", "<eos>", "<unk>"),
        ("<unk>", "<pad>", "<sos>", "<eos>"),
    ],
)
def test_a_real_torchtext_vocabulary_keeps_its_ids(specials):
    vocabulary = torchtext_vocabulary(list(specials))
    bos = "<sos>" if "<sos>" in specials else "<bos>"
    tokenizer = Tokenizer.from_torchtext(vocabulary, bos=bos)
    (ids,) = tokenizer.encode(["the zebra sat"])
    assert ids[1:-1] == [vocabulary.stoi[word] for word in ("the", "zebra", "sat")]
    assert tokenizer.tokens[: len(vocabulary.itos)] == vocabulary.itos
    assert tokenizer.tokens[ids[0]] == bos
    assert tokenizer.tokens[ids[-1]] == "<eos>"
    assert tokenizer.decode(ids) == "the <unk> sat"


def test_a_vocabulary_of_the_newer_shape_keeps_its_ids(tmp_path):
    vocabulary = NewVocabulary(["sat", "<unk>", "the", "<pad>"])
    tokenizer = Tokenizer.from_torchtext(vocabulary)
    assert tokenizer.tokens == ["sat", "<unk>", "the", "<pad>", "<bos>", "<eos>"]
    assert tokenizer.encode(["the dog <unk> sat"]) == [[4, 2, 1, 1, 0, 5]]
    tokenizer.save(tmp_path / "tokenizer.json")
    assert Tokenizer.load(tmp_path / "tokenizer.json").encode(["the"]) == [[4, 2, 5]]
    assert vocabulary.words == ["sat", "<unk>", "the", "<pad>"]


def test_a_torchtext_vocabulary_without_unknown_mark_names_the_word():
    tokenizer = Tokenizer.from_torchtext(NewVocabulary(["sat", "the"]))
    assert tokenizer.unk_id is None
    assert tokenizer.encode(["the"]) == [[3, 1, 4]]
    with pytest.raises(ValueError, match="zebra"):
        tokenizer.encode(["the zebra sat"])


def test_something_else_is_no_torchtext_vocabulary():
    with pytest.raises(TypeError, match=r"dict.*\.itos nor \.get_itos"):
        Tokenizer.from_torchtext({"the": 0})


def test_from_path_that_is_missing():
    with pytest.raises(FileNotFoundError):
        Tokenizer.from_tokenizers(Path("absent.json"))
