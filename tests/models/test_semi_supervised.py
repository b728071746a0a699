from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from tutvae.bounds import LabelElbo
from tutvae.data.batches.labelled import MixedBatches
from tutvae.data.batches.text import Batches, EncodedTexts
from tutvae.data.batches.text_batch import TextBatch
from tutvae.evaluation.report import encode, evaluate, score
from tutvae.models.encoders import LSTMEncoder
from tutvae.models.lstm_decoder import Decoder, LSTMDecoder
from tutvae.models.semi_supervised import SemiSupervisedTextVAE
from tutvae.models.text_classifier import TextClassifier
from tutvae.schedules import temperature_decay
from tutvae.training.engine import autocast
from tutvae.training.loop import fit

B, T, V, H, Z, K, S = 6, 10, 11, 8, 3, 4, 5
PAD, BOS, EOS = 0, 1, 2
LENGTHS = torch.tensor([4, 6, 2, 5, 10, 3])
LABELS = torch.tensor([-1, 2, -1, 0, 3, -1])
PRIOR = torch.tensor([0.1, 0.2, 0.3, 0.4])

Build = Callable[..., Decoder]

both_marginals = pytest.mark.parametrize("marginal", ["enumerate", "gumbel"])
in_both_modes = pytest.mark.parametrize("training", [False, True])


def encoder_of(vocabulary_size: int = V, latent_size: int = Z, scale: float = 3.0) -> LSTMEncoder:
    encoder = LSTMEncoder(vocabulary_size, 9, H, latent_size)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.mul_(scale)
    return encoder


def model_of(
    build: Build, *, classes: int = K, without_noise: bool = False, **options
) -> SemiSupervisedTextVAE:
    """A model in eval mode, far from its start; `without_noise` pins z to its mean."""
    decoder = build(V, Z + classes)
    torch.manual_seed(0)  # whatever the decoder's constructor drew
    model = SemiSupervisedTextVAE(encoder_of(), decoder, classes, **options)
    with torch.no_grad():
        for layer in (model.label_head.logits, model.mean_shift, model.log_scale_shift):
            layer.weight.mul_(3)
        if without_noise:
            model.encoder.log_variance.weight.zero_()
            model.encoder.log_variance.bias.fill_(-40.0)
    return model.eval()


def documents(labels: Tensor | None = LABELS, extra: int = 0) -> TextBatch:
    """B documents; `extra` adds columns of padding."""
    drawn = torch.randint(3, V, (B, T), generator=torch.Generator().manual_seed(1))
    drawn[:, 0] = BOS
    drawn[torch.arange(B), LENGTHS - 1] = EOS
    drawn = torch.cat([drawn, torch.zeros(B, extra, dtype=torch.int64)], dim=1)
    tokens = drawn.masked_fill(torch.arange(T + extra) >= LENGTHS[:, None], PAD)
    return TextBatch(tokens, LENGTHS, labels)


def rows_of(batch: TextBatch, rows: list[int] | Tensor) -> TextBatch:
    labels = None if batch.labels is None else batch.labels[rows]
    return TextBatch(batch.tokens[rows], batch.lengths[rows], labels)


def every_label() -> list[Tensor]:
    return [torch.full((B,), label) for label in range(K)]


def terms(elbo: LabelElbo) -> Tensor:
    """All terms of a bound, `[B, 5 + Z]`."""
    columns = [elbo.reconstruction, elbo.kl, elbo.label_kl, elbo.classification, elbo.value]
    return torch.cat([torch.stack(columns, dim=1), elbo.kl_per_dimension], dim=1)


def log_joint_on_a_grid(model: SemiSupervisedTextVAE) -> Tensor:
    """log p(x, y) of a model with one latent dimension and the prior `PRIOR`, `[K, B]`."""
    grid = torch.linspace(-7, 7, 281)
    log_prior = Normal(0.0, 1.0).log_prob(grid)[:, None] + math.log(14 / 280)
    z = grid[:, None, None].expand(-1, B, 1)
    return torch.stack(
        [
            torch.logsumexp(model.log_likelihood(documents(), z, y) + log_prior, dim=0)
            + PRIOR[y].log()
            for y in every_label()
        ]
    )


