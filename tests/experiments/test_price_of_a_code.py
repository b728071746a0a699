"""The study of what a code's price is paid for: its priors and posteriors, and small runs of it."""

from __future__ import annotations

import importlib
import json
import math
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, kl_divergence

import tutvae
from tutvae.models import BiLSTMEncoder, LanguageModel, ProjectedLSTMDecoder

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
V, Z = 9, 2
TEXTS = tutvae.EncodedTexts([[1, 4, 5, 2], [1, 6, 2], [1, 7, 8, 4, 4, 2], [1, 2]])


@pytest.fixture(scope="module")
def price() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXPERIMENTS)
        yield importlib.import_module("price_of_a_code")


@pytest.fixture(scope="module")
def models(price: ModuleType) -> ModuleType:
    return importlib.import_module("price_models")


def freer(models: ModuleType, **options: Any) -> Any:
    torch.manual_seed(0)
    encoder, decoder = BiLSTMEncoder(V, 6, 5, Z), ProjectedLSTMDecoder(V, 6, 7, Z)
    return models.FreerVAE(encoder, decoder, **options).eval()


def moved(model: Any, by: float = 0.3) -> Any:
    """A model none of whose weights stand where they started."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += by * torch.randn(parameter.shape)
    return model


def plane(most: float = 12.0, points: int = 401) -> tuple[Tensor, float]:
    """A grid of codes, and the area that each stands for."""
    line = torch.linspace(-most, most, points)
    return torch.cartesian_prod(line, line), (2 * most / (points - 1)) ** 2


# A flow that is bent much throws its codes far out of the plane.
@pytest.mark.parametrize(
    ("prior", "by"), [("Normal", 0.3), ("mixture", 0.3), ("VampPrior", 0.3), ("flow", 0.02)]
)
def test_every_prior_is_a_density(models: ModuleType, prior: str, by: float) -> None:
    model = moved(freer(models, prior=prior), by)
    z, area = plane()
    with torch.no_grad():
        total = models.log_prior(model, z).exp().sum().item() * area
    assert total == pytest.approx(1, abs=2e-3)


def test_the_flow_starts_as_a_standard_normal(models: ModuleType) -> None:
    z = torch.randn(5, 3, Z)
    with torch.no_grad():
        started = models.log_prior(freer(models, prior="flow"), z)
    torch.testing.assert_close(started, models.log_prior(freer(models), z))


def test_a_vamp_prior_is_the_mixture_of_posteriors(models: ModuleType) -> None:
    model = freer(models, prior="VampPrior")
    z = torch.randn(4, Z)
    with torch.no_grad():
        parts = model.encoder.posterior(model.own_prior.features)
        scores = parts.log_prob(z[:, None]).sum(-1)  # [4, components]
        expected = scores.logsumexp(1) - math.log(scores.shape[1])
        torch.testing.assert_close(models.log_prior(model, z), expected)


def test_a_full_posterior_starts_independent_and_learns_to_depend(models: ModuleType) -> None:
    model = freer(models, full=True)
    batch = TEXTS.batch()
    with torch.no_grad():
        started, plain = models.posterior_of(model, batch), model.posterior(batch)
        torch.testing.assert_close(started.covariance_matrix, torch.diag_embed(plain.variance))
        learnt = models.posterior_of(moved(model), batch)
    assert isinstance(learnt, MultivariateNormal)
    assert (learnt.covariance_matrix[:, 0, 1].abs() > 1e-3).all()


def test_the_kl_at_a_sample_is_right_on_average(models: ModuleType) -> None:
    model = moved(freer(models, full=True))
    batch = TEXTS.batch()
    with torch.no_grad():
        q = models.posterior_of(model, batch)
        standard = MultivariateNormal(torch.zeros(Z), torch.eye(Z))
        z = q.sample((20_000,))
        sampled = (q.log_prob(z) - models.log_prior(model, z)).mean(0)
    torch.testing.assert_close(sampled, kl_divergence(q, standard), rtol=0.05, atol=0.02)


def test_the_kl_of_a_full_posterior_is_taken_in_closed_form(models: ModuleType) -> None:
    model = moved(freer(models, full=True)).eval()
    batch = TEXTS.batch()
    with torch.no_grad():
        q = models.posterior_of(model, batch)
        expected = kl_divergence(q, MultivariateNormal(torch.zeros(Z), torch.eye(Z)))
        torch.testing.assert_close(model(batch).kl, expected)


@pytest.mark.parametrize("options", [{"prior": "mixture"}, {"prior": "flow"}, {"full": True}])
def test_every_weight_is_trained(models: ModuleType, options: dict[str, Any]) -> None:
    model = moved(freer(models, **options))
    model(TEXTS.batch()).loss().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name


def test_steps_on_a_posterior_raise_the_bound_of_its_sentences(
    price: ModuleType, models: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = moved(freer(models)).requires_grad_(False)
    monkeypatch.setattr(price, "SAMPLES", 1_000)
    before, after = price.measured(model, TEXTS), price.measured(model, TEXTS, price.refined)
    assert after["bound"] < before["bound"] - 0.1
    assert after["nll"] == pytest.approx(before["nll"], abs=0.1)


def test_steps_on_a_posterior_can_hold_its_rate(
    price: ModuleType, models: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = moved(freer(models)).requires_grad_(False)
    monkeypatch.setattr(price, "SAMPLES", 1_000)
    monkeypatch.setattr(price, "STEPS", 300)
    held = price.measured(model, TEXTS, partial(price.refined, rate=3.0))
    free = price.measured(model, TEXTS, price.refined)
    assert held["kl"] == pytest.approx(3.0, abs=0.2)
    assert free["bound"] < held["bound"]


def test_a_language_model_is_shared_by_all_that_leave_the_decoder_alone(price: ModuleType) -> None:
    alone = [x["change"] for x in price.plans() if x["model"] == "lm" and x["seed"] == 0]
    assert alone == [price.BASE, "training: three times as long", "width: twice the state"]
    for plan in price.CHANGES.values():
        decoders = [price.build(x, V).decoder for x in (plan, plan.alone())]
        assert decoders[0].to_output.out_features == decoders[1].to_output.out_features
        assert decoders[0].lstm.hidden_size == decoders[1].lstm.hidden_size
        assert plan.epochs == plan.alone().epochs


@pytest.fixture
def tiny(price: ModuleType, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The study with a few sentences of the reviews and one epoch."""
    corpus = tutvae.ReviewGrammar().corpus(60, 20, 20, seed=0)
    tokenizer = tutvae.Tokenizer.train(corpus.train.texts)
    parts = (corpus.train, corpus.valid, corpus.test)
    encoded = tuple(tutvae.EncodedTexts.from_texts(x.texts, tokenizer) for x in parts)
    monkeypatch.setattr(price, "sentences", lambda: (tokenizer, encoded))
    monkeypatch.setattr(price, "SAMPLES", 4)
    monkeypatch.setattr(price, "STEPS", 1)
    monkeypatch.setattr(price, "SHIPPED", {})
    short = {name: replace(plan, epochs=1) for name, plan in price.CHANGES.items()}
    some = (price.BASE, "prior: mixture", "posterior: full covariance", "width: twice the state")
    monkeypatch.setattr(price, "CHANGES", {name: short[name] for name in some})
    return price


