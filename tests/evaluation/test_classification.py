from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from tutvae.data.batches.text import Batches, EncodedTexts
from tutvae.data.tokenization import Tokenizer
from tutvae.evaluation.classification import TextPredictor, as_labels
from tutvae.models.encoders import LSTMEncoder
from tutvae.models.lstm_decoder import LSTMDecoder
from tutvae.models.semi_supervised import SemiSupervisedTextVAE
from tutvae.models.text_classifier import TextClassifier
from tutvae.reviews.grammar import ReviewGrammar
from tutvae.training.loop import fit

TOKENIZER = Tokenizer.train(["the film was dull and fine"])
V, E, H, Z, K = 10, 5, 7, 3, 4
TEXTS = ["the film was dull", "", "dull dull", "was the film the film was fine and dull", "fine"]


def telling_apart(model: Any) -> Any:
    """The model with a head that gives the texts different labels."""
    head = model.label_head.logits
    with torch.no_grad():
        features = model.encoder.features(EncodedTexts(TOKENIZER.encode(TEXTS)).batch())
        head.weight.mul_(30)
        head.bias.copy_(-head(features).mean(0) + head.bias)
    return model


def classifier(classes: int = K) -> TextClassifier:
    torch.manual_seed(0)
    return telling_apart(TextClassifier(LSTMEncoder(V, E, H, Z), classes, dropout=0.5))


def semi_supervised(classes: int = K) -> SemiSupervisedTextVAE:
    torch.manual_seed(1)
    encoder, decoder = LSTMEncoder(V, E, H, Z), LSTMDecoder(V, E, H, Z + classes)
    return telling_apart(SemiSupervisedTextVAE(encoder, decoder, classes, dropout=0.5))


@pytest.mark.parametrize("make", [classifier, semi_supervised])
class TestTextPredictor:
    def test_each_text_gets_its_own_label_posterior(self, make: Callable[..., Any]) -> None:
        model = make()
        got = TextPredictor(model, TOKENIZER).predict_proba(TEXTS)
        assert got.shape == (len(TEXTS), K)
        model.eval()
        for text, row in zip(TEXTS, got, strict=True):
            batch = EncodedTexts(TOKENIZER.encode([text])).batch()
            with torch.no_grad():
                expected = model.label_posterior(batch).probs[0]
            np.testing.assert_allclose(row, expected, atol=1e-6)
        assert np.abs(np.diff(got, axis=0)).max() > 0.1, "and the texts do differ"

    @pytest.mark.parametrize("batch_size", [1, 2, 100])
    def test_the_batch_size_does_not_matter(
        self, make: Callable[..., Any], batch_size: int
    ) -> None:
        model = make()
        got = TextPredictor(model, TOKENIZER, batch_size).predict_proba(TEXTS)
        expected = TextPredictor(model, TOKENIZER).predict_proba(TEXTS)
        np.testing.assert_allclose(got, expected, atol=1e-6)

    def test_the_label_is_the_most_probable_one(self, make: Callable[..., Any]) -> None:
        predictor = TextPredictor(make(), TOKENIZER)
        labels = predictor.predict(TEXTS)
        assert labels.tolist() == predictor.predict_proba(TEXTS).argmax(1).tolist()
        assert len(set(labels.tolist())) > 1
        assert labels.dtype.kind == "i"

    def test_the_score_is_the_share_that_is_right(self, make: Callable[..., Any]) -> None:
        predictor = TextPredictor(make(), TOKENIZER)
        labels = predictor.predict(TEXTS)
        assert predictor.score(TEXTS, labels) == 1
        labels[1:3] = (labels[1:3] + 1) % K
        assert predictor.score(TEXTS, labels.tolist()) == pytest.approx(3 / 5)

    def test_the_model_stays_in_training_mode(self, make: Callable[..., Any]) -> None:
        model = make().train()
        TextPredictor(model, TOKENIZER).predict(TEXTS)
        assert model.training

    def test_one_class(self, make: Callable[..., Any]) -> None:
        predictor = TextPredictor(make(1), TOKENIZER)
        assert predictor.predict_proba(TEXTS).tolist() == [[1.0]] * len(TEXTS)
        assert predictor.score(TEXTS, [0] * len(TEXTS)) == 1

    @pytest.mark.parametrize(
        ("labels", "message"),
        [
            ([0, 1, K, 0, 1], f"label {K} is not a class"),
            ([0, 1, -1, 0, 1], "label -1 is not a class"),
            ([0, 1], r"5 documents need 5 labels, not an array \[2\]"),
            ([0.0, 0.5, 1.0, 2.0, 3.0], "labels are integers in 0 ... 3"),
        ],
    )
    def test_bad_labels(self, make: Callable[..., Any], labels: Any, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            TextPredictor(make(), TOKENIZER).score(TEXTS, labels)

    def test_no_texts_and_one_string(self, make: Callable[..., Any]) -> None:
        predictor = TextPredictor(make(), TOKENIZER)
        with pytest.raises(ValueError, match="no documents"):
            predictor.predict([])
        with pytest.raises(TypeError, match=r"write \[text\]"):
            predictor.predict("the film")

    def test_weights_that_are_not_finite_predict_nothing(self, make: Callable[..., Any]) -> None:
        model = make()
        with torch.no_grad():
            model.encoder.embedding.weight.fill_(float("nan"))
        with pytest.raises(FloatingPointError, match="NaN in the model's weights"):
            TextPredictor(model, TOKENIZER).predict(TEXTS)

    def test_the_tokenizer_of_another_model(self, make: Callable[..., Any]) -> None:
        with pytest.raises(ValueError, match="tokenizer has 5 tokens, the model 10"):
            TextPredictor(make(), Tokenizer.train(["the"])).predict(["the"])


def test_a_trained_classifier_is_scored_on_raw_texts() -> None:
    corpus = ReviewGrammar(nouns=2, vagueness=0.0).corpus(400, 0, 200)
    tokenizer = Tokenizer.train(corpus.train.texts)
    torch.manual_seed(0)
    model = TextClassifier(LSTMEncoder(len(tokenizer), 16, 24, Z, pooling="max"), 5)
    batches = Batches.from_texts(corpus.train, tokenizer, batch_size=40)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    fit(model, batches, epochs=6, optimizer=optimizer, device="cpu")
    assert TextPredictor(model, tokenizer).score(corpus.test.texts, corpus.test.labels) > 0.9


def test_labels_of_every_kind_of_integer_are_labels() -> None:
    for labels in ([0, 2], np.array([0, 2], dtype=np.uint8), torch.tensor([0, 2])):
        assert torch.equal(as_labels(labels, 2, 3), torch.tensor([0, 2]))
    assert as_labels([], 0, 3).dtype == torch.int64
