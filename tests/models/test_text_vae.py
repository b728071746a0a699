from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import tutvae.models.text_vae
from tutvae.bounds import importance_weighted_bound
from tutvae.data.backends import word_backend
from tutvae.data.batches.text import Batches, EncodedTexts
from tutvae.data.batches.text_batch import TextBatch
from tutvae.data.corpora import ptb
from tutvae.data.tokenization import Tokenizer
from tutvae.evaluation.report import evaluate
from tutvae.models.conv_decoder import DilatedConvDecoder
from tutvae.models.encoders import LSTMEncoder
from tutvae.models.lstm_decoder import Decoder, LSTMDecoder
from tutvae.models.text_vae import (
    LanguageModel,
    TextVAE,
    check_tokens,
    document_log_likelihood,
    initialise_encoder,
)
from tutvae.reviews.grammar import ReviewGrammar
from tutvae.schedules import linear
from tutvae.training.loop import fit

B, T, V, Z, S = 4, 6, 11, 3, 5
PAD, BOS, EOS = 0, 1, 2
LENGTHS = torch.tensor([4, 6, 2, 5])  # with both marks: targets are one fewer

Build = Callable[..., Decoder]
Model = TextVAE | LanguageModel


def text_vae(build: Build, vocabulary_size: int = V, latent_size: int = Z, **options) -> TextVAE:
    decoder = build(vocabulary_size, latent_size, **options)
    torch.manual_seed(1)  # whatever the decoder's constructor drew
    encoder = LSTMEncoder(vocabulary_size, 9, 8, latent_size)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.mul_(3)
    return TextVAE(encoder, decoder).eval()


def language_model(build: Build, vocabulary_size: int = V, **options) -> LanguageModel:
    return LanguageModel(build(vocabulary_size, 0, **options)).eval()


@pytest.fixture(params=[text_vae, language_model])
def model(request: pytest.FixtureRequest, build: Build) -> Model:
    return request.param(build)


def documents(extra: int = 0) -> TextBatch:
    """B documents; `extra` adds columns of padding."""
    drawn = torch.randint(3, V, (B, T), generator=torch.Generator().manual_seed(1))
    drawn[:, 0] = BOS
    drawn[torch.arange(B), LENGTHS - 1] = EOS
    drawn = torch.cat([drawn, torch.zeros(B, extra, dtype=torch.int64)], dim=1)
    return TextBatch(drawn.masked_fill(torch.arange(T + extra) >= LENGTHS[:, None], PAD), LENGTHS)


def codes(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(2))


def outputs(model: Model, batch: TextBatch, z: Tensor) -> Tensor:
    """All that a model says of a batch at given codes, `[B, 1 + 2Z]`."""
    q = model.posterior(batch)
    return torch.cat([model.log_likelihood(batch, z)[:, None], q.loc, q.scale], dim=1)


