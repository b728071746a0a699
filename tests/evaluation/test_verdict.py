"""Models made ill on purpose, and what `diagnose` says of each."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from tutvae.bounds import Elbo
from tutvae.data.batches.text import Batches
from tutvae.data.batches.text_batch import TextBatch
from tutvae.data.tokenization import Tokenizer
from tutvae.evaluation.report import Report
from tutvae.evaluation.verdict import Diagnosis, diagnose, empty_code_line
from tutvae.models import (
    DilatedConvDecoder,
    LanguageModel,
    LSTMDecoder,
    LSTMEncoder,
    SemiSupervisedTextVAE,
    TextVAE,
)
from tutvae.reviews.grammar import ReviewGrammar
from tutvae.schedules import linear
from tutvae.training.loop import History, fit

D = 12
V = 9
NOISE = 0.5


class Patient(nn.Module):
    """x = W z + noise, where W is diagonal: the true posterior is a diagonal Normal, and known.

    Args:
        strengths: the diagonal of W, which says what each of the Z dimensions does.
        widen: how many times as wide as the true posterior q(z|x) is.
        shift: added to the mean of q(z|x).
        blind: q(z|x) is the prior, moved by the shift.
        deaf: p(x|z) is p(x).
    """

    def __init__(
        self,
        *strengths: float,
        widen: float = 1.0,
        shift: float = 0.0,
        blind: bool = False,
        deaf: bool = False,
    ) -> None:
        super().__init__()
        self.strengths = nn.Parameter(torch.tensor(strengths))
        self.widen, self.shift, self.blind, self.deaf = widen, shift, blind, deaf

    def prior(self) -> Normal:
        zeros = torch.zeros_like(self.strengths)
        return Normal(zeros, zeros + 1)

    def posterior(self, x: Tensor) -> Normal:
        Z = len(self.strengths)
        if self.blind:
            return Normal(torch.full((len(x), Z), self.shift), 1.0)
        precision = 1 + self.strengths**2 / NOISE**2
        mean = x[:, :Z] * self.strengths / NOISE**2 / precision
        return Normal(mean + self.shift, (self.widen / precision.sqrt()).expand_as(mean))

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        if self.deaf:
            return self.evidence().log_prob(x).expand(z.shape[:-1])
        mean = F.pad(z * self.strengths, (0, D - len(self.strengths)))
        return Normal(mean, NOISE).log_prob(x).sum(-1)

    def forward(self, x: Tensor) -> Elbo:
        q = self.posterior(x)
        kl = kl_divergence(q, self.prior())
        return Elbo(-self.log_likelihood(x, q.rsample()), kl.sum(-1), kl)

    def evidence(self) -> MultivariateNormal:
        variance = NOISE**2 + F.pad(self.strengths.detach() ** 2, (0, D - len(self.strengths)))
        return MultivariateNormal(torch.zeros(D), variance.diag())

    def draw(self, count: int = 400) -> list[Tensor]:
        """Batches of x from the model itself."""
        generator = torch.Generator().manual_seed(1)
        x = torch.randn(count, D, generator=generator)
        return list((x * self.evidence().variance.sqrt()).split(150))


class Codeless(nn.Module):
    """The exact p(x) of a patient, as a model of no dimensions."""

    def __init__(self, patient: Patient) -> None:
        super().__init__()
        self.distribution = patient.evidence()
        self.unused = nn.Parameter(torch.zeros(1))

    def prior(self) -> Normal:
        return Normal(torch.zeros(0), torch.ones(0))

    def posterior(self, x: Tensor) -> Normal:
        return Normal(torch.zeros(len(x), 0), torch.ones(len(x), 0))

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        return self.distribution.log_prob(x).expand(z.shape[:-1])

    def forward(self, x: Tensor) -> Elbo:
        nll = -self.distribution.log_prob(x)
        return Elbo(nll, torch.zeros_like(nll), nll.new_zeros(len(nll), 0))


class MixedUp(Patient):
    """Every example is decoded from its neighbour's code."""

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        return super().log_likelihood(x, z.roll(1, dims=-2))


class AveragedKL(Patient):
    """The KL is a mean over dimensions, as in an exercise of chapter 4."""

    def forward(self, x: Tensor) -> Elbo:
        elbo = super().forward(x)
        return replace(elbo, kl=elbo.kl_per_dimension.mean(-1))


HEALTHY = (2.0, 1.0, 0.7)


def names(diagnosis: Diagnosis) -> list[str]:
    return [finding.name for finding in diagnosis.findings]


