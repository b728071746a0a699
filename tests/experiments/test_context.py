"""The study of context: decoders of a chosen field, and runs of a few reviews each."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal

import tutvae

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
E, H, Z = 5, 8, 3

of_families = pytest.mark.parametrize("family", ["lstm", "transformer", "cnn"])


@pytest.fixture(scope="module")
def context() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXPERIMENTS)
        yield importlib.import_module("context")


@pytest.fixture
def tiny(context: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The study with a few texts, one epoch and narrow models."""
    small = {"width": 8, "latent_size": 2, "epochs": 1, "samples": 2}
    recipes = {name: context.replace(x, **small) for name, x in context.RECIPES.items()}
    monkeypatch.setattr(context, "RECIPES", recipes)
    monkeypatch.setattr(context, "DOCUMENTS", {"reviews": (60, 5, 8), "ag_news": (20, 5, 5)})
    monkeypatch.setattr(context, "STEPS", (0, 1))
    monkeypatch.setattr(context, "WATCHED", 5)
    monkeypatch.setattr(context, "GRID", torch.linspace(-5, 5, 9))
    news = tutvae.Texts([f"{x}, in the news, is {x} and more" for x in range(30)])
    monkeypatch.setattr(tutvae, "ag_news", lambda: tutvae.Corpus("ag_news", news, news, news))
    context.reviews.cache_clear()
    context.ag_news.cache_clear()
    yield context
    context.reviews.cache_clear()
    context.ag_news.cache_clear()


def decoder_of(context: ModuleType, family: str, field: Any, V: int, Z: int = 0) -> Any:
    torch.manual_seed(0)
    decoder = context.decoder_of(family, field, V, E, H, Z).double().eval()
    for name, parameter in decoder.named_parameters():
        if name.endswith("bias") and not parameter.any():
            nn.init.normal_(parameter)  # else a Transformer would not tell distances apart
    return decoder


def seen_by(decoder: Any, inputs: Tensor, z: Tensor | None = None) -> list[list[int]]:
    """The tokens that each prediction depends on, by gradient: every input is another one."""
    (embedding,) = (x for x in decoder.modules() if isinstance(x, nn.Embedding))
    logits = decoder.project(decoder(inputs, z))[0]
    found = []
    for row in logits:
        (gradient,) = torch.autograd.grad(row[0], embedding.weight, retain_graph=True)
        found.append(gradient.abs().sum(1).nonzero()[:, 0].tolist())
    return found


@of_families
@pytest.mark.parametrize("field", [3, 7, 15, 31, 63])
def test_the_field_is_that_of_the_whole_decoder(
    context: ModuleType, family: str, field: int
) -> None:
    T = field + 20
    decoder = decoder_of(context, family, field, V=T)
    assert decoder.receptive_field == field
    hop = getattr(decoder, "hop", 1)
    assert hop <= max(1, field / 7)
    seen = seen_by(decoder, torch.arange(T)[None])
    for t, tokens in enumerate(seen):
        assert tokens == list(range(tokens[0], t + 1)), "nothing later, and no holes"
        least = min(t + 1, field - hop + 1)
        assert least <= len(tokens) <= field
    assert max(map(len, seen)) == field


@of_families
def test_the_whole_is_seen_where_no_field_is_set(context: ModuleType, family: str) -> None:
    T = 40
    seen = seen_by(decoder_of(context, family, "whole", V=T), torch.arange(T)[None])
    assert seen[-1] == list(range(T))


@of_families
@pytest.mark.parametrize("field", [3, 15, "whole"])
@pytest.mark.parametrize("latent_size", [0, Z])
def test_steps_give_the_logits_of_the_full_pass(
    context: ModuleType, family: str, field: Any, latent_size: int
) -> None:
    decoder = decoder_of(context, family, field, V=11, Z=latent_size)
    inputs = torch.randint(11, (4, 40), generator=torch.Generator().manual_seed(1))
    z = torch.randn(4, latent_size, dtype=torch.float64) if latent_size else None
    state = decoder.start(z, 4)
    logits = []
    for token in inputs.T:
        found, state = decoder.step(token, state)
        logits.append(found)
        assert all(len(x) == 4 for x in state)
    torch.testing.assert_close(torch.stack(logits, 1), decoder.project(decoder(inputs, z)))


