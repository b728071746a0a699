from __future__ import annotations

import gzip
import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tutvae.data.corpora import CORPORA, Entry, digits, mnist, whereabouts
from tutvae.data.corpus import Corpus, Images
from tutvae.data.readers import layouts
from tutvae.data.readers.files import DATA_VARIABLE
from tutvae.data.readers.mnist import MNIST_FILES, MNIST_HUB_NAME

Pack = Callable[[np.ndarray], bytes]
Arrays = dict[str, np.ndarray]


def splits(corpus: Corpus[Images]) -> tuple[Images, Images, Images]:
    return corpus.train, corpus.valid, corpus.test


@pytest.fixture
def tiny_mnist_is_mnist(monkeypatch: pytest.MonkeyPatch, mnist_arrays: Arrays) -> None:
    """Let the SHA-256 of the tiny files pass for the published ones."""
    sums = {
        split: tuple(hashlib.sha256(mnist_arrays[name].tobytes()).hexdigest() for name in names)
        for split, names in MNIST_FILES.items()
    }
    monkeypatch.setattr("tutvae.data.readers.mnist.MNIST_SHA256", sums)


class TestDigits:
    def test_three_splits_of_8_by_8_digits(self) -> None:
        corpus = digits()
        assert corpus.name == "digits"
        assert [len(split) for split in splits(corpus)] == [1297, 200, 300]
        for split in splits(corpus):
            assert (split.height, split.width) == (8, 8)
            assert split.pixels.dtype == torch.float32
            assert split.labels.dtype == torch.int64
            assert set(split.labels.tolist()) == set(range(10))
            assert split.pixels.max() == 1
            sixteenths = split.pixels * 16
            assert torch.equal(sixteenths, sixteenths.round())

    @pytest.mark.parametrize("seed", [0, 1])
    def test_the_splits_are_the_whole_set_without_overlap(self, seed: int) -> None:
        from sklearn.datasets import load_digits

        pixels, labels = load_digits(return_X_y=True)
        whole = np.column_stack([pixels / 16, labels])
        parts = [
            np.column_stack([split.pixels.numpy(), split.labels.numpy()])
            for split in splits(digits(seed))
        ]
        rows = np.concatenate(parts).astype(np.float64)
        assert len(np.unique(whole, axis=0)) == len(whole)  # so that rows identify images
        np.testing.assert_array_equal(np.unique(rows, axis=0), np.unique(whole, axis=0))
        assert len(rows) == len(whole)

    def test_the_seed_alone_decides(self) -> None:
        np.random.seed(7)
        first = digits().train.pixels
        np.random.seed(8)
        assert torch.equal(first, digits(0).train.pixels)
        assert not torch.equal(first, digits(1).train.pixels)