def test_runs_are_done_once_and_stand_in_the_table(
    tiny: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["--records", str(tmp_path), "--seed", "0"]
    tiny.main(asked)
    written = (tmp_path / "price.json").read_text(encoding="utf-8")
    runs = json.loads(written)
    assert [(run["change"], run["model"]) for run in runs] == [
        (plan["change"], plan["model"]) for plan in tiny.plans() if plan["seed"] == 0
    ]
    for run in runs:
        assert run["best_epoch"] == 1
        assert math.isfinite(run["bound"])
        assert ("nll" in run) == (run["model"] == "vae")
    assert {"encoder_s", "refined", "refined_at_the_rate"} <= runs[1].keys()
    capsys.readouterr()
    tiny.main(asked)
    assert (tmp_path / "price.json").read_text(encoding="utf-8") == written
    assert len(capsys.readouterr().out.splitlines()) == 1 + len(tiny.CHANGES)


def test_a_model_that_comes_with_the_package_is_measured_and_not_trained(
    tiny: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiny, "SHIPPED", {"sentences-8": 8.0})
    some = tutvae.Texts(["Who are you?", "I live here."])
    monkeypatch.setattr(tutvae, "tatoeba", lambda: tutvae.Corpus("some", some, some, some))
    tiny.main(["--records", str(tmp_path), "--model", "shipped"])
    (run,) = json.loads((tmp_path / "price.json").read_text(encoding="utf-8"))
    assert (run["change"], run["model"]) == ("sentences-8", "shipped")
    for way in ("encoder_s", "refined", "refined_at_the_rate"):
        assert run[way]["bound"] > run[way]["nll"] > 0


def test_a_language_model_is_measured_exactly(price: ModuleType) -> None:
    torch.manual_seed(0)
    model = LanguageModel(ProjectedLSTMDecoder(V, 6, 7)).eval().requires_grad_(False)
    expected = -model.log_likelihood(TEXTS.batch()).mean().item()
    assert price.measured(model, TEXTS) == {"bound": pytest.approx(expected)}


def test_the_table_sets_each_change_beside_its_own_language_model(price: ModuleType) -> None:
    def run(change: str, model: str, bound: float, **more: float) -> dict[str, Any]:
        about = {"change": change, "model": model, "seed": 0, "bound": bound}
        return about | {"train": {"bound": bound - (1 if model == "vae" else 1.5)}} | more

    wide = "width: twice the state"
    runs = [
        run(price.BASE, "lm", 20.0),
        run(wide, "lm", 19.0),
        run("prior: flow", "vae", 24.0, nll=21.0, kl=16.0),
        run(wide, "vae", 22.0, nll=19.5, kl=16.0),
    ]
    header, *lines = price.table(runs).splitlines()
    assert header.split()[3:] == ["price", "in", "training", "rate", "loss,", "at", "most", "seeds"]
    assert [line.split()[-5:] for line in lines] == [
        ["4.00", "4.50", "16.00", "1.00", "1"],
        ["3.00", "3.50", "16.00", "0.50", "1"],
    ]


def test_the_figures_of_the_record_fit_together(price: ModuleType) -> None:
    path = tutvae.recorded_folder() / "everyday" / "price.json"
    for run in json.loads(path.read_text(encoding="utf-8")):
        assert run["change"] in (price.SHIPPED if run["model"] == "shipped" else price.CHANGES)
        if run["model"] == "vae":
            assert run["bound"] > run["nll"]
            # Training holds the rate under dropout, which measuring has not.
            above = 0.5 if run["change"] == "encoder: more dropout" else 0.0
            assert run["kl"] == pytest.approx(price.RATE + above, abs=0.4)
        if "refined" in run:
            bounds = [run[x]["bound"] for x in ("refined", "refined_at_the_rate", "encoder_s")]
            assert bounds == sorted(bounds)
            # Every estimate of the NLL is an upper one, and better proposals make better ones.
            nlls = [run[x]["nll"] for x in ("refined", "refined_at_the_rate", "encoder_s")]
            assert nlls == sorted(nlls)