class TestBothModels:
    def test_shapes(self, model: Model) -> None:
        Z, batch = model.latent_size, documents()
        elbo = model(batch)
        assert elbo.reconstruction.shape == elbo.kl.shape == (B,)
        assert elbo.kl_per_dimension is not None
        assert elbo.kl_per_dimension.shape == (B, Z)
        assert model.prior().batch_shape == (Z,)
        assert model.posterior(batch).batch_shape == (B, Z)
        assert model.log_likelihood(batch, codes(B, Z)).shape == (B,)
        assert model.log_likelihood(batch, codes(2, S, B, Z)).shape == (2, S, B)

    def test_every_parameter_gets_a_gradient(self, model: Model) -> None:
        torch.manual_seed(0)
        model.train()(documents()).loss().backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name

    def test_state_dict_round_trip(self, model: Model) -> None:
        batch, z = documents(), codes(B, model.latent_size)
        saved = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        before = outputs(model, batch, z)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(1.5)
        assert not torch.equal(outputs(model, batch, z), before)
        model.load_state_dict(saved)
        assert torch.equal(outputs(model, batch, z), before)

    @pytest.mark.parametrize("training", [False, True])
    def test_padding_changes_nothing(self, model: Model, training: bool) -> None:
        """Neither more of it, nor another id in its place."""
        model.train(training)
        z, expected = (
            codes(B, model.latent_size),
            outputs(model, documents(), codes(B, model.latent_size)),
        )
        torch.testing.assert_close(outputs(model, documents(extra=4), z), expected)
        padding = torch.arange(T) >= LENGTHS[:, None]
        other = replace(documents(), tokens=documents().tokens.masked_fill(padding, V - 1))
        torch.testing.assert_close(outputs(model, other, z), expected)

    def test_the_loss_does_not_depend_on_padding(self, model: Model) -> None:
        losses = []
        for extra in (0, 7):
            torch.manual_seed(3)
            losses.append(model.train()(documents(extra)).loss(0.5))
        torch.testing.assert_close(*losses)

    @pytest.mark.parametrize("training", [False, True])
    def test_rows_do_not_mix(self, model: Model, training: bool) -> None:
        """A batch of one equals its row, without its padding; permuting permutes the outputs."""
        batch, z = documents(), codes(B, model.latent_size)
        whole = outputs(model.train(training), batch, z)
        for row, length in enumerate(LENGTHS.tolist()):
            alone = TextBatch(batch.tokens[[row], :length], batch.lengths[[row]])
            torch.testing.assert_close(outputs(model, alone, z[[row]]), whole[[row]])
            assert model(alone).value.shape == (1,)
        order = [2, 0, 3, 1]
        permuted = TextBatch(batch.tokens[order], batch.lengths[order])
        torch.testing.assert_close(outputs(model, permuted, z[order]), whole[order])

    def test_only_positions_that_count_are_projected(self, model: Model) -> None:
        seen: list[tuple[int, ...]] = []
        project = model.decoder.project

        def spy(hidden: Tensor) -> Tensor:
            seen.append(tuple(hidden.shape[:-1]))
            return project(hidden)

        model.decoder.project = spy
        model(documents())
        reads_nothing = model.decoder.receptive_field == 0  # once a document, then
        assert seen == [(B if reads_nothing else 13,)]

    @pytest.mark.parametrize("training", [False, True])
    def test_the_decoder_reads_from_the_start_mark_on(self, model: Model, training: bool) -> None:
        """And never the end of the longest document, which it is to predict."""
        if model.decoder.receptive_field == 0:
            pytest.skip("it reads nothing")
        seen: list[Tensor] = []
        model.decoder.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
        model.train(training)(documents())
        assert torch.equal(seen[0], documents().tokens[:, :-1])
        assert (seen[0][:, 0] == BOS).all()

    def test_a_uniform_decoder_pays_log_v_a_word_and_end_mark(self, model: Model) -> None:
        with torch.no_grad():
            for parameter in model.decoder.parameters():
                parameter.zero_()
        z = codes(B, model.latent_size)
        expected = -(LENGTHS - 1) * math.log(V)
        torch.testing.assert_close(model.log_likelihood(documents(), z), expected)

    def test_the_likelihood_is_the_sum_over_the_words_one_step_at_a_time(
        self, model: Model
    ) -> None:
        batch, Z = documents(), model.latent_size
        z = codes(B, Z)
        scores = model.log_likelihood(batch, z)
        for row, length in enumerate(LENGTHS.tolist()):
            state = model.decoder.start(z[[row]] if Z else None, 1)
            by_hand = 0.0
            for t in range(length - 1):
                logits, state = model.decoder.step(batch.tokens[[row], t], state)
                p = np.exp(logits[0].detach().double().numpy())
                by_hand += np.log(p[batch.tokens[row, t + 1]] / p.sum())
            assert scores[row].item() == pytest.approx(by_hand, abs=1e-4)

    def test_many_codes_at_once_are_scored_like_one_at_a_time(self, model: Model) -> None:
        z = codes(2, S, B, model.latent_size)
        scores = model.log_likelihood(documents(), z)
        for i, s in product(range(2), range(S)):
            one = model.log_likelihood(documents(), z[i, s])
            torch.testing.assert_close(scores[i, s], one)

    def test_the_prior_is_standard_normal_in_the_model_s_precision(self, model: Model) -> None:
        prior = model.double().prior()
        assert torch.equal(prior.loc, torch.zeros(model.latent_size, dtype=torch.float64))
        assert torch.equal(prior.scale, torch.ones(model.latent_size, dtype=torch.float64))
        assert model(documents()).value.dtype == torch.float64

    def test_a_token_outside_the_vocabulary(self, model: Model) -> None:
        tokens = documents().tokens.clone()
        tokens[1, 2] = V
        batch, z = replace(documents(), tokens=tokens), codes(B, model.latent_size)
        uses = [lambda: model(batch), lambda: model.log_likelihood(batch, z)]
        if model.latent_size:
            uses.append(lambda: model.posterior(batch))
        for use in uses:
            with pytest.raises(ValueError, match=f"token id {V} is outside .* vocabulary of {V}"):
                use()


