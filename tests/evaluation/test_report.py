from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.distributions import Bernoulli, MultivariateNormal, Normal, kl_divergence

from tutvae.bounds import Elbo, importance_weighted_bound
from tutvae.evaluation.importance import importance_samples_of, noise_streams
from tutvae.evaluation.report import Report, active_units, encode, evaluate, mean_terms, score
from tutvae.models import VAE
from tutvae.training.engine import autocast

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no GPU")


class LinearGaussian(nn.Module):
    """x = W z + b + noise, where W has orthogonal columns.

    The true posterior is then a diagonal Normal; `posterior` is exactly it, widened by `widen`.
    """

    def __init__(self, widen: float = 1.0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        directions, _ = torch.linalg.qr(torch.randn(5, 2, generator=generator))
        self.weight = nn.Parameter(directions * torch.tensor([2.0, 0.7]))  # [D, Z]
        self.bias = nn.Parameter(torch.linspace(-1, 1, 5))
        self.noise = 0.6
        self.widen = widen

    def prior(self) -> Normal:
        return Normal(torch.zeros(2), torch.ones(2))

    def posterior(self, x: Tensor) -> Normal:
        precision = 1 + (self.weight**2).sum(0) / self.noise**2  # [Z]
        mean = (x - self.bias) @ self.weight / self.noise**2 / precision
        return Normal(mean, (self.widen / precision.sqrt()).expand_as(mean))

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        return Normal(z @ self.weight.T + self.bias, self.noise).log_prob(x).sum(-1)

    def log_evidence(self, x: Tensor) -> Tensor:
        """log p(x) in closed form, `[B]`."""
        covariance = self.weight @ self.weight.T + self.noise**2 * torch.eye(5)
        return MultivariateNormal(self.bias, covariance).log_prob(x).detach()


class KnownTerms(nn.Module):
    """Terms that depend on x alone: the reconstruction is sum(x), the KL of z_i is x_i^2 / 2.

    It notes whether it was in training mode and recorded gradients when it was used.
    """

    def __init__(self) -> None:
        super().__init__()
        self.parameter = nn.Parameter(torch.ones(1))
        self.modes: set[tuple[bool, bool]] = set()

    def prior(self) -> Normal:
        return Normal(torch.zeros(2), torch.ones(2))

    def posterior(self, x: Tensor) -> Normal:
        self.modes.add((self.training, torch.is_grad_enabled()))
        return Normal(x[:, :2] * self.parameter, 1.0)

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        return -x.sum(-1).expand(z.shape[:-1])

    def forward(self, x: Tensor) -> Elbo:
        q = self.posterior(x)
        kl = kl_divergence(q, self.prior()).sum(-1)
        return Elbo(-self.log_likelihood(x, q.rsample()), kl)


def vae(data_size: int, latent_size: int, scale: float) -> VAE:
    """A VAE whose random weights are large, so that its posterior is far from the true one.

    The posterior is wider than the prior: importance weights are bounded, and estimates settle.
    """
    torch.manual_seed(0)
    model = VAE(data_size, latent_size, (6,))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(scale)
        model.encoder.log_variance.weight.zero_()
        model.encoder.log_variance.bias.fill_(0.7)
    return model


def blind_vae() -> VAE:
    """A VAE whose decoder ignores the code and whose encoder ignores the image: q(z|x) = p(z)."""
    model = vae(7, 3, 1.0)
    with torch.no_grad():
        for layer in (model.encoder.mean, model.encoder.log_variance):
            layer.weight.zero_()
            layer.bias.zero_()
        model.decoder.logits.weight.zero_()
    return model


def log_evidence_on_a_grid(model: VAE, x: Tensor) -> Tensor:
    """log p(x) of a VAE with one latent dimension, by the trapezium rule, `[B]`."""
    z = torch.linspace(-9, 9, 4_001, dtype=torch.float64)
    with torch.no_grad():
        codes = z[:, None, None].expand(-1, len(x), 1)  # [S, B, 1]
        log_joint = model.log_likelihood(x, codes) + Normal(0.0, 1.0).log_prob(z)[:, None]
    return torch.trapezoid(log_joint.exp(), z, dim=0).log()


def all_images(pixels: int) -> Tensor:
    """Every binary image, `[2^D, D]`."""
    return torch.tensor(list(itertools.product([0.0, 1.0], repeat=pixels)))


def binary_images(count: int, pixels: int) -> Tensor:
    return torch.bernoulli(
        torch.full((count, pixels), 0.5), generator=torch.Generator().manual_seed(3)
    )


def gaussian_data() -> Tensor:
    return torch.randn(4, 5, generator=torch.Generator().manual_seed(1))


def weights_of(model: Any, x: Tensor, samples: int) -> Tensor:
    """Log importance weights, `[S, B]`."""
    with torch.no_grad():
        q, noise = model.posterior(x), noise_streams(0, range(len(x)))
        return importance_samples_of(model, x, q, samples, 1_000, noise)[1]


class TestTheTrueLikelihood:
    def test_the_bound_is_tight_at_the_true_posterior(self) -> None:
        model, x = LinearGaussian(), gaussian_data()
        nll = -model.log_evidence(x).mean().item()
        for samples in (1, 3):
            report = evaluate(model, [x], importance_samples=samples)
            assert report.importance_weighted_nll == pytest.approx(nll, abs=1e-4)
        assert evaluate(model, [x], importance_samples=5_000).bound == pytest.approx(nll, abs=0.03)

    def test_another_posterior_loosens_the_bound_by_its_kl_to_the_true_one(self) -> None:
        model, x = LinearGaussian(widen=1.6), gaussian_data()
        gap = 2 * (0.5 * (1.6**2 - 1) - math.log(1.6))  # KL of two Normals of equal mean, Z = 2
        report = evaluate(model, [x], importance_samples=5_000)
        nll = -model.log_evidence(x).mean().item()
        assert report.bound == pytest.approx(nll + gap, abs=0.04)
        assert report.importance_weighted_nll == pytest.approx(nll, abs=0.02)

    def test_the_bound_is_tight_when_nothing_is_encoded(self) -> None:
        model, x = blind_vae(), binary_images(5, 7)
        with torch.no_grad():
            pixels = Bernoulli(logits=model.decoder.logits.bias)
            nll = -pixels.log_prob(x).sum(1).mean().item()
        report = evaluate(model, [x], importance_samples=3)
        assert report.kl == 0.0
        assert report.active_units == 0
        assert report.reconstruction == pytest.approx(nll, rel=1e-6)
        assert report.importance_weighted_nll == pytest.approx(nll, rel=1e-6)

    def test_importance_weighting_converges_to_the_likelihood(self) -> None:
        model, x = vae(5, 1, 4.0).double(), binary_images(6, 5).double()
        nll = -log_evidence_on_a_grid(model, x).mean().item()
        report = evaluate(model, [x], importance_samples=5_000)
        assert report.bound > nll + 0.5  # there is a gap to close
        assert report.importance_weighted_nll == pytest.approx(nll, abs=0.03)

    @pytest.mark.parametrize("pixels", [2, 3])
    def test_the_probabilities_of_all_images_sum_to_one(self, pixels: int) -> None:
        model, x = vae(pixels, 1, 3.0).double(), all_images(pixels).double()
        assert log_evidence_on_a_grid(model, x).exp().sum().item() == pytest.approx(1, abs=1e-9)
        estimate = importance_weighted_bound(weights_of(model, x, 5_000))
        assert estimate.exp().sum().item() == pytest.approx(1, abs=0.05)

    def test_the_bounds_come_in_their_order(self) -> None:
        """ELBO < IW_2 < IW_4 < ... < log p(x) on average, each by more than chance."""
        model, x = vae(5, 1, 3.0).double(), binary_images(1, 5).double()
        weights = weights_of(model, x.repeat(4_000, 1), 16)
        averages, errors = [], []
        for samples in (1, 2, 4, 8, 16):
            bounds = importance_weighted_bound(weights.reshape(samples, -1))
            averages.append(bounds.mean().item())
            errors.append(bounds.std().item() / math.sqrt(len(bounds)))
        averages.append(log_evidence_on_a_grid(model, x).item())
        for lower, upper, error in zip(averages, averages[1:], errors, strict=False):
            assert upper > lower + 3 * error


class TestEvaluate:
    @settings(max_examples=40)
    @given(chunk_size=st.integers(1, 12), samples=st.integers(1, 10))
    def test_the_chunk_size_changes_nothing(self, chunk_size: int, samples: int) -> None:
        model, x = vae(7, 3, 3.0), binary_images(4, 7)
        chunked = evaluate(model, [x], importance_samples=samples, chunk_size=chunk_size)
        whole = evaluate(model, [x], importance_samples=samples, chunk_size=samples)
        assert chunked.importance_weighted_nll == pytest.approx(
            whole.importance_weighted_nll, rel=1e-5
        )
        assert chunked.reconstruction == pytest.approx(whole.reconstruction, rel=1e-5)

    @given(batch_size=st.integers(1, 12))
    def test_the_batch_size_changes_nothing(self, batch_size: int) -> None:
        """An example's noise is its own."""
        model, x = vae(7, 3, 3.0), binary_images(11, 7)
        split = evaluate(model, x.split(batch_size), importance_samples=3).to_dict()
        whole = evaluate(model, [x], importance_samples=3).to_dict()
        for term in ("reconstruction", "kl", "importance_weighted_nll", "mutual_information"):
            assert split[term] == pytest.approx(whole[term], rel=1e-5)

    def test_scores_come_in_the_order_of_the_examples(self) -> None:
        model, x = vae(7, 3, 3.0), binary_images(11, 7)
        scores = score(model, x.split(4), importance_samples=3)
        report = evaluate(model, x.split(4), importance_samples=3)
        assert scores.nll.shape == scores.reconstruction.shape == (11,)
        assert scores.nll.mean().item() == pytest.approx(report.importance_weighted_nll)
        assert scores.reconstruction.mean().item() == pytest.approx(report.reconstruction)
        with torch.no_grad():
            expected = model(x).kl_per_dimension
        torch.testing.assert_close(scores.kl.float(), expected)
        alone = score(model, [x[:1]], importance_samples=3)
        assert alone.nll[0].item() == pytest.approx(scores.nll[0].item(), rel=1e-5)

    def test_the_noise_is_standard_normal_and_each_example_s_own(self) -> None:
        streams = noise_streams(1, range(5))
        draws = torch.stack([torch.from_numpy(s.standard_normal(8_000)) for s in streams])
        assert draws.mean(1).abs().max() < 4.5 / 8_000**0.5
        torch.testing.assert_close(draws.cov(), torch.eye(5).double(), atol=0.07, rtol=0)

    def test_every_sample_is_a_new_one(self) -> None:
        weights = weights_of(vae(7, 3, 3.0), binary_images(4, 7), 9)
        assert weights.shape == (9, 4)
        assert len(weights.unique()) == 9 * 4

    def test_terms_are_summed_over_the_example_and_averaged_over_all_examples(self) -> None:
        """Batches of unequal size count by their examples."""
        x = torch.tensor([[1.0, 2.0, 4.0], [3.0, 0.0, 2.0], [2.0, 1.0, 1.0], [5.0, 3.0, 1.0]])
        report = evaluate(KnownTerms(), [x[:3], x[3:]], importance_samples=2)
        assert report.examples == 4
        assert report.reconstruction == pytest.approx((7 + 5 + 4 + 9) / 4)
        assert report.kl_per_dimension == pytest.approx([(1 + 9 + 4 + 25) / 8, (4 + 1 + 9) / 8])
        assert report.kl == pytest.approx((39 + 14) / 8)
        assert report.bound == pytest.approx(25 / 4 + 53 / 8)
        assert report.importance_samples == 2

    def test_twice_the_pixels_cost_twice_the_nats(self) -> None:
        model, doubled = vae(4, 2, 2.0), vae(8, 2, 2.0)
        x = binary_images(3, 4)
        with torch.no_grad():
            for a, b in zip(model.parameters(), doubled.parameters(), strict=True):
                b.copy_(a.repeat([m // n for m, n in zip(b.shape, a.shape, strict=True)]))
            doubled.encoder.hidden[0].weight.mul_(0.5)  # so that the codes stay the same
        one, two = (
            evaluate(m, [batch], importance_samples=4)
            for m, batch in ((model, x), (doubled, x.repeat(1, 2)))
        )
        assert two.kl == pytest.approx(one.kl, rel=1e-5)
        assert two.reconstruction == pytest.approx(2 * one.reconstruction, rel=1e-5)

    def test_a_batch_of_one(self) -> None:
        report = evaluate(vae(7, 3, 2.0), [binary_images(1, 7)], importance_samples=4)
        assert report.examples == 1
        assert report.active_units == 0
        assert math.isfinite(report.bound)

    def test_the_seed_alone_decides(self) -> None:
        model, x = vae(7, 3, 3.0), binary_images(4, 7)

        def report(seed: int, global_seed: int) -> Report:
            torch.manual_seed(global_seed)
            return evaluate(model, [x], importance_samples=3, seed=seed)

        assert report(0, 1) == report(0, 2)
        assert report(0, 1).importance_weighted_nll != report(5, 1).importance_weighted_nll

    def test_active_units_are_counted_over_all_batches(self) -> None:
        """Each batch is constant, but not the same constant."""
        batches = [torch.tensor([[value, 2.0, 0.0]]).repeat(3, 1) for value in (0.0, 1.0)]
        assert evaluate(KnownTerms(), batches, importance_samples=1).active_units == 1

    @pytest.mark.parametrize("data", [math.nan, math.inf])
    def test_data_that_is_not_finite(self, data: float) -> None:
        x = binary_images(4, 7)
        x[2, 1] = data
        with pytest.raises(ValueError, match="not finite"):
            evaluate(vae(7, 3, 1.0), [x], importance_samples=2)

    def test_weights_that_are_not_finite(self) -> None:
        model = vae(7, 3, 1.0)
        with torch.no_grad():
            model.encoder.mean.bias[1] = math.nan
        with pytest.raises(ValueError, match="not finite"):
            evaluate(model, [binary_images(4, 7)], importance_samples=2)

    def test_no_batch(self) -> None:
        with pytest.raises(ValueError, match="no batch"):
            evaluate(vae(7, 3, 1.0), [])

    @pytest.mark.parametrize("arguments", [{"importance_samples": 0}, {"chunk_size": 0}])
    def test_counts_below_one(self, arguments: dict[str, int]) -> None:
        with pytest.raises(ValueError, match="at least 1"):
            evaluate(vae(7, 3, 1.0), [binary_images(4, 7)], **arguments)

    @needs_gpu
    def test_the_gpu_gives_the_same_report(self) -> None:
        model, x = vae(7, 3, 3.0), binary_images(4, 7)
        on_cpu = evaluate(model, [x], importance_samples=50).to_dict()
        on_gpu = evaluate(model.to("cuda"), [x], importance_samples=50).to_dict()
        assert on_gpu == pytest.approx(on_cpu, rel=1e-4)


MEASURES: list[Callable[..., Any]] = [
    lambda model, batches: evaluate(model, batches, importance_samples=3),
    mean_terms,
    encode,
]


@pytest.mark.parametrize("measure", MEASURES, ids=["evaluate", "mean_terms", "encode"])
class TestWhatMeasuringLeavesBehind:
    def test_the_global_random_state(self, measure: Callable[..., Any]) -> None:
        model, x = vae(7, 3, 3.0), binary_images(4, 7)
        before = torch.get_rng_state()
        measure(model, [x])
        assert torch.equal(torch.get_rng_state(), before)

    @pytest.mark.parametrize("training", [True, False])
    def test_the_mode(self, measure: Callable[..., Any], training: bool) -> None:
        model = KnownTerms().train(training)
        measure(model, [torch.ones(4, 3)])
        assert model.modes == {(False, False)}  # eval mode and no gradients meanwhile
        assert model.training is training
        assert torch.is_grad_enabled()

    def test_the_mode_after_an_error(self, measure: Callable[..., Any]) -> None:
        model = vae(7, 3, 1.0).train()
        with pytest.raises(ValueError, match="images"):
            measure(model, [torch.ones(4, 8)])
        assert model.training
        assert torch.is_grad_enabled()


class TestMeanTerms:
    def test_it_agrees_with_hand_values(self) -> None:
        x = torch.tensor([[1.0, 2.0, 4.0], [3.0, 0.0, 2.0], [5.0, 3.0, 1.0]])
        terms = mean_terms(KnownTerms(), [x[:2], x[2:]])
        assert terms == pytest.approx({"reconstruction": (7 + 5 + 9) / 3, "kl": (5 + 9 + 34) / 6})

    def test_it_agrees_with_evaluate_in_expectation(self) -> None:
        model, x = vae(7, 3, 3.0), binary_images(4, 7)
        report = evaluate(model, [x], importance_samples=4_000)
        terms = mean_terms(model, [x.repeat(4_000, 1)])
        assert terms["kl"] == pytest.approx(report.kl, rel=1e-4)
        assert terms["reconstruction"] == pytest.approx(report.reconstruction, abs=0.1)

    def test_the_seed_alone_decides(self) -> None:
        model, x = vae(7, 3, 3.0), binary_images(4, 7)
        assert mean_terms(model, [x], seed=1) == mean_terms(model, [x], seed=1)
        assert mean_terms(model, [x], seed=1) != mean_terms(model, [x], seed=2)

    def test_no_batch(self) -> None:
        with pytest.raises(ValueError, match="no batch"):
            mean_terms(vae(7, 3, 1.0), [])


class TestEncode:
    def test_posteriors_come_in_the_order_of_the_examples(self) -> None:
        model, x = vae(7, 3, 3.0), binary_images(11, 7)
        q = encode(model, x.split(4))
        with torch.no_grad():
            expected = model.posterior(x)
        assert q.batch_shape == (11, 3)
        torch.testing.assert_close(q.loc, expected.loc)
        torch.testing.assert_close(q.scale, expected.scale)
        assert not q.loc.requires_grad

    def test_no_batch(self) -> None:
        with pytest.raises(ValueError, match="no batch"):
            encode(vae(7, 3, 1.0), [])

    def test_weights_that_are_not_finite(self) -> None:
        model = vae(7, 3, 1.0)
        with torch.no_grad():
            model.encoder.mean.bias[1] = math.nan
        with pytest.raises(FloatingPointError, match="not finite"):
            encode(model, [binary_images(4, 7)])


@pytest.mark.parametrize("seed", [None, 0.5])
def test_a_seed_that_is_no_integer(seed: Any) -> None:
    for measure in (evaluate, score, mean_terms):
        with pytest.raises(TypeError, match="seed must be an integer"):
            measure(vae(7, 3, 1.0), [binary_images(4, 7)], seed=seed)


class TestLowPrecision:
    """Samples of q(z|x) and their weights are never in half precision."""

    def test_under_autocast_the_log_ratio_is_that_of_the_samples(self) -> None:
        model, x = vae(7, 3, 3.0), binary_images(4, 7)
        weights, q = [], None

        class Blind(nn.Module):
            """The VAE without a likelihood: its log weights are log p(z) - log q(z|x)."""

            prior, posterior = staticmethod(model.prior), staticmethod(model.posterior)

            def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
                weights.append(z)
                return torch.zeros(z.shape[:-1])

        with autocast(torch.device("cpu"), torch.bfloat16), torch.no_grad():
            q = model.posterior(x)
            assert q.loc.dtype == torch.bfloat16
            _, ratio = importance_samples_of(Blind(), x, q, 50, 50, noise_streams(0, range(4)))
        z, exact = weights[0].double(), Normal(q.loc.double(), q.scale.double())
        expected = (Normal(0.0, 1.0).log_prob(z) - exact.log_prob(z)).sum(-1)
        torch.testing.assert_close(ratio.double(), expected, atol=1e-4, rtol=0)

    def test_a_model_in_half_precision_is_measured(self) -> None:
        model, x = vae(7, 3, 3.0), binary_images(4, 7)
        single = evaluate(model, [x], importance_samples=20)
        half = evaluate(model.bfloat16(), [x.bfloat16()], importance_samples=20)
        assert half.importance_weighted_nll == pytest.approx(
            single.importance_weighted_nll, rel=0.05
        )


class TestActiveUnits:
    def test_by_hand(self) -> None:
        """N = 2: a variance is a quarter of the squared difference. The threshold is 0.01."""
        means = torch.tensor([[0.0, 9.0, 0.0, -1.0], [0.19, 9.0, 0.21, 1.0]])
        assert active_units(means).tolist() == [False, False, True, True]
        assert active_units(means, threshold=0.5).tolist() == [False, False, False, True]

    def test_one_example_tells_nothing(self) -> None:
        assert not active_units(torch.tensor([[3.0, -8.0]])).any()


class TestReport:
    REPORT = Report(1_234, 80.125, 25.5, 99.0625, 500, 2, (25.25, 0.125, 0.125))

    def test_the_bound(self) -> None:
        assert self.REPORT.bound == 105.625

    def test_it_becomes_json(self) -> None:
        fields = json.loads(json.dumps(self.REPORT.to_dict()))
        assert fields.pop("bound") == 105.625
        assert Report(**fields | {"kl_per_dimension": tuple(fields["kl_per_dimension"])}) == (
            self.REPORT
        )

    def test_a_perplexity_beyond_all_numbers_is_infinite_and_no_part_of_the_json(self) -> None:
        report = Report(10, 8_000.0, 0.0, 8_000.0, 1, 0, (), tokens=100)
        assert report.perplexity == math.inf
        fields = json.loads(json.dumps(report.to_dict(), allow_nan=False))
        assert "perplexity" not in fields
        assert fields["importance_weighted_nll"] == 8_000.0
        assert "inf" in str(report)

    def test_it_prints_as_a_table(self) -> None:
        title, *rows = str(self.REPORT).splitlines()
        assert title == "1,234 examples, nats an example"
        assert [row.split()[-1] for row in rows] == ["80.12", "25.50", "105.62", "99.06", "3"]
        assert "2 of 3" in rows[-1]
        assert len({len(row) for row in rows}) == 1
