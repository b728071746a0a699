from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from tutvae.data.batches.text import EncodedTexts
from tutvae.data.tokenization import Tokenizer
from tutvae.generation.conditional import change_label, label_agreement, sample_with_label
from tutvae.generation.decoding import generate
from tutvae.generation.texts import sample_prior, sample_texts
from tutvae.models.encoders import LSTMEncoder
from tutvae.models.lstm_decoder import LSTMDecoder
from tutvae.models.semi_supervised import SemiSupervisedTextVAE
from tutvae.reviews.grammar import ReviewGrammar

TOKENIZER = Tokenizer.train(["the film was dull and fine"])
V, E, H, Z, K = 10, 5, 7, 3, 4
TEXTS = ["the film was dull", "", "dull dull", "was the film the film was fine and dull", "fine"]
LABELS = [3, 0, 1, 1, 2]


@pytest.fixture
def model() -> SemiSupervisedTextVAE:
    """Random weights, large enough that texts, codes and labels matter."""
    torch.manual_seed(0)
    model = SemiSupervisedTextVAE(LSTMEncoder(V, E, H, Z), LSTMDecoder(V, E, H, Z + K), K)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4)
    return model


def decoded(model: SemiSupervisedTextVAE, z: torch.Tensor, labels: list[int]) -> list[str]:
    """What the decoder makes, greedily, of each code with each label."""
    code = torch.cat([z, torch.eye(K)[labels]], dim=1)
    rows = generate(model.decoder, code, tokenizer=TOKENIZER, max_length=9, temperature=0.0)
    return [TOKENIZER.decode(row) for row in rows]


class TestSampleWithLabel:
    def sample(self, model: SemiSupervisedTextVAE, labels: Any, **options: Any) -> list[str]:
        return sample_with_label(model, TOKENIZER, labels, max_length=9, **options)

    def test_codes_and_labels_are_decoded_row_by_row(self, model: SemiSupervisedTextVAE) -> None:
        z = torch.randn(5, Z)
        got = self.sample(model, LABELS, z=z, temperature=0.0)
        assert got == decoded(model, z, LABELS)
        assert len(set(got)) > 1

    def test_without_codes_they_come_from_the_prior(self, model: SemiSupervisedTextVAE) -> None:
        z = sample_prior(model, 5, seed=6)
        got = self.sample(model, LABELS, temperature=0.0, seed=6)
        assert got == self.sample(model, LABELS, z=z, temperature=0.0)

    def test_without_labels_they_come_from_the_prior_too(
        self, model: SemiSupervisedTextVAE
    ) -> None:
        """Which leaves one label here, so that it is known."""
        with torch.no_grad():
            model.label_probabilities.copy_(torch.eye(K)[2])
        got = sample_texts(model, TOKENIZER, 5, temperature=0.0, max_length=9, seed=6)
        assert got == self.sample(model, [2] * 5, temperature=0.0, seed=6)

    def test_one_code_with_every_label(self, model: SemiSupervisedTextVAE) -> None:
        z = torch.randn(Z)
        got = self.sample(model, range(K), z=z, temperature=0.0)
        assert got == decoded(model, z.expand(K, Z), list(range(K)))
        assert len(set(got)) > 1

    def test_the_seed_alone_decides(self, model: SemiSupervisedTextVAE) -> None:
        before = torch.get_rng_state()
        one = self.sample(model, LABELS * 4, seed=1)
        assert self.sample(model, LABELS * 4, seed=1) == one
        assert self.sample(model, LABELS * 4, seed=2) != one
        assert torch.equal(torch.get_rng_state(), before)
        z = torch.randn(20, Z)
        words, others = (self.sample(model, LABELS * 4, z=z, seed=seed) for seed in (1, 2))
        assert words != others, "the words have noise of their own"

    def test_the_strategy_is_passed_on(self, model: SemiSupervisedTextVAE) -> None:
        greedy, top_1, nucleus, plain = (
            self.sample(model, LABELS * 4, **options)
            for options in ({"temperature": 0.0}, {"top_k": 1}, {"top_p": 1e-6}, {})
        )
        assert greedy == top_1 == nucleus != plain

    def test_no_labels_no_texts(self, model: SemiSupervisedTextVAE) -> None:
        assert self.sample(model, []) == []

    @pytest.mark.parametrize(
        ("labels", "z", "message"),
        [
            ([0, K], None, f"label {K} is not a class"),
            ([0, -1], None, "label -1 is not a class"),
            ([0, 1], torch.zeros(3, Z), r"\[2, 3\] or \[Z\] = \[3\], not \[3, 3\]"),
            ([0, 1], torch.zeros(2, Z + K), r"not \[2, 7\]"),
        ],
    )
    def test_bad_input(
        self, model: SemiSupervisedTextVAE, labels: list[int], z: Any, message: str
    ) -> None:
        with pytest.raises(ValueError, match=message):
            self.sample(model, labels, z=z)


