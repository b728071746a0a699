"""The language model that reads no word: its probabilities, its constants and its record."""

import importlib
import json
import math
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
EXPERIMENTS, RESULTS = ROOT / "experiments", ROOT / "results"
TRAIN = [text.split() for text in ("a b", "a b c", "b c", "a a b", "c")]
VALID = [text.split() for text in ("a b", "a c", "b c c c c")]


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXPERIMENTS)
        yield importlib.import_module("ptb_inputless")


def test_the_probabilities_of_all_short_sentences_sum_to_nearly_one(script: ModuleType) -> None:
    model = script.ByPlace(TRAIN)
    model.choose(VALID)
    short = [list(words) for n in range(9) for words in product("abc", repeat=n)]
    total = sum(math.exp(-model.nats([sentence])) for sentence in short)
    assert 0.95 < total < 1.005  # the rest is in longer ones; costs are rounded


def test_the_chosen_constants_are_the_best_on_held_out_sentences(script: ModuleType) -> None:
    model = script.ByPlace(TRAIN)
    model.choose(VALID)
    best = model.nats(VALID)
    for place, a in product(range(model.places), script.CONSTANTS):
        kept, model.a[place] = model.a[place], a
        assert model.nats(VALID) >= best
        model.a[place] = kept


def test_without_places_it_is_the_frequency_of_words(script: ModuleType) -> None:
    model = script.ByPlace([["a", "b"], ["b", "a"]])
    # An end is certain behind two words, and costs next to nothing; each word is one of two.
    model.b = 1e-9
    assert model.nats([["a", "b"]]) == pytest.approx(2 * math.log(2), abs=1e-3)


def test_the_record_is_of_the_sentences_of_the_remedies() -> None:
    record = json.loads((RESULTS / "ptb/inputless.json").read_text(encoding="utf-8"))
    remedies = json.loads((RESULTS / "ptb_remedies.json").read_text(encoding="utf-8"))
    for run in remedies["runs"]:
        assert run["reports"]["test"]["examples"] == record["test_spread"]["examples"]
        assert run["reports"]["test"]["tokens"] == record["tokens_spread"]
