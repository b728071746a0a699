"""The models that run in the book's pages say what the package says; their widgets work."""

import json
import random
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tutvae

pytestmark = pytest.mark.browser

PAGE = Path("book", "walk.html")
SENTENCES = [
    "Why are you crying?", "My brother works in a bank.", "Where is the station?", "I love you.",
    "She bought a new car.", "It will rain tomorrow.", "TOM DOESN'T SPEAK FRENCH.", "Hurry up!",
    "I've never seen such a beautiful sunset in my whole life.", "", "Zoë’s café 😀", "No.",
    "Do you want to go to Boston with me next week?", "He is 42 years old.", "It's half past two.",
    "They say that he is the richest man in the world.", "What's wrong?", "Don't touch my book.",
    "Mary and Tom were married in October.", "I can't remember where I put my keys.",
]  # fmt: skip
PIECES = [
    "a", "Tom", "don't", "IT'S", "'re", " 've", "x²", "½", "Ⅷ", "2026", "...", "!?", "_", "<",
    "Ça", "e\u0301", "STRASSE", "ß", "İ", "ΟΔΟΣ", "ﬁ", "日本語", "😀", "🇫🇷", "👩\u200d💻",
    " ", "  ", "\t", "\n", "\r\n", "\u00a0", "\u0085", "\u2003", "\ufeff", "\x1f", "<unk>",
    "<eos>", "<BOS>",
]  # fmt: skip
ODD = PIECES + ["".join(random.Random(i).choices(PIECES, k=8)) for i in range(40)]
LONG = "I know that he knows that she knows " * 10


@pytest.fixture(scope="module")
def opened(browser: Any, build: Path) -> Iterator[Any]:
    """The page, opened as a file on a phone, with both its models."""
    page = browser.new_page(viewport={"width": 375, "height": 800})
    page.goto((build / PAGE).as_uri())
    yield page
    page.close()


@pytest.fixture
def page(browser: Any, build: Path) -> Iterator[Any]:
    """The page, opened anew."""
    page = browser.new_page(viewport={"width": 375, "height": 800})
    page.goto((build / PAGE).as_uri())
    yield page
    page.close()


def ask(page: Any, name: str, texts: list[str], expression: str) -> list[Any]:
    """What the page's `model` says of each `text`."""
    answers = f"texts.map((text) => {expression})"
    script = f"([name, texts]) => tutvaeLive.load(name).then((model) => {answers})"
    return page.evaluate(script, [name, texts])


def walk(page: Any, left: str, right: str) -> None:
    """Presses the button, loads the model if need be, and waits for the walk or a message."""
    page.fill("#walk-left", left)
    page.fill("#walk-right", right)
    page.click("[data-part=start]")
    page.wait_for_function(
        "document.querySelector('[data-part=right-back]').textContent"
        " || /^Write/.test(document.querySelector('[data-part=status]').textContent)"
    )


def test_token_ids_are_those_of_the_package(opened: Any) -> None:
    tokenizer = tutvae.load("sentences-8").tokenizer_
    assert ask(opened, "sentences-8", ODD, "model.tokenizer.encode(text)") == tokenizer.encode(ODD)


def test_tokens_become_the_text_that_the_package_makes_of_them(opened: Any) -> None:
    tokenizer = tutvae.load("sentences-8").tokenizer_
    cut = [ids[:-2] for ids in tokenizer.encode(ODD)]  # some end within a character
    found = ask(opened, "sentences-8", cut, "model.tokenizer.decode(text.slice(1))")
    assert found == [tokenizer.decode(ids) for ids in cut]


@pytest.mark.parametrize("name", ["sentences-8", "sentences-24"])
def test_codes_and_reconstructions_are_those_of_the_package(opened: Any, name: str) -> None:
    trained = tutvae.load(name)
    texts = [*SENTENCES, LONG]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the long one is cut
        loc, scale = encoded(trained, texts)
        back = trained.reconstruct(texts)
    means = ask(opened, name, texts, "[...model.encode(text).mean]")
    assert np.array(means) == pytest.approx(loc, abs=1e-3)
    scales = ask(opened, name, texts, "[...model.encode(text).scale]")
    assert np.array(scales) == pytest.approx(scale, rel=1e-3)
    assert ask(opened, name, texts, "model.decode(model.encode(text).mean)") == back