class TestTheBound:
    @pytest.mark.parametrize("prior", [None, PRIOR])
    def test_the_mean_of_the_labelled_bounds_and_the_entropy(
        self, build: Build, prior: Tensor | None
    ) -> None:
        """E_q(y|x)[L(x, y)] + H(q(y|x)) = U(x)."""
        model = model_of(build, without_noise=True, label_prior=prior)
        q = model.label_posterior(documents())
        labelled = torch.stack([model(documents(y)).value for y in every_label()], dim=1)
        expected = (q.probs * labelled).sum(1) + q.entropy()
        assert q.entropy().max() - q.entropy().min() > 0.05
        assert (labelled.amax(1) - labelled.amin(1)).min() > 0.05
        torch.testing.assert_close(model(documents(None)).value, expected)

    def test_the_terms_with_a_label(self, build: Build) -> None:
        model = model_of(build, label_prior=PRIOR, without_noise=True)
        for y in every_label():
            elbo = model(documents(y))
            q = model.posterior(documents(), y)
            kl = kl_divergence(q, Normal(0.0, 1.0))
            reconstruction = -model.log_likelihood(documents(), q.loc, y)
            torch.testing.assert_close(elbo.reconstruction, reconstruction)
            torch.testing.assert_close(elbo.kl_per_dimension, kl)
            torch.testing.assert_close(elbo.kl, kl.sum(1))
            torch.testing.assert_close(elbo.label_kl, -PRIOR[y].log())
            log_q = model.label_posterior(documents()).log_prob(y)
            torch.testing.assert_close(elbo.classification, -log_q)
            assert elbo.labelled.all()

    @both_marginals
    def test_the_label_s_terms_without_a_label(self, build: Build, marginal: str) -> None:
        model = model_of(build, label_prior=PRIOR, marginal=marginal)
        elbo = model(documents(None))
        q = model.label_posterior(documents()).probs
        torch.testing.assert_close(elbo.label_kl, (q * (q.log() - PRIOR.log())).sum(1))
        assert torch.equal(elbo.classification, torch.zeros(B))
        assert not elbo.labelled.any()

    @both_marginals
    def test_a_mixed_batch_has_each_document_s_own_bound(self, build: Build, marginal: str) -> None:
        model = model_of(build, without_noise=True, marginal=marginal)
        mixed = terms(model(documents()))
        with_label = LABELS >= 0
        known = terms(model(documents(LABELS.clamp(min=0))))
        torch.testing.assert_close(mixed[with_label], known[with_label])
        if marginal == "enumerate":
            unknown = terms(model(documents(None)))
            torch.testing.assert_close(mixed[~with_label], unknown[~with_label])

    def test_no_label_is_minus_one_or_none(self, build: Build) -> None:
        model = model_of(build, without_noise=True)
        by_number = terms(model(documents(torch.full((B,), -1))))
        assert torch.equal(terms(model(documents(None))), by_number)

    def test_it_lies_below_log_p(self, build: Build) -> None:
        """With one latent dimension, against log p(x, y) and log p(x) on a grid of z."""
        decoder = build(V, 1 + K)
        torch.manual_seed(0)
        model = SemiSupervisedTextVAE(encoder_of(latent_size=1), decoder, K, label_prior=PRIOR)
        model.eval().requires_grad_(False)
        log_joint = log_joint_on_a_grid(model)
        samples = 2000
        repeated = rows_of(documents(None), torch.arange(B).repeat(samples))
        for labels, exact in (
            *zip(every_label(), log_joint, strict=True),
            (None, torch.logsumexp(log_joint, dim=0)),
        ):
            given = None if labels is None else labels.repeat(samples)
            value = model(replace(repeated, labels=given)).value.view(samples, B)
            error = value.std(0) / samples**0.5
            assert (value.mean(0) < exact + 4.5 * error).all()
            assert (value.mean(0) < exact - 0.01).any()

    def test_the_kl_of_z_is_the_closed_form_and_z_is_its_sample(self, build: Build) -> None:
        model = model_of(build)
        torch.manual_seed(4)
        first, second = model(documents()), model(documents())
        assert not torch.equal(first.reconstruction, second.reconstruction)
        assert torch.equal(first.kl, second.kl)
        torch.manual_seed(4)
        y = LABELS.clamp(min=0)
        given = model(documents(y))
        torch.manual_seed(4)
        z = model.posterior(documents(), y).rsample()
        expected = -model.log_likelihood(documents(), z, y)
        torch.testing.assert_close(given.reconstruction, expected)

    def test_one_class_is_no_question(self, build: Build) -> None:
        for marginal in ("enumerate", "gumbel"):
            model = model_of(build, classes=1, without_noise=True, marginal=marginal)
            known, unknown = model(documents(torch.zeros_like(LABELS))), model(documents(None))
            torch.testing.assert_close(unknown.value, known.value)
            assert torch.equal(unknown.label_kl, torch.zeros(B))
            assert torch.equal(known.classification, torch.zeros(B))


