from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.distributions import Normal

from tutvae.data.batches.text import EncodedTexts
from tutvae.evaluation.diagnostics import mutual_information, own_code_gain, probe, sample_codes
from tutvae.evaluation.importance import standard_noise
from tutvae.models import LanguageModel, LSTMDecoder, LSTMEncoder, TextVAE


def posteriors(means: Tensor, scale: float = 1.0) -> Normal:
    return Normal(means, torch.full_like(means, scale))


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class TestSampleCodes:
    def test_each_comes_from_its_own_posterior(self) -> None:
        q = Normal(torch.tensor([[0.0, 50.0, -9.0]]), torch.tensor([[1.0, 0.2, 4.0]]))
        codes = sample_codes(q.expand((20_000, 3)))
        torch.testing.assert_close(codes.mean(0), q.loc[0], atol=0.1, rtol=0)
        torch.testing.assert_close(codes.std(0), q.scale[0], atol=0.1, rtol=0)

    def test_the_seed_alone_decides(self) -> None:
        q = posteriors(normal(5, 3))
        before = torch.get_rng_state()
        assert torch.equal(sample_codes(q, 4), sample_codes(q, 4))
        assert not torch.equal(sample_codes(q, 4), sample_codes(q, 5))
        assert torch.equal(torch.get_rng_state(), before)


