"""The study of length: the decoder of two levels, and runs of a few reviews each."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

import tutvae

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
BOS, EOS, STOP = 1, 2, 3
E, H, S, Z = 5, 8, 6, 4


@pytest.fixture(scope="module")
def length() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXPERIMENTS)
        yield importlib.import_module("length")


@pytest.fixture
def tiny(length: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The study with a few texts, one epoch and narrow models."""
    recipe = length.Recipe(width=8, latent_size=2, epochs=1, samples=2)
    monkeypatch.setattr(length, "RECIPE", recipe)
    monkeypatch.setattr(length, "DOCUMENTS", (60, 5, 8))
    monkeypatch.setattr("tutvae.reviews.grammar.MONTE_CARLO_DOCUMENTS", 50)
    for cached in (length.grammar, length.reviews, length.truth):
        cached.cache_clear()
    yield length
    for cached in (length.grammar, length.reviews, length.truth):
        cached.cache_clear()


def two_levels(length: ModuleType, V: int, latent_size: int = 0) -> Any:
    torch.manual_seed(0)
    options = {"stop_id": STOP, "conductor_size": S}
    return length.TwoLevelDecoder(V, E, H, latent_size, **options).double().eval()


def sentences(*lengths: int) -> Tensor:
    """A document whose words are all different, but for the marks that end its sentences."""
    tokens, word = [BOS], STOP + 1
    for n in lengths:
        tokens += [*range(word, word + n), STOP]
        word += n
    return torch.tensor([tokens])


def codes(rows: int, latent_size: int) -> Tensor | None:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(rows, latent_size, generator=generator).double() if latent_size else None


def test_a_prediction_sees_the_words_of_its_own_sentence_alone(length: ModuleType) -> None:
    inputs = sentences(3, 1, 4)
    decoder = two_levels(length, V=12)
    logits = decoder.project(decoder(inputs))[0]
    seen = []
    for row in logits:
        weight = decoder.sentence.embedding.weight
        (gradient,) = torch.autograd.grad(row[0], weight, retain_graph=True)
        seen.append(gradient.abs().sum(1).nonzero()[:, 0].tolist())
    first = [[BOS], [BOS, 4], [BOS, 4, 5], [BOS, 4, 5, 6]]
    second = [[BOS], [BOS, 7]]
    third = [[BOS], [BOS, 8], [BOS, 8, 9], [BOS, 8, 9, 10], [BOS, 8, 9, 10, 11]]
    assert seen == [*first, *second, *third, [BOS]]


def test_other_words_in_other_sentences_change_nothing(length: ModuleType) -> None:
    decoder, z = two_levels(length, V=12, latent_size=Z), codes(1, Z)
    inputs = sentences(3, 3, 2)
    other = inputs.clone()
    other[0, 1:4] = torch.tensor([9, 10, 11])
    other[0, 9:11] = torch.tensor([4, 5])
    torch.testing.assert_close(decoder(inputs, z)[:, 4:8], decoder(other, z)[:, 4:8])


def test_the_code_reaches_every_sentence(length: ModuleType) -> None:
    decoder = two_levels(length, V=12, latent_size=Z)
    z = torch.zeros(1, Z, dtype=torch.float64, requires_grad=True)
    for row in decoder.project(decoder(sentences(2, 2, 2), z))[0]:
        (gradient,) = torch.autograd.grad(row[0], z, retain_graph=True)
        assert gradient.all()


def test_sentences_differ_though_no_word_tells_them_apart(length: ModuleType) -> None:
    hidden = two_levels(length, V=12)(torch.tensor([[BOS, 5, STOP, 5, STOP]]))[0]
    assert not torch.allclose(hidden[1], hidden[3])


@pytest.mark.parametrize("latent_size", [0, Z])
def test_steps_give_the_logits_of_the_full_pass(length: ModuleType, latent_size: int) -> None:
    decoder, z = two_levels(length, 7, latent_size), codes(5, latent_size)
    inputs = torch.randint(3, 7, (5, 30), generator=torch.Generator().manual_seed(1))
    inputs[:, 0] = BOS
    inputs[0, 1:] = STOP
    inputs[1, 1:] = 5
    state = decoder.start(z, 5)
    logits = []
    for token in inputs.T:
        found, state = decoder.step(token, state)
        logits.append(found)
    torch.testing.assert_close(torch.stack(logits, 1), decoder.project(decoder(inputs, z)))


@pytest.mark.parametrize("latent_size", [0, Z])
def test_the_probabilities_of_all_strings_add_up_to_one(
    length: ModuleType, latent_size: int
) -> None:
    """Strings of up to four tokens that have ended, and the beginnings of the longer ones."""
    V = 5
    decoder = two_levels(length, V, latent_size)
    strings = set()
    for tokens in product(range(V), repeat=4):
        strings.add(tokens[: tokens.index(EOS) + 1] if EOS in tokens else tokens)
    texts = tutvae.EncodedTexts([[BOS, *string] for string in sorted(strings)])
    z = codes(1, latent_size)
    z = None if z is None else z.expand(len(texts), -1)
    scores = tutvae.models.document_log_likelihood(decoder, texts.batch(), z)
    assert scores.exp().sum().item() == pytest.approx(1.0)