class TestGumbel:
    def repeated(self, samples: int) -> TextBatch:
        return rows_of(documents(None), torch.arange(B).repeat(samples))

    def test_the_bound_tends_to_the_exact_one_as_the_temperature_falls(self, build: Build) -> None:
        samples, gaps = 1000, []
        model = model_of(build, without_noise=True).requires_grad_(False)
        exact = model(documents(None)).value
        model.marginal = "gumbel"
        for temperature in (3.0, 0.5, 0.03):
            torch.manual_seed(0)
            model.temperature = temperature
            values = model(self.repeated(samples)).value.view(samples, B)
            gaps.append((values.mean(0) - exact).abs())
            error = values.std(0) / samples**0.5
        assert (gaps[-1] < 4.5 * error + 0.02).all()
        assert gaps[0].mean() > gaps[1].mean() > gaps[2].mean()
        assert gaps[0].mean() > 4 * gaps[2].mean()

    def test_both_gradients_agree_in_the_mean(self, build: Build) -> None:
        model = model_of(build, without_noise=True, temperature=0.1)
        weight = model.label_head.logits.weight

        def gradient(batch: TextBatch) -> Tensor:
            return torch.autograd.grad(-model(batch).value.mean(), weight)[0].flatten()

        exact = gradient(documents(None))
        model.marginal = "gumbel"
        torch.manual_seed(0)
        drawn = torch.stack([gradient(self.repeated(100)) for _ in range(40)])
        error = drawn.std(0) / 40**0.5
        # What is left of the bias at this temperature is below a tenth of the gradient.
        assert ((drawn.mean(0) - exact).abs() < 4.5 * error + 0.1 * exact.abs().max()).all()
        assert (drawn.mean(0) - exact).norm() < 0.15 * exact.norm()
        assert drawn.std(0).norm() > 0.1 * exact.norm()

    def test_the_label_that_is_decoded_is_soft_and_random(self, build: Build) -> None:
        model = model_of(build, marginal="gumbel", temperature=2.0)
        seen: list[Tensor] = []
        model.decoder.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[1]))
        model(documents())
        model(documents())
        first, second = (code[:, Z:] for code in seen)
        assert first.shape == (B, K)
        torch.testing.assert_close(first.sum(1), torch.ones(B))
        known = LABELS >= 0
        assert torch.equal(first[known], nn.functional.one_hot(LABELS[known], K).float())
        assert (first[~known] > 0).all()
        assert (first[~known] != second[~known]).all()

    def test_the_temperature_is_that_of_the_step(self, build: Build) -> None:
        asked: list[int] = []

        def schedule(step: int) -> float:
            asked.append(step)
            return temperature_decay(0.1)(step)

        model = model_of(build, marginal="gumbel", temperature=schedule).train()
        asked.clear()
        for step in (0, 3, 3):
            model.at_step(step)
            model(documents())
        assert asked == [0, 3, 3]
        other = model_of(build, marginal="gumbel", temperature=schedule)
        other.load_state_dict(model.state_dict())
        other(documents())
        assert asked[-1] == 3

    def test_accumulated_batches_are_one_step_of_both_schedules(self) -> None:
        weights_asked: list[int] = []
        temperatures_asked: list[int] = []
        model = SemiSupervisedTextVAE(
            encoder_of(),
            LSTMDecoder(V, 5, 7, Z + K),
            K,
            marginal="gumbel",
            temperature=lambda step: temperatures_asked.append(step) or 1.0,
        )
        temperatures_asked.clear()
        fit(
            model,
            [documents()] * 8,
            epochs=1,
            kl_weight=lambda step: weights_asked.append(step) or 1.0,
            accumulation_steps=4,
            device="cpu",
        )
        assert temperatures_asked == [0] * 4 + [1] * 4
        assert set(weights_asked) == {0, 1}