def examined(model: Any, batches: list[Tensor] | None = None, **options: Any) -> Diagnosis:
    """What is said of a model on data of the healthy one, of which it was made ill."""
    return diagnose(model, batches or Patient(*HEALTHY).draw(), **options)


def curves(**columns: list[float]) -> dict[str, list[float]]:
    zeros = [0.0] * len(next(iter(columns.values())))
    return {"train_kl": zeros, "valid_kl": zeros, **columns}


class TestHealth:
    def test_a_healthy_model_gets_no_finding(self) -> None:
        diagnosis = examined(Patient(*HEALTHY))
        assert diagnosis.findings == ()
        assert diagnosis.healthy
        assert str(diagnosis).startswith("healthy")

    def test_a_language_model_as_good_is_no_complaint(self) -> None:
        healthy = Patient(*HEALTHY)
        diagnosis = examined(healthy, language_model=Codeless(healthy))
        assert diagnosis.findings == ()
        assert diagnosis.report.price == pytest.approx(0, abs=0.05)

    def test_a_run_that_settled_is_no_complaint(self) -> None:
        history = curves(
            train_reconstruction=[40.0, 31.0, 30.0, 29.9],
            valid_reconstruction=[41.0, 32.0, 31.2, 31.3],
            kl_weight=[0.2, 0.7, 1.0, 1.0],
        )
        assert examined(Patient(*HEALTHY), history=history).findings == ()


class TestIllCodes:
    def test_an_empty_code(self) -> None:
        diagnosis = examined(Patient(0.05, 0.05, blind=True))
        assert names(diagnosis) == ["empty_code"]
        assert not diagnosis.healthy
        (finding,) = diagnosis.findings
        assert "no need of a code" in finding.cause
        assert "rate=" in finding.remedy
        assert finding.values["kl"] == pytest.approx(0, abs=1e-6)

    def test_an_empty_code_that_never_reaches_the_decoder(self) -> None:
        (finding,) = examined(Patient(*HEALTHY, blind=True, deaf=True)).findings
        assert finding.name == "empty_code"
        assert "never reaches the decoder" in finding.cause

    def test_an_empty_code_that_was_alive_once(self) -> None:
        history = {"train_kl": [2.0, 0.4, 0.02, 0.01]}
        (finding,) = examined(Patient(0.05, blind=True), history=history).findings
        assert "alive until epoch 2 of 4" in finding.cause

    def test_a_kl_that_is_the_same_for_all(self) -> None:
        diagnosis = examined(Patient(0.02, 0.02, blind=True, shift=1.5))
        (finding,) = (f for f in diagnosis.findings if f.name == "kl_without_information")
        assert "the same for all documents" in finding.cause
        assert finding.values["kl"] == pytest.approx(2 * 1.5**2 / 2)
        assert "empty_code" not in names(diagnosis)

    def test_posteriors_that_drifted_away_from_the_prior(self) -> None:
        diagnosis = examined(Patient(*HEALTHY, shift=4.0))
        (finding,) = (f for f in diagnosis.findings if f.name == "kl_without_information")
        assert "away from the prior" in finding.cause

    def test_a_code_that_never_reaches_the_decoder(self) -> None:
        diagnosis = examined(Patient(*HEALTHY, deaf=True))
        (finding,) = (f for f in diagnosis.findings if f.name == "unheard_code")
        assert "never reaches the decoder" in finding.cause

    def test_codes_that_are_mixed_up_in_the_batch(self) -> None:
        diagnosis = examined(MixedUp(*HEALTHY), Patient(*HEALTHY).draw(3_000))
        (finding,) = (f for f in diagnosis.findings if f.name == "unheard_code")
        assert "codes of other documents" in finding.cause

    def test_few_active_units_are_mild(self) -> None:
        model = Patient(2.0, *[0.0] * 11)
        diagnosis = examined(model, model.draw())
        assert names(diagnosis) == ["few_active_units"]
        assert diagnosis.healthy

    def test_information_at_its_ceiling_is_mild(self) -> None:
        model = Patient(30.0, 30.0, 30.0)
        diagnosis = examined(model, model.draw(30))
        assert names(diagnosis) == ["information_at_ceiling"]
        assert diagnosis.healthy
        assert diagnosis.findings[0].values["ceiling"] == pytest.approx(math.log(30))

    def test_a_loose_bound(self) -> None:
        assert "loose_bound" in names(examined(Patient(*HEALTHY, widen=4.0)))

    def test_an_autoencoder(self) -> None:
        assert "narrow_posteriors" in names(examined(Patient(*HEALTHY, widen=1e-3)))

    def test_an_nll_above_the_language_model_s(self) -> None:
        healthy = Patient(*HEALTHY)
        diagnosis = examined(Patient(4.0, 4.0, 4.0), language_model=Codeless(healthy))
        assert names(diagnosis) == ["worse_than_language_model"]


