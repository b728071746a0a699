"""Measuring models of text; `test_evaluation.py` measures those of images."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Normal

import tutvae.evaluation.report
from tutvae.data.batches.text import Batches, EncodedTexts
from tutvae.data.batches.text_batch import TextBatch
from tutvae.data.tokenization import Tokenizer
from tutvae.evaluation.report import encode, evaluate, mean_terms, score
from tutvae.models import LanguageModel, LSTMDecoder, LSTMEncoder, TextVAE
from tutvae.reviews.grammar import ReviewGrammar
from tutvae.training.engine import autocast
from tutvae.training.loop import fit

V, E, H, Z = 9, 5, 6, 3
PAD, BOS, EOS = 0, 1, 2
LENGTHS = (5, 2, 7, 3, 5, 9, 4, 6, 2, 8, 3)  # with both marks; 2 is an empty document


def documents() -> list[list[int]]:
    generator = torch.Generator().manual_seed(8)
    return [
        [BOS, *torch.randint(3, V, (length - 2,), generator=generator).tolist(), EOS]
        for length in LENGTHS
    ]


def texts() -> EncodedTexts:
    return EncodedTexts(documents(), pad_id=PAD)


def vae(latent_size: int = Z) -> TextVAE:
    """A VAE with large random weights, and a posterior that is wider than the prior."""
    torch.manual_seed(2)
    model = TextVAE(LSTMEncoder(V, E, H, latent_size), LSTMDecoder(V, E, H, latent_size))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3.5)
        model.encoder.log_variance.weight.mul_(0.1)
        model.encoder.log_variance.bias.fill_(0.3)
    return model


def language_model() -> LanguageModel:
    torch.manual_seed(2)
    return LanguageModel(LSTMDecoder(V, E, H))


def padded(batch: TextBatch, extra: int) -> TextBatch:
    tokens = torch.nn.functional.pad(batch.tokens, (0, extra), value=PAD)
    return TextBatch(tokens, batch.lengths, batch.labels, batch.positions)


def by_hand(model: LanguageModel, document: list[int]) -> float:
    """-log p of one document, one prefix at a time."""
    nll = 0.0
    with torch.no_grad():
        for t in range(1, len(document)):
            hidden = model.decoder(torch.tensor([document[:t]]))
            logits = model.decoder.project(hidden[0, -1])
            nll -= logits.double().log_softmax(-1)[document[t]].item()
    return nll


BATCHINGS = {
    "one batch": lambda: [texts().batch()],
    "extra padding": lambda: [padded(texts().batch(), 4)],
    "a document a batch": lambda: [texts().batch([i]) for i in range(len(LENGTHS))],
    "any order": lambda: [texts().batch([7, 2, 10, 0]), texts().batch([9, 1, 3, 8, 4, 6, 5])],
    "length buckets": lambda: Batches(texts(), batch_size=4, shuffle=False),
    "shuffled": lambda: Batches(texts(), token_budget=20, shuffle=True, seed=5),
}


@pytest.mark.parametrize("batching", BATCHINGS)
class TestBatchingChangesNothing:
    def test_scores(self, batching: str) -> None:
        expected = score(vae(), [texts().batch()], importance_samples=7)
        got = score(vae(), BATCHINGS[batching](), importance_samples=7)
        torch.testing.assert_close(got.nll, expected.nll, atol=1e-4, rtol=0)
        torch.testing.assert_close(got.reconstruction, expected.reconstruction, atol=1e-4, rtol=0)
        torch.testing.assert_close(got.kl, expected.kl, atol=1e-5, rtol=0)
        torch.testing.assert_close(got.posterior.loc, expected.posterior.loc, atol=1e-5, rtol=0)
        assert got.tokens == expected.tokens == sum(LENGTHS) - len(LENGTHS)

    def test_the_report(self, batching: str) -> None:
        expected = evaluate(vae(), [texts().batch()], importance_samples=7).to_dict()
        got = evaluate(vae(), BATCHINGS[batching](), importance_samples=7).to_dict()
        assert list(got.pop("kl_per_dimension")) == pytest.approx(
            list(expected.pop("kl_per_dimension")), rel=1e-4
        )
        assert got == pytest.approx(expected, rel=1e-4)

    def test_codes(self, batching: str) -> None:
        got = encode(vae(), BATCHINGS[batching]())
        assert got.batch_shape == (len(LENGTHS), Z)
        for i in range(len(LENGTHS)):
            with torch.no_grad():
                alone = vae().posterior(texts().batch([i]))
            torch.testing.assert_close(got.loc[i], alone.loc[0], atol=1e-5, rtol=0)
            torch.testing.assert_close(got.scale[i], alone.scale[0], atol=1e-5, rtol=0)


class TestScore:
    @settings(max_examples=30)
    @given(chunk_size=st.integers(1, 12), samples=st.integers(1, 10))
    def test_the_chunk_size_changes_nothing(self, chunk_size: int, samples: int) -> None:
        batches = [texts().batch([4, 1, 2])]
        chunked, whole = (
            score(vae(), batches, importance_samples=samples, chunk_size=size)
            for size in (chunk_size, samples)
        )
        torch.testing.assert_close(chunked.nll, whole.nll, atol=1e-4, rtol=0)
        torch.testing.assert_close(chunked.reconstruction, whole.reconstruction, atol=1e-4, rtol=0)

    def test_every_document_has_noise_of_its_own(self) -> None:
        """The same document thrice: equal codes, different samples of them."""
        same = EncodedTexts([documents()[2]] * 3, pad_id=PAD)
        scores = score(vae(), [same.batch()], importance_samples=4)
        assert len(scores.nll.unique()) == 3
        torch.testing.assert_close(scores.kl[0], scores.kl[2])

    def test_the_seed_alone_decides(self) -> None:
        def nll(seed: int, global_seed: int) -> list[float]:
            model = vae()
            torch.manual_seed(global_seed)
            return score(model, [texts().batch()], importance_samples=3, seed=seed).nll.tolist()

        assert nll(0, 1) == nll(0, 2)
        assert nll(0, 1) != nll(6, 1)

    def test_some_of_the_documents(self) -> None:
        """Positions with gaps: the order is kept, and so is each document's noise."""
        every = score(vae(), [texts().batch()], importance_samples=5)
        some = score(vae(), [texts().batch([9]), texts().batch([3, 0])], importance_samples=5)
        torch.testing.assert_close(some.nll, every.nll[[0, 3, 9]], atol=1e-4, rtol=0)

    def test_in_bf16_the_nll_of_a_document_moves_by_a_twentieth_of_a_nat_at_most(self) -> None:
        torch.manual_seed(0)
        model = TextVAE(LSTMEncoder(V, 32, 64, Z), LSTMDecoder(V, 32, 64, Z))
        full = score(model, [texts().batch()], importance_samples=20)
        with autocast(torch.device("cpu"), torch.bfloat16):
            half = score(model, [texts().batch()], importance_samples=20)
        assert not torch.equal(half.nll, full.nll)
        torch.testing.assert_close(half.nll, full.nll, atol=0.05, rtol=0)

    def test_importance_weighting_converges_to_the_likelihood(self) -> None:
        """One latent dimension: log p(x) by the trapezium rule."""
        model, batch = vae(latent_size=1).double(), texts().batch([0, 2, 3])
        z = torch.linspace(-9, 9, 2_001, dtype=torch.float64)
        with torch.no_grad():
            codes = z[:, None, None].expand(-1, 3, 1)
            log_joint = model.log_likelihood(batch, codes) + Normal(0.0, 1.0).log_prob(z)[:, None]
        exact = -torch.trapezoid(log_joint.exp(), z, dim=0).log()
        scores = score(model, [batch], importance_samples=5_000, chunk_size=500)
        torch.testing.assert_close(scores.nll, exact, atol=0.03, rtol=0)
        bound = scores.reconstruction + scores.kl.sum(1)
        assert bound.mean() > exact.mean() + 0.2  # there is a gap to close