class TestMeasuring:
    """The label summed out, it is a model of z alone, which every measure takes."""

    def model(self) -> SemiSupervisedTextVAE:
        torch.manual_seed(0)
        model = SemiSupervisedTextVAE(
            encoder_of(latent_size=1), LSTMDecoder(V, 5, 7, 1 + K), K, label_prior=PRIOR
        )
        with torch.no_grad():
            model.mean_shift.weight.mul_(3)
            model.label_head.logits.weight.mul_(3)
            # Wider than the prior: the importance weights are bounded, and estimates settle.
            model.encoder.log_variance.weight.zero_()
            model.encoder.log_variance.bias.fill_(2.0)
            for parameter in model.decoder.parameters():
                parameter.mul_(2)
        return model.eval().requires_grad_(False)

    def test_the_likelihood_of_a_code_is_the_sum_over_the_labels(self) -> None:
        model, z = self.model(), torch.linspace(-2, 2, S * B).view(S, B, 1)
        by_label = [PRIOR[y] * model.log_likelihood(documents(), z, y).exp() for y in every_label()]
        expected = torch.stack(by_label).sum(0).log()
        torch.testing.assert_close(model.log_likelihood(documents(), z), expected)

    def test_many_samples_approach_the_exact_likelihood(self) -> None:
        """Against sum_y p(y) of the integral over z, on a grid."""
        model = self.model()
        exact = -log_joint_on_a_grid(model).logsumexp(0)
        gaps = [
            score(model, [documents()], importance_samples=samples).nll - exact
            for samples in (1, 10, 4_000)
        ]
        assert gaps[0].mean() > gaps[1].mean() > gaps[2].abs().mean()
        assert gaps[2].abs().max() < 0.03

    def test_labels_of_the_batch_change_nothing(self) -> None:
        model = self.model()
        with_labels, without = (
            evaluate(model, [documents(labels)], importance_samples=3)
            for labels in (LABELS.clamp(min=0), None)
        )
        assert with_labels == without
        assert with_labels.bound > with_labels.importance_weighted_nll

    def test_codes_are_those_of_the_most_probable_label(self) -> None:
        model = self.model()
        labels = model.label_posterior(documents()).probs.argmax(1)
        assert len(labels.unique()) > 1
        expected = model.posterior(documents(), labels)
        assert torch.equal(encode(model, [documents()]).loc, expected.loc)
        assert torch.equal(encode(model, [documents()]).scale, expected.scale)


