"""The named text corpora: layouts, downloads, and the counts of the real files."""

import bz2
import gzip
import hashlib
import json
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise

import pytest

from tutvae.data import corpora
from tutvae.data.corpora import CORPORA, ag_news, dbpedia, ptb, tatoeba, yahoo, yelp
from tutvae.data.readers import tatoeba as tatoeba_files
from tutvae.data.tokenization import Tokenizer

PTB = {"train": " a cat \n the <unk> \n", "valid": " N dogs \n", "test": " a dog \n"}


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    """No corpus at hand, and a home to download to."""
    monkeypatch.delenv("TUTVAE_DATA", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home" / ".cache" / "tutvae"


@pytest.fixture
def small_ptb(monkeypatch):
    """Hold three small files for the published ones."""
    sums = {split: hashlib.sha256(text.encode()).hexdigest() for split, text in PTB.items()}
    monkeypatch.setattr(corpora, "PTB_SHA256", sums)


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A folder that is served on loopback where the published files would be."""

    asked = []

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            asked.append(self.path)

    folder = tmp_path / "served"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    monkeypatch.setattr(corpora, "PTB_URL", f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield folder, asked
    server.shutdown()
    server.server_close()
    thread.join()


def write_all(folder, files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        data = content.encode()
        (folder / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return folder


def ptb_files(pack=""):
    return {f"ptb.{split}.txt{pack}": text for split, text in PTB.items()}


def json_lines(rows):
    return "".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in rows)


@pytest.mark.parametrize("pack", ["", ".gz"])
def test_ptb_from_a_folder(pack, small_ptb, nowhere, tmp_path):
    corpus = ptb(write_all(tmp_path / "mine", ptb_files(pack)))
    assert corpus.name == "ptb"
    assert corpus.train.texts == ["a cat", "the <unk>"]
    assert corpus.valid.texts == ["N dogs"]
    assert corpus.test.texts == ["a dog"]


def test_ptb_from_the_data_folder(small_ptb, tmp_path, monkeypatch):
    write_all(tmp_path / "ptb", ptb_files())
    monkeypatch.setenv("TUTVAE_DATA", str(tmp_path))
    assert ptb().test.texts == ["a dog"]


def test_another_file_by_ptbs_name_is_refused(nowhere, tmp_path):
    folder = write_all(tmp_path / "mine", ptb_files())
    with pytest.raises(ValueError, match=r"ptb\.train\.txt is not the published file"):
        ptb(folder)


def test_ptb_is_fetched_once(small_ptb, nowhere, server):
    folder, asked = server
    write_all(folder, ptb_files())
    assert ptb().train.texts == ["a cat", "the <unk>"]
    assert sorted(path.name for path in (nowhere / "ptb").iterdir()) == sorted(ptb_files())
    assert len(asked) == 3
    ptb()
    assert len(asked) == 3


TATOEBA = ["I see a cat.", "You see a dog.", "Is it late?", "I see a cat."]


def served_tatoeba(folder, content=None):
    rows = "".join(f"{i}\teng\t{text}\n" for i, text in enumerate(TATOEBA))
    export = bz2.compress(rows.encode()) if content is None else content
    (folder / tatoeba_files.EXPORT).write_bytes(export)


@pytest.fixture
def tatoeba_server(server, monkeypatch):
    url = f"{corpora.PTB_URL}/{tatoeba_files.EXPORT}"
    monkeypatch.setattr(tatoeba_files, "EXPORT_URL", url)
    return server


def all_texts(corpus):
    return sorted([*corpus.train.texts, *corpus.valid.texts, *corpus.test.texts])


def test_tatoeba_is_fetched_once(nowhere, tatoeba_server):
    folder, asked = tatoeba_server
    served_tatoeba(folder)
    assert all_texts(tatoeba()) == sorted(set(TATOEBA))
    assert all_texts(tatoeba()) == sorted(set(TATOEBA))
    assert len(asked) == 1


def test_a_line_a_sentence_gives_the_same_splits(tmp_path, nowhere, tatoeba_server):
    served_tatoeba(tatoeba_server[0])
    folder = tmp_path / "mine"
    folder.mkdir()
    with gzip.open(folder / "eng.txt.gz", "wt") as file:
        file.write("\n".join(reversed(TATOEBA)))
    assert sorted(tatoeba(folder).train.texts) == sorted(tatoeba().train.texts)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"moved", "not a whole bzip2 file"), (bz2.compress(b"1\tno columns\n"), "line 1: 3 columns")],
)
def test_a_broken_export(nowhere, tatoeba_server, content, message):
    served_tatoeba(tatoeba_server[0], content)
    with pytest.raises(ValueError, match=message):
        tatoeba()


def test_no_network_for_tatoeba(nowhere, tatoeba_server):
    with pytest.raises(FileNotFoundError, match=r"tatoeba are not here.*could not be fetched"):
        tatoeba()


def test_capitals_do_not_decide_on_the_split():
    splits = [tatoeba_files.split_of(f"Sentence {i}.") for i in range(4000)]
    assert splits == [tatoeba_files.split_of(f"SENTENCE {i}.") for i in range(4000)]
    assert 70 < splits.count("test") < 140
    assert 70 < splits.count("valid") < 140


def test_a_download_that_was_interrupted_goes_on(small_ptb, nowhere, server, monkeypatch):
    folder, asked = server
    write_all(folder, ptb_files())
    monkeypatch.setenv("TUTVAE_DATA", str(nowhere))
    write_all(nowhere / "ptb", {"ptb.train.txt": PTB["train"]})
    assert ptb().test.texts == ["a dog"]
    assert len(asked) == 2


def test_a_download_of_another_file_is_refused_and_not_kept(small_ptb, nowhere, server):
    folder, _ = server
    write_all(folder, ptb_files() | {"ptb.train.txt": "<html>moved</html>"})
    with pytest.raises(ValueError, match=r"http://127.*ptb\.train\.txt is not the published file"):
        ptb()
    assert not (nowhere / "ptb").exists()


def test_a_download_that_breaks_off_is_said_and_not_kept(small_ptb, nowhere, server, monkeypatch):
    def break_off(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        handler.wfile.write(b" a cat \n")

    monkeypatch.setattr(SimpleHTTPRequestHandler, "do_GET", break_off)
    with pytest.raises(FileNotFoundError, match=r"ptb\.train\.txt could not be fetched.*broke off"):
        ptb()
    assert not (nowhere / "ptb").exists()


@pytest.mark.usefixtures("server")
def test_ptb_that_cannot_be_fetched_says_what_to_do(small_ptb, nowhere):
    with pytest.raises(FileNotFoundError, match="TUTVAE_DATA") as caught:
        ptb()
    message = str(caught.value)
    assert str(nowhere / "ptb") in message
    assert "folder=" in message
    assert "404" in message


def test_an_explicit_folder_is_never_added_to(small_ptb, nowhere, server, tmp_path):
    folder, asked = server
    write_all(folder, ptb_files())
    mine = write_all(tmp_path / "mine", {"ptb.train.txt": PTB["train"]})
    with pytest.raises(FileNotFoundError, match=r"mine holds neither ptb\.valid\.txt nor"):
        ptb(mine)
    assert asked == []


@pytest.mark.parametrize("load", [ptb, yahoo, yelp, ag_news, dbpedia])
def test_a_folder_that_is_missing_is_named(load, nowhere, tmp_path):
    with pytest.raises(FileNotFoundError, match="TUTVAE_DATA") as caught:
        load(tmp_path / "absent")
    assert str(tmp_path / "absent") in str(caught.value)


def yahoo_lines(count, start=0):
    return "".join(f"question {i} _UNK ? it is _UNK .\n" for i in range(start, start + count))


def test_the_smaller_yahoo_holds_out_the_last_thousand(nowhere, tmp_path):
    files = {"val.txt.gz": yahoo_lines(1203), "test.txt": yahoo_lines(7, 5000)}
    corpus = yahoo(write_all(tmp_path / "yahoo", files))
    assert corpus.name == "yahoo-tenth"
    assert (len(corpus.train), len(corpus.valid), len(corpus.test)) == (203, 1000, 7)
    assert corpus.train.texts[-1] == "question 202 <unk> ? it is <unk> ."
    assert corpus.valid.texts[0].startswith("question 203 ")
    assert corpus.test.texts[0] == "question 5000 <unk> ? it is <unk> ."
    assert corpus.train.labels is None


def test_a_yahoo_too_small_to_hold_out_from(nowhere, tmp_path):
    files = {"val.txt": yahoo_lines(1000), "test.txt": yahoo_lines(3)}
    with pytest.raises(ValueError, match="1000 documents, too few"):
        yahoo(write_all(tmp_path / "yahoo", files))


@pytest.mark.parametrize("load", [yahoo, yelp])
@pytest.mark.parametrize("pack", ["", ".gz"])
def test_the_published_layout(load, pack, nowhere, tmp_path):
    name = load.__name__
    plain = {f"{name}.{s}.txt{pack}": f"of {s} _UNK\n" for s in ("train", "valid", "test")}
    corpus = load(write_all(tmp_path / "plain", plain))
    assert corpus.name == name
    assert corpus.valid.texts == ["of valid <unk>"]
    assert corpus.train.labels is None
    labelled = {
        f"{name}.train.txt{pack}": "10\ta\n9\tb _UNK\n",
        f"{name}.valid.txt{pack}": "9\tc\n",
        f"{name}.test.txt{pack}": "0\td\te\n",
    }
    corpus = load(write_all(tmp_path / "labelled", labelled))
    assert corpus.train.texts == ["a", "b <unk>"]
    assert corpus.train.labels == [2, 1]
    assert corpus.test.texts == ["d\te"]
    assert corpus.test.labels == [0]
    assert corpus.test.label_names == ["0", "9", "10"]


def test_an_empty_document_costs_no_labels(nowhere, tmp_path):
    """Of the published layout: a class, a tab and nothing."""
    files = {
        "yelp.train.txt": "1\ta\n1\t\n2\tb\n\n",
        "yelp.valid.txt": "2\tc\n",
        "yelp.test.txt": "1\td\n",
    }
    folder = write_all(tmp_path / "yelp", files)
    with pytest.warns(UserWarning, match="blank documents skipped: 2"):
        corpus = yelp(folder)
    assert corpus.train.texts == ["a", "b"]
    assert (corpus.train.labels, corpus.valid.labels, corpus.test.labels) == ([0, 1], [1], [0])


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_class_before_some_documents_only(split, nowhere, tmp_path):
    files = {f"yelp.{name}.txt": "1\ta\n2\tb\n" for name in ("train", "valid", "test")}
    files[f"yelp.{split}.txt"] = "1\ta\nb\n"
    with pytest.raises(ValueError, match=rf"yelp\.{split}\.txt, line 2 has no tab"):
        yelp(write_all(tmp_path / "yelp", files))


def test_yelp_stars_become_labels_from_zero(nowhere, tmp_path):
    files = {
        "train.jsonl.gz": json_lines([("Bad.", 1), ("Great!", 5)]),
        "valid.jsonl": json_lines([("Fine.", 3)]),
        "test.jsonl": json_lines([("Good.", 4)]),
    }
    corpus = yelp(write_all(tmp_path / "yelp", files))
    assert corpus.name == "yelp-stars"
    assert (corpus.train.labels, corpus.valid.labels, corpus.test.labels) == ([0, 4], [2], [3])
    assert list(corpus.train.label_names) == ["1", "2", "3", "4", "5"]
    write_all(tmp_path / "yelp", {"test.jsonl": json_lines([("What?", 6)])})
    with pytest.raises(ValueError, match="label '6'"):
        yelp(tmp_path / "yelp")


def test_ag_news_has_its_topics_in_the_usual_order(tmp_path, monkeypatch):
    rows = [("w", "World"), ("s", "Sports"), ("b", "Business"), ("t", "Sci/Tech")]
    files = {f"{split}.jsonl": json_lines(rows) for split in ("train", "valid", "test")}
    write_all(tmp_path / "ag-news", files)
    monkeypatch.setenv("TUTVAE_DATA", str(tmp_path))
    corpus = ag_news()
    assert corpus.train.labels == [0, 1, 2, 3]


def dbpedia_rows(count):
    """As they are published: no header line, quotation marks doubled, a space before the text."""
    return "".join(f'{i % 14 + 1},"Title {i}"," It is ""{i}"", he said."\n' for i in range(count))


@pytest.mark.parametrize("pack", ["", ".gz"])
def test_dbpedia_as_published(pack, nowhere, tmp_path):
    files = {f"train.csv{pack}": dbpedia_rows(280), f"test.csv{pack}": dbpedia_rows(14)}
    corpus = dbpedia(write_all(tmp_path / "csv", files))
    assert (len(corpus.train), len(corpus.valid)) == (252, 28)
    assert corpus.test.texts[3] == 'It is "3", he said.'
    assert corpus.test.labels == list(range(14))
    assert corpus.test.label_names[0] == "Company"
    assert corpus.test.label_names[13] == "Written Work"
    for split in (corpus.train, corpus.valid):
        assert split.labels == [int(text.split('"')[1]) % 14 for text in split.texts]


def test_a_class_that_dbpedia_does_not_have(nowhere, tmp_path):
    files = {"train.csv": dbpedia_rows(28) + '15,"Title","Text"\n', "test.csv": dbpedia_rows(14)}
    with pytest.raises(ValueError, match=r"\b15\b"):
        dbpedia(write_all(tmp_path / "csv", files))


def test_dbpedia_in_json_lines_has_the_classes_in_the_published_order(nowhere, tmp_path):
    files = {f"{x}.jsonl": json_lines([("a", "Film"), ("b", "Artist")]) for x in ("train", "test")}
    corpus = dbpedia(write_all(tmp_path / "json", files))
    assert corpus.test.labels == [12, 2]
    assert (len(corpus.train), len(corpus.valid)) == (1, 1)


@pytest.fixture
def hub(monkeypatch, nowhere):
    """Let `datasets.load_dataset` bring small data sets of the Hub's shape."""
    datasets = pytest.importorskip("datasets", reason="needs tutvae[data]")
    asked = []

    def load_dataset(name):
        asked.append(name)
        if name == "Yelp/yelp_review_full":
            names = [f"{stars} star{'s' * (stars > 1)}" for stars in range(1, 6)]
        else:
            names = ["World", "Sports", "Business", "Sci/Tech"]
        if name == "fancyzhx/dbpedia_14":
            names = list(corpora.DBPEDIA_CLASSES)
        text = "content" if name == "fancyzhx/dbpedia_14" else "text"
        features = datasets.Features(
            {text: datasets.Value("string"), "label": datasets.ClassLabel(names=names)}
        )
        sizes = {"train": 40, "test": 7}
        return datasets.DatasetDict(
            {
                split: datasets.Dataset.from_dict(
                    {
                        text: [f"{split} {i}" for i in range(size)],
                        "label": [i % len(names) for i in range(size)],
                    },
                    features=features,
                )
                for split, size in sizes.items()
            }
        )

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return asked


@pytest.mark.parametrize(
    ("load", "hub_name", "K"),
    [
        (yelp, "Yelp/yelp_review_full", 5),
        (ag_news, "fancyzhx/ag_news", 4),
        (dbpedia, "fancyzhx/dbpedia_14", 14),
    ],
)
def test_from_the_hub(load, hub_name, K, hub):
    corpus = load()
    assert hub == [hub_name]
    assert corpus.name == hub_name.split("/")[1]
    assert (len(corpus.train), len(corpus.valid), len(corpus.test)) == (36, 4, 7)
    for split in (corpus.train, corpus.valid, corpus.test):
        assert split.labels == [int(text.split()[1]) % K for text in split.texts]
    assert len(corpus.train.label_names) == K
    assert not {*corpus.train.texts} & {*corpus.valid.texts}


def test_yahoo_from_the_hub_joins_question_and_answer(nowhere, monkeypatch):
    datasets = pytest.importorskip("datasets", reason="needs tutvae[data]")
    topics = datasets.ClassLabel(names=["Science", "Sports"])

    def rows(count):
        columns = {
            "id": list(range(count)),
            "topic": [i % 2 for i in range(count)],
            "question_title": [f"why {i}" for i in range(count)],
            "question_content": ["" if i % 2 else "really" for i in range(count)],
            "best_answer": ["because"] * count,
        }
        return datasets.Dataset.from_dict(columns).cast_column("topic", topics)

    both = datasets.DatasetDict({"train": rows(40), "test": rows(2)})
    monkeypatch.setattr(datasets, "load_dataset", {corpora.YAHOO_HUB_NAME: both}.__getitem__)
    corpus = yahoo()
    assert corpus.name == "yahoo_answers_topics"
    assert (len(corpus.train), len(corpus.valid)) == (36, 4)
    assert corpus.test.texts == ["why 0 really because", "why 1 because"]
    assert corpus.test.labels == [0, 1]
    assert list(corpus.test.label_names) == ["Science", "Sports"]


def test_without_network_yahoo_names_the_papers_sample_too(nowhere, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(FileNotFoundError, match=r"yahoo .*folder=.*TUTVAE_DATA.*jxhe"):
        yahoo()


@pytest.mark.parametrize("load", [yahoo, yelp, ag_news, dbpedia])
def test_without_network_the_error_says_what_to_do(load, hub, monkeypatch, nowhere):
    import datasets

    def offline(name):
        raise ConnectionError(f"couldn't reach {name}")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    with pytest.raises(FileNotFoundError, match=r"folder=.*TUTVAE_DATA.*reach") as caught:
        load()
    folder = CORPORA[load.__name__].folder
    assert f"{folder}/" in str(caught.value)


@pytest.mark.parametrize("load", [yahoo, yelp, ag_news, dbpedia])
def test_without_the_datasets_library_the_error_says_what_to_do(load, nowhere, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(FileNotFoundError, match=r"TUTVAE_DATA.*install tutvae\[data\]"):
        load()


@pytest.mark.data
@pytest.mark.usefixtures("real_data")
@pytest.mark.parametrize(
    ("load", "counts"),
    [
        (ptb, (42_068, 3_370, 3_761)),
        (yahoo, (9_000, 1_000, 10_000)),
        (yelp, (19_909, 2_500, 2_500)),
        (ag_news, (10_001, 3_800, 3_800)),
        (dbpedia, (5_076, 564, 1_960)),
    ],
)
def test_the_real_corpora_have_their_published_sizes(load, counts):
    corpus = load()
    assert (len(corpus.train), len(corpus.valid), len(corpus.test)) == counts


@pytest.mark.data
@pytest.mark.usefixtures("real_data")
@pytest.mark.parametrize(("load", "L"), [(ptb, 21.917), (yahoo, 79.867)])
def test_predicted_tokens_a_test_document(load, L):
    corpus = load()
    tokenizer = Tokenizer.train(corpus.train.texts)
    encoded = tokenizer.encode(corpus.test.texts)
    assert sum(len(ids) - 1 for ids in encoded) / len(encoded) == pytest.approx(L, abs=5e-4)


@pytest.mark.data
@pytest.mark.usefixtures("real_data")
def test_ptbs_vocabulary():
    corpus = ptb()
    tokenizer = Tokenizer.train(corpus.train.texts)
    assert len(tokenizer) == 9_999 + 3
    unknown = sum(ids.count(tokenizer.unk_id) for ids in tokenizer.encode(corpus.test.texts))
    assert unknown == sum(text.split().count("<unk>") for text in corpus.test.texts)


@pytest.mark.data
@pytest.mark.usefixtures("real_data")
def test_yelps_stars_as_counted():
    labels = yelp().train.labels
    assert [labels.count(k) for k in range(5)] == [2210, 1773, 2515, 5692, 7719]


@pytest.mark.data
@pytest.mark.usefixtures("real_data")
def test_no_split_shares_documents_with_another():
    for load in (yahoo, yelp):
        corpus = load()
        splits = [set(split.texts) for split in (corpus.train, corpus.valid, corpus.test)]
        assert not any(a & b for a, b in [*pairwise(splits), (splits[0], splits[2])])
