"""What makes a GPU wait, found without one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tutvae.data.batches.text import EncodedTexts
from tutvae.data.batches.text_batch import TextBatch
from tutvae.models import (
    DilatedConvDecoder,
    GRUDecoder,
    LanguageModel,
    LSTMDecoder,
    LSTMEncoder,
    SemiSupervisedTextVAE,
    TextClassifier,
    TextVAE,
)
from tutvae.training.captured import CapturedSteps
from tutvae.training.engine import Engine
from tutvae.training.step import LOOKED_AT_TOGETHER, Stepper, adam

V, E, H, Z, K = 13, 5, 6, 3, 4
aten = torch.ops.aten


class Waits(TorchDispatchMode):
    """Notes every operation after which the program needs a value or a size from the device.

    These are a look at a number (`item`, `bool`, `int`), `nonzero`, and all that is indexed by a
    mask, forward and backward. `tolist` is none to the dispatcher: see `waits`.
    """

    looks = (aten._local_scalar_dense, aten.nonzero, aten.masked_select, aten.masked_scatter)

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        indexed = "index" in func.overloadpacket.__name__
        masks = [x for x in tree_leaves(args) if isinstance(x, Tensor) and x.dtype == torch.bool]
        if func.overloadpacket in self.looks or (indexed and masks):
            self.found.append(str(func))
        return func(*args, **kwargs or {})


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> Waits:
    mode, tolist = Waits(), Tensor.tolist
    monkeypatch.setattr(Tensor, "tolist", lambda x: mode.found.append("tolist") or tolist(x))
    return mode


def batch(labels: list[int] | None = None) -> TextBatch:
    return EncodedTexts([[1, 5, 6, 2], [1, 2], [1, 7, 8, 9, 4, 2]], labels).batch()


def with_labels(**options: Any) -> nn.Module:
    decoder = LSTMDecoder(V, E, H, Z + K)
    return SemiSupervisedTextVAE(LSTMEncoder(V, E, H, Z), decoder, K, dropout=0.1, **options)


class Played:
    """In place of a GPU's recorder: to play is to do again."""

    def rehearse(self, work: Callable[[], Any]) -> Any:
        return work()

    def record(self, work: Callable[[], Any]) -> Callable[[], Any]:
        return work


def waited_for(
    model: nn.Module, batch: TextBatch, waits: Waits, captured: bool = False
) -> list[str]:
    """What two steps of training on a batch wait for."""
    engine = Engine(model, "cpu")
    stepper = Stepper(engine, adam(engine.model.parameters()), max_grad_norm=5.0)
    stepper.together = LOOKED_AT_TOGETHER
    if captured:
        played: Any = Played()
        stepper.captured = CapturedSteps(engine, stepper.optimizer, 5.0, played)
    moved = batch.to("cpu")  # what there is to look up, is by now
    waits.found.clear()
    with waits:
        for number in range(2):
            stepper.step([moved], number, 0.5, 0.1)
    return waits.found


@pytest.mark.parametrize("captured", [False, True], ids=["ordinary", "recorded"])
@pytest.mark.parametrize(
    "model",
    [
        lambda: LanguageModel(LSTMDecoder(V, E, H)),
        lambda: TextVAE(LSTMEncoder(V, E, H, Z), LSTMDecoder(V, E, H, Z, word_dropout=0.5)),
        lambda: TextVAE(LSTMEncoder(V, E, H, Z, pooling="max"), GRUDecoder(V, E, H, Z)),
        lambda: TextVAE(LSTMEncoder(V, E, H, Z), DilatedConvDecoder(V, E, H, Z, dropout=0.1)),
    ],
    ids=["language model", "lstm", "gru", "cnn"],
)
def test_a_step_never_waits_for_a_gpu(
    model: Callable[[], nn.Module], captured: bool, waits: Waits
) -> None:
    assert waited_for(model(), batch(), waits, captured) == []


@pytest.mark.parametrize("labels", [[-1, 2, -1], [0, 1, 2], [-1, -1, -1], None], ids=str)
@pytest.mark.parametrize("marginal", ["enumerate", "gumbel"])
def test_nor_does_one_with_a_latent_label(
    marginal: str, labels: list[int] | None, waits: Waits
) -> None:
    model = with_labels(marginal=marginal, temperature=lambda step: 1.0)
    assert waited_for(model, batch(labels), waits) == []


def test_nor_does_one_of_a_classifier(waits: Waits) -> None:
    model = TextClassifier(LSTMEncoder(V, E, H, Z), K)
    assert waited_for(model, batch([0, 1, 2]), waits) == []


def test_a_look_at_the_device_is_noticed(waits: Waits) -> None:
    x = torch.ones(3, requires_grad=True)
    with waits:
        x.tolist()
        x[x > 0].sum().backward()
        assert bool(x.sum() > 0)
    assert len(waits.found) == 4