class TestTheModel:
    def test_shapes(self, build: Build) -> None:
        model, z = model_of(build), torch.zeros(2, S, B, Z)
        elbo = model(documents())
        assert elbo.kl_per_dimension.shape == (B, Z)
        for term in (elbo.reconstruction, elbo.kl, elbo.label_kl, elbo.classification, elbo.value):
            assert term.shape == (B,)
        assert elbo.labelled.tolist() == [False, True, False, True, True, False]
        assert model.prior().batch_shape == (Z,)
        assert model.label_prior().probs.shape == (K,)
        assert model.label_posterior(documents()).probs.shape == (B, K)
        y = LABELS.clamp(min=0)
        assert model.posterior(documents(), y).batch_shape == (B, Z)
        assert model.log_likelihood(documents(), z[0, 0], y).shape == (B,)
        assert model.log_likelihood(documents(), z, y).shape == (2, S, B)
        assert model.code(z, y.expand(2, S, B)).shape == (2, S, B, Z + K)
        assert (model.latent_size, model.classes) == (Z, K)

    @both_marginals
    @pytest.mark.parametrize("labels", [LABELS, None, LABELS.clamp(min=0)])
    def test_every_parameter_gets_a_gradient(
        self, build: Build, marginal: str, labels: Tensor | None
    ) -> None:
        torch.manual_seed(0)
        model = model_of(build, marginal=marginal).train()
        model(documents(labels)).loss().backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name

    def test_without_its_own_term_the_classifier_learns_nothing_from_labels(
        self, build: Build
    ) -> None:
        model = model_of(build, classification_weight=0.0)
        model(documents(LABELS.clamp(min=0))).loss().backward()
        assert (model.label_head.logits.weight.grad == 0).all()

    def test_the_gradient_reaches_q_of_y_through_the_reconstruction(self, build: Build) -> None:
        for marginal in ("enumerate", "gumbel"):
            model = model_of(build, marginal=marginal)
            model(documents(None)).reconstruction.sum().backward()
            assert model.label_head.logits.weight.grad.abs().sum() > 0

    def test_labels_that_change_nothing_teach_nothing(self) -> None:
        """The noise of z is the same under every label, so no label is favoured by its draw."""
        decoder = LSTMDecoder(V, 5, 7, Z + K)
        model = SemiSupervisedTextVAE(encoder_of(), decoder, K)
        with torch.no_grad():  # neither q(z|x, y) nor the decoder looks at y
            model.mean_shift.weight.zero_()
            model.log_scale_shift.weight.zero_()
            decoder.lstm.weight_ih_l0[:, -K:] = 0.0
            decoder.code_to_cell.weight[:, -K:] = 0.0
        costs = model(documents(None)).terms
        (costs["reconstruction"] + costs["kl"]).sum().backward()
        assert model.label_head.logits.weight.grad.abs().max() < 1e-5

    def test_state_dict_round_trip(self, build: Build) -> None:
        model = model_of(build, without_noise=True, label_prior=PRIOR)
        model.at_step(1)
        saved = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        torch.manual_seed(0)
        before = terms(model.eval()(documents()))
        fresh = SemiSupervisedTextVAE(encoder_of(), build(V, Z + K, seed=7), K).eval()
        assert not torch.allclose(terms(fresh(documents())), before)
        fresh.load_state_dict(saved)
        torch.manual_seed(0)
        assert torch.equal(terms(fresh(documents())), before)
        assert fresh.step == 1

    @in_both_modes
    def test_padding_changes_nothing(self, build: Build, training: bool) -> None:
        model = model_of(build, without_noise=True).train(training)
        expected = terms(model(documents()))
        torch.testing.assert_close(terms(model(documents(extra=4))), expected)
        padding = torch.arange(T) >= LENGTHS[:, None]
        batch = documents()
        other = TextBatch(batch.tokens.masked_fill(padding, V - 1), LENGTHS, LABELS)
        torch.testing.assert_close(terms(model(other)), expected)

    @in_both_modes
    def test_rows_do_not_mix(self, build: Build, training: bool) -> None:
        """A batch of one equals its row, without its padding; permuting permutes the terms."""
        model, batch = model_of(build, without_noise=True).train(training), documents()
        whole = terms(model(batch))
        for row, length in enumerate(LENGTHS.tolist()):
            alone = TextBatch(batch.tokens[[row], :length], LENGTHS[[row]], LABELS[[row]])
            torch.testing.assert_close(terms(model(alone)), whole[[row]])
        order = [2, 0, 5, 3, 1, 4]
        torch.testing.assert_close(terms(model(rows_of(batch, order))), whole[order])

    def test_q_of_z_is_a_linear_layer_on_features_and_label(self, build: Build) -> None:
        model = model_of(build)
        y = LABELS.clamp(min=0)
        joined = torch.cat(
            [model.encoder.features(documents()), nn.functional.one_hot(y, K).float()], dim=1
        )
        mean, log_variance = nn.Linear(H + K, Z), nn.Linear(H + K, Z)
        with torch.no_grad():
            for layer, own, shift in (
                (mean, model.encoder.mean, model.mean_shift.weight),
                (log_variance, model.encoder.log_variance, 2 * model.log_scale_shift.weight),
            ):
                layer.weight.copy_(torch.cat([own.weight, shift], dim=1))
                layer.bias.copy_(own.bias)
        q = model.posterior(documents(), y)
        torch.testing.assert_close(q.loc, mean(joined))
        torch.testing.assert_close(q.scale, torch.exp(0.5 * log_variance(joined)))

    def test_many_codes_are_scored_like_one_at_a_time(self, build: Build) -> None:
        model = model_of(build).requires_grad_(False)
        z = torch.randn(S, B, Z, generator=torch.Generator().manual_seed(2))
        y = torch.randint(K, (S, B), generator=torch.Generator().manual_seed(3))
        batch = documents()
        by_row = torch.tensor(
            [
                [model.log_likelihood(rows_of(batch, [b]), z[s, [b]], y[s, [b]]) for b in range(B)]
                for s in range(S)
            ]
        )
        torch.testing.assert_close(model.log_likelihood(batch, z, y), by_row)
        same = model.log_likelihood(batch, z, y[0])
        torch.testing.assert_close(same, model.log_likelihood(batch, z, y[0].expand(S, B)))

    def test_the_decoder_is_given_z_and_the_label(self, build: Build) -> None:
        model = model_of(build)
        z = torch.randn(B, Z, generator=torch.Generator().manual_seed(2))
        y = LABELS.clamp(min=0)
        code = model.code(z, y)
        assert torch.equal(code[:, :Z], z)
        assert code[:, Z:].argmax(1).tolist() == y.tolist()
        assert torch.equal(code[:, Z:].sum(1), torch.ones(B))

    @pytest.mark.parametrize(("marginal", "rows"), [("enumerate", 3 + 3 * K), ("gumbel", B)])
    def test_a_batch_is_read_once_and_decoded_at_once(
        self, build: Build, marginal: str, rows: int
    ) -> None:
        """By enumeration, with K copies of the documents without a label."""
        model = model_of(build, marginal=marginal)
        read: list[int] = []
        decoded: list[int] = []
        model.encoder.lstm.register_forward_hook(lambda _, x, __: read.append(len(x[0])))
        model.decoder.register_forward_hook(lambda _, x, __: decoded.append(len(x[0])))
        model(documents())
        assert read == [B]
        assert decoded == [rows]

    def test_dropout_is_on_in_training_alone(self, build: Build) -> None:
        model = model_of(build, dropout=0.5)
        logits = model.label_posterior(documents()).logits
        assert torch.equal(model.label_posterior(documents()).logits, logits)
        assert not torch.equal(model.train().label_posterior(documents()).logits, logits)

    def test_double_precision(self, build: Build) -> None:
        model = model_of(build, without_noise=True, label_prior=PRIOR)
        single = terms(model(documents()))
        double = terms(model.double()(documents()))
        assert double.dtype == torch.float64
        torch.testing.assert_close(double.float(), single, rtol=1e-4, atol=1e-4)

    def test_under_autocast_the_label_s_probabilities_are_not_rounded(self) -> None:
        model = SemiSupervisedTextVAE(encoder_of(), LSTMDecoder(V, 5, 7, Z + K), K)
        with autocast(torch.device("cpu"), torch.bfloat16):
            probabilities = model.label_posterior(documents()).probs
        assert probabilities.dtype == torch.float32
        torch.testing.assert_close(probabilities.sum(1), torch.ones(B), atol=1e-6, rtol=0)

    @both_marginals
    def test_half_precision(self, build: Build, marginal: str) -> None:
        model = model_of(build, without_noise=True, marginal=marginal).train()
        with autocast(torch.device("cpu"), torch.bfloat16):
            loss = model(documents()).loss()
        loss.backward()
        assert torch.isfinite(loss)
        if marginal == "enumerate":
            torch.testing.assert_close(loss.float(), model(documents()).loss(), rtol=0.05, atol=0.5)

    def test_the_weights_go_to_the_loss(self, build: Build) -> None:
        weights = {"classification_weight": 3.5, "label_kl_floor": 0.7, "labelled_weight": 0.2}
        elbo = model_of(build, **weights)(documents())
        assert {name: getattr(elbo, name) for name in weights} == weights


