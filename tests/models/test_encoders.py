from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor

from tutvae.data.batches.text import EncodedTexts
from tutvae.data.batches.text_batch import TextBatch
from tutvae.models.encoders import BagEncoder, BiLSTMEncoder, LSTMEncoder
from tutvae.models.protocols import Encoder

B, T, V, E, H, Z = 4, 6, 11, 5, 7, 3
LENGTHS = torch.tensor([4, 6, 2, 5])

Build = Callable[..., Encoder]
in_both_modes = pytest.mark.parametrize("training", [False, True])


ENCODERS: dict[str, Callable[..., Encoder]] = {
    "last": partial(LSTMEncoder, pooling="last"),
    "max": partial(LSTMEncoder, pooling="max"),
    "both ways": BiLSTMEncoder,
    "bag": partial(BagEncoder, dropout=0.0),
}


@pytest.fixture(params=list(ENCODERS.values()), ids=list(ENCODERS))
def encoder(request: pytest.FixtureRequest) -> Build:
    """A function to an encoder in eval mode, `scale` times its start: far from linear."""

    def build(seed: int = 0, scale: float = 2.0) -> Encoder:
        torch.manual_seed(seed)
        model = request.param(V, E, H, Z)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(scale)
        return model.eval()

    return build


def documents(seed: int = 1, extra: int = 0) -> TextBatch:
    """B documents; `extra` adds columns of padding."""
    drawn = torch.randint(3, V, (B, T), generator=torch.Generator().manual_seed(seed))
    drawn[:, 0] = 1
    drawn = torch.cat([drawn, torch.zeros(B, extra, dtype=torch.int64)], dim=1)
    time = torch.arange(T + extra)
    drawn[time >= LENGTHS[:, None]] = 0
    return TextBatch(drawn, LENGTHS)


def rows(batch: TextBatch, order: list[int]) -> TextBatch:
    return TextBatch(batch.tokens[order], batch.lengths[order])


def outputs(model: Encoder, batch: TextBatch) -> Tensor:
    """Means and scales, `[B, 2Z]`."""
    q = model(batch)
    return torch.cat([q.loc, q.scale], dim=1)


def test_shapes(encoder: Build) -> None:
    model = encoder()
    q = model(documents())
    assert q.batch_shape == q.loc.shape == q.scale.shape == (B, Z)
    assert (model.vocabulary_size, model.latent_size) == (V, Z)


def test_features_then_posterior(encoder: Build) -> None:
    model = encoder()
    assert model.hidden_size == (2 * H if isinstance(model, BiLSTMEncoder) else H)
    features = model.features(documents())
    assert features.shape == (B, model.hidden_size)
    q, whole = model.posterior(features), model(documents())
    assert torch.equal(q.loc, whole.loc)
    assert torch.equal(q.scale, whole.scale)


def test_the_last_state_is_the_one_after_the_last_token() -> None:
    model, batch = LSTMEncoder(V, E, H, Z), documents()
    states, _ = model.lstm(model.embedding(batch.tokens))
    last = torch.stack([row[n - 1] for row, n in zip(states, LENGTHS, strict=True)])
    assert torch.equal(model.features(batch), last)


def test_every_parameter_gets_a_gradient(encoder: Build) -> None:
    model = encoder().train()
    outputs(model, documents()).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_every_word_s_embedding_trains(encoder: Build) -> None:
    """From the padding's id, 0, to the last word's, each once at every position."""
    model = encoder()
    rotations = torch.stack([torch.arange(V).roll(shift) for shift in range(V)])
    outputs(model, TextBatch(rotations, torch.full((V,), V))).sum().backward()
    is_bag = isinstance(model, BagEncoder)
    gradient = model.words.weight.grad.T if is_bag else model.embedding.weight.grad
    assert (gradient.abs().sum(1) > 0).all()


def test_state_dict_round_trip(encoder: Build) -> None:
    trained, fresh = encoder(1), encoder(2)
    assert not torch.equal(outputs(trained, documents()), outputs(fresh, documents()))
    fresh.load_state_dict(trained.state_dict())
    assert torch.equal(outputs(trained, documents()), outputs(fresh, documents()))