@of_families
def test_the_code_reaches_every_prediction(context: ModuleType, family: str) -> None:
    decoder = decoder_of(context, family, 7, V=11, Z=Z)
    z = torch.zeros(1, Z, dtype=torch.float64, requires_grad=True)
    for row in decoder.project(decoder(torch.arange(11)[None], z))[0]:
        (gradient,) = torch.autograd.grad(row[0], z, retain_graph=True)
        assert gradient.all()


def test_an_lstm_that_is_never_reset_is_the_packages(context: ModuleType) -> None:
    inputs = torch.arange(11)[None]
    windowed, whole = (decoder_of(context, "lstm", field, V=11) for field in (31, "whole"))
    torch.testing.assert_close(windowed(inputs), whole(inputs))


@of_families
def test_a_vae_with_such_a_decoder_writes(tiny: ModuleType, family: str) -> None:
    split = tiny.reviews()
    make = tiny.partial(tiny.decoder_of, family, 7)
    model = tiny.build(make, "vae", len(split.tokenizer), tiny.RECIPES["reviews"])
    assert len(tutvae.sample_texts(model, split.tokenizer, 3, max_length=12)) == 3


def test_seven_convolutions_have_equally_many_weights_whatever_their_field(
    context: ModuleType,
) -> None:
    decoders = [
        tutvae.DilatedConvDecoder(90, 64, channels, 8, dilations=dilations)
        for dilations, channels in context.CONVOLUTIONS
    ]
    weights = [sum(x.numel() for x in decoder.parameters()) for decoder in decoders]
    assert [x.receptive_field for x in decoders] == [15, 31, 63, 125, 255, 15, 15, 15]
    assert len(set(weights[:5])) == 1
    assert weights[-1] == pytest.approx(weights[0], rel=0.02)


def test_the_models_mean_is_that_of_p_of_z_given_x(context: ModuleType) -> None:
    """x = z + noise with a standard Normal z: the mean is x / 2."""
    x = torch.tensor([-1.0, 0.0, 1.7])

    class Batch(tutvae.TextBatch):
        def __len__(self) -> int:
            return len(x)

    model = SimpleNamespace(
        log_likelihood=lambda batch, z: Normal(z[:, 0], 1.0).log_prob(x),
        prior=lambda: Normal(torch.zeros(1), torch.ones(1)),
    )
    found = context.model_mean(model, Batch(torch.zeros(3, 2), torch.full((3,), 2)))
    torch.testing.assert_close(found, x / 2, atol=1e-4, rtol=0)


def test_every_word_of_a_review_has_a_kind(context: ModuleType) -> None:
    texts = context.GRAMMAR.sample(300, seed=7).texts
    assert all(len(context.kinds_of(x)) == len(x.split()) + 1 for x in texts)


def test_kinds_tell_what_chooses_a_word(context: ModuleType) -> None:
    text = "i loved this film because the plot was really good . i rushed to recommend it to my "
    kinds = context.kinds_of(text + "neighbours .")
    words = [*text.split(), "neighbours", ".", ""]
    found = {word: kind for word, kind in zip(words, kinds, strict=True) if kind[0][:4] != "func"}
    assert found == {
        "loved": ("verb of the stars", 0),
        "film": ("noun of the category", 0),
        "plot": ("noun of the category", 0),
        "good": ("adjective of the stars", 0),
        "rushed": ("verb of the stars", 1),
        "": ("end", 2),
    }


