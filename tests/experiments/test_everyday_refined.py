"""What gradient steps on posteriors bring, on everyday sentences: the script and its record."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import tutvae

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
SENTENCES = ["Who are you?", "I live here.", "We need actions, not words."]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    pytest.importorskip("sacrebleu")
    monkeypatch.syspath_prepend(EXPERIMENTS)
    return importlib.import_module("everyday_refined")


def test_models_are_measured_once(
    script: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    some = tutvae.Texts(SENTENCES)
    monkeypatch.setattr(tutvae, "tatoeba", lambda: tutvae.Corpus("some", some, some, some))
    asked = ["--records", str(tmp_path), "--model", "rate-24"]
    script.main(asked)
    before, after, drawn = json.loads((tmp_path / "refined.json").read_text(encoding="utf-8"))
    assert (before["steps"], after["steps"], drawn["draws"]) == (0, 20, 120)
    assert after["bound"] < before["bound"]
    capsys.readouterr()
    script.main(asked)
    assert len(capsys.readouterr().out.splitlines()) == 4


def recorded(name: str) -> Any:
    path = tutvae.recorded_folder() / "everyday" / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8"))


def test_a_draw_is_taken_where_it_makes_the_words_more_probable(script: ModuleType) -> None:
    trained = tutvae.load("sentences")
    batch = tutvae.EncodedTexts.from_texts(SENTENCES, trained.tokenizer_).batch()
    model = trained.model_.requires_grad_(False)
    by_mean, chosen = (
        model.log_likelihood(batch, z)
        for z in (model.posterior(batch).loc, script.likeliest(model, batch))
    )
    assert (chosen >= by_mean).all()
    assert (chosen > by_mean + 0.5).any()


def test_without_steps_the_record_agrees_with_those_of_training() -> None:
    """The shipped weights have 8 bits, those of the run 32, and samples are few."""
    for records, prefix, measured in (
        ("everyday_sentences", "sentences", "quality"),
        ("everyday_small", "rate", "small"),
    ):
        runs = tutvae.recorded_result(records)["runs"]
        reports = {run["variant"]: run["reports"]["test"] for run in runs}
        back = {row["run"]: row for row in recorded(measured)}
        for run in recorded("refined"):
            kind, rate = run["model"].split("-")
            if kind == prefix and run.get("steps") == 0:
                assert run["bound"] == pytest.approx(reports[f"rate_{rate}"]["bound"], abs=0.05)
                assert run["exact"] == pytest.approx(back[f"rate_{rate}-0"]["exact"], abs=1)


def test_steps_keep_the_rate_and_lower_the_bound() -> None:
    found = {(run["model"], run.get("steps")): run for run in recorded("refined")}
    names = {name for name, _ in found}
    assert len(names) == 6
    for name in names:
        once, again = found[name, 0], found[name, 20]
        assert again["kl"] == pytest.approx(once["kl"], abs=0.4)
        assert again["bound"] < once["bound"]
        assert again["exact"] >= once["exact"]
