from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Normal

from tutvae.bounds import Elbo
from tutvae.models import VAE, BernoulliDecoder, GaussianEncoder

B, D, Z, S = 4, 7, 3, 5
HIDDEN = (11, 6)


def vae(seed: int = 0, scale: float = 1.0) -> VAE:
    """A VAE of distinct sizes; a `scale` above 1 takes it far from its near-zero start."""
    torch.manual_seed(seed)
    model = VAE(D, Z, HIDDEN)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(scale)
    return model.eval()


def images(seed: int = 1, count: int = B) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.bernoulli(torch.full((count, D), 0.4), generator=generator)


def codes(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(2))


def test_shapes() -> None:
    model, x = vae(), images()
    elbo = model(x)
    assert elbo.reconstruction.shape == elbo.kl.shape == (B,)
    assert elbo.kl_per_dimension is not None
    assert elbo.kl_per_dimension.shape == (B, Z)
    q = model.posterior(x)
    assert q.batch_shape == q.loc.shape == q.scale.shape == (B, Z)
    assert model.prior().batch_shape == (Z,)
    assert model.decoder(codes(S, B, Z)).batch_shape == (S, B, D)
    assert model.log_likelihood(x, codes(S, B, Z)).shape == (S, B)


def test_the_decoder_mirrors_the_encoder() -> None:
    widths = [tuple(p.shape) for p in vae().parameters() if p.ndim == 2]
    encoder, decoder = [(11, D), (6, 11), (Z, 6), (Z, 6)], [(6, Z), (11, 6), (D, 11)]
    assert widths == encoder + decoder


def test_every_parameter_gets_a_gradient() -> None:
    model = vae().train()
    model(images()).loss().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_the_gradient_reaches_the_encoder_through_the_sample() -> None:
    """Without the KL, the reparameterised sample is the only way."""
    model = vae()
    model(images()).loss(kl_weight=0.0).backward()
    for layer in (model.encoder.mean, model.encoder.log_variance):
        assert layer.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("name", ["mean", "log_variance"])
def test_the_gradient_is_the_slope_of_the_loss(name: str) -> None:
    """Finite differences, with the noise held still."""
    model, x = vae(scale=2).double(), images().double()
    bias = getattr(model.encoder, name).bias

    def loss() -> Tensor:
        torch.manual_seed(5)
        return model(x).loss()

    loss().backward()
    for i in range(Z):
        with torch.no_grad():
            bias[i] += 1e-5
            above = loss()
            bias[i] -= 2e-5
            below = loss()
            bias[i] += 1e-5
        assert bias.grad[i].item() == pytest.approx(((above - below) / 2e-5).item(), rel=1e-5)


def test_state_dict_round_trip() -> None:
    trained, fresh, x, z = vae(1), vae(2), images(), codes(B, Z)
    assert not torch.equal(trained.log_likelihood(x, z), fresh.log_likelihood(x, z))
    fresh.load_state_dict(trained.state_dict())
    assert torch.equal(trained.log_likelihood(x, z), fresh.log_likelihood(x, z))
    assert torch.equal(trained.posterior(x).loc, fresh.posterior(x).loc)
    assert torch.equal(trained.posterior(x).scale, fresh.posterior(x).scale)


def outputs(model: VAE, x: Tensor, z: Tensor) -> Tensor:
    """All that the model says of a batch at given codes, `[B, 1 + 2Z]`."""
    q = model.posterior(x)
    return torch.cat([model.log_likelihood(x, z)[:, None], q.loc, q.scale], dim=1)


@pytest.mark.parametrize("training", [False, True])
def test_a_batch_of_one_equals_its_row(training: bool) -> None:
    model, x, z = vae(scale=2).train(training), images(), codes(B, Z)
    rows = torch.cat([outputs(model, x[i : i + 1], z[i : i + 1]) for i in range(B)])
    torch.testing.assert_close(outputs(model, x, z), rows)
    assert model(x[:1]).value.shape == (1,)


def test_permuting_the_batch_permutes_the_outputs() -> None:
    model, x, z, order = vae(scale=2), images(), codes(B, Z), torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(outputs(model, x[order], z[order]), outputs(model, x, z)[order])


def test_eval_mode_is_deterministic_given_the_code() -> None:
    model, x, z = vae(), images(), codes(B, Z)
    assert torch.equal(outputs(model, x, z), outputs(model, x, z))


def test_forward_draws_a_new_code_each_time_and_repeats_under_a_seed() -> None:
    def reconstruction(model: VAE, seed: int) -> Tensor:
        torch.manual_seed(seed)
        return model(images()).reconstruction

    model = vae(scale=2)
    assert torch.equal(reconstruction(model, 0), reconstruction(model, 0))
    assert not torch.equal(reconstruction(model, 0), reconstruction(model, 1))


