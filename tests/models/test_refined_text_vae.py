"""Posteriors that gradient steps improve."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

import tutvae
from tutvae.models import RefinedTextVAE, TextVAE

V, Z = 11, 3
DOCUMENTS = [[1, 4, 5, 2], [1, 6, 7, 8, 3, 2], [1, 2], [1, 9, 10, 4, 2]]


def text_vae(latent_size: int = Z, seed: int = 0) -> TextVAE:
    """A model whose codes matter, with an encoder that knows nothing of them."""
    torch.manual_seed(seed)
    encoder = tutvae.LSTMEncoder(V, 5, 6, latent_size)
    decoder = tutvae.LSTMDecoder(V, 5, 6, latent_size)
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter *= 3
        encoder.log_variance.bias.fill_(-2.0)
    return TextVAE(encoder, decoder).eval()


def batch(documents: list[list[int]] = DOCUMENTS) -> tutvae.TextBatch:
    return tutvae.EncodedTexts(documents).batch()


def refined(model: TextVAE, steps: int = 20) -> RefinedTextVAE:
    return RefinedTextVAE(model.encoder, model.decoder, steps).eval()


def kl_to_prior(q: Normal) -> Tensor:
    return kl_divergence(q, Normal(0.0, 1.0)).sum(-1)


@torch.no_grad()
def cost(model: TextVAE, q: Normal, samples: int = 2_000) -> Tensor:
    """The reconstruction, by many samples of q, `[B]`."""
    noise = torch.randn(samples, 1, q.loc.shape[1], generator=torch.Generator().manual_seed(1))
    return -model.log_likelihood(batch(), q.loc + q.scale * noise).mean(0)


@pytest.mark.parametrize("seed", range(3))
def test_a_code_of_the_same_nats_says_its_document_better(seed: int) -> None:
    model = text_vae(seed=seed)
    q, better = model.posterior(batch()), refined(model).posterior(batch())
    rate = kl_to_prior(q)
    loss, lower = (cost(model, x) + torch.maximum(kl_to_prior(x), rate) for x in (q, better))
    assert (lower < loss + 0.02).all()
    assert (loss - lower).max() > 0.3


def test_many_steps_find_the_best_normal() -> None:
    model = text_vae(latent_size=1)
    q = model.posterior(batch())
    rate = kl_to_prior(q)

    def loss(q: Normal) -> Tensor:
        return cost(model, q, samples=200) + torch.maximum(kl_to_prior(q), rate)

    found = loss(refined(model, steps=300).posterior(batch()))
    means, scales = torch.linspace(-4, 4, 41), torch.logspace(-1.5, 0.3, 10)
    one = torch.ones(len(DOCUMENTS), 1)
    best = torch.stack([loss(Normal(m * one, s * one)) for m in means for s in scales]).amin(0)
    assert (loss(q) - best).max() > 0.5
    assert (found - best).max() < 0.1


def test_a_document_s_posterior_does_not_depend_on_the_others_or_on_the_random_state() -> None:
    model = refined(text_vae())
    together = model.posterior(batch())
    torch.manual_seed(7)
    state = torch.get_rng_state()
    alone = [model.posterior(batch([document])) for document in DOCUMENTS]
    assert torch.equal(torch.get_rng_state(), state)
    torch.testing.assert_close(torch.cat([q.loc for q in alone]), together.loc)
    torch.testing.assert_close(torch.cat([q.scale for q in alone]), together.scale)


def test_nothing_but_the_posterior_changes() -> None:
    model = text_vae()
    before = {name: x.clone() for name, x in model.state_dict().items()}
    q = refined(model).posterior(batch())
    assert not q.loc.requires_grad
    assert not q.scale.requires_grad
    assert all(parameter.grad is None for parameter in model.parameters())
    for name, x in model.state_dict().items():
        assert torch.equal(x, before[name])


def test_it_works_where_gradients_are_off_and_weights_are_frozen() -> None:
    model = text_vae()
    expected = refined(model).posterior(batch()).loc
    with torch.no_grad():
        assert torch.equal(refined(model).posterior(batch()).loc, expected)
    model.requires_grad_(False)
    assert torch.equal(refined(model).posterior(batch()).loc, expected)


def test_under_inference_mode_it_says_what_to_use_instead() -> None:
    with torch.inference_mode(), pytest.raises(RuntimeError, match=r"use torch\.no_grad instead"):
        refined(text_vae()).posterior(batch())


def test_a_model_in_half_precision_is_refined_too() -> None:
    model, half = text_vae(), text_vae().bfloat16()
    before, after = (x.posterior(batch()) for x in (half, refined(half)))
    assert after.loc.dtype == after.scale.dtype == torch.bfloat16
    rate = kl_to_prior(before).float()
    qs = [Normal(q.loc.float(), q.scale.float()) for q in (before, after)]
    loss, lower = (cost(model, q) + torch.maximum(kl_to_prior(q), rate) for q in qs)
    assert lower.mean() < loss.mean() - 0.2


def test_better_proposals_make_a_better_estimate() -> None:
    model, texts = text_vae(), [batch()]
    few, some = (
        tutvae.evaluate(x, texts, importance_samples=3) for x in (model, refined(model, 50))
    )
    many = tutvae.evaluate(model, texts, importance_samples=5_000)
    assert some.bound < few.bound
    exact = many.importance_weighted_nll
    assert abs(some.importance_weighted_nll - exact) < few.importance_weighted_nll - exact


@pytest.mark.parametrize("steps", [0, -1])
def test_without_a_step_nothing_is_refined(steps: int) -> None:
    with pytest.raises(ValueError, match=f"at least 1 step, not {steps}"):
        refined(text_vae(), steps)


def test_it_is_saved_with_its_steps(tmp_path: Path) -> None:
    model = refined(text_vae(), steps=7)
    loaded = tutvae.load(tutvae.save(model, tmp_path / "model")).model_
    assert (type(loaded), loaded.steps) == (RefinedTextVAE, 7)
    torch.testing.assert_close(loaded.posterior(batch()).loc, model.posterior(batch()).loc)


class TestOfTexts:
    def test_its_codes_are_refined_and_the_original_s_are_not(
        self, run_folders: dict[str, Path]
    ) -> None:
        trained, texts = tutvae.load(run_folders["vae"]), ["this tea is fine .", "this tea"]
        before = trained.transform(texts)
        other = trained.refined(steps=3)
        assert other.model_.steps == 3
        assert not np.allclose(other.transform(texts), before, atol=0.01)
        np.testing.assert_array_equal(trained.transform(texts), before)
        assert len(other.reconstruct(texts)) == 2

    def test_the_shipped_model_says_them_for_less(self) -> None:
        texts = ["The cat sat by the window.", "We need actions, not words.", "He runs very fast."]
        trained = tutvae.load("sentences-24")
        costs = [
            x.evaluate(texts, importance_samples=5).bound for x in (trained, trained.refined())
        ]
        assert costs[1] < costs[0] - 0.5

    def test_what_was_measured_before_is_not_said_of_it(self) -> None:
        trained = tutvae.load("sentences")
        other = trained.refined()
        assert trained.report is not None
        assert other.report is None
        assert not hasattr(other, "report_")

    def test_a_language_model_has_nothing_to_refine(self, run_folders: dict[str, Path]) -> None:
        with pytest.raises(ValueError, match="a language model has no code"):
            tutvae.load(run_folders["language_model"]).refined()

    def test_nor_has_a_model_with_labels(self) -> None:
        encoder, decoder = tutvae.LSTMEncoder(V, 5, 6, 2), tutvae.LSTMDecoder(V, 5, 6, 4)
        trained = tutvae.load("sentences")
        trained.model_ = tutvae.SemiSupervisedTextVAE(encoder, decoder, 2)
        with pytest.raises(ValueError, match="only a TextVAE can be refined, not a Semi"):
            trained.refined()
