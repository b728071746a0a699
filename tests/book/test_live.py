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
MODELS = Path(__file__).parents[2] / "book" / "models"
RATES = ("rate-0", "rate-4", "rate-8", "rate-16", "rate-24")
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
    """The page, opened as a file on a phone, with its models."""
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


def in_python(name: str) -> Any:
    """A model of the page, as the package reads it."""
    return tutvae.load(MODELS / name)


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
    tokenizer = in_python("rate-8").tokenizer_
    assert ask(opened, "rate-8", ODD, "model.tokenizer.encode(text)") == tokenizer.encode(ODD)


def test_tokens_become_the_text_that_the_package_makes_of_them(opened: Any) -> None:
    tokenizer = in_python("rate-8").tokenizer_
    cut = [ids[:-2] for ids in tokenizer.encode(ODD)]  # some end within a character
    found = ask(opened, "rate-8", cut, "model.tokenizer.decode(text.slice(1))")
    assert found == [tokenizer.decode(ids) for ids in cut]


@pytest.mark.parametrize("name", RATES)
def test_codes_and_reconstructions_are_those_of_the_package(opened: Any, name: str) -> None:
    trained = in_python(name)
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
    cold = ask(opened, "rate-8", same, draw.format(1e-6))
    assert set(cold) == {*in_python("rate-8").reconstruct(same)}
    assert len(set(ask(opened, "rate-8", same, draw.format(1)))) > 1


def test_the_recorded_walk_is_what_the_package_makes(root: Path) -> None:
    source = (root / "book/_static/live/walk.html").read_text(encoding="utf-8")
    recorded = [re.sub("<.*?>", "", item) for item in re.findall("<li>(.*)</li>", source)]
    ends = "Why are you crying?", "My brother works in a bank."
    assert recorded == in_python("rate-8").interpolate(*ends, steps=7)


def test_the_page_shows_the_recorded_figures(root: Path) -> None:
    source = (root / "book" / "walk.md").read_text(encoding="utf-8")
    shown = re.findall(r"^\| (\d+) \| ([\d.]+) % \| (\d) \| ([\d.]+) \|$", source, re.M)
    assert [f"rate-{rate}" for rate, *_ in shown] == list(RATES)
    runs = recorded(root, "small")
    for rate, exact, different, nats in shown:
        run = runs[f"rate_{rate}-0"]
        assert run["exact"] == pytest.approx(float(exact), abs=0.5)
        assert run["walk_different"] == int(different)
        assert run["walk_middle_nats_a_token"] == pytest.approx(float(nats), abs=0.05)
    real = re.search(r"real sentences cost it ([\d.]+) nats", source)[1]
    assert runs["language_model-0"]["real_nats_a_token"] == pytest.approx(float(real), abs=0.05)


def test_the_page_shows_the_recorded_autoencoder(root: Path) -> None:
    source = (root / "book" / "walk.md").read_text(encoding="utf-8")
    run = recorded(root, "quality")["autoencoder-0"]
    assert all(f". {text}\n" in source for text in run["walks"][1][:5])
    exact, nats = re.search(r"copies (\d+) sentences .* costs ([\d.]+) nats", source).groups()
    assert run["exact"] == pytest.approx(int(exact), abs=0.5)
    assert run["walk_middle_nats_a_token"] == pytest.approx(float(nats), abs=0.05)


def recorded(root: Path, name: str) -> dict[str, Any]:
    """What was measured of the runs of a dial, by run."""
    text = (root / "results" / "everyday" / f"{name}.json").read_text(encoding="utf-8")
    return {run["run"]: run for run in json.loads(text)}


def test_a_reader_walks_on_a_phone_from_a_file(page: Any) -> None:
    models = page.locator("script[src*='rate-']")
    assert models.count() == 0
    ends = "Where is the station?", "She bought a new car."
    walk(page, *ends)
    expected = in_python("rate-8").interpolate(*ends, steps=7)
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
    assert page.locator("#walk li").nth(6).locator("mark").all_inner_texts() == ["my", "father"]


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


def test_another_rate_is_loaded_when_one_asks_for_it(page: Any) -> None:
    ends = "Why are you crying?", "I love you."
    walk(page, *ends)
    page.check("input[value=rate-24]")
    assert page.inner_text("[data-part=start]") == "Load the model, 4 MB"
    page.click("[data-part=start]")
    page.wait_for_function("/24 nats/.test(walk.querySelector('[data-part=title]').textContent)")
    page.wait_for_function("walk.querySelectorAll('li').length === 7")
    expected = in_python("rate-24").interpolate(*ends, steps=7)
    assert page.locator("#walk li").all_inner_texts() == expected
    page.check("input[value=rate-8]")
    page.wait_for_function("/8 nats/.test(walk.querySelector('[data-part=title]').textContent)")


def test_a_model_that_does_not_come_is_one_message_and_can_be_asked_for_again(page: Any) -> None:
    page.evaluate("walk.querySelector('[value=rate-8]').value = 'rate-7'")
    for times in (1, 2):
        page.click("[data-part=start]")
        page.wait_for_function(f"document.querySelectorAll('[src*=rate-]').length === {times}")
        page.get_by_text("The model rate-7 could not be loaded.").wait_for()
