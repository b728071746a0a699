"""Steps that a GPU records and plays again; here a recording is a function that is called again."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tutvae.data.batches.fixed import FixedBatch
from tutvae.data.batches.text import EncodedTexts
from tutvae.data.batches.text_batch import TextBatch
from tutvae.models import (
    DilatedConvDecoder,
    GRUDecoder,
    LanguageModel,
    LSTMDecoder,
    LSTMEncoder,
    TextVAE,
)
from tutvae.training import captured
from tutvae.training.captured import CapturedSteps, can_capture
from tutvae.training.engine import Engine
from tutvae.training.step import Stepper, adam

V, E, H, Z = 13, 5, 6, 3
MODELS = {
    "language model": lambda: LanguageModel(LSTMDecoder(V, E, H)),
    "lstm": lambda: TextVAE(LSTMEncoder(V, E, H, Z), LSTMDecoder(V, E, H, Z)),
    "gru": lambda: TextVAE(LSTMEncoder(V, E, H, Z, pooling="max"), GRUDecoder(V, E, H, Z)),
    "cnn": lambda: TextVAE(LSTMEncoder(V, E, H, Z), DilatedConvDecoder(V, E, H, Z)),
}


class Tape:
    """Plays a step by taking it again, with the optimizer's groups as they were when recorded."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer
        self.rehearsals = self.recordings = self.plays = 0

    def rehearse(self, work: Callable[[], Any]) -> Any:
        self.rehearsals += 1
        return work()

    def record(self, work: Callable[[], Any]) -> Callable[[], Any]:
        self.recordings += 1
        recorded = [dict(group) for group in self.optimizer.param_groups]
        assert all(group["capturable"] for group in recorded)

        def play() -> Any:
            self.plays += 1
            own = [dict(group) for group in self.optimizer.param_groups]
            self._set(recorded)
            try:
                return work()
            finally:
                self._set(own)

        return play

    def _set(self, groups: list[dict[str, Any]]) -> None:
        for group, values in zip(self.optimizer.param_groups, groups, strict=True):
            group.update(values)


def batch(longest: int, seed: int = 0, rows: int = 3) -> TextBatch:
    random = torch.Generator().manual_seed(seed)
    lengths = [longest, *torch.randint(0, longest, (rows - 1,), generator=random).tolist()]
    words = [torch.randint(4, V, (n,), generator=random).tolist() for n in lengths]
    return EncodedTexts([[1, *ids, 2] for ids in words]).batch()


def fixed(given: TextBatch, T: int) -> FixedBatch:
    tokens = torch.randint(V, (len(given), T))  # whatever stood there before
    holder = FixedBatch(tokens, torch.zeros_like(given.lengths))
    holder.hold(given)
    return holder


def captured_and_plain(build: Callable[[], nn.Module], clip: float | None = None) -> Any:
    """Two ways to train the same model, by recorded steps and by ordinary ones, and the tape."""
    torch.manual_seed(1)
    plain = build()
    steppers = []
    for model in (deepcopy(plain), plain):
        engine = Engine(model, "cpu")
        steppers.append(Stepper(engine, adam(model.parameters(), 0.01), clip))
    ours, ordinary = steppers
    tape: Any = Tape(ours.optimizer)
    ours.captured = CapturedSteps(ours.engine, ours.optimizer, clip, tape)
    return ours, ordinary, tape


def weights(stepper: Stepper) -> dict[str, Tensor]:
    return stepper.engine.model.state_dict()


def both_step(
    ours: Stepper, ordinary: Stepper, given: TextBatch, number: int, *options: Any
) -> None:
    results = []
    for stepper in (ours, ordinary):
        torch.manual_seed(number)
        results.append(stepper.step([given], number, *options))
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("build", MODELS.values(), ids=MODELS)
def test_padding_changes_neither_the_terms_nor_the_gradient(build: Callable[[], nn.Module]) -> None:
    model = build()
    given = batch(9)
    terms, gradients = [], []
    for x in (given, fixed(given, 24)):
        torch.manual_seed(3)
        elbo = model(x)
        terms.append(elbo.terms)
        gradients.append(torch.autograd.grad(elbo.loss(), list(model.parameters())))
    torch.testing.assert_close(*terms)
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("build", MODELS.values(), ids=MODELS)
def test_recorded_steps_train_as_ordinary_ones(build: Callable[[], nn.Module]) -> None:
    ours, ordinary, tape = captured_and_plain(build, clip=0.5)
    for number, longest in enumerate([5, 12, 4, 3, 13, 6, 12, 11]):
        both_step(ours, ordinary, batch(longest, number), number, 0.1 * number)
    torch.testing.assert_close(weights(ours), weights(ordinary))
    assert (tape.rehearsals, tape.recordings, tape.plays) == (2, 2, 6)  # T = 8 and 16