@pytest.mark.usefixtures("tiny_mnist_is_mnist")
class TestMnistFromFiles:
    def check(self, corpus: Corpus[Images], arrays: Arrays) -> None:
        """Twelve training images, the last five of them held out, and seven test images."""
        assert corpus.name == "mnist"
        (images, labels), test = ([arrays[n] for n in names] for names in MNIST_FILES.values())
        expected = [(images[:7], labels[:7]), (images[7:], labels[7:]), test]
        for split, (pixels, classes) in zip(splits(corpus), expected, strict=True):
            assert (split.height, split.width) == (28, 28)
            assert split.pixels.dtype == torch.float32
            np.testing.assert_allclose(split.pixels, pixels.reshape(-1, 784) / 255, rtol=1e-6)
            assert split.labels.tolist() == classes.tolist()

    def test_a_folder(self, mnist_folder: Path, mnist_arrays: Arrays) -> None:
        self.check(mnist(mnist_folder, valid_size=5), mnist_arrays)

    def test_gzipped_files(self, mnist_folder: Path, mnist_arrays: Arrays) -> None:
        for path in list(mnist_folder.iterdir()):
            Path(f"{path}.gz").write_bytes(gzip.compress(path.read_bytes()))
            path.unlink()
        self.check(mnist(str(mnist_folder), valid_size=5), mnist_arrays)

    def test_the_folder_that_the_environment_names(
        self, mnist_folder: Path, mnist_arrays: Arrays, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(DATA_VARIABLE, str(mnist_folder.parent))
        self.check(mnist(valid_size=5), mnist_arrays)

    def test_nothing_held_out(self, mnist_folder: Path) -> None:
        corpus = mnist(mnist_folder, valid_size=0)
        assert [len(split) for split in splits(corpus)] == [12, 0, 7]

    @pytest.mark.parametrize("name", [name for names in MNIST_FILES.values() for name in names])
    def test_a_missing_file(self, mnist_folder: Path, name: str) -> None:
        (mnist_folder / name).unlink()
        with pytest.raises(FileNotFoundError, match=f"holds neither {name} nor {name}.gz"):
            mnist(mnist_folder, valid_size=5)

    def test_a_truncated_file(self, mnist_folder: Path) -> None:
        path = mnist_folder / "t10k-images-idx3-ubyte"
        path.write_bytes(path.read_bytes()[:-100])
        with pytest.raises(ValueError, match="t10k-images-idx3-ubyte is truncated"):
            mnist(mnist_folder, valid_size=5)

    def test_a_truncated_gzip_file(self, mnist_folder: Path) -> None:
        path = mnist_folder / "train-labels-idx1-ubyte"
        (mnist_folder / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes())[:-9])
        path.unlink()
        with pytest.raises(ValueError, match=r"train-labels-idx1-ubyte\.gz is not a whole gzip"):
            mnist(mnist_folder, valid_size=5)

    def test_images_of_another_size(
        self, mnist_folder: Path, mnist_arrays: Arrays, idx_bytes: Pack
    ) -> None:
        name = "train-images-idx3-ubyte"
        (mnist_folder / name).write_bytes(idx_bytes(mnist_arrays[name][:, :14, :]))
        with pytest.raises(ValueError, match=r"shape \(12, 14, 28\), MNIST's are \[N, 28, 28\]"):
            mnist(mnist_folder, valid_size=5)

    def test_labels_in_the_place_of_images(
        self, mnist_folder: Path, mnist_arrays: Arrays, idx_bytes: Pack
    ) -> None:
        labels = idx_bytes(mnist_arrays["train-labels-idx1-ubyte"])
        (mnist_folder / "train-images-idx3-ubyte").write_bytes(labels)
        with pytest.raises(ValueError, match=r"shape \(12,\), MNIST's are \[N, 28, 28\]"):
            mnist(mnist_folder, valid_size=5)

    @pytest.mark.parametrize("name", ["train-labels-idx1-ubyte", "t10k-images-idx3-ubyte"])
    def test_one_changed_byte(self, mnist_folder: Path, name: str) -> None:
        content = bytearray((mnist_folder / name).read_bytes())
        content[-1] ^= 1
        (mnist_folder / name).write_bytes(content)
        split = "train" if name.startswith("train") else "test"
        what = "labels" if "labels" in name else "images"
        with pytest.raises(ValueError, match=f"MNIST's {split} {what} is not the published file"):
            mnist(mnist_folder, valid_size=5)


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere: give the folder that holds mnist's"):
        mnist(tmp_path / "nowhere")


def test_other_files_in_the_right_form(mnist_folder: Path) -> None:
    """Such as Fashion-MNIST, which has the same names and shapes."""
    with pytest.raises(ValueError, match="MNIST's train images is not the published file"):
        mnist(mnist_folder)


@pytest.mark.parametrize("valid_size", [-1, 60_000, 70_000])
def test_more_held_out_than_there_is(valid_size: int) -> None:
    with pytest.raises(ValueError, match=rf"0 \.\.\. 59,999, not {valid_size}"):
        mnist(valid_size=valid_size)