class TestCurves:
    @pytest.mark.parametrize("form", [dict, History.from_columns], ids=["columns", "History"])
    def test_overfitting(self, form: Callable[..., Any]) -> None:
        history = curves(
            train_reconstruction=[40.0, 30.0, 25.0, 20.0],
            valid_reconstruction=[41.0, 33.0, 34.0, 37.0],
        )
        diagnosis = examined(Patient(*HEALTHY), history=form(history))
        assert names(diagnosis) == ["overfitting"]
        assert diagnosis.findings[0].values["best_epoch"] == 2

    def test_training_that_ended_too_early(self) -> None:
        history = curves(train_reconstruction=[60.0, 50.0], valid_reconstruction=[58.0, 49.0])
        assert names(examined(Patient(*HEALTHY), history=history)) == ["still_improving"]

    def test_an_unfinished_annealing(self) -> None:
        history = {"kl_weight": [0.1, 0.4, 0.7]}
        assert names(examined(Patient(*HEALTHY), history=history)) == ["unfinished_annealing"]

    def test_a_constant_small_kl_weight_is_the_user_s_choice(self) -> None:
        history = {"kl_weight": [0.5, 0.5, 0.5]}
        assert examined(Patient(*HEALTHY), history=history).findings == ()

    def test_no_validation_set(self) -> None:
        history = {"train_reconstruction": [60.0, 50.0], "train_kl": [1.0, 1.0]}
        assert names(examined(Patient(*HEALTHY), history=history)) == ["still_improving"]


def padded() -> list[TextBatch]:
    """Documents of random words, of very different lengths."""
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(3, V, (60, 21), generator=generator)
    return [TextBatch(tokens, torch.tensor([3, 6, 9, 21, 4, 5]).repeat(10))]