def test_a_recorded_step_follows_the_learning_rate() -> None:
    ours, ordinary, tape = captured_and_plain(MODELS["lstm"])
    for number in range(4):
        for stepper in (ours, ordinary):
            stepper.optimizer.param_groups[0]["lr"] = 0.05 / (number + 1)
        both_step(ours, ordinary, batch(5, number), number, 1.0)
    torch.testing.assert_close(weights(ours), weights(ordinary))
    assert tape.plays == 3
    (group,) = ours.optimizer.param_groups
    assert (group["lr"], group["capturable"]) == (0.0125, False)


@pytest.mark.parametrize("change", [{"betas": (0.5, 0.9)}, {"weight_decay": 0.1}])
def test_a_step_with_other_settings_is_recorded_anew(change: dict[str, Any]) -> None:
    ours, ordinary, tape = captured_and_plain(MODELS["lstm"])
    for number in range(4):
        if number == 2:
            for stepper in (ours, ordinary):
                stepper.optimizer.param_groups[0].update(change)
        both_step(ours, ordinary, batch(5, number), number, 1.0)
    torch.testing.assert_close(weights(ours), weights(ordinary))
    assert tape.recordings == 2


def test_other_free_bits_are_recorded_anew() -> None:
    ours, ordinary, tape = captured_and_plain(MODELS["lstm"])
    for number, free_bits in enumerate([0.0, 0.0, 3.0, 3.0]):
        both_step(ours, ordinary, batch(5, number), number, 1.0, free_bits)
    assert tape.recordings == 2


def test_results_outlive_the_next_step() -> None:
    ours, _, tape = captured_and_plain(MODELS["lstm"])
    outputs = torch.zeros(()), {"kl": torch.zeros(3)}
    tape.record = lambda work: lambda: outputs  # as a graph does, into the same tensors
    ours.step([batch(5)], 0)
    loss, (terms,) = ours.step([batch(5)], 1)
    outputs[0].fill_(7)
    outputs[1]["kl"].fill_(7)
    assert loss == 0
    assert terms["kl"].tolist() == [0, 0, 0]


def test_shapes_beyond_those_remembered_and_unions_take_ordinary_steps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(captured, "MOST_SHAPES", 1)
    ours, ordinary, tape = captured_and_plain(MODELS["lstm"])
    for number, longest in enumerate([5, 14, 14, 5]):
        both_step(ours, ordinary, batch(longest, number), number, 1.0)
    ours.step([batch(5), batch(5)], 4)
    assert (tape.rehearsals, tape.recordings, tape.plays) == (1, 1, 1)


def test_a_token_outside_the_vocabulary_is_refused_by_a_recorded_step_too() -> None:
    ours, _, tape = captured_and_plain(MODELS["lstm"])
    for number in range(2):
        ours.step([batch(5)], number)
    with pytest.raises(ValueError, match="outside the model's vocabulary"):
        ours.step([EncodedTexts([[1, V, 2], [1, 2], [1, 2]]).batch()], 2)
    assert tape.plays == 1


class OwnDecoder(LSTMDecoder):
    pass


OwnDecoder.__module__ = "somewhere.else"


def on_a_gpu(model: nn.Module) -> Engine:
    engine = Engine(model, "cpu")
    engine.device = torch.device("cuda")
    return engine


def test_the_models_of_text_are_recorded_with_a_fused_adam_on_a_gpu() -> None:
    for build in MODELS.values():
        model = build()
        assert can_capture(on_a_gpu(model), adam(model.parameters()))
        assert not can_capture(Engine(model, "cpu"), adam(model.parameters()))


def test_what_a_graph_might_not_repeat_is_not_recorded() -> None:
    model = MODELS["lstm"]()
    several = on_a_gpu(model)
    several.processes = 2
    assert not can_capture(several, adam(model.parameters()))
    assert not can_capture(on_a_gpu(model), torch.optim.Adam(model.parameters()))
    assert not can_capture(on_a_gpu(model), torch.optim.SGD(model.parameters(), fused=True))
    own = LanguageModel(OwnDecoder(V, E, H))
    assert not can_capture(on_a_gpu(own), adam(own.parameters()))
    other = nn.Linear(2, 2)
    assert not can_capture(on_a_gpu(other), adam(other.parameters()))
