"""The map of reviews on chapter 7's page: what is written there is about what lies there."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.linear_model import LinearRegression
from sklearn.neighbors import KNeighborsClassifier

import tutvae

FOLDER = Path("book", "_static", "live")
PAGE = Path("notebooks", "07_decoder_capacity.html")
EDGE, PLACES = 2.5, 17
# Words that say the category, as the grammar of the page uses them.
SUBJECTS = ("restaurant", "hotel", "film|movie", "phone|handset", "book|novel")


@pytest.fixture(scope="module")
def brought(root: Path) -> Any:
    """What reviews.js brings into the page."""
    script = (root / FOLDER / "reviews.js").read_text(encoding="ascii")
    return json.loads(script.split(".reviews = ")[1].removesuffix(";\n"))


def place(across: int, up: int) -> int:
    """Where the text of a place stands in the list."""
    return (PLACES - 1 - up) * PLACES + across


def test_what_the_page_loads_is_small(root: Path) -> None:
    loaded = ("reviews.js", "reviews.png", "atlas.js", "reviews.html")
    assert sum((root / FOLDER / name).stat().st_size for name in loaded) < 200_000


def test_there_is_a_text_for_each_place(brought: Any) -> None:
    assert len(brought["texts"]) == PLACES**2
    assert all(text.endswith(" .") for text in brought["texts"])


def test_what_is_written_agrees_with_the_reviews_that_lie_there(brought: Any) -> None:
    x, y, category, _ = np.array(brought["dots"]).T
    near = KNeighborsClassifier(9).fit(np.stack([x, y], 1), category.astype(int))
    steps = np.linspace(-EDGE, EDGE, PLACES)
    agreed = asked = 0
    for up, across in np.ndindex(PLACES, PLACES):
        share = near.predict_proba([[steps[across], steps[up]]])[0]
        named = [
            any(w in brought["texts"][place(across, up)].split() for w in words.split("|"))
            for words in SUBJECTS
        ]
        if share.max() == 1 and any(named):
            asked += 1
            agreed += named[int(share.argmax())]
    assert asked > 100
    assert agreed / asked > 0.85


def test_along_each_strip_the_reviews_are_sorted_by_their_stars(brought: Any) -> None:
    x, y, category, stars = np.array(brought["dots"]).T
    for kind in range(5):
        here = category == kind
        plane = np.stack([x, y], 1)[here]
        along = LinearRegression().fit(plane, stars[here]).predict(plane)
        assert spearmanr(along, stars[here]).statistic > 0.9


def test_the_codes_tell_the_category(brought: Any) -> None:
    names = list(tutvae.ReviewGrammar().corpus(train=1, valid=1, test=1).test.label_names)
    assert brought["categories"] == names
    x, y, category, _ = np.array(brought["dots"]).T
    places, labels = np.stack([x, y], 1), category.astype(int)
    near = KNeighborsClassifier(5).fit(places[::2], labels[::2])
    assert near.score(places[1::2], labels[1::2]) > 0.9


@pytest.mark.browser
def test_a_reader_points_on_a_phone_and_moves_by_keys(phone: Any, brought: Any) -> None:
    ground = phone.locator("#reviews [data-part=map]")
    ground.scroll_into_view_if_needed()
    box = ground.bounding_box()
    phone.mouse.click(box["x"] + 2, box["y"] + 2)
    assert phone.inner_text("#reviews [data-part=text]") == brought["texts"][place(0, 16)]
    phone.focus("#reviews-first")
    phone.keyboard.press("End")
    said = brought["texts"][place(16, 16)]
    assert phone.inner_text("#reviews [data-part=text]") == said
    assert phone.get_attribute("#reviews-first", "aria-valuetext") == f"2.5: {said}"
    assert phone.locator("#reviews circle").count() == len(brought["dots"]) + 1
    assert phone.evaluate("document.documentElement.scrollWidth") == 375
    assert phone.complaints == []


@pytest.mark.browser
def test_without_javascript_the_picture_stands_there(without_scripts: Any) -> None:
    assert without_scripts.is_visible("#reviews img")
    assert not without_scripts.is_visible("#reviews form")