class TestLanguageModels:
    def test_the_nll_is_exact(self) -> None:
        model = language_model()
        scores = score(model, Batches(texts(), batch_size=4), importance_samples=50)
        exact = torch.tensor([by_hand(model, document) for document in documents()])
        torch.testing.assert_close(scores.nll.float(), exact, atol=1e-4, rtol=0)
        torch.testing.assert_close(scores.reconstruction, scores.nll)

    def test_there_is_no_code_to_report(self) -> None:
        report = evaluate(language_model(), [texts().batch()])
        assert report.kl == 0
        assert report.kl_per_dimension == ()
        assert report.active_units == 0
        assert report.mutual_information == pytest.approx(0, abs=1e-12)
        assert report.importance_samples == 1
        assert report.bound == report.importance_weighted_nll
        assert "0 of 0" in str(report)
        assert "NLL, exact" in str(report)

    def test_one_pass_is_enough(self) -> None:
        model, passes = language_model(), []
        model.decoder.register_forward_hook(lambda *_: passes.append(1))
        evaluate(model, Batches(texts(), batch_size=4), importance_samples=500)
        assert len(passes) == 3

    def test_mean_terms(self) -> None:
        model, batches = language_model(), Batches(texts(), batch_size=4, shuffle=False)
        report = evaluate(model, batches)
        assert mean_terms(model, batches) == pytest.approx(
            {"reconstruction": report.bound, "kl": 0}, rel=1e-5
        )