def sharpened(model: nn.Module) -> nn.Module:
    """The same model with larger weights, whose every input shows."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4)
    return model


class TestBugs:
    """Those of chapter 4, and others that published code contains."""

    def test_a_kl_that_is_averaged_over_the_dimensions(self) -> None:
        (finding,) = examined(AveragedKL(*HEALTHY)).findings
        assert finding.name == "loss_is_not_the_bound"
        assert finding.values["measured"] == pytest.approx(3 * finding.values["claimed"])

    def test_a_bug_is_told_before_what_it_makes_doubtful(self) -> None:
        found = names(examined(AveragedKL(*HEALTHY, shift=4.0)))
        assert found[0] == "loss_is_not_the_bound"
        assert len(found) > 1

    def test_padding_that_is_predicted(self) -> None:
        class Unmasked(LanguageModel):
            def forward(self, batch: TextBatch) -> Elbo:
                whole = torch.full_like(batch.lengths, batch.tokens.shape[1])
                return super().forward(TextBatch(batch.tokens, whole))

        diagnosis = diagnose(Unmasked(LSTMDecoder(V, 5, 6)), padded())
        assert names(diagnosis) == ["loss_is_not_the_bound"]

    def test_dropout_that_stays_on(self) -> None:
        class Dropped(LSTMDecoder):
            def forward(self, inputs: Tensor, z: Tensor | None = None) -> Tensor:
                return F.dropout(super().forward(inputs, z), 0.5)

        diagnosis = diagnose(sharpened(LanguageModel(Dropped(V, 5, 30))), padded())
        (finding,) = (f for f in diagnosis.findings if f.name == "unsteady_scores")
        assert "dropout" in finding.cause

    def test_word_dropout_that_was_left_on_is_switched_off(self) -> None:
        model = LanguageModel(LSTMDecoder(V, 5, 6, word_dropout=0.5)).eval()
        model.decoder.word_dropout.train()
        assert diagnose(model, padded()).findings == ()

    def test_a_code_read_at_a_position_of_the_padding(self) -> None:
        class Careless(LSTMEncoder):
            def features(self, batch: TextBatch) -> Tensor:
                whole = torch.full_like(batch.lengths, batch.tokens.shape[1])
                return super().features(TextBatch(batch.tokens, whole))

        model = sharpened(TextVAE(Careless(V, 5, 6, 3), LSTMDecoder(V, 5, 6, 3)))
        diagnosis = diagnose(model, padded())
        (finding,) = (f for f in diagnosis.findings if f.name == "unsteady_scores")
        assert "padding" in finding.cause


@pytest.fixture(scope="module")
def reviews() -> tuple[Batches, Batches, int]:
    """Short generated reviews: training and test batches, and V."""
    grammar = ReviewGrammar(openings=2, nouns=2, sentences=(1, 1))
    corpus = grammar.corpus(train=1_500, valid=1, test=400, seed=0)
    tokenizer = Tokenizer.train(corpus.train.texts)
    train = Batches.from_texts(corpus.train, tokenizer, batch_size=32, seed=0)
    test = Batches.from_texts(corpus.test, tokenizer, batch_size=100, shuffle=False)
    return train, test, len(tokenizer)


def trained(model: Any, train: Batches, epochs: int = 6, **options: Any) -> History:
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    options |= {"optimizer": optimizer, "scheduler": "cosine", "max_grad_norm": 5.0}
    return fit(model, train, epochs=epochs, device="cpu", **options)


class TestTrainedModelsOfText:
    def test_a_strong_decoder_empties_the_code(self, reviews: tuple[Batches, Batches, int]) -> None:
        train, test, V = reviews
        model = TextVAE(LSTMEncoder(V, 16, 32, 4), LSTMDecoder(V, 16, 32, 4))
        trained(model, train, epochs=2)
        findings = diagnose(model, test, importance_samples=10).findings
        assert findings[0].name == "empty_code"
        assert "never reaches" not in findings[0].cause

    def test_a_weak_decoder_needs_its_code(self, reviews: tuple[Batches, Batches, int]) -> None:
        train, test, V = reviews
        models = [
            LanguageModel(DilatedConvDecoder(V, 16, 32, 0, dilations=[1], width=2)),
            TextVAE(
                LSTMEncoder(V, 16, 32, 4, pooling="max"),
                DilatedConvDecoder(V, 16, 32, 4, dilations=[1], width=2),
            ),
        ]
        for model in models:
            history = trained(model, train, kl_weight=linear(150))
        diagnosis = diagnose(models[1], test, language_model=models[0], history=history)
        assert diagnosis.findings == ()
        assert diagnosis.report.price < -0.5
        assert diagnosis.own_code_gain > 2

    def test_a_language_model_has_no_code_to_be_ill(
        self, reviews: tuple[Batches, Batches, int]
    ) -> None:
        train, test, V = reviews
        model = LanguageModel(LSTMDecoder(V, 16, 32))
        trained(model, train, epochs=1)
        diagnosis = diagnose(model, test, language_model=model)
        assert diagnosis.findings == ()
        assert diagnosis.own_code_gain == 0
        assert "no code" in str(diagnosis)

    def test_a_model_with_labels(self, reviews: tuple[Batches, Batches, int]) -> None:
        train, test, V = reviews
        encoder, decoder = LSTMEncoder(V, 16, 32, 4), LSTMDecoder(V, 16, 32, 4 + 5)
        model = SemiSupervisedTextVAE(encoder, decoder, classes=5)
        trained(model, train, epochs=2)
        assert names(diagnose(model, test, importance_samples=10)) == ["empty_code"]


class TestTheLetter:
    def test_it_names_symptom_cause_remedy_and_chapter(self) -> None:
        diagnosis = examined(Patient(0.05, 0.05, blind=True))
        letter = str(diagnosis)
        assert letter.startswith("not well")
        assert "empty code (chapters 4 and 5)" in letter
        words = " ".join(letter.split())
        for part in ("symptom", "cause", "remedy"):
            assert getattr(diagnosis.findings[0], part) in words
        assert max(map(len, letter.splitlines())) <= 88

    def test_it_is_ready_for_json(self) -> None:
        diagnosis = examined(Patient(0.05, 0.05, blind=True))
        read = json.loads(json.dumps(diagnosis.to_dict()))
        assert read["findings"][0]["name"] == "empty_code"
        assert read["healthy"] is False
        assert read["report"]["kl"] == pytest.approx(0, abs=1e-6)

    def test_one_line_for_an_empty_code_and_none_for_another(self) -> None:
        def report(kl: float, information: float) -> Report:
            return Report(9, 5.0, kl, 6.0, 1, 1, (kl,), information, 2.0)

        for kl, information in ((0.01, 0.0), (2.2, 0.04)):
            line = empty_code_line(report(kl, information)) or ""
            assert f"KL {kl:.2f} nats, mutual information {information:.2f}" in line
        assert empty_code_line(report(3.0, 1.5)) is None
        assert empty_code_line(Report(9, 5.0, 0.0, 5.0, 1, 0, ())) is None


def test_the_global_random_state_stays_as_it_is() -> None:
    before = torch.get_rng_state()
    examined(Patient(*HEALTHY))
    assert torch.equal(torch.get_rng_state(), before)