def test_the_likelihood_is_a_sum_over_the_pixels() -> None:
    model, x, z = vae(scale=3), images(), codes(B, Z)
    p = model.decoder(z).probs.detach().double().numpy()
    by_hand = np.where(x.numpy() == 1, np.log(p), np.log(1 - p)).sum(1)
    np.testing.assert_allclose(model.log_likelihood(x, z).detach(), by_hand, rtol=1e-5)


def test_many_codes_at_once_are_scored_like_one_at_a_time() -> None:
    model, x, z = vae(scale=2), images(), codes(S, B, Z)
    one_at_a_time = torch.stack([model.log_likelihood(x, z[s]) for s in range(S)])
    torch.testing.assert_close(model.log_likelihood(x, z), one_at_a_time)


def test_the_prior_is_standard_normal_in_the_model_s_precision() -> None:
    prior = vae().double().prior()
    assert torch.equal(prior.loc, torch.zeros(Z, dtype=torch.float64))
    assert torch.equal(prior.scale, torch.ones(Z, dtype=torch.float64))
    assert prior.loc.dtype == prior.scale.dtype == torch.float64


def test_the_encoder_computes_mean_and_log_variance() -> None:
    encoder = GaussianEncoder(D, HIDDEN, Z)
    with torch.no_grad():
        for layer, bias in ((encoder.mean, -1.5), (encoder.log_variance, np.log(4.0))):
            layer.weight.zero_()
            layer.bias.fill_(bias)
        q = encoder(images())
    torch.testing.assert_close(q.loc, torch.full((B, Z), -1.5))
    torch.testing.assert_close(q.scale, torch.full((B, Z), 2.0))


@pytest.mark.parametrize("hidden", [(), (8,)])
def test_other_depths(hidden: tuple[int, ...]) -> None:
    model = VAE(D, Z, hidden)
    assert model(images()).value.shape == (B,)
    assert BernoulliDecoder(Z, hidden, D)(codes(B, Z)).batch_shape == (B, D)


def test_the_networks_are_not_linear() -> None:
    model, x = vae(scale=3), images(count=2)
    middle = model.encoder(x.mean(0, keepdim=True)).loc
    assert not torch.allclose(middle, model.encoder(x).loc.mean(0, keepdim=True), atol=1e-2)


def monte_carlo_kl(q: Normal, prior: Normal, samples: int) -> tuple[Tensor, Tensor]:
    """Estimate KL(q || prior) by samples: the mean and its standard error, `[B, Z]`."""
    z = q.sample((samples,))
    log_ratios = q.log_prob(z) - prior.log_prob(z)
    return log_ratios.mean(0), log_ratios.std(0) / samples**0.5


def test_closed_form_kl_agrees_with_monte_carlo() -> None:
    model, x = vae(scale=3), images()
    torch.manual_seed(0)
    with torch.no_grad():
        elbo, (estimate, error) = (
            model(x),
            monte_carlo_kl(model.posterior(x), model.prior(), 20_000),
        )
    assert elbo.kl_per_dimension.min() > 0.01  # far enough from the prior to see a wrong sign
    assert ((elbo.kl_per_dimension - estimate).abs() < 4.5 * error).all()
    torch.testing.assert_close(elbo.kl, elbo.kl_per_dimension.sum(1))


def test_reconstruction_is_the_likelihood_at_samples_of_the_posterior() -> None:
    """Averaged over many draws, forward agrees with an expectation taken by hand."""
    model, x = vae(scale=3), images()
    many = 4_000
    torch.manual_seed(0)
    with torch.no_grad():
        draws: Elbo = model(x.repeat(many, 1))
        z = model.posterior(x).sample((many,))
        expected = -model.log_likelihood(x, z)  # [S, B]
    drawn = draws.reconstruction.view(many, B)
    error = (drawn.var(0) / many + expected.var(0) / many).sqrt()
    assert ((drawn.mean(0) - expected.mean(0)).abs() < 4.5 * error).all()
    assert drawn.std(0).min() > 0.1  # the samples matter


@pytest.mark.parametrize("method", [VAE.posterior, VAE.__call__])
def test_images_of_another_size_are_refused(method: Callable[[VAE, Tensor], object]) -> None:
    with pytest.raises(ValueError, match=rf"\[B, {D}\] images, not \[{B}, {D + 1}\]"):
        method(vae(), torch.zeros(B, D + 1))