@pytest.mark.parametrize(
    ("tokens", "lengths", "message"),
    [
        ([[BOS, -1, EOS]], [3], "token id -1 is outside"),
        ([[BOS, 3, EOS]], [0], "lengths lie between 2, .* T = 3, not between 0 and 0"),
        ([[BOS, 3, EOS]], [4], "lengths lie between 2, .* not between 4 and 4"),
        ([[BOS, 3, EOS]], [3, 3], r"tokens \[B, T\] and lengths \[B\] .* not \[1, 3\] and \[2\]"),
        ([BOS, 3, EOS], [3, 3, 3], r"tokens \[B, T\]"),
        ([[1.0, 3.0, 2.0]], [3], "are integers, not torch.float32"),
        ([[BOS, 3, EOS]], [3.0], "are integers, not torch.int64, torch.float32"),
    ],
)
def test_a_batch_that_no_model_can_read(tokens: list, lengths: list, message: str) -> None:
    batch = TextBatch(torch.tensor(tokens), torch.tensor(lengths))
    with pytest.raises(ValueError, match=message):
        check_tokens(batch, V)


def test_a_batch_without_documents() -> None:
    with pytest.raises(ValueError, match="at least one document"):
        check_tokens(TextBatch(torch.zeros(0, 3).long(), torch.zeros(0).long()), V)


def test_a_batch_is_checked_once_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[TextBatch] = []
    monkeypatch.setattr(
        tutvae.models.text_vae, "check_tokens", lambda batch, _: checked.append(batch)
    )
    TextVAE(LSTMEncoder(V, 5, 7, Z), LSTMDecoder(V, 5, 7, Z))(documents())
    assert len(checked) == 1