class Distance(nn.Module):
    """The code is x itself, and log p(x|z) the negative squared distance of the two."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def prior(self) -> Normal:
        return Normal(torch.zeros(1), torch.ones(1))

    def posterior(self, x: Tensor) -> Normal:
        return Normal(x, 1e-6)

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        return -(x - z).square().sum(-1)


class TestOwnCodeGain:
    X = torch.tensor([[0.0], [1.0], [5.0], [7.0]])

    @pytest.mark.parametrize("sizes", [[4], [1, 3], [1, 1, 1, 1]])
    def test_by_hand(self, sizes: list[int]) -> None:
        """Each of the four is paired with the one two places away."""
        pairs = [(0, 5), (1, 7), (5, 0), (7, 1)]
        expected = sum((a - b) ** 2 for a, b in pairs) / 4
        batches = iter(self.X.split(sizes))
        assert own_code_gain(Distance(), batches) == pytest.approx(expected, rel=1e-4)

    @pytest.mark.parametrize("examples", [torch.full((6, 1), 3.0), torch.tensor([[2.0]])])
    def test_equal_examples_gain_nothing(self, examples: Tensor) -> None:
        assert own_code_gain(Distance(), [examples]) == pytest.approx(0, abs=1e-6)

    def test_documents_in_any_order_and_some_of_them(self) -> None:
        documents = [[1, *([3 + i % 4] * (i + 1)), 2] for i in range(7)]
        texts = EncodedTexts(documents)
        model = TextVAE(LSTMEncoder(7, 5, 6, 3), LSTMDecoder(7, 5, 6, 3))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(4)
        whole = own_code_gain(model, [texts.batch([1, 2, 4, 6])])
        mixed = own_code_gain(model, [texts.batch([6, 1]), texts.batch([4, 2])])
        assert mixed == pytest.approx(whole, rel=1e-4)
        assert whole != 0

    def test_a_model_without_a_code_gains_nothing(self) -> None:
        texts = EncodedTexts([[1, 3, 2], [1, 4, 4, 2], [1, 5, 2]])
        assert own_code_gain(LanguageModel(LSTMDecoder(7, 5, 6)), [texts.batch()]) == 0

    def test_no_batch(self) -> None:
        with pytest.raises(ValueError, match="no batch"):
            own_code_gain(Distance(), [])


class TestMutualInformation:
    @pytest.mark.parametrize("value", [math.nan, math.inf, 0.0])
    def test_posteriors_without_a_finite_positive_width(self, value: float) -> None:
        scale = torch.ones(5, 2)
        scale[3, 1] = value
        with pytest.raises(ValueError, match="finite means and finite, positive scales"):
            mutual_information(Normal(torch.zeros(5, 2), scale, validate_args=False))

    def test_a_mean_that_is_not_finite(self) -> None:
        means = torch.tensor([[0.0], [math.nan]])
        with pytest.raises(ValueError, match="finite means"):
            mutual_information(Normal(means, torch.ones(2, 1), validate_args=False))

    @pytest.mark.parametrize("count", [1, 2, 70, 129])  # also beyond the codes taken at a time
    def test_posteriors_far_apart_tell_everything(self, count: int) -> None:
        means = 100.0 * torch.arange(count)[:, None] * torch.tensor([[1.0, -2.0]])
        assert mutual_information(posteriors(means)) == pytest.approx(math.log(count), abs=1e-12)

    def test_equal_posteriors_tell_nothing(self) -> None:
        assert mutual_information(posteriors(torch.full((90, 3), 7.0), 0.3)) == pytest.approx(
            0, abs=1e-12
        )

    @pytest.mark.parametrize(
        ("scale", "spread"), [(1e-3, 2e-3), (1e-3, 3.0), (1.0, 0.5), (9.0, 3.0)]
    )
    def test_it_is_the_plain_sum_over_all_pairs(self, scale: float, spread: float) -> None:
        """Narrow posteriors and wide ones, near each other and far apart, off the origin too."""
        widths = scale * normal(150, 4, seed=3).mul(0.3).exp()
        q = Normal((5 + spread * normal(150, 4)).double(), widths.double())
        z = q.loc + q.scale * standard_noise(q.loc, seed=1)
        pairs = q.log_prob(z[:, None]).sum(2)  # [n, m]
        plain = (pairs.diagonal() - pairs.logsumexp(1)).mean().item() + math.log(150)
        assert mutual_information(q, seed=1) == pytest.approx(plain, abs=1e-7)

    def test_posteriors_far_narrower_than_their_distances(self) -> None:
        q = posteriors(normal(200, 3).double(), scale=1e-9)
        assert mutual_information(q) == pytest.approx(math.log(200), abs=1e-9)

    def test_two_clusters_tell_one_bit(self) -> None:
        means = 80.0 * (torch.arange(90) % 2)[:, None].expand(90, 3)
        assert mutual_information(posteriors(means)) == pytest.approx(math.log(2), abs=1e-12)

    def test_clusters_of_unequal_size(self) -> None:
        """A cluster of a third and one of two thirds: their entropy."""
        means = 80.0 * (torch.arange(90) % 3 == 0).float()[:, None]
        entropy = -(math.log(1 / 3) + 2 * math.log(2 / 3)) / 3
        assert mutual_information(posteriors(means)) == pytest.approx(entropy, abs=0.05)

    @pytest.mark.parametrize(("scale", "spread"), [(0.5, 1.0), (1.0, 1.0), (1.0, 0.2)])
    def test_a_gaussian_channel(self, scale: float, spread: float) -> None:
        """Normal means with Normal noise: Shannon's formula, in each of two dimensions."""
        q = posteriors(spread * normal(3_000, 2), scale)
        exact = 2 * 0.5 * math.log(1 + (spread / scale) ** 2)
        assert mutual_information(q, seed=1) == pytest.approx(exact, abs=0.08)

    def test_it_is_the_kl_less_the_kl_of_the_aggregate(self) -> None:
        """With aggregate and prior both Normal(0, 1): the mean KL itself."""
        scale = 0.6
        q = posteriors(math.sqrt(1 - scale**2) * normal(3_000, 1), scale)
        kl = 0.5 * (q.loc**2 + q.scale**2 - 1) - q.scale.log()
        assert mutual_information(q, seed=1) == pytest.approx(kl.mean().item(), abs=0.05)

    @given(st.integers(1, 30), st.floats(0.01, 100), st.integers(0, 100))
    def test_it_stays_between_zero_and_its_ceiling(
        self, count: int, spread: float, seed: int
    ) -> None:
        q = posteriors(spread * normal(count, 2, seed=seed))
        assert 0 <= mutual_information(q, seed + 1_000) <= math.log(count) + 1e-9

    def test_without_a_code_there_is_none(self) -> None:
        assert mutual_information(posteriors(torch.zeros(7, 0))) == pytest.approx(0, abs=1e-12)

    def test_the_seed_alone_decides(self) -> None:
        q = posteriors(normal(50, 3))
        before = torch.get_rng_state()
        assert mutual_information(q, 1) == mutual_information(q, 1)
        assert mutual_information(q, 1) != mutual_information(q, 2)
        assert torch.equal(torch.get_rng_state(), before)


