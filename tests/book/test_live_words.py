"""The coloured words on chapter 7's page are those of the record, and bear out what it says."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

FOLDER = Path("book", "_static", "live")
PAGE = Path("notebooks", "07_decoder_capacity.html")
NAMES = ["field 3", "field 15", "field 63", "LSTM"]


@pytest.fixture(scope="module")
def brought(root: Path) -> Any:
    """What words.js brings into the page."""
    script = (root / FOLDER / "words.js").read_text(encoding="ascii")
    return json.loads(script.split(".words = ")[1].removesuffix(";\n"))


@pytest.fixture(scope="module")
def recorded(root: Path) -> list[Any]:
    """The runs of the record, in the order of the page."""
    path = root / "results" / "context" / "words.json"
    return json.loads(path.read_text(encoding="utf-8"))


def test_the_words_are_those_of_the_record(brought: Any, recorded: list[Any]) -> None:
    assert [decoder["name"] for decoder in brought["decoders"]] == NAMES
    for decoder, run in zip(brought["decoders"], recorded, strict=True):
        assert brought["reviews"] == [one["words"] for one in run["shown"]]
        for nats, one in zip(decoder["nats"], run["shown"], strict=True):
            assert nats == pytest.approx(one["nats"], abs=0.006)


def test_a_code_saves_as_often_as_the_decoder_has_forgotten(recorded: list[Any]) -> None:
    saved = {}
    for name, run in zip(NAMES, recorded, strict=True):
        kinds = pd.DataFrame(run["kinds"]).query("sentence < 5")
        saved[name] = kinds.pivot(index="kind", columns="sentence", values="mean")
    forgets, sees, farther, lstm = (saved[name] for name in NAMES)
    for kind in ("noun of the category", "adjective of the stars"):
        assert forgets.loc[kind, 1:].between(1.1, 1.4).all(), "in every sentence"
        assert sees.loc[kind, 1:].max() < 0.3 > farther.loc[kind, 1:].max(), "in the first only"
    for decoder in (sees, farther):
        assert decoder.loc["verb of the category", 0] == pytest.approx(1.37, abs=0.01)
        assert decoder.loc["adjective of the stars", 0] == pytest.approx(1.19, abs=0.02)
    assert forgets.loc["function word", 1:].abs().max() < 0.05, "nothing between them"
    assert lstm.loc["verb of the category", 0] == pytest.approx(0.33, abs=0.01)
    assert lstm.drop("end").loc[:, 1:].abs().max().max() < 0.06, "and then nothing"
    assert recorded[3]["kl"] == pytest.approx(0.64, abs=0.01)


def test_without_javascript_the_first_review_stands_there(root: Path, brought: Any) -> None:
    html = (root / FOLDER / "words.html").read_text(encoding="utf-8")
    text = html.split('data-part="text">')[1].split("</p>")[0]
    shown = [span.split(">")[1].split("<")[0] for span in text.split("<span")[1:]]
    assert shown == [w.replace("<", "&lt;").replace(">", "&gt;") for w in brought["reviews"][0]]


@pytest.mark.browser
def test_a_reader_chooses_on_a_phone(phone: Any, brought: Any) -> None:
    for number, decoder in enumerate(brought["decoders"]):
        phone.check(f"#words input[value='{number}']")
        for review in (0, 4):
            phone.select_option("#words-review", str(review))
            said = phone.inner_text("#words [data-part=status]")
            total = sum(decoder["nats"][review])
            assert said.startswith(f"{decoder['name']}: {total:.1f}".replace("-", "\u2212"))
            words = phone.inner_text("#words [data-part=text]").split()
            assert words == brought["reviews"][review]
    assert phone.locator("#words .live-much").count() > 0
    assert phone.evaluate("document.documentElement.scrollWidth") == 375
    assert phone.complaints == []


@pytest.mark.browser
def test_the_page_colours_as_the_tool_does(phone: Any, root: Path) -> None:
    phone.check("#words input[value='0']")
    phone.select_option("#words-review", "0")
    shown = phone.eval_on_selector_all(
        "#words [data-part=text] span",
        "spans => spans.map(x => [x.className, x.style.getPropertyValue('--share')])",
    )
    html = (root / FOLDER / "words.html").read_text(encoding="utf-8")
    text = html.split('data-part="text">')[1].split("</p>")[0]
    written = [
        [span.split('"')[1], span.split("--share: ")[1].split('"')[0]]
        for span in text.split("<span")[1:]
    ]
    assert shown == written