def test_what_a_code_saves_adds_up_over_the_words(tiny: ModuleType) -> None:
    split, recipe = tiny.reviews(), tiny.RECIPES["reviews"]
    make = tiny.partial(tiny.decoder_of, "cnn", 3)
    torch.manual_seed(0)
    lm, vae = (tiny.build(make, kind, len(split.tokenizer), recipe) for kind in ("lm", "vae"))
    batch = split.test.batch()
    nats = tiny.saved(lm, vae, batch)
    torch.manual_seed(0)
    with torch.no_grad():
        z = vae.posterior(batch).sample((tiny.CODES,))
        expected = vae.log_likelihood(batch, z).mean(0) - lm.log_likelihood(batch)
    torch.testing.assert_close(batch.by_document(nats), expected, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("study", ["reviews", "convolutions", "ag_news", "axes", "words"])
def test_all_runs_end_and_are_not_done_again(
    tiny: ModuleType, study: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = ["--study", study, "--seed", "0", "--records", str(tmp_path)]
    tiny.main(chosen)
    first = tmp_path.joinpath(f"{study}.json").read_bytes()
    runs = tiny.Record(tmp_path / f"{study}.json").runs
    planned = [plan for plan in tiny.plans(study) if plan["seed"] == 0]
    assert len(runs) == len(planned)
    assert capsys.readouterr().out.count("\n") == len(planned)
    assert all(plan.items() <= run.items() for plan, run in zip(planned, runs, strict=True))
    assert all(run["bound"] > 0 and "commit" in run["provenance"] for run in runs)
    tiny.main(chosen)
    assert tmp_path.joinpath(f"{study}.json").read_bytes() == first
    assert capsys.readouterr().out == ""


def test_the_means_are_noted_before_the_steps_and_at_the_end(
    tiny: ModuleType, tmp_path: Path
) -> None:
    (plan, *_) = tiny.plans("axes")
    seen = tiny.of_axes(plan)["means"]
    assert [row["step"] for row in seen] == [0, 1, 2]
    assert all(len(row["model"]) == len(row["posterior"]) == 5 for row in seen)
    assert seen[0]["posterior"] != seen[2]["posterior"]


def test_a_part_of_the_runs_can_be_chosen(tiny: ModuleType, tmp_path: Path) -> None:
    choice = ["--family", "lstm", "cnn", "--field", "3", "whole", "--seed", "1", "--model", "lm"]
    tiny.main(["--study", "reviews", *choice, "--records", str(tmp_path)])
    runs = tiny.Record(tmp_path / "reviews.json").runs
    asked = [("lstm", 3), ("lstm", "whole"), ("cnn", 3), ("cnn", "whole")]
    assert [(run["family"], run["field"]) for run in runs] == asked
    assert {(run["model"], run["seed"]) for run in runs} == {("lm", 1)}


@pytest.mark.parametrize("study", ["reviews", "convolutions", "words", "axes"])
def test_the_record_holds_all_plans_and_no_other(context: ModuleType, study: str) -> None:
    record = context.Record(tutvae.recorded_folder() / "context" / f"{study}.json")
    planned = list(context.plans(study))
    assert len(record.runs) == len(planned)
    assert all(record.holds(plan) for plan in planned)


def test_no_model_of_the_record_is_better_than_the_grammar(context: ModuleType) -> None:
    split = context.reviews()
    truth = -context.GRAMMAR.log_probs(split.corpus.test.texts).mean()
    for study in ("reviews", "convolutions"):
        for run in context.Record(tutvae.recorded_folder() / "context" / f"{study}.json").runs:
            assert run["bound"] == pytest.approx(run["reconstruction"] + run["kl"], abs=0.01)
            assert truth < run["importance_weighted_nll"] < run["bound"] + 0.1


def test_the_words_of_the_record_add_up(context: ModuleType) -> None:
    for run in context.Record(tutvae.recorded_folder() / "context" / "words.json").runs:
        assert run["bound"] == pytest.approx(run["reconstruction"] + run["kl"], abs=0.01)
        words = sum(kind["size"] for kind in run["kinds"])
        saved = sum(kind["size"] * kind["mean"] for kind in run["kinds"]) / run["examples"]
        assert words > 20 * run["examples"]
        worth = run["language_model_nll"] - run["reconstruction"]
        assert saved == pytest.approx(worth, abs=0.3), "the words add up to what the code saves"
