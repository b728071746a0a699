"""The user's own files, tidy and messy."""

import csv
import gzip
import json

import pytest

from tutvae.data.batches.text import Batches
from tutvae.data.readers.texts import from_files
from tutvae.data.tokenization import Tokenizer

ROWS = [
    ('good food, "really" good', "pos"),
    ("bad\tservice", "neg"),
    ("naïve café 😀", "pos"),
    ("so-so", "meh"),
]
TEXTS = [text for text, _ in ROWS]


def write(path, content):
    """Write text or bytes, packed if the name says so."""
    content = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def write_table(path, rows, delimiter=",", header=("label", "text")):
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerows([header, *((label, text) for text, label in rows)])
    return write(path, path.read_bytes())


def write_json_lines(path, rows):
    lines = [json.dumps({"text": text, "label": label}) for text, label in rows]
    return write(path, "\n".join(lines) + "\n")


def write_rows(path, rows=ROWS):
    if "json" in path.name:
        return write_json_lines(path, rows)
    return write_table(path, rows, "\t" if ".tsv" in path.name else ",")


def load(path, **options):
    """Load one file as all three splits and return its documents."""
    return from_files(path, path, path, **options).train


@pytest.mark.parametrize("pack", ["", ".gz"])
@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".CSV"])
def test_labelled_files(suffix, pack, tmp_path):
    path = write_rows(tmp_path / f"own{suffix}{pack}")
    texts = load(path, label="label")
    assert texts.texts == TEXTS
    assert texts.label_names == ["meh", "neg", "pos"]
    assert texts.labels == [2, 1, 2, 0]
    unlabelled = load(path)
    assert unlabelled.texts == TEXTS
    assert unlabelled.labels is unlabelled.label_names is None


@pytest.mark.parametrize("name", ["own.txt", "own.txt.gz"])
def test_a_text_file_is_a_document_a_line(name, tmp_path):
    path = write(tmp_path / name, " one two \nthree\u2028still three\nfour")
    corpus = from_files(str(path), path, path)
    assert corpus.train.texts == ["one two", "three\u2028still three", "four"]
    assert corpus.name == "own"
    assert from_files(path, path, path, name="mine").name == "mine"


def test_each_split_comes_from_its_own_file(tmp_path):
    files = [write(tmp_path / f"{split}.txt", f"of {split}") for split in "abc"]
    corpus = from_files(*files)
    splits = (corpus.train, corpus.valid, corpus.test)
    assert [split.texts for split in splits] == [["of a"], ["of b"], ["of c"]]