def encoded(trained: Any, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """The means and scales of the package's posteriors."""
    batch = tutvae.EncodedTexts.from_texts(texts, trained.tokenizer_, max_length=42)
    posterior = trained.model_.posterior(batch.batch())
    return posterior.loc.detach().numpy(), posterior.scale.detach().numpy()


def test_samples_differ_except_near_temperature_zero(opened: Any) -> None:
    draw = "model.decode(model.encode(text).mean, {})"
    same = ["Where is the station?"] * 6
    cold = ask(opened, "sentences-8", same, draw.format(1e-6))
    assert set(cold) == {"where is the nearest station?"}
    assert len(set(ask(opened, "sentences-8", same, draw.format(1)))) > 1


def test_the_recorded_walk_is_what_the_package_makes(root: Path) -> None:
    source = (root / "book/_static/live/walk.html").read_text(encoding="utf-8")
    recorded = [re.sub("<.*?>", "", item) for item in re.findall("<li>(.*)</li>", source)]
    ends = "Why are you crying?", "My brother works in a bank."
    assert recorded == tutvae.load("sentences-8").interpolate(*ends, steps=7)


def test_the_page_shows_the_recorded_figures(root: Path) -> None:
    recorded = json.loads((root / "results/everyday/quality.json").read_text(encoding="utf-8"))
    runs = {record["run"]: record for record in recorded}
    source = (root / "book" / "walk.md").read_text(encoding="utf-8")
    shown = re.findall(r"\| ([\d.]+) % \| ([\d.]+) \|", source)
    for run, (exact, nats) in zip(("rate_8-0", "rate_24-0", "autoencoder-0"), shown, strict=True):
        assert runs[run]["exact"] == pytest.approx(float(exact), abs=0.5)
        assert runs[run]["walk_middle_nats_a_token"] == pytest.approx(float(nats), abs=0.05)
    assert all(f". {text}\n" in source for text in runs["autoencoder-0"]["walks"][1][:5])


def test_a_reader_walks_on_a_phone_from_a_file(page: Any) -> None:
    models = page.locator("script[src*='sentences-']")
    assert models.count() == 0
    ends = "Where is the station?", "She bought a new car."
    walk(page, *ends)
    expected = tutvae.load("sentences-8").interpolate(*ends, steps=7)
    assert page.locator("#walk li").all_inner_texts() == expected
    assert models.count() == 1
    page.focus("#walk-slider")
    page.keyboard.press("End")
    page.wait_for_function(f"walk.querySelector('.live-sentence').textContent === {expected[-1]!r}")
    page.click("[data-part=sample]")
    assert page.inner_text("[data-part=sampled]")
    assert page.evaluate("document.documentElement.scrollWidth") == 375


def test_words_that_the_line_above_does_not_have_are_marked(page: Any) -> None:
    recorded = page.locator("#walk mark").all_inner_texts()
    walk(page, "Why are you crying?", "My brother works in a bank.")
    assert page.locator("#walk mark").all_inner_texts() == recorded
    assert page.locator("#walk li").nth(4).locator("mark").all_inner_texts() == [
        "he", "works", "a", "bank.",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("left", "said"),
    [
        ("", "Write a sentence in both fields."),
        ("  ", "Write a sentence in both fields."),
        (LONG, "of its 80 tokens, the model reads 41."),
        ("Zoë’s café 😀", ""),
        ("WHERE IS THE STATION?", ""),
    ],
)
def test_whatever_one_writes_has_an_answer(opened: Any, left: str, said: str) -> None:
    walk(opened, left, "I love you.")
    status = opened.inner_text("[data-part=status]")
    assert status.endswith(said) if said else status == ""
    if not said.startswith("Write"):
        assert opened.inner_text("[data-part=sentence]")


def test_the_other_rate_is_loaded_when_one_asks_for_it(page: Any) -> None:
    ends = "Why are you crying?", "I love you."
    walk(page, *ends)
    page.check("input[value=sentences-24]")
    assert page.inner_text("[data-part=start]") == "Load the model, 8 MB"
    page.click("[data-part=start]")
    page.wait_for_function("/24 nats/.test(walk.querySelector('[data-part=title]').textContent)")
    page.wait_for_function("walk.querySelectorAll('li').length === 7")
    expected = tutvae.load("sentences-24").interpolate(*ends, steps=7)
    assert page.locator("#walk li").all_inner_texts() == expected
    page.check("input[value=sentences-8]")
    page.wait_for_function("/8 nats/.test(walk.querySelector('[data-part=title]').textContent)")


def test_a_model_that_does_not_come_is_one_message_and_can_be_asked_for_again(page: Any) -> None:
    page.evaluate("walk.querySelector('[value=sentences-8]').value = 'sentences-0'")
    for times in (1, 2):
        page.click("[data-part=start]")
        page.wait_for_function(f"document.querySelectorAll('[src*=sentences-]').length === {times}")
        page.get_by_text("The model sentences-0 could not be loaded.").wait_for()