class TestChangeLabel:
    def change(self, model: SemiSupervisedTextVAE, texts: Any, labels: Any, **options: Any) -> Any:
        return change_label(model, TOKENIZER, texts, labels, max_length=9, **options)

    def codes(self, model: SemiSupervisedTextVAE, labels: list[int]) -> torch.Tensor:
        batch = EncodedTexts(TOKENIZER.encode(TEXTS)).batch()
        with torch.no_grad():
            return model.posterior(batch, torch.tensor(labels)).loc

    def test_the_code_is_that_of_the_text_with_its_own_label(
        self, model: SemiSupervisedTextVAE
    ) -> None:
        own = [2, 1, 3, 0, 3]
        got = self.change(model, TEXTS, LABELS, own_labels=own)
        assert got == decoded(model, self.codes(model, own), LABELS)
        assert got != self.change(model, TEXTS, LABELS, own_labels=LABELS)

    def test_an_own_label_that_is_not_given_is_predicted(
        self, model: SemiSupervisedTextVAE
    ) -> None:
        batch = EncodedTexts(TOKENIZER.encode(TEXTS)).batch()
        predicted = model.label_posterior(batch).probs.argmax(1).tolist()
        assert predicted != LABELS
        expected = self.change(model, TEXTS, LABELS, own_labels=predicted)
        assert self.change(model, TEXTS, LABELS) == expected

    def test_texts_keep_their_order_and_do_not_depend_on_each_other(
        self, model: SemiSupervisedTextVAE
    ) -> None:
        alone = [
            self.change(model, [text], [label])[0]
            for text, label in zip(TEXTS, LABELS, strict=True)
        ]
        assert self.change(model, TEXTS, LABELS) == alone
        assert self.change(model, TEXTS[::-1], LABELS[::-1]) == alone[::-1]
        assert len(set(alone)) > 1

    def test_no_texts(self, model: SemiSupervisedTextVAE) -> None:
        assert self.change(model, [], []) == []

    def test_bad_input(self, model: SemiSupervisedTextVAE) -> None:
        with pytest.raises(ValueError, match=f"label {K} is not a class"):
            self.change(model, TEXTS, [0, 1, K, 2, 3])
        with pytest.raises(ValueError, match="label -1 is not a class"):
            self.change(model, TEXTS, LABELS, own_labels=[-1] * 5)
        with pytest.raises(ValueError, match="5 documents need 5 labels"):
            self.change(model, TEXTS, [0, 1])
        with pytest.raises(TypeError, match=r"write \[text\]"):
            self.change(model, "the film", [0])


class TestLabelAgreement:
    grammar = ReviewGrammar(vagueness=0.3, star_noise=0.3)

    @pytest.mark.parametrize("label", ["category", "stars", "joint"])
    def test_true_documents_reach_the_bayes_accuracy(self, label: Any) -> None:
        reviews = self.grammar.sample(4_000, seed=5, label=label)
        agreement = label_agreement(self.grammar, reviews.texts, reviews.labels, label)
        best = self.grammar.bayes_accuracy(label)
        assert agreement.asked == 4_000
        assert agreement.grammatical == 1
        assert agreement.among_all == agreement.among_grammatical
        assert agreement.among_all == pytest.approx(best.value, abs=0.03)
        assert best.value < 0.95, "else the test would say little"

    def test_shuffled_labels_agree_by_chance(self) -> None:
        reviews = self.grammar.sample(4_000, seed=5)
        labels = np.random.default_rng(0).permutation(reviews.labels)
        assert label_agreement(self.grammar, reviews.texts, labels).among_all == pytest.approx(
            0.2, abs=0.03
        )

    def test_texts_outside_the_grammar_are_counted_apart(self) -> None:
        clear = ReviewGrammar(vagueness=0.0, star_noise=0.0)
        reviews = clear.sample(3, seed=1)
        texts = [*reviews.texts, "no such sentence", ""]
        wrong = (reviews.labels[2] + 1) % 5
        labels = [*reviews.labels[:2], wrong, 0, 0]
        agreement = label_agreement(clear, texts, labels)
        assert agreement.asked == 5
        assert agreement.grammatical == pytest.approx(3 / 5)
        assert agreement.among_all == pytest.approx(2 / 5)
        assert agreement.among_grammatical == pytest.approx(2 / 3)

    def test_no_text_of_the_grammar(self) -> None:
        agreement = label_agreement(self.grammar, ["no such sentence"], [0])
        assert (agreement.grammatical, agreement.among_all) == (0, 0)
        assert math.isnan(agreement.among_grammatical)

    @pytest.mark.parametrize("asked", range(5))
    def test_a_tie_counts_by_its_share(self, asked: int) -> None:
        """Where every word suits every category, no category comes first."""
        vague = ReviewGrammar(vagueness=1.0)
        texts = vague.sample(20, seed=0).texts
        assert label_agreement(vague, texts, [asked] * 20).among_all == pytest.approx(0.2)

    def test_a_tie_but_for_rounding_is_a_tie(self) -> None:
        """One word of two stars and one of three: two stars and three are equally likely."""
        grammar = ReviewGrammar()
        text = "mum tolerated this story because the cover was surprisingly mediocre ."
        posterior = grammar.posterior(text).sum(0)
        assert posterior[1] != posterior[2] == pytest.approx(posterior[1], rel=1e-12)
        for stars in (1, 2):
            assert label_agreement(grammar, [text], [stars], "stars").among_all == 0.5

    def test_bad_input(self) -> None:
        with pytest.raises(ValueError, match="no text came"):
            label_agreement(self.grammar, [], [])
        with pytest.raises(ValueError, match="label must be one of category, stars, joint"):
            label_agreement(self.grammar, ["x"], [0], "tense")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="label 5 is not a class"):
            label_agreement(self.grammar, ["x"], [5])
        assert label_agreement(self.grammar, ["x"], [24], "joint").asked == 1