class TestMnistFromTheHub:
    @pytest.fixture
    def hub(self, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
        """A stand-in for the package `datasets`, and no MNIST at hand."""
        monkeypatch.delenv(DATA_VARIABLE, raising=False)
        module = ModuleType("datasets")
        monkeypatch.setitem(sys.modules, "datasets", module)
        return module

    @pytest.mark.usefixtures("tiny_mnist_is_mnist")
    def test_the_hub_brings_what_the_files_hold(
        self, hub: ModuleType, mnist_folder: Path, mnist_arrays: Arrays
    ) -> None:
        def load_dataset(name: str, split: str) -> dict[str, list[Any]]:
            assert name == MNIST_HUB_NAME
            images, labels = (mnist_arrays[name] for name in MNIST_FILES[split])
            return {"image": [Image.fromarray(i) for i in images], "label": labels.tolist()}

        hub.load_dataset = load_dataset  # type: ignore[attr-defined]
        fetched, read = mnist(valid_size=5), mnist(mnist_folder, valid_size=5)
        for a, b in zip(splits(fetched), splits(read), strict=True):
            assert torch.equal(a.pixels, b.pixels)
            assert torch.equal(a.labels, b.labels)

    @pytest.mark.parametrize("error", [ConnectionError("no route"), ValueError("no such split")])
    def test_no_network(self, hub: ModuleType, error: Exception) -> None:
        def load_dataset(name: str, split: str) -> None:
            raise error

        hub.load_dataset = load_dataset  # type: ignore[attr-defined]
        with pytest.raises(FileNotFoundError, match=rf"folder=.*\({error}\)") as caught:
            mnist()
        assert DATA_VARIABLE in str(caught.value)
        assert caught.value.__cause__ is error

    def test_without_the_package(self, hub: ModuleType) -> None:
        """`hub` has no load_dataset, as an import that fails."""
        with pytest.raises(FileNotFoundError, match=r"mnist .*folder=.*tutvae\[data\]"):
            mnist()

    def test_the_hub_is_held_to_the_published_sums(
        self, hub: ModuleType, mnist_arrays: Arrays
    ) -> None:
        images = list(mnist_arrays["train-images-idx3-ubyte"])
        hub.load_dataset = lambda name, split: {"image": images, "label": [0] * 12}  # type: ignore[attr-defined]
        with pytest.raises(ValueError, match="not the published file"):
            mnist()


def test_a_corpus_is_one_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Known layouts need no more: here JSON lines with their validation split held out."""
    load = layouts.json_lines("verses", "poets/verses", splits=("train", "test"))
    monkeypatch.setitem(CORPORA, "verses", Entry(load, "verses", ("train.jsonl",)))
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path))
    (tmp_path / "verses").mkdir()
    for split, size in (("train", 20), ("test", 3)):
        rows = [{"text": f"{split} {i}", "label": "ab"[i % 2]} for i in range(size)]
        (tmp_path / "verses" / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert whereabouts()["verses"] == (tmp_path / "verses", True)
    corpus = CORPORA["verses"].load()
    assert [len(x) for x in (corpus.train, corpus.valid, corpus.test)] == [18, 2, 3]
    assert corpus.test.labels == [0, 1, 0]


def test_own_files_and_the_digits_are_entries(tmp_path: Path) -> None:
    path = tmp_path / "own.txt"
    path.write_text("one\ntwo\nthree\n")
    assert CORPORA["files"].load(path, path, path).valid.texts == ["one", "two", "three"]
    assert CORPORA["digits"].load().name == "digits"


class TestWhereabouts:
    def test_files_in_the_named_folder(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An empty folder is no corpus; a packed file is as good as another."""
        monkeypatch.setenv(DATA_VARIABLE, str(tmp_path))
        for folder, file in (("ptb", "ptb.train.txt"), ("yelp-stars", "train.jsonl.gz")):
            (tmp_path / folder).mkdir()
            (tmp_path / folder / file).touch()
        (tmp_path / "mnist").mkdir()
        places = whereabouts()
        assert {name for name, place in places.items() if place.found} == {"ptb", "yelp"}
        assert places["mnist"].folder == tmp_path / "mnist"
        assert places["yelp"].folder == tmp_path / "yelp-stars"

    def test_no_folder_is_named(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv(DATA_VARIABLE, raising=False)
        monkeypatch.setenv("HOME", str(tmp_path))
        places = whereabouts()
        assert places["ptb"] == (tmp_path / ".cache" / "tutvae" / "ptb", False)
        assert places["mnist"] == (None, False)

    @pytest.mark.parametrize("name", [name for name, entry in CORPORA.items() if entry.folder])
    def test_corpora_are_read_where_they_are_looked_for(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        """What stands there is opened, and found to be wrong."""
        monkeypatch.setenv(DATA_VARIABLE, str(tmp_path))
        entry = CORPORA[name]
        folder = tmp_path / str(entry.folder)
        folder.mkdir()
        (folder / entry.files[-1]).write_bytes(b"not it")
        assert whereabouts()[name].found
        with pytest.raises((ValueError, FileNotFoundError), match=folder.name):
            entry.load()

    @pytest.mark.data
    def test_the_real_ones(self, real_data: Path) -> None:
        assert all(place.found for place in whereabouts().values())


@pytest.mark.data
def test_the_real_files(real_data: Path) -> None:
    corpus = mnist(real_data / "mnist")
    assert [len(split) for split in splits(corpus)] == [50_000, 10_000, 10_000]
    assert corpus.train.labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert corpus.test.labels[:5].tolist() == [7, 2, 1, 0, 4]
    assert corpus.train.pixels.mean().item() == pytest.approx(0.1307, abs=1e-3)
    assert corpus.test.labels.bincount(minlength=10).min() > 800
