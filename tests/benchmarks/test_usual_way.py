"""What the benchmarks compare with computes the same as the package, so that only time differs."""

import pytest
import torch
from torch.distributions import Normal

import tutvae
from benchmarks import usual
from benchmarks.common import GRUEncoder, file_order, forward_gflop
from benchmarks.generation import by_chance, by_generate, never_ending
from benchmarks.growth import growth
from tutvae.models import DilatedConvDecoder, GRUDecoder, LSTMDecoder, LSTMEncoder, TextVAE

V = 40
SIZES = (V, 6, 8, 3)
MODELS = {"gru": (GRUEncoder, GRUDecoder), "lstm": (LSTMEncoder, LSTMDecoder)}


@pytest.fixture(params=list(MODELS))
def model(request: pytest.FixtureRequest) -> TextVAE:
    encoder, decoder = MODELS[request.param]
    return TextVAE(encoder(*SIZES), decoder(*SIZES))


@pytest.fixture
def texts() -> tutvae.EncodedTexts:
    lengths = (9, 2, 5, 30)
    return tutvae.EncodedTexts([[1, *torch.randint(4, V, (n,)).tolist(), 2] for n in lengths])


def test_training_has_the_same_loss_and_gradient(
    model: TextVAE, texts: tutvae.EncodedTexts
) -> None:
    (padded,) = file_order(texts, 4)
    losses, gradients = [], []
    for loss in (lambda: usual.loss(model, padded), lambda: model(texts.batch()).loss()):
        torch.manual_seed(3)
        losses.append(loss())
        gradients.append(torch.autograd.grad(losses[-1], list(model.parameters())))
    torch.testing.assert_close(*losses)
    torch.testing.assert_close(*gradients)


def test_file_order_pads_all_documents_to_the_same_length(texts: tutvae.EncodedTexts) -> None:
    batches = list(file_order(texts, 2))
    assert [list(batch.inputs.shape) for batch in batches] == [[2, 60], [2, 60]]
    assert [batch.predicted_tokens for batch in batches] == [13, 37]


def test_likelihood_by_samples_agrees_within_their_noise(model: TextVAE) -> None:
    with torch.no_grad():  # a code that matters, and is not drawn from the prior
        model.encoder.mean.bias.fill_(0.6)
        for weights in model.decoder.parameters():
            weights.mul_(3)
    batch = tutvae.EncodedTexts([[1, 7, 8, 9, 2]]).batch()
    ours = tutvae.evaluate(model, [batch], importance_samples=20_000, chunk_size=5_000)
    found = usual.importance_weighted_nll(model, batch, 20_000, block=5_000)
    assert found.item() == pytest.approx(ours.importance_weighted_nll, abs=0.15)


def test_mutual_information_agrees_within_the_noise_of_its_codes() -> None:
    q = Normal(torch.randn(600, 4), torch.full((600, 4), 0.3))
    found = usual.mutual_information(q, q.sample())
    assert found == pytest.approx(tutvae.mutual_information(q, seed=1), abs=0.15)


@pytest.mark.parametrize("kind", ["gru", "lstm"])
def test_greedy_texts_are_the_same(kind: str) -> None:
    decoder = never_ending(MODELS[kind][1](*SIZES))
    z = torch.randn(5, 3)
    assert torch.equal(usual.greedy(decoder, z, 12), by_generate(decoder, z, 12))


@pytest.mark.parametrize("kind", ["gru", "lstm"])
def test_texts_are_drawn_by_the_same_probabilities(kind: str) -> None:
    decoder = never_ending(MODELS[kind][1](*SIZES))
    z, V = torch.randn(1, 3).expand(20_000, 3), SIZES[0]
    ours, theirs = (write(decoder, z, 2) for write in (by_chance, usual.drawn))
    for place in (0, 1):
        shares = [x[:, place].bincount(minlength=V) / len(z) for x in (ours, theirs)]
        torch.testing.assert_close(*shares, atol=0.02, rtol=0)


def test_greedy_texts_by_full_passes_are_the_same() -> None:
    decoder = never_ending(DilatedConvDecoder(*SIZES, dilations=[1, 2]))
    z = torch.randn(5, 3)
    assert torch.equal(usual.full_passes(decoder, z, 12), by_generate(decoder, z, 12))


def test_operations_of_a_token_are_two_a_weight_without_those_of_lookups() -> None:
    decoder = LSTMDecoder(10, 3, 4)
    assert forward_gflop(decoder) == pytest.approx(2e-9 * (16 * 3 + 16 * 4 + 4 * 10))


def test_growth_keeps_every_size() -> None:
    found = growth("things", {2: lambda: None, 4: lambda: None})
    assert list(found.seconds) == ["2", "4"]
