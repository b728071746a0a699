"""The LSTM layer: our own way of training wide ones computes what PyTorch's does."""

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from tutvae.models import lstm

I, H, B, T = 3, 5, 2, 4
SHAPES = ((B, H), (T, B, I), (B, H), (4 * H, I), (4 * H, H), (4 * H,))  # c, x, h, weights
BF16 = 0.02  # what rounding to eight bits may change of a vector of gradients


@pytest.fixture
def layers() -> tuple[nn.LSTM, lstm.LSTM]:
    plain, ours = nn.LSTM(I, H, batch_first=True), lstm.LSTM(I, H)
    ours.load_state_dict(plain.state_dict())
    return plain, ours


def outputs_and_gradients(layer: nn.LSTM, started: bool) -> list[Tensor]:
    """Of a loss in which every output has a part."""
    torch.manual_seed(0)
    given = [torch.randn(shape, requires_grad=True) for shape in ((B, T, I), (1, B, H), (1, B, H))]
    with torch.autocast("cpu", torch.bfloat16):
        states, (h, c) = layer(given[0], (given[1], given[2]) if started else None)
    found = [states.float(), h.float(), c.float()]
    loss = sum((x * torch.randn(x.shape)).sum() for x in found)
    wanted = [*layer.parameters(), *(given if started else given[:1])]
    return [*found, *torch.autograd.grad(loss, wanted)]


@pytest.mark.parametrize("started", [True, False])
def test_it_is_pytorchs_but_for_rounding(
    layers: tuple[nn.LSTM, lstm.LSTM], started: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lstm, "WIDE", H)
    for plain, ours in zip(*(outputs_and_gradients(x, started) for x in layers), strict=True):
        assert ours.shape == plain.shape
        assert (ours - plain).norm() < BF16 * plain.norm()


def test_the_way_is_taken_by_wide_layers_that_train_in_half_precision(
    layers: tuple[nn.LSTM, lstm.LSTM], monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = []
    apply = lstm._OneProduct.apply
    monkeypatch.setattr(lstm._OneProduct, "apply", lambda *parts: taken.append(0) or apply(*parts))
    x, (_, layer) = torch.randn(B, T, I), layers

    def read(half: bool, width: int, training: bool) -> bool:
        taken.clear()
        monkeypatch.setattr(lstm, "WIDE", width)
        with torch.autocast("cpu", torch.bfloat16, enabled=half), torch.set_grad_enabled(training):
            layer(x)
        return bool(taken)

    assert read(half=True, width=H, training=True)
    assert not read(half=False, width=H, training=True)
    assert not read(half=True, width=H + 1, training=True)
    assert not read(half=True, width=H, training=False)


def test_its_gradient_is_that_of_differences() -> None:
    torch.manual_seed(0)
    given = [torch.randn(shape, dtype=torch.double, requires_grad=True) for shape in SHAPES]
    assert torch.autograd.gradcheck(lstm._OneProduct.apply, given)


def test_frozen_weights_cost_nothing() -> None:
    kept = SimpleNamespace(needs_input_grad=(True, False, True, False, False, False))
    kept.save_for_backward = lambda *tensors: setattr(kept, "saved_tensors", tensors)
    states, c = lstm._OneProduct.forward(kept, *map(torch.randn, SHAPES))
    found = lstm._OneProduct.backward(kept, torch.ones_like(states), torch.zeros_like(c))
    assert [gradient is None for gradient in found[:5]] == [False, True, False, True, True]


def test_the_gradient_that_comes_in_is_left_alone() -> None:
    given = [torch.randn(shape, requires_grad=True) for shape in SHAPES]
    _, c = lstm._OneProduct.apply(*given)
    came_in = torch.ones(B, H)
    torch.autograd.grad(c, given, came_in)
    assert torch.equal(came_in, torch.ones(B, H))


def test_packed_documents_go_to_pytorch(
    layers: tuple[nn.LSTM, lstm.LSTM], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lstm, "WIDE", H)
    lengths = torch.tensor([T, T - 1])
    packed = nn.utils.rnn.pack_padded_sequence(torch.randn(B, T, I), lengths, batch_first=True)
    with torch.autocast("cpu", torch.bfloat16):
        (plain, _), (ours, _) = (layer(packed) for layer in layers)
    assert torch.equal(plain.data, ours.data)