def test_documents_without_a_class_where_that_is_said(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("text,label\n" + "a,2\nb,\nc,-7\nd,  \n" * 5)
    with pytest.raises(ValueError, match="document 2 has no 'label'"):
        from_files(path, label="label")
    corpus = from_files(path, label="label", missing_labels=True)
    assert corpus.train.label_names == ["-7", "2"]
    parts = (corpus.train, corpus.valid, corpus.test)
    found = {pair for part in parts for pair in zip(part.texts, part.labels, strict=True)}
    assert found == {("a", 1), ("b", -1), ("c", 0), ("d", -1)}


def test_other_column_names(tmp_path):
    path = write_table(tmp_path / "own.csv", ROWS, header=("stars", "review"))
    assert load(path, text="review", label="stars").texts == TEXTS


def test_numbers_are_ordered_by_value_and_start_at_zero(tmp_path):
    path = write_json_lines(tmp_path / "own.jsonl", [("a", 10), ("b", 2), ("c", 1), ("d", 10)])
    texts = load(path, label="label")
    assert texts.label_names == ["1", "2", "10"]
    assert texts.labels == [2, 1, 0, 2]


def test_classes_are_numbered_alike_in_every_split(tmp_path):
    train = write_rows(tmp_path / "train.csv", [("a", "x"), ("b", "z")])
    test = write_rows(tmp_path / "test.csv", [("c", "y"), ("d", "z")])
    corpus = from_files(train, test, test, label="label")
    assert corpus.train.labels == [0, 2]
    assert corpus.test.labels == [1, 2]
    assert corpus.train.label_names == corpus.test.label_names == ["x", "y", "z"]


def test_classes_in_an_order_of_ones_own(tmp_path):
    path = write_rows(tmp_path / "own.csv")
    names = ("neg", "meh", "pos", "never")
    texts = load(path, label="label", label_names=names)
    assert texts.labels == [2, 0, 2, 1]
    assert texts.label_names == names
    with pytest.raises(ValueError, match="'meh' is not one of neg, pos"):
        load(path, label="label", label_names=("neg", "pos"))


def test_classes_may_be_given_as_numbers(tmp_path):
    path = write_json_lines(tmp_path / "own.jsonl", [("a", 10), ("b", 2)])
    texts = load(path, label="label", label_names=[10, 2])
    assert texts.label_names == ("10", "2")
    assert texts.labels == [0, 1]


def test_a_class_that_is_given_twice(tmp_path):
    path = write_json_lines(tmp_path / "own.jsonl", [("a", 1), ("b", 2)])
    with pytest.raises(ValueError, match="label_names has a class twice: 1, 2, 1"):
        load(path, label="label", label_names=["1", "2", "1"])


def test_a_quoted_text_of_a_tsv_file_may_have_lines(tmp_path):
    path = write(tmp_path / "own.tsv", 'label\ttext\n0\t"two\nlines"\n1\t"a ""b"""\n')
    assert load(path).texts == ["two\nlines", 'a "b"']


def test_a_single_file_is_split_at_random_by_seed(tmp_path):
    path = write(tmp_path / "own.txt", "\n".join(f"document {i}" for i in range(100)))
    corpus = from_files(path)
    splits = [split.texts for split in (corpus.train, corpus.valid, corpus.test)]
    assert [len(split) for split in splits] == [80, 10, 10]
    assert len({text for split in splits for text in split}) == 100
    assert sorted(splits[0], key=lambda text: int(text.split()[1])) == splits[0]
    assert from_files(path).test.texts == splits[2]
    assert from_files(path, seed=1).test.texts != splits[2]
    assert len(from_files(path, held_out=0.25).valid) == 25


def test_only_the_missing_split_is_held_out(tmp_path):
    path = write(tmp_path / "own.txt", "\n".join(map(str, range(20))))
    other = write(tmp_path / "other.txt", "x\ny\nz")
    corpus = from_files(path, test=other)
    assert (len(corpus.train), len(corpus.valid), len(corpus.test)) == (18, 2, 3)


def test_labels_follow_their_held_out_documents(tmp_path):
    path = write_rows(tmp_path / "own.csv", [(f"d{i}", f"c{i % 3}") for i in range(30)])
    corpus = from_files(path, label="label")
    for split in (corpus.train, corpus.valid, corpus.test):
        assert split.labels == [int(text[1:]) % 3 for text in split.texts]


def test_too_few_documents_to_hold_any_out(tmp_path):
    path = write(tmp_path / "own.txt", "one\ntwo")
    with pytest.raises(ValueError, match="2 documents are too few"):
        from_files(path)
    with pytest.raises(ValueError, match="held_out"):
        from_files(path, held_out=1.5)
    assert len(from_files(write(tmp_path / "own.txt", "one\ntwo\nthree")).train) == 1


def test_a_thousand_messy_lines_give_batches_without_a_surprise(tmp_path):
    lines = [f"line {i} is fine".encode() for i in range(1000)]
    lines[0] = b"\xef\xbb\xbf" + lines[0]
    lines[10:13] = [b"", b"   ", b"\t"]
    lines[20] = b" ".join([b"long"] * 5000)
    lines[30] = "emoji 😀👩‍👩‍👧".encode()
    lines[40:42] = [b"\xe9cole in Latin-1", b"cut emoji \xf0\x9f\x98"]
    lines[50] = "a real \ufffd is no error".encode()
    path = write(tmp_path / "own.txt", b"\r\n".join(lines) + b"\r\n")
    with pytest.warns(UserWarning, match="blank") as caught:
        texts = load(path)
    messages = {str(warning.message) for warning in caught}
    (message,) = messages
    assert str(path) in message
    assert "blank documents skipped: 3;" in message
    assert message.endswith("not UTF-8, now \ufffd: 2")
    assert len(texts) == 997
    assert texts.texts[0] == "line 0 is fine"
    assert "\ufffdcole in Latin-1" in texts.texts
    assert "emoji 😀👩‍👩‍👧" in texts.texts
    assert not any("\r" in text for text in texts.texts)
    tokenizer = Tokenizer.train(texts.texts)
    with pytest.warns(UserWarning, match="1 of 997 documents have more than 64.*longest 5002"):
        batches = Batches.from_texts(texts, tokenizer, token_budget=512, max_length=64)
    assert sum(len(batch) for batch in batches) == 997


def test_mess_in_json_lines(tmp_path):
    lines = [
        b'{"text": "half an emoji \\ud83d"}',
        b"",
        b'{"text": null}',
        b'{"text": "  "}',
        b'{"text": "a"}',
    ]
    path = write(tmp_path / "own.jsonl", b"\r\n".join(lines))
    with pytest.warns(UserWarning, match="skipped: 3; .*: 1$"):
        texts = load(path).texts
    assert texts == ["half an emoji \ufffd", "a"]
    Tokenizer.train(texts, model="bpe", max_vocabulary=270).encode(texts)


def test_mess_in_a_table(tmp_path):
    content = b'\xef\xbb\xbftext,label\r\n"two\r\nlines",1\r\n,2\r\n\xff,3\r\n'
    path = write(tmp_path / "own.csv", content + b"long " * 50_000 + b",1\r\n")
    with pytest.warns(UserWarning, match="skipped: 1; .*: 1$"):
        texts = load(path, label="label")
    assert texts.texts[:2] == ["two\nlines", "\ufffd"]
    assert len(texts.texts[2].split()) == 50_000
    assert texts.label_names == ["1", "3"]
    assert csv.field_size_limit() == 131_072


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("own.txt", "", "holds no documents"),
        ("own.txt", "\n \r\n\n", "holds no documents"),
        ("own.csv", "", "no column 'text'"),
        ("own.csv", "text,label\n", "holds no documents"),
        ("own.csv", "body,label\na,1\n", "no column 'text', only 'body', 'label'"),
        ("own.csv", "text,stars\na,1\n", "no column 'label'.*label="),
        ("own.csv", "text,label\na, b,1\n", "line 2 has more fields"),
        ("own.csv", 'text,label\na,1\n"b,2\nc,3\n', "line 3: unexpected end"),
        ("own.csv", "text,label\na,\n", "document 1 has no 'label'"),
        ("own.csv", "label,text\n1,a\n2,b\nx\n,c\n", "document 4 has no 'label'"),
        ("own.jsonl", '{"text": "a", "label": 1}\n{"text"\n', "line 2 is not JSON"),
        ("own.jsonl", '["a"]\n', "line 1 is not a JSON object"),
        ("own.jsonl", '{"text": "a", "label": 1}\n{"body": "b"}', "line 2 has no column 'text'"),
        ("own.jsonl", '{"text": 7, "label": 1}', "document 1 is a int"),
        ("own.jsonl", '{"text": "a", "label": null}', "document 1 has no 'label'"),
        ("own.jsonl", "text", "line 1 is not JSON"),
        ("own.jsonl", f'{{"text": "a", "label": {"9" * 5000}}}', "line 1 is not JSON"),
        ("own.json", '[{"text": "a", "label": 1}]', "line 1 .* JSON array, write each object on"),
        ("own.json", '[\n{"text": "a", "label": 1}\n]', "line 1 .* array, write each object on"),
        ("own.csv", "text,label,text\na,1,b\n", "several columns 'text'"),
        ("own.csv", "label,text,label\n0,a,1\n", "several columns 'label'"),
        ("own.tsv", 'label\ttext\n0\t"So\n1\tsaid"\n', "line 3 ends a quoted text that holds tabs"),
        ("own.csv", b"text,label\na,\xff\n", "the 'label' of document 1 is not UTF-8"),
        ("own.docx", "text", "no known format.*csv"),
        ("own.csv", b"\xff\xfet\0e\0", "not UTF-8"),
        ("own.txt", "\u6f22\u5b57".encode("utf-16"), "not UTF-8"),  # without a zero byte
        ("own.csv", b"text,label\na\0,1\n", "not UTF-8"),
        ("own.csv.gz", None, "not a whole gzip"),
    ],
)
def test_a_broken_file_is_one_clear_error(name, content, message, tmp_path):
    path = tmp_path / name
    if content is None:
        path.write_bytes(gzip.compress(b"text,label\na,1\n")[:-9])
    else:
        write(path, content)
    label = None if name == "own.txt" else "label"
    with pytest.raises(ValueError, match=rf"{name}.*{message}"):
        load(path, label=label)
    assert csv.field_size_limit() == 131_072


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.txt"):
        from_files(tmp_path / "absent.txt")