def test_every_parameter_gets_a_gradient(length: ModuleType) -> None:
    decoder = two_levels(length, V=12, latent_size=Z)
    hidden = decoder(sentences(3, 2), codes(1, Z))
    decoder.project(hidden).log_softmax(-1)[..., 0].sum().backward()
    for name, parameter in decoder.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name


def test_rows_do_not_mix(length: ModuleType) -> None:
    decoder, z = two_levels(length, V=7, latent_size=Z), codes(4, Z)
    inputs = torch.randint(3, 7, (4, 12), generator=torch.Generator().manual_seed(3))
    rows = [decoder(inputs[[i]], z[[i]]) for i in range(4)]
    torch.testing.assert_close(torch.cat(rows), decoder(inputs, z))


def test_a_vae_of_two_levels_writes(tiny: ModuleType) -> None:
    split = tiny.reviews(2)
    make = tiny.maker("two_level", split.tokenizer)
    model, _ = tiny.trained(make, "vae", split, tiny.RECIPE, 0)
    assert split.tokenizer.decode([model.decoder.stop_id]) == "."
    assert len(tutvae.sample_texts(model, split.tokenizer, 3, max_length=12)) == 3


def test_all_runs_end_and_are_not_done_again(
    tiny: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = ["--seed", "2", "--records", str(tmp_path)]
    tiny.main(chosen)
    record = tiny.Record(tmp_path / "length.json")
    planned = [plan for plan in tiny.plans() if plan["seed"] == 2]
    assert len(record.runs) == len(planned) == 30
    held = tiny.Record(tmp_path / "held.json").runs
    assert [run["sentences"] for run in held] == [8, 16]
    assert all(record.holds(plan) for plan in planned)
    assert all(0 < run["available"] < run["entropy"] < run["bound"] for run in record.runs)
    first = record.path.read_bytes()
    capsys.readouterr()
    tiny.main(chosen)
    assert record.path.read_bytes() == first
    assert capsys.readouterr().out == ""


def test_a_part_of_the_runs_can_be_chosen(tiny: ModuleType, tmp_path: Path) -> None:
    choice = ["--sentences", "1", "4", "--decoder", "two_level", "--seed", "0", "--model", "lm"]
    tiny.main([*choice, "--records", str(tmp_path)])
    runs = tiny.Record(tmp_path / "length.json").runs
    assert [(run["sentences"], run["decoder"]) for run in runs] == [
        (1, "two_level"),
        (4, "two_level"),
    ]


def test_length_leaves_what_holds_a_review_together(length: ModuleType) -> None:
    short, long = length.grammar(1), length.grammar(16)
    assert short.factor_entropy("category", "stars") == long.factor_entropy("category", "stars")


@pytest.mark.parametrize("name", ["length", "held"])
def test_the_record_holds_all_plans_and_no_other(length: ModuleType, name: str) -> None:
    record = length.Record(tutvae.recorded_folder() / "length" / f"{name}.json")
    planned = list(length.plans() if name == "length" else length.held_plans())
    assert len(record.runs) == len(planned)
    assert all(record.holds(plan) for plan in planned)


@pytest.mark.parametrize("name", ["length", "held"])
def test_the_figures_of_the_record_fit_together(length: ModuleType, name: str) -> None:
    """A bound is above the true entropy, but for the noise of 500 test reviews."""
    for run in length.Record(tutvae.recorded_folder() / "length" / f"{name}.json").runs:
        assert run["bound"] == pytest.approx(run["reconstruction"] + run["kl"], abs=0.01)
        assert run["bound"] >= run["importance_weighted_nll"] - 0.01
        assert run["importance_weighted_nll"] > run["entropy"] - 0.1
        assert run["available"] < length.grammar(1).factor_entropy("category", "stars") + 0.01
        assert run["mutual_information"] < run["kl"] + 0.2
        assert sum(run.get("probes", {}).values()) < run["mutual_information"] + 0.2
        assert len(run["curves"]["train_kl"]) == length.RECIPE.epochs


def test_only_the_rate_sets_the_held_runs_apart(
    tiny: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr("study.tutvae.fit", lambda *_, **given: asked.append(given) or {})
    for model in ("vae", "held"):
        plan = {"sentences": 2, "decoder": "two_level", "model": model, "seed": 0}
        with pytest.raises(KeyError):  # there are no curves
            tiny.done(plan)
    plain, held = asked
    assert held.pop("rate") == tiny.HELD == 5
    assert callable(plain.pop("kl_weight"))
    assert plain.keys() == held.keys()