class TestProbe:
    FACTOR = np.arange(3_000) % 5

    def probe_of(self, codes: Tensor, factor: np.ndarray) -> tuple[float, float, float]:
        found = probe(codes[:2_000], factor[:2_000], codes[2_000:], factor[2_000:])
        return found.accuracy, found.nats, found.entropy

    def test_a_code_that_contains_the_factor_holds_its_entropy(self) -> None:
        one_hot = torch.eye(5)[torch.from_numpy(self.FACTOR)]
        codes = torch.cat([normal(3_000, 2), 10 * one_hot], dim=1)
        accuracy, nats, entropy = self.probe_of(codes, self.FACTOR)
        assert accuracy == 1
        assert entropy == pytest.approx(math.log(5))
        assert nats == pytest.approx(math.log(5), rel=0.01)

    def test_a_shuffled_factor_leaves_chance(self) -> None:
        codes = torch.eye(5)[torch.from_numpy(self.FACTOR)] + normal(3_000, 5)
        shuffled = np.random.default_rng(0).permutation(self.FACTOR)
        accuracy, nats, entropy = self.probe_of(codes, shuffled)
        assert accuracy == pytest.approx(0.2, abs=0.04)
        assert entropy == pytest.approx(math.log(5), abs=0.01)
        assert nats == pytest.approx(0, abs=0.01)

    def test_an_overconfident_probe_holds_nothing_rather_than_less(self) -> None:
        codes = normal(3_000, 5)
        opposite = probe(codes, codes[:, 0].numpy() > 0, codes, codes[:, 0].numpy() < 0)
        assert opposite.nats == 0
        assert opposite.accuracy < 0.1

    def test_a_noisy_copy(self) -> None:
        """z = factor + Normal noise: the nats are known by integration."""
        distance, factor = 1.5, self.FACTOR % 2
        codes = distance * torch.from_numpy(factor).float()[:, None] + normal(3_000, 1)
        z = torch.linspace(-10, 12, 10_001, dtype=torch.float64)
        densities = torch.stack([Normal(mean, 1.0).log_prob(z).exp() for mean in (0, distance)])
        mixture = densities.mean(0)
        given_z = torch.xlogy(densities / 2, densities / 2 / mixture).sum(0)
        exact = math.log(2) + torch.trapezoid(given_z, z).item()
        assert self.probe_of(codes, factor)[1] == pytest.approx(exact, abs=0.03)

    def test_values_may_be_names_and_codes_on_any_scale(self) -> None:
        names = np.array(["hotel", "film", "book", "phone", "inn"])[self.FACTOR]
        codes = 1e-3 * torch.eye(5)[torch.from_numpy(self.FACTOR)] + 500
        assert self.probe_of(codes, names)[0] == 1

    def test_a_factor_that_never_changes_has_no_nats(self) -> None:
        found = probe(normal(4, 2), [1] * 4, normal(4, 2), [1] * 4)
        assert (found.accuracy, found.nats, found.entropy) == (1, 0, 0)

    def test_a_value_that_only_training_has(self) -> None:
        codes = 10 * torch.eye(5)[torch.from_numpy(self.FACTOR)]
        found = probe(codes[:50], self.FACTOR[:50].tolist(), codes[50:52], [0, 1])
        assert found.accuracy == 1
        assert found.entropy == pytest.approx(math.log(2))

    @pytest.mark.parametrize(
        ("codes", "train", "test", "message"),
        [
            (normal(4, 2), [0, 1, 0], [0, 1, 0, 1], "4 codes need a factor of 4"),
            (normal(4, 2), [0, 1, 0, 1], [0, 1], "4 codes need a factor of 4"),
            (normal(4, 0), [0, 1, 0, 1], [0, 1, 0, 1], "no dimensions"),
            (normal(4, 2), [0, 1, 0, 1], [0, 1, 0, 7], "test set only: 7"),
        ],
    )
    def test_bad_input(
        self, codes: Tensor, train: list[int], test: list[int], message: str
    ) -> None:
        with pytest.raises(ValueError, match=message):
            probe(codes, train, codes, test)