def test_targets_are_scored_in_parts(reader: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """In costs and in gradients: 14 targets in parts of 3, the last one smaller."""
    decoder, batch, z = reader(V, Z).eval(), documents(), codes(B, Z)
    whole = document_log_likelihood(decoder, batch, z)
    gradients = torch.autograd.grad(whole.sum(), list(decoder.parameters()))
    monkeypatch.setattr(tutvae.models.text_vae, "LOGITS_AT_ONCE", 3 * V + 2)
    sizes = []
    decoder.project = lambda hidden, project=decoder.project: (
        sizes.append(len(hidden)) or project(hidden)
    )
    parts = document_log_likelihood(decoder, batch, z)
    assert sizes == [3, 3, 3, 3, 1]
    torch.testing.assert_close(parts, whole)
    again = torch.autograd.grad(parts.sum(), list(decoder.parameters()))
    torch.testing.assert_close(again, gradients)


def all_strings(vocabulary_size: int, longest: int) -> TextBatch:
    """Every document of up to `longest` targets.

    First all that end with the end mark, by length; then all that are cut before they do.
    """
    words = [word for word in range(vocabulary_size) if word != EOS]
    ended = [
        [BOS, *string, EOS] for length in range(longest) for string in product(words, repeat=length)
    ]
    cut = [[BOS, *string] for string in product(words, repeat=longest)]
    return EncodedTexts([*ended, *cut]).batch()


class TestEnumeration:
    """V = 3 and at most 4 targets: 15 documents that end, and 16 that go on."""

    batch = all_strings(3, 4)
    ends = batch.tokens.eq(EOS).any(1)

    def test_there_are_so_many(self) -> None:
        assert len(self.batch) == 31
        assert int(self.ends.sum()) == 15

    def test_a_language_model_s_probabilities_sum_to_one(self, build: Build) -> None:
        model = language_model(build, 3, scale=1.0, seed=1).double()
        p = model.log_likelihood(self.batch).exp()
        assert p.sum().item() == pytest.approx(1, abs=1e-12)
        assert 0.1 < p[self.ends].sum() < 0.9  # neither part is negligible
        assert p.std() > 0.01

    def test_a_vae_s_probabilities_sum_to_one_at_every_code(self, build: Build) -> None:
        model = text_vae(build, 3).double()
        z = codes(S, 1, Z).double().expand(S, len(self.batch), Z)
        p = model.log_likelihood(self.batch, z).exp()
        torch.testing.assert_close(p.sum(1), torch.ones(S, dtype=torch.float64))
        assert p.std(0).max() > 0.01  # the code matters

    def test_the_mass_of_longer_documents_is_what_shorter_ones_leave(self, build: Build) -> None:
        """Each cut document's mass is that of its continuations, down to the next length."""
        model = language_model(build, 3).double()
        longer = all_strings(3, 6)
        p, p_longer = (model.log_likelihood(batch).exp() for batch in (self.batch, longer))
        longer_ends = longer.tokens.eq(EOS).any(1)
        assert torch.equal(longer.tokens[:15, :5], self.batch.tokens[:15])
        torch.testing.assert_close(p_longer[:15], p[:15])
        torch.testing.assert_close(p_longer[15:].sum(), p[~self.ends].sum())
        assert p_longer[longer_ends].sum() > p[self.ends].sum()


def grid_log_marginal(model: TextVAE, batch: TextBatch) -> Tensor:
    """Log p(x) of B documents by a sum over a fine grid of codes, for Z = 1."""
    grid = torch.linspace(-9, 9, 2001, dtype=torch.float64)
    z = grid[:, None, None].expand(-1, len(batch), 1)
    joint = model.log_likelihood(batch, z) + model.prior().log_prob(grid[:, None])  # [grid, B]
    return torch.logsumexp(joint, 0) + math.log(grid[1] - grid[0])


class TestOneDimension:
    @pytest.fixture
    def model(self, build: Build) -> TextVAE:
        model = text_vae(build, latent_size=1).double()
        with torch.no_grad():  # a posterior wider than the prior: few samples go far
            model.encoder.log_variance.weight.mul_(0.1)
            model.encoder.log_variance.bias.fill_(1.0)
        return model.requires_grad_(False)

    def test_the_importance_weighted_nll_converges_to_the_integral(self, model: TextVAE) -> None:
        batch, samples = documents(), 4000
        exact = grid_log_marginal(model, batch)
        torch.manual_seed(0)
        q = model.posterior(batch)
        z = q.sample((samples,))
        log_ratio = (model.prior().log_prob(z) - q.log_prob(z)).sum(-1)
        log_weights = model.log_likelihood(batch, z) + log_ratio  # [S, B]
        weights = (log_weights - exact).exp()  # of mean 1
        error = weights.std(0) / samples**0.5
        assert error.max() < 0.1
        assert ((importance_weighted_bound(log_weights) - exact).abs() < 4.5 * error).all()
        elbo = importance_weighted_bound(log_weights[:1])
        assert (exact - elbo).abs().max() > 0.1  # one sample is not enough

    def test_so_does_the_report_s(self, model: TextVAE) -> None:
        report = evaluate(model, [documents()], importance_samples=2000)
        exact = -grid_log_marginal(model, documents()).mean().item()
        assert report.importance_weighted_nll == pytest.approx(exact, abs=0.05)
        assert report.bound > exact + 0.1

    def test_strings_sum_to_one_under_the_integral_too(self, build: Build) -> None:
        model = text_vae(build, 3, 1).double().requires_grad_(False)
        p = grid_log_marginal(model, all_strings(3, 4)).exp()
        assert p.sum().item() == pytest.approx(1, abs=1e-9)


class TestTextVAE:
    def test_the_kl_is_the_closed_form(self, build: Build) -> None:
        model = text_vae(build)
        q, elbo = model.posterior(documents()), model(documents())
        by_hand = 0.5 * (q.loc**2 + q.scale**2 - 1) - q.scale.log()
        torch.testing.assert_close(elbo.kl_per_dimension, by_hand)
        torch.testing.assert_close(elbo.kl, by_hand.sum(1))

    def test_the_closed_form_agrees_with_monte_carlo(self, build: Build) -> None:
        model, samples = text_vae(build).requires_grad_(False), 20_000
        torch.manual_seed(0)
        q, elbo = model.posterior(documents()), model(documents())
        z = q.sample((samples,))
        log_ratios = q.log_prob(z) - model.prior().log_prob(z)
        error = log_ratios.std(0) / samples**0.5
        assert elbo.kl_per_dimension.min() > 0.01
        assert ((elbo.kl_per_dimension - log_ratios.mean(0)).abs() < 4.5 * error).all()

    def test_the_reconstruction_is_taken_at_a_sample_of_the_posterior(self, build: Build) -> None:
        model = text_vae(build)
        torch.manual_seed(4)
        reconstruction = model(documents()).reconstruction
        torch.manual_seed(4)
        z = model.posterior(documents()).rsample()
        torch.testing.assert_close(reconstruction, -model.log_likelihood(documents(), z))
        assert not torch.equal(model(documents()).reconstruction, reconstruction)

    def test_the_gradient_reaches_the_encoder_through_the_sample(self, build: Build) -> None:
        model = text_vae(build)
        model(documents()).loss(kl_weight=0.0).backward()
        for layer in (model.encoder.mean, model.encoder.log_variance):
            assert layer.weight.grad.abs().sum() > 0

    def test_given_the_code_eval_mode_is_deterministic(self, reader: Build) -> None:
        model, z = text_vae(reader, word_dropout=0.5, dropout=0.5), codes(B, Z)
        score = model.log_likelihood(documents(), z)
        assert torch.equal(model.log_likelihood(documents(), z), score)
        assert not torch.equal(model.train().log_likelihood(documents(), z), score)

    @pytest.mark.parametrize("shape", [(B, Z + 1), (B + 1, Z), (S, B + 1, Z), (S * B, Z), (Z,)])
    def test_codes_of_another_shape(self, build: Build, shape: tuple[int, ...]) -> None:
        with pytest.raises(ValueError, match=rf"\[..., B, Z\] = \[..., {B}, {Z}\], not"):
            text_vae(build).log_likelihood(documents(), torch.zeros(shape))

    def test_encoder_and_decoder_must_agree(self, build: Build) -> None:
        with pytest.raises(ValueError, match="latent_size is 4 in the one and 3 in the other"):
            TextVAE(LSTMEncoder(V, 9, 8, 4), build(V, Z))
        with pytest.raises(ValueError, match="vocabulary_size is 12 in the one and 11 in the"):
            TextVAE(LSTMEncoder(12, 9, 8, Z), build(V, Z))

    def test_without_a_code_it_is_a_language_model(self, build: Build) -> None:
        with pytest.raises(ValueError, match="LanguageModel"):
            TextVAE(nn.Identity(), build(V, 0))


class TestLanguageModel:
    def test_its_report_is_exact(self, reader: Build) -> None:
        model = language_model(reader, word_dropout=0.5, dropout=0.5).train()
        report = evaluate(model, [documents(), documents(3)], importance_samples=7, chunk_size=3)
        exact = -model.eval().log_likelihood(documents()).mean().item()
        for nll in (report.reconstruction, report.bound, report.importance_weighted_nll):
            assert nll == pytest.approx(exact, rel=1e-6)
        assert report.kl == report.active_units == 0
        assert report.kl_per_dimension == ()

    def test_its_bound_is_its_nll(self, build: Build) -> None:
        model = language_model(build)
        elbo = model(documents())
        assert torch.equal(elbo.value, model.log_likelihood(documents()))
        assert torch.equal(elbo.kl, torch.zeros(B))
        for per in ("dimension", "total"):
            assert torch.isfinite(elbo.loss(0.5, free_bits=0.1, free_bits_per=per))

    def test_a_decoder_with_a_code(self, build: Build) -> None:
        with pytest.raises(ValueError, match=f"no code, but its decoder has latent_size {Z}"):
            LanguageModel(build(V, Z))


class TestLSTMConstructor:
    def test_it_takes_the_marks_from_the_tokenizer(self) -> None:
        marks = ["<unk>", "<eos>", "<pad>", "<bos>"]
        tokenizer = Tokenizer(word_backend([*marks, "a", "b", "c"], "<unk>", marks))
        model = TextVAE.lstm(
            tokenizer, embedding_size=5, hidden_size=9, latent_size=Z, word_dropout=1.0
        )
        assert model.decoder.vocabulary_size == model.encoder.vocabulary_size == len(tokenizer) == 7
        assert model.latent_size == Z
        inputs = torch.tensor(tokenizer.encode(["a b c"]))
        assert model.decoder.word_dropout(inputs).tolist() == [[tokenizer.bos_id, 0, 0, 0, 0]]

    def test_word_dropout_without_an_unknown_mark(self) -> None:
        marks = ["<eos>", "<pad>", "<bos>"]
        tokenizer = Tokenizer(word_backend([*marks, "a"], None, marks), unk=None)
        assert TextVAE.lstm(tokenizer).latent_size == 16
        with pytest.raises(ValueError, match="needs an unknown mark"):
            TextVAE.lstm(tokenizer, word_dropout=0.4)


class TestInitialiseEncoder:
    def lstms(self, pooling: Literal["last", "max"] = "last") -> tuple[TextVAE, LanguageModel]:
        model = TextVAE(LSTMEncoder(V, 9, 8, Z, pooling=pooling), LSTMDecoder(V, 5, 7, Z))
        return model, LanguageModel(LSTMDecoder(V, 9, 8, dropout=0.5)).eval()

    def test_the_encoder_reads_as_the_language_model_did(self) -> None:
        model, trained = self.lstms()
        batch, rows = documents(), torch.arange(B)
        states = trained.decoder(batch.tokens)[rows, LENGTHS - 1]
        assert not torch.allclose(model.encoder.features(batch), states, atol=1e-2)
        initialise_encoder(model, trained)
        torch.testing.assert_close(model.encoder.features(batch), states)

    def test_nothing_else_changes(self) -> None:
        model, trained = self.lstms("max")
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        source = {name: tensor.clone() for name, tensor in trained.state_dict().items()}
        initialise_encoder(model, trained)
        changed = [n for n, tensor in model.state_dict().items() if not tensor.equal(before[n])]
        lstm = [f"encoder.lstm.{n}" for n, _ in trained.decoder.lstm.named_parameters()]
        assert changed == ["encoder.embedding.weight", *lstm]
        assert all(tensor.equal(source[name]) for name, tensor in trained.state_dict().items())

    def test_the_two_share_nothing_afterwards(self) -> None:
        model, trained = self.lstms()
        initialise_encoder(model, trained)
        source = {name: tensor.clone() for name, tensor in trained.state_dict().items()}
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(1)
        assert all(tensor.equal(source[name]) for name, tensor in trained.state_dict().items())

    def test_all_of_the_encoder_still_trains(self) -> None:
        model, trained = self.lstms()
        initialise_encoder(model, trained.requires_grad_(False))
        model(documents()).loss().backward()
        assert all(parameter.grad.abs().sum() > 0 for parameter in model.encoder.parameters())

    @pytest.mark.parametrize(
        "sizes", [(V + 1, 9, 8), (V, 5, 8), (V, 9, 7)], ids=["vocabulary", "embedding", "hidden"]
    )
    def test_sizes_that_do_not_fit(self, sizes: tuple[int, int, int]) -> None:
        model, _ = self.lstms()
        before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
        ours, theirs = (
            "{{'vocabulary_size': {}, 'embedding_size': {}, 'hidden_size': {}}}".format(*three)
            for three in ((V, 9, 8), sizes)
        )
        with pytest.raises(ValueError, match=f"must have the same sizes: {ours} and {theirs}"):
            initialise_encoder(model, LanguageModel(LSTMDecoder(*sizes)))
        assert all(tensor.equal(before[key]) for key, tensor in model.state_dict().items())

    def test_what_is_no_lstm(self) -> None:
        model, trained = self.lstms()
        with pytest.raises(ValueError, match="not LSTMEncoder from DilatedConvDecoder"):
            initialise_encoder(model, LanguageModel(DilatedConvDecoder(V, 9, 8)))
        model.encoder = nn.Identity()
        with pytest.raises(ValueError, match="not Identity from LSTMDecoder"):
            initialise_encoder(model, trained)


class TestTraining:
    def test_no_model_beats_the_entropy_of_the_generated_reviews(self) -> None:
        """On average over test documents, no model's log p(x) exceeds the true one."""
        grammar = ReviewGrammar(nouns=3, adjectives=2, verbs=1, fillers=1, openings=3)
        corpus = grammar.corpus(1500, 0, 400)
        tokenizer = Tokenizer.train(corpus.train.texts)
        train = Batches.from_texts(corpus.train, tokenizer, batch_size=50)
        test = Batches.from_texts(corpus.test, tokenizer, batch_size=200, shuffle=False)
        sizes = (len(tokenizer), 24, 32)
        truth = -grammar.log_probs(corpus.test.texts).mean()
        torch.manual_seed(0)
        for model in (
            LanguageModel(LSTMDecoder(*sizes)),
            TextVAE(LSTMEncoder(*sizes, 4), LSTMDecoder(*sizes, 4)),
        ):
            optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
            before = evaluate(model, test, importance_samples=1).importance_weighted_nll
            schedule = linear(60)
            fit(model, train, epochs=4, optimizer=optimizer, kl_weight=schedule, device="cpu")
            after = evaluate(model, test, importance_samples=20).importance_weighted_nll
            assert after > truth - 3 * excess_error(model, test, grammar, corpus.test.texts)
            assert after < truth + 0.1 * (before - truth)

    @pytest.mark.data
    def test_a_slice_of_the_penn_treebank_end_to_end(self, real_data) -> None:
        corpus = ptb(real_data / "ptb")
        tokenizer = Tokenizer.train(corpus.train.texts[:2000])
        train = Batches.from_texts(corpus.train.texts[:2000], tokenizer, token_budget=1000)
        valid = Batches.from_texts(
            corpus.valid.texts[:200], tokenizer, token_budget=2000, shuffle=False
        )
        torch.manual_seed(0)
        model = TextVAE.lstm(tokenizer, embedding_size=32, hidden_size=32, latent_size=8)
        start = evaluate(model, valid, importance_samples=1)
        optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
        fit(model, train, epochs=1, optimizer=optimizer, max_grad_norm=5.0, device="cpu")
        end = evaluate(model, valid, importance_samples=5, chunk_size=2)
        assert end.bound < 0.8 * start.bound
        assert 100 < end.importance_weighted_nll <= end.bound + 0.05


def excess_error(model: Model, batches: Batches, grammar: ReviewGrammar, texts: list[str]) -> float:
    """Standard error of the mean of log p(x) - log p_model(x), one code a document."""
    scores = torch.empty(len(texts))
    with torch.no_grad():
        for batch in batches:
            scores[batch.positions] = model(batch).value
    excess = grammar.log_probs(texts) - scores.numpy()
    return excess.std() / len(texts) ** 0.5