def test_a_text_file_has_no_labels(tmp_path):
    path = write(tmp_path / "own.txt", "one")
    with pytest.raises(ValueError, match="no columns"):
        load(path, label="label")


class TestDatasets:
    """Hugging Face's own objects."""

    @pytest.fixture
    def datasets(self):
        return pytest.importorskip("datasets", reason="needs tutvae[data]")

    def test_a_dataset_is_split_like_a_file(self, datasets):
        rows = {"text": [f"d{i}" for i in range(30)], "label": [i % 3 for i in range(30)]}
        corpus = from_files(datasets.Dataset.from_dict(rows), label="label")
        assert (len(corpus.train), len(corpus.valid), len(corpus.test)) == (24, 3, 3)
        assert corpus.test.labels == [int(text[1:]) % 3 for text in corpus.test.texts]

    def test_a_dataset_dict_brings_its_splits_and_class_names(self, datasets):
        features = datasets.Features(
            text=datasets.Value("string"), label=datasets.ClassLabel(names=["neg", "pos"])
        )
        splits = {
            name: datasets.Dataset.from_dict({"text": [name], "label": [label]}, features=features)
            for name, label in (("train", 1), ("validation", 1), ("test", 0))
        }
        corpus = from_files(datasets.DatasetDict(splits), label="label")
        found = [(s.texts, s.labels) for s in (corpus.train, corpus.valid, corpus.test)]
        assert found == [(["train"], [1]), (["validation"], [1]), (["test"], [0])]
        assert corpus.train.label_names == ["neg", "pos"]

    def test_selected_rows_and_other_formats_are_respected(self, datasets):
        dataset = datasets.Dataset.from_dict({"text": ["a", "b", "c"], "label": [5, 6, 7]})
        texts = load(dataset.select([2, 0]).with_format("torch"), label="label")
        assert texts.texts == ["c", "a"]
        assert texts.label_names == ["5", "7"]

    def test_blank_and_unlabelled_documents(self, datasets):
        dataset = datasets.Dataset.from_dict({"text": ["a", None, " "], "label": [0, 1, None]})
        with pytest.warns(UserWarning, match="the dataset: blank documents skipped: 2"):
            assert load(dataset, label="label").labels == [0]
        features = datasets.Features(
            text=datasets.Value("string"), label=datasets.ClassLabel(names=["neg", "pos"])
        )
        hidden = datasets.Dataset.from_dict({"text": ["a"], "label": [-1]}, features=features)
        with pytest.raises(ValueError, match="document 1 has no 'label'"):
            load(hidden, label="label")

    def test_what_cannot_be_read_is_said(self, datasets):
        dataset = datasets.Dataset.from_dict({"body": ["a"]})
        with pytest.raises(ValueError, match="no column 'text', only 'body'"):
            load(dataset)
        with pytest.raises(TypeError, match="IterableDataset"):
            load(dataset.to_iterable_dataset(), text="body")
        with pytest.raises(ValueError, match="no train split, only test"):
            from_files(datasets.DatasetDict(test=dataset))
        with pytest.raises(ValueError, match="DatasetDict alone"):
            from_files(datasets.DatasetDict(train=dataset), dataset)
        with pytest.raises(TypeError, match="cannot read a list"):
            from_files(["a", "b"])
