"""The courses on chapter 5's page are those of the record, and can be looked through."""

import json
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path("book", "_static", "live")
PAGE = Path("notebooks", "05_kl_annealing.html")
COLUMNS = {"weights": "kl_weight", "kl": "kl", "reconstruction": "reconstruction"}


@pytest.fixture(scope="module")
def brought(root: Path) -> Any:
    """What remedies.js brings into the page."""
    script = (root / FOLDER / "remedies.js").read_text(encoding="ascii")
    return json.loads(script.split(".remedies = ")[1].removesuffix(";\n"))


@pytest.fixture(scope="module")
def recorded(root: Path) -> list[Any]:
    """The courses of the record."""
    path = root / "results" / "remedies" / "reviews.json"
    rows = json.loads(path.read_text(encoding="utf-8"))
    return [row["curve"] for row in rows if "curve" in row and row["remedy"][:5] != "blank"]


def test_the_courses_are_those_of_the_record(brought: Any, recorded: list[Any]) -> None:
    assert len(brought) == len(recorded) == 14
    for run in brought:
        same = [c for c in recorded if run["kl"] == [float(f"{x:.3g}") for x in c["kl"]]]
        assert len(same) == 1, f"{run['name']}: run tools/live_remedies.py"
        for key, own in COLUMNS.items():
            assert run[key] == pytest.approx(same[0][own], rel=6e-3)


def test_what_the_page_loads_is_small(root: Path) -> None:
    loaded = ("remedies.js", "remedies.png", "curves.js", "remedies.html")
    assert sum((root / FOLDER / name).stat().st_size for name in loaded) < 300_000


@pytest.mark.browser
def test_the_updates_are_those_of_the_record(phone: Any, recorded: list[Any]) -> None:
    updates = recorded[0]["update"][:-1]  # the last mean may be of fewer
    assert phone.evaluate("n => [...Array(n).keys()].map(tutvaeLive.updateOf)", len(updates)) == (
        updates
    )


@pytest.mark.browser
def test_a_reader_compares_two_remedies_on_a_phone(phone: Any, brought: Any) -> None:
    phone.select_option("#remedies-first", label="held rate of 4")
    phone.focus("#remedies-update")
    phone.keyboard.press("End")
    run = next(run for run in brought if run["name"] == "held rate of 4")
    longest = max(len(run["kl"]), len(brought[0]["kl"]))
    said = phone.inner_text("#remedies [data-part=first]")
    if len(run["kl"]) == longest:
        assert said.startswith(f"held rate of 4: weight 1.00, KL {run['kl'][-1]:.2f}")
    else:
        assert said == "held rate of 4: has ended."
    phone.keyboard.press("Home")
    said = phone.inner_text("#remedies [data-part=first]")
    assert said.startswith(f"held rate of 4: weight 1.00, KL {run['kl'][0]:.2f}")
    spoken = phone.get_attribute("#remedies-update", "aria-valuetext")
    assert spoken == f"update 1. {said}"
    assert phone.locator("#remedies svg").count() == 3
    assert phone.evaluate("document.documentElement.scrollWidth") == 375
    assert phone.complaints == []


@pytest.mark.browser
def test_without_javascript_the_picture_stands_there(without_scripts: Any) -> None:
    assert without_scripts.is_visible("#remedies img")
    assert not without_scripts.is_visible("#remedies form")