@in_both_modes
def test_padding_changes_nothing(encoder: Build, training: bool) -> None:
    model = encoder().train(training)
    expected = outputs(model, documents())
    torch.testing.assert_close(outputs(model, documents(extra=4)), expected)
    batch = documents(extra=4)
    padding = torch.arange(T + 4) >= LENGTHS[:, None]
    other = replace(batch, tokens=batch.tokens.masked_fill(padding, V - 1))
    torch.testing.assert_close(outputs(model, other), expected)


@in_both_modes
def test_rows_do_not_mix(encoder: Build, training: bool) -> None:
    """A batch of one equals its row, without its padding; permuting permutes the outputs."""
    model, batch = encoder().train(training), documents()
    whole = outputs(model, batch)
    for row, length in enumerate(LENGTHS.tolist()):
        alone = TextBatch(batch.tokens[[row], :length], batch.lengths[[row]])
        torch.testing.assert_close(outputs(model, alone), whole[[row]])
    order = [2, 0, 3, 1]
    torch.testing.assert_close(outputs(model, rows(batch, order)), whole[order])


@in_both_modes
def test_it_is_deterministic(encoder: Build, training: bool) -> None:
    model = encoder().train(training)
    assert torch.equal(outputs(model, documents()), outputs(model, documents()))


def test_every_token_of_a_document_matters(encoder: Build) -> None:
    model, batch = encoder(), documents()
    for row, length in enumerate(LENGTHS.tolist()):
        for t in range(length):
            tokens = batch.tokens.clone()
            tokens[row, t] = (tokens[row, t] + 1) % V
            moved = (outputs(model, replace(batch, tokens=tokens)) != outputs(model, batch)).any(1)
            assert moved.tolist() == [other == row for other in range(B)]


def test_the_order_of_the_words_matters_unless_they_are_a_bag(encoder: Build) -> None:
    model, batch = encoder(), documents()
    swapped = batch.tokens.clone()
    swapped[1, [1, 2]] = swapped[1, [2, 1]]
    assert swapped[1, 1] != swapped[1, 2]
    moved = outputs(model, replace(batch, tokens=swapped)) - outputs(model, batch)
    assert (moved[1].abs().max() > 1e-3) == isinstance(model, LSTMEncoder)


def test_it_computes_mean_and_log_variance(encoder: Build) -> None:
    model = encoder()
    with torch.no_grad():
        for layer, bias in ((model.mean, -1.5), (model.log_variance, math.log(4.0))):
            layer.weight.zero_()
            layer.bias.fill_(bias)
        q = model(documents())
    torch.testing.assert_close(q.loc, torch.full((B, Z), -1.5))
    torch.testing.assert_close(q.scale, torch.full((B, Z), 2.0))


def test_a_bag_is_read_by_the_logarithms_of_its_counts() -> None:
    model = BagEncoder(V, E, H, Z).eval()
    logs = torch.zeros(1, V)
    logs[0, [1, 2, 7, 8]] = torch.tensor([2.0, 2.0, 3.0, 2.0]).log()
    document = EncodedTexts([[1, 7, 8, 7, 2]]).batch()
    expected = torch.tanh(model.hidden(model.words(logs)))
    torch.testing.assert_close(model.features(document), expected)
    model = BagEncoder(V, 0, H, Z).eval()
    torch.testing.assert_close(model.features(document), torch.relu(model.words(logs)))


def test_a_bag_loses_words_and_features_in_training() -> None:
    model = BagEncoder(V, E, H, Z).train()
    assert not torch.equal(model.features(documents()), model.features(documents()))


def test_max_pooling_takes_the_largest_state_of_the_words() -> None:
    model = LSTMEncoder(V, E, H, Z, pooling="max")
    batch = documents()
    states, _ = model.lstm(model.embedding(batch.tokens))
    largest = torch.stack([row[:n].amax(0) for row, n in zip(states, LENGTHS, strict=True)])
    torch.testing.assert_close(model(batch).loc, model.mean(largest))


def test_read_both_ways_word_vectors_begin_small() -> None:
    encoder = BiLSTMEncoder(500, 32, 8, 2)
    assert encoder.embedding.weight.std().item() == pytest.approx(0.05, rel=0.1)


def test_an_unknown_pooling_is_one_clear_error() -> None:
    with pytest.raises(ValueError, match='pooling must be "last" or "max", not \'mean\''):
        LSTMEncoder(V, E, H, Z, pooling="mean")