class TestThePriceOfACode:
    def test_it_is_the_bound_less_the_exact_nll_of_the_language_model(self) -> None:
        exact = sum(by_hand(language_model(), d) for d in documents()) / len(LENGTHS)
        batches = iter([texts().batch([0, 1, 2, 3, 4]), texts().batch([5, 6, 7, 8, 9, 10])])
        report = evaluate(vae(), batches, importance_samples=3, language_model=language_model())
        assert report.language_model_nll == pytest.approx(exact, rel=1e-5)
        assert report.price == pytest.approx(report.bound - exact, rel=1e-4)

    def test_it_is_shown_and_recorded(self) -> None:
        report = evaluate(
            vae(), [texts().batch()], importance_samples=3, language_model=language_model()
        )
        assert f"{report.language_model_nll:.2f}" in str(report)
        assert f"price of the code  {report.price:>9.2f}" in str(report)
        assert len({len(row) for row in str(report).splitlines()[1:]}) == 1
        assert report.to_dict()["price"] == report.price

    def test_without_a_language_model_nothing_is_said_of_it(self) -> None:
        report = evaluate(vae(), [texts().batch()], importance_samples=3)
        assert report.price is None
        assert not {"language_model_nll", "price"} & report.to_dict().keys()
        assert "price" not in str(report)

    def test_a_language_model_with_a_code(self) -> None:
        with pytest.raises(ValueError, match=f"has Z = {Z}"):
            evaluate(vae(), [texts().batch()], language_model=vae())


class TestPerplexity:
    def test_a_model_that_knows_nothing_is_as_perplexed_as_its_vocabulary_is_large(self) -> None:
        model = language_model()
        with torch.no_grad():
            model.decoder.output.weight.zero_()
            model.decoder.output.bias.zero_()
        report = evaluate(model, Batches(texts(), batch_size=4))
        assert report.tokens == sum(length - 1 for length in LENGTHS)  # words and end marks
        assert report.perplexity == pytest.approx(V, rel=1e-5)

    def test_it_is_that_of_the_importance_weighted_nll(self) -> None:
        report = evaluate(vae(), [texts().batch()], importance_samples=20)
        per_token = report.importance_weighted_nll * len(LENGTHS) / (sum(LENGTHS) - len(LENGTHS))
        assert report.perplexity == pytest.approx(math.exp(per_token))
        assert report.importance_weighted_nll < report.bound

    def test_what_was_cut_is_not_predicted(self) -> None:
        with pytest.warns(UserWarning, match="cut"):
            cut = EncodedTexts(documents(), pad_id=PAD, max_length=4)
        report = evaluate(language_model(), [cut.batch()])
        assert report.tokens == sum(min(length, 4) - 1 for length in LENGTHS)

    def test_images_have_none(self) -> None:
        report = evaluate(tutvae.VAE(7, 3, (6,)), [torch.ones(4, 7)], importance_samples=2)
        assert report.tokens is None
        assert report.perplexity is None
        assert "perplexity" not in str(report)
        assert not {"tokens", "perplexity"} & report.to_dict().keys()


