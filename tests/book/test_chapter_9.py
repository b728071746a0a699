"""Chapter 9: what it defines computes what the package does, and its sliders can be moved."""

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from IPython.display import HTML
from nbformat import NotebookNode

import tutvae
from tutvae import LabelElbo, ReviewGrammar

MUTANTS = {
    "one label": ("posterior.max(1, keepdims=True)", "posterior.max()"),
    "no tie": ("(1 - 1e-9)", "(1 + 1e-9)"),
    "ties in full": ("agrees / np.maximum(likeliest.sum(1), 1)", "agrees * 1.0"),
    "another label": ("likeliest[np.arange(len(texts)), labels]", "likeliest[:, labels[0]]"),
    "only whole posteriors": ("~np.isnan(posterior).any(1)", "np.ones(len(texts), bool)"),
    "those in the grammar only": ('"agree": credit.mean()', '"agree": credit[grammatical].mean()'),
    "all of them": ("credit[grammatical].mean(),", "credit.mean(),"),
}
NAMES = ("hotel", "film")
TEXTS = [[[f"{code}: a {name} of {stars} <stars>" for stars in range(1, 6)] for name in NAMES]
         for code in "ab"]  # fmt: skip


def cell_with(chapters: dict[int, NotebookNode], text: str) -> str:
    """The source of the only cell that defines something."""
    found = [cell.source for cell in chapters[9].cells if text in cell.source]
    assert len(found) == 1, f"{len(found)} cells have {text!r}"
    return found[0]


@pytest.fixture(scope="module")
def judge(chapters: dict[int, NotebookNode]) -> str:
    return cell_with(chapters, "def label_agreement(")


def agree(source: str) -> bool:
    """Whether the chapter's judge says what ours does, of ties and of what is no review, too."""
    names = {"np": np}
    exec(source, names)
    grammar = ReviewGrammar(nouns=2, adjectives=2, vagueness=0.5, star_noise=0.3)
    reviews = grammar.sample(200, seed=0, label="joint")
    texts = [*reviews.texts, "no such review", ""]
    labels = np.array([*reviews.labels, 3, 7])
    theirs = tutvae.label_agreement(grammar, texts, labels, "joint")
    expected = (theirs.among_all, theirs.grammatical, theirs.among_grammatical)
    ours = names["label_agreement"](grammar, texts, labels)  # type: ignore[operator]
    return bool(np.allclose(list(ours.values()), expected))


def test_the_judge_says_what_the_packages_does(judge: str) -> None:
    assert agree(judge)


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_change_of_the_judge_is_seen(judge: str, mutant: str) -> None:
    term, changed = MUTANTS[mutant]
    assert judge.count(term) == 1, f"the chapter no longer has {term!r} once"
    assert not agree(judge.replace(term, changed))


@pytest.mark.parametrize("floor", [0.0, 0.8, 3.0])
def test_the_two_lines_of_the_floor_are_the_packages(
    chapters: dict[int, NotebookNode], floor: float
) -> None:
    names: dict[str, Any] = {}
    exec(cell_with(chapters, "def floored("), names)
    costs = {name: torch.rand(6) for name in ("reconstruction", "kl", "label_kl")}
    without = {"classification": torch.zeros(6), "labelled": torch.zeros(6, dtype=torch.bool)}
    elbo = LabelElbo(**costs, **without, label_kl_floor=floor)
    torch.testing.assert_close(names["floored"](elbo, floor), elbo.loss())


@pytest.fixture(scope="module")
def sliders(chapters: dict[int, NotebookNode]) -> str:
    """The HTML that the chapter makes of some texts."""
    names: dict[str, Any] = {"HTML": HTML}
    exec("import html\nimport json\n" + cell_with(chapters, "def sliders("), names)
    return names["sliders"](TEXTS, NAMES).data


def test_without_javascript_there_is_a_table(sliders: str) -> None:
    assert "<details open>" in sliders
    assert "<form hidden" in sliders
    rows = re.findall(r"<tr><th>(.*?)</th><td.*?>(.*?)</td></tr>", sliders)
    assert len(rows) == 6
    assert rows[-1] == ("film 5", "a: a film of 5 &lt;stars&gt;")


@pytest.fixture
def page(browser: Any, sliders: str) -> Iterator[Any]:
    page = browser.new_page(viewport={"width": 375, "height": 800})
    page.set_content(sliders)
    yield page
    page.close()


@pytest.mark.browser
def test_the_sliders_show_the_text_of_code_category_and_stars(page: Any) -> None:
    assert page.inner_text("form p") == "a: a hotel of 3 <stars>"
    page.focus("[name=stars]")
    page.keyboard.press("ArrowRight")
    assert page.inner_text("form p") == "a: a hotel of 4 <stars>"
    page.check("[name=category][value='1']")
    page.focus("[name=code]")
    page.keyboard.press("End")
    assert page.inner_text("form p") == "b: a film of 4 <stars>"
    assert not page.evaluate("document.querySelector('details').open")
    assert page.evaluate("document.documentElement.scrollWidth") == 375