class TestBadInput:
    @pytest.mark.parametrize("label", [K, K + 5, -2])
    def test_a_label_that_is_no_class(self, build: Build, label: int) -> None:
        model = model_of(build)
        labels = LABELS.clone()
        labels[2] = label
        message = f"label {label} is not a class: the model's classes are 0 ... {K - 1}"
        for call in (
            lambda: model(documents(labels)),
            lambda: model.posterior(documents(), labels.clamp(min=-2)),
            lambda: model.log_likelihood(documents(), torch.zeros(B, Z), labels[[2]].expand(B)),
            lambda: model.code(torch.zeros(B, Z), labels[[2]].expand(B)),
        ):
            with pytest.raises(ValueError, match="is not a class"):
                call()
        with pytest.raises(ValueError, match=message):
            model(documents(labels))

    def test_no_label_where_one_is_needed(self, build: Build) -> None:
        with pytest.raises(ValueError, match="label -1 is not a class: the model's classes"):
            model_of(build).posterior(documents(), LABELS)

    @pytest.mark.parametrize(
        ("codes", "labels"),
        [((B, Z + K), (B,)), ((B + 1, Z), (B,)), ((B, Z), (B - 1,)), ((Z,), ())],
    )
    def test_shapes_that_do_not_fit(
        self, build: Build, codes: tuple[int, ...], labels: tuple[int, ...]
    ) -> None:
        y = torch.zeros(labels, dtype=torch.int64)
        with pytest.raises(ValueError, match=rf"\[..., {B}, {Z}\] and labels"):
            model_of(build).log_likelihood(documents(), torch.zeros(codes), y)

    def test_labels_that_are_not_one_a_document(self, build: Build) -> None:
        with pytest.raises(ValueError, match=rf"labels must be \[B\] = \[{B}\], not \[5\]"):
            model_of(build).posterior(documents(), LABELS[:5])

    def test_a_token_outside_the_vocabulary(self, build: Build) -> None:
        batch = TextBatch(torch.tensor([[BOS, V, EOS]]), torch.tensor([3]))
        model, y = model_of(build), torch.tensor([0])
        for call in (
            lambda: model(batch),
            lambda: model.label_posterior(batch),
            lambda: model.posterior(batch, y),
            lambda: model.log_likelihood(batch, torch.zeros(1, Z), y),
        ):
            with pytest.raises(ValueError, match=f"token id {V} is outside"):
                call()

    @pytest.mark.parametrize(
        ("sizes", "classes", "message"),
        [
            ((V, Z), K, rf"latent_size {Z} \+ {K} = {Z + K} .*, not {Z}"),
            ((V, Z + K), K + 1, rf"= {Z + K + 1} .*, not {Z + K}"),
            ((V + 1, Z + K), K, f"vocabulary_size is {V} in the one and {V + 1} in the other"),
            ((V, Z), 0, "classes must be at least 1, not 0"),
        ],
    )
    def test_sizes(self, sizes: tuple[int, int], classes: int, message: str) -> None:
        decoder = LSTMDecoder(sizes[0], 5, 7, sizes[1])
        with pytest.raises(ValueError, match=message):
            SemiSupervisedTextVAE(encoder_of(), decoder, classes)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"marginal": "exact"}, r"one of \('enumerate', 'gumbel'\), not 'exact'"),
            ({"temperature": 0.0}, "temperature must be positive, not 0"),
            ({"temperature": lambda step: -1.0}, "temperature must be positive, not -1"),
            ({"label_prior": torch.ones(K)}, "4 positive probabilities that sum to 1"),
            ({"label_prior": torch.ones(K + 1) / (K + 1)}, "4 positive probabilities"),
            ({"label_prior": torch.tensor([0.0, 0.2, 0.3, 0.5])}, "4 positive probabilities"),
        ],
    )
    def test_options(self, build: Build, options: dict, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            model_of(build, **options)


class TestTextClassifier:
    def model(self, **options) -> TextClassifier:
        torch.manual_seed(0)
        return TextClassifier(encoder_of(), K, **options).eval()

    def test_its_bound_is_the_cross_entropy(self) -> None:
        model, y = self.model(), LABELS.clamp(min=0)
        elbo = model(documents(y))
        logits = model.label_head.logits(model.encoder.features(documents()))
        cost = nn.functional.cross_entropy(logits, y, reduction="none")
        torch.testing.assert_close(elbo.reconstruction, cost)
        torch.testing.assert_close(elbo.loss(0.3), cost.mean())
        assert torch.equal(elbo.kl, torch.zeros(B))
        assert elbo.kl_per_dimension.shape == (B, 0)
        assert model.label_posterior(documents()).probs.shape == (B, K)

    def test_its_parameters_get_gradients(self) -> None:
        model = self.model()
        model(documents(LABELS.clamp(min=0))).loss().backward()
        for part in (model.encoder.embedding, model.encoder.lstm, model.label_head):
            for parameter in part.parameters():
                assert parameter.grad.abs().sum() > 0

    def test_it_is_the_classifier_of_the_semi_supervised_model(self, build: Build) -> None:
        model = self.model()
        semi = model_of(build)
        semi.encoder.load_state_dict(model.encoder.state_dict())
        semi.label_head.load_state_dict(model.label_head.state_dict())
        logits = semi.label_posterior(documents()).logits
        assert torch.equal(model.label_posterior(documents()).logits, logits)

    def test_dropout_is_on_in_training_alone(self) -> None:
        model = self.model(dropout=0.5)
        logits = model.label_posterior(documents()).logits
        assert torch.equal(model.label_posterior(documents()).logits, logits)
        assert not torch.equal(model.train().label_posterior(documents()).logits, logits)

    @pytest.mark.parametrize("labels", [None, LABELS])
    def test_documents_without_a_label(self, labels: Tensor | None) -> None:
        with pytest.raises(ValueError, match="trained on labels: some documents have none"):
            self.model()(documents(labels))

    @pytest.mark.parametrize("label", [K, -2])
    def test_a_label_that_is_no_class(self, label: int) -> None:
        with pytest.raises(ValueError, match=rf"label {label} is not a class.* 0 ... {K - 1}$"):
            self.model()(documents(torch.full((B,), label)))

    def test_a_token_outside_the_vocabulary(self) -> None:
        batch = TextBatch(torch.tensor([[BOS, V, EOS]]), torch.tensor([3]))
        with pytest.raises(ValueError, match=f"token id {V} is outside"):
            self.model().label_posterior(batch)

    def test_no_class(self) -> None:
        with pytest.raises(ValueError, match="classes must be at least 1, not 0"):
            TextClassifier(encoder_of(), 0)

    def test_one_class(self) -> None:
        model = TextClassifier(encoder_of(), 1)
        assert torch.equal(model(documents(torch.zeros_like(LABELS))).value, torch.zeros(B))

    def test_evaluate_measures_it(self) -> None:
        model, batch = self.model(), documents(LABELS.clamp(min=0))
        report = evaluate(model, [batch], importance_samples=3)
        assert report.bound == pytest.approx(model(batch).reconstruction.mean().item())


class TestTraining:
    """Two classes with words of their own, and a third word that tells nothing."""

    def texts(self, count: int, seed: int) -> EncodedTexts:
        random = torch.Generator().manual_seed(seed)
        labels = torch.randint(2, (count,), generator=random)
        noise = torch.rand(count, 6, generator=random) < 0.3
        words = torch.where(
            noise, 7, 3 + 2 * labels[:, None] + torch.randint(2, (count, 6), generator=random)
        )
        documents = [[BOS, *row, EOS] for row in words.tolist()]
        return EncodedTexts(documents, labels.tolist())

    def accuracy(self, model: nn.Module) -> float:
        batch = self.texts(300, seed=9).batch()
        with torch.no_grad():
            predicted = model.eval().label_posterior(batch).probs.argmax(1)
        return (predicted == batch.labels).double().mean().item()

    @both_marginals
    def test_few_labels_and_many_documents(self, marginal: str) -> None:
        torch.manual_seed(0)
        model = SemiSupervisedTextVAE(
            LSTMEncoder(8, 9, 8, 3),
            LSTMDecoder(8, 5, 7, 5, word_dropout=1.0),
            2,
            marginal=marginal,
            classification_weight=10.0,
        )
        batches = MixedBatches(
            self.texts(6, seed=1), self.texts(300, seed=2), labelled_size=2, batch_size=20
        )
        optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
        history = fit(model, batches, epochs=5, optimizer=optimizer, device="cpu")
        assert history["train_reconstruction"][-1] < history["train_reconstruction"][0]
        assert self.accuracy(model) > 0.95
        assert model.step == 5 * 15 - 1

    def test_the_history_has_every_term_of_the_bound(self, build: Build) -> None:
        torch.manual_seed(0)
        model = model_of(build)
        train, valid = documents(), documents(labels=None)
        history = fit(model, [train], epochs=3, valid=[valid], device="cpu")
        names = [
            f"{s}_{n}" for s in ("train", "valid") for n in ("reconstruction", "kl", "label_kl")
        ]
        assert set(names) <= set(history.records[0])
        with torch.no_grad():
            expected = kl_divergence(model.label_posterior(valid), model.label_prior()).mean()
        assert history["valid_label_kl"][-1] == pytest.approx(expected.item(), rel=1e-4)
        bounds = [sum(row[name] for name in names[3:]) for row in history.records]
        assert history.best == history.records[bounds.index(min(bounds))]

    def test_a_classifier(self) -> None:
        torch.manual_seed(0)
        model = TextClassifier(LSTMEncoder(8, 9, 8, 3), 2, dropout=0.2)
        train = Batches(self.texts(100, seed=1), batch_size=10)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
        history = fit(
            model,
            train,
            epochs=5,
            valid=[self.texts(50, seed=2).batch()],
            optimizer=optimizer,
            device="cpu",
        )
        assert history["valid_reconstruction"][-1] < 0.5 * math.log(2)
        assert self.accuracy(model) > 0.95