class TestMutualInformation:
    class Separated(torch.nn.Module):
        """A document's length alone is its code; `scale` tells how blurred."""

        def __init__(self, scale: float) -> None:
            super().__init__()
            self.scale = torch.nn.Parameter(torch.tensor(scale))

        def prior(self) -> Normal:
            return Normal(torch.zeros(1), torch.ones(1))

        def posterior(self, batch: TextBatch) -> Normal:
            return Normal(batch.lengths[:, None].float(), self.scale.detach())

        def log_likelihood(self, batch: TextBatch, z: Tensor) -> Tensor:
            return torch.zeros(z.shape[:-1])

    def report(self, scale: float) -> Any:
        batches = Batches(texts(), batch_size=4)
        return evaluate(self.Separated(scale), batches, importance_samples=1)

    def test_it_is_the_entropy_of_what_the_code_tells_apart(self) -> None:
        shares = [LENGTHS.count(length) / len(LENGTHS) for length in set(LENGTHS)]
        report = self.report(1e-3)
        assert report.mutual_information == pytest.approx(
            -sum(share * math.log(share) for share in shares)
        )
        assert report.mutual_information_ceiling == pytest.approx(math.log(len(LENGTHS)))

    def test_a_blurred_code_tells_little(self) -> None:
        assert self.report(1e3).mutual_information < 1e-3

    def test_of_many_documents_some_are_used(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Six of eleven, spread over the list: all of different lengths, unlike the first six."""
        monkeypatch.setattr(tutvae.evaluation.report, "AGGREGATED_POSTERIORS", 6)
        assert len(set(LENGTHS[:6])) == 5
        report = self.report(1e-3)
        assert report.mutual_information_ceiling == pytest.approx(math.log(6))
        assert report.mutual_information == pytest.approx(math.log(6))

    def test_there_are_enough_of_them(self) -> None:
        assert tutvae.evaluation.report.AGGREGATED_POSTERIORS >= 2_048


class TestTheReport:
    def test_it_prints_everything(self) -> None:
        report = evaluate(vae(), [texts().batch()], importance_samples=20)
        title, *rows = str(report).splitlines()
        assert title == "11 examples, 43 tokens, nats an example"
        shown = {row[:20].strip(): row[20:].strip() for row in rows}
        assert shown == {
            "reconstruction": f"{report.reconstruction:.2f}",
            "KL": f"{report.kl:.2f}",
            "bound": f"{report.bound:.2f}",
            "NLL, 20 samples": f"{report.importance_weighted_nll:.2f}",
            "perplexity": f"{report.perplexity:.2f}",
            "mutual information": f"{report.mutual_information:.2f}",
            "its ceiling": "2.40",
            "active units": f"{report.active_units} of {Z}",
        }
        assert len({len(row) for row in rows}) == 1

    def test_it_becomes_json(self) -> None:
        report = evaluate(vae(), [texts().batch()], importance_samples=3)
        fields = json.loads(json.dumps(report.to_dict()))
        assert fields["perplexity"] == report.perplexity
        assert fields["mutual_information"] == report.mutual_information
        assert fields["mutual_information_ceiling"] == report.mutual_information_ceiling
        assert fields["tokens"] == 43


class TestEvaluationIsDeterministic:
    def test_word_dropout_and_dropout_are_off(self) -> None:
        torch.manual_seed(2)
        decoder = LSTMDecoder(V, E, H, Z, word_dropout=0.5, dropout=0.5)
        model = TextVAE(LSTMEncoder(V, E, H, Z), decoder).train()
        before = torch.get_rng_state()
        first, second = (evaluate(model, [texts().batch()], importance_samples=3) for _ in "12")
        assert first == second
        assert model.training
        assert torch.equal(torch.get_rng_state(), before)


class TestAgainstTheTruth:
    """No model can beat the entropy of the corpus; one that trains a little comes near."""

    GRAMMAR = ReviewGrammar(openings=2, nouns=2, verbs=1, adjectives=1, fillers=1)

    @pytest.mark.parametrize("latent_size", [0, 4])
    def test_the_nll_lies_above_the_exact_one(self, latent_size: int) -> None:
        corpus = self.GRAMMAR.corpus(train=2_000, valid=1, test=400)
        tokenizer = Tokenizer.train(corpus.train.texts)
        sizes = (len(tokenizer), 16, 32, latent_size)
        torch.manual_seed(0)
        decoder = LSTMDecoder(*sizes)
        model = TextVAE(LSTMEncoder(*sizes), decoder) if latent_size else LanguageModel(decoder)
        train = Batches.from_texts(corpus.train, tokenizer, batch_size=30)
        adam = torch.optim.Adam(model.parameters(), lr=0.01)
        fit(model, train, epochs=8, optimizer=adam, device="cpu", progress=False)
        test = Batches.from_texts(corpus.test, tokenizer, batch_size=100)
        nll = score(model, test, importance_samples=20).nll
        excess = nll + torch.from_numpy(self.GRAMMAR.log_probs(corpus.test.texts))
        error = excess.std().item() / math.sqrt(len(excess))
        assert excess.mean().item() > -3 * error
        assert excess.mean().item() < 2
        error = nll.std().item() / math.sqrt(len(nll))
        assert nll.mean().item() > self.GRAMMAR.entropy().value - 3 * error
