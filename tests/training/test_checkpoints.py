from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import tutvae
from tutvae import LSTMDecoder, LSTMEncoder, SemiSupervisedTextVAE, TextVAE
from tutvae.training.checkpoints import (
    load_tensors,
    load_weights,
    random_state,
    save_tensors,
    save_weights,
    set_random_state,
)

NUMBERS = st.integers() | st.floats(allow_nan=False) | st.booleans() | st.none() | st.text()
KEYS = st.text() | st.integers()
ABOUT = st.recursive(NUMBERS, lambda x: st.lists(x) | st.dictionaries(KEYS, x), max_leaves=9)


class TestTensors:
    @settings(max_examples=25)
    @given(about=ABOUT)
    def test_what_json_can_say_comes_back(
        self, tmp_path_factory: pytest.TempPathFactory, about: object
    ) -> None:
        """Exactly, keys that are numbers included."""
        path = tmp_path_factory.mktemp("about") / "x.safetensors"
        save_tensors(path, {}, about)
        assert load_tensors(path) == ({}, about)

    def test_tensors_come_back(self, tmp_path: Path) -> None:
        rows = torch.arange(12.0).view(3, 4)
        tensors = {
            "transposed": rows.T,
            "shared": rows[1:],
            "bytes": torch.tensor([1, 255], dtype=torch.uint8),
            "half": torch.ones(2, dtype=torch.bfloat16),
            "number": torch.tensor(3.5, requires_grad=True),
            "empty": torch.zeros(0, 2),
        }
        save_tensors(tmp_path / "x.safetensors", tensors)
        loaded, about = load_tensors(tmp_path / "x.safetensors")
        assert about is None
        assert set(loaded) == set(tensors)
        for name, tensor in tensors.items():
            torch.testing.assert_close(loaded[name], tensor.detach(), rtol=0, atol=0)

    def test_tensors_inside_of_what_is_said_come_back(self, tmp_path: Path) -> None:
        rows = torch.arange(12.0).view(3, 4)
        save_tensors(tmp_path / "x.safetensors", {"rows": rows}, {7: [rows[1], {"a": rows.T}]})
        tensors, about = load_tensors(tmp_path / "x.safetensors")
        assert list(tensors) == ["rows"]
        assert torch.equal(about[7][0], rows[1])
        assert torch.equal(about[7][1]["a"], rows.T)

    def test_a_tensor_that_is_gone(self, tmp_path: Path) -> None:
        save_tensors(tmp_path / "x.safetensors", {}, [torch.ones(2), torch.ones(3)])
        with safe_open(tmp_path / "x.safetensors", framework="pt") as file:
            metadata = file.metadata()
        save_file({"tutvae.0": torch.ones(2)}, tmp_path / "x.safetensors", metadata)
        with pytest.raises(ValueError, match=r"no whole checkpoint.*its tensors are not ours"):
            load_tensors(tmp_path / "x.safetensors")

    def test_a_missing_file_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match="there is no checkpoint"):
            load_tensors(tmp_path / "none.safetensors")

    def test_what_json_cannot_say(self, tmp_path: Path) -> None:
        with pytest.raises(TypeError, match="not JSON serializable"):
            save_tensors(tmp_path / "x.safetensors", {}, {"a": object()})
        assert list(tmp_path.iterdir()) == []

    def test_a_safetensors_file_of_somebody_else(self, tmp_path: Path) -> None:
        import safetensors.torch

        safetensors.torch.save_file({"x": torch.ones(2)}, tmp_path / "x.safetensors")
        with pytest.raises(ValueError, match="no whole checkpoint of this package"):
            load_tensors(tmp_path / "x.safetensors")


class TestWeights:
    def test_a_missing_and_an_unexpected_weight(self, tmp_path: Path) -> None:
        save_tensors(tmp_path / "best.safetensors", nn.Linear(3, 2).state_dict())
        with pytest.raises(ValueError, match=r"'bias', \(2,\) there and absent in the model"):
            load_weights(nn.Linear(3, 2, bias=False), tmp_path)
        with pytest.raises(ValueError, match=r"4 tensors differ.*'0.weight', absent there"):
            load_weights(nn.Sequential(nn.Linear(3, 2)), tmp_path / "best.safetensors")

    def test_weights_come_back(self, tmp_path: Path) -> None:
        """Also from half the precision; the model keeps its own."""
        model = nn.Linear(3, 2)
        path = tmp_path / "weights.safetensors"
        save_weights(model, path)
        other = nn.Linear(3, 2)
        load_weights(other, path)
        assert torch.equal(other.weight, model.weight)
        save_weights(nn.Linear(3, 2).half(), path)
        load_weights(other, path)
        assert other.weight.dtype == torch.float32
        assert not torch.equal(other.weight, model.weight)

    def test_tied_weights_are_written_once(self, tmp_path: Path) -> None:
        model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
        model[1].weight = model[0].weight
        save_weights(model, tmp_path / "x.safetensors")
        assert list(load_file(tmp_path / "x.safetensors")) == ["0.bias", "0.weight", "1.bias"]
        other = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
        with pytest.raises(ValueError, match=r"'1.weight', absent there"):
            load_weights(other, tmp_path / "x.safetensors")
        other[1].weight = other[0].weight
        load_weights(other, tmp_path / "x.safetensors")
        assert torch.equal(other[1].weight, model[0].weight)
        assert other[1].weight is other[0].weight

    def test_tied_weights_that_a_file_holds_twice(self, tmp_path: Path) -> None:
        weight, bias = torch.randn(3, 3), torch.randn(3)
        names = ("0.weight", "1.weight"), ("0.bias", "1.bias")
        twice = {
            name: x.clone() for x, pair in zip((weight, bias), names, strict=True) for name in pair
        }
        save_file(twice, tmp_path / "x.safetensors")
        model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
        model[1].weight = model[0].weight
        load_weights(model, tmp_path / "x.safetensors")
        assert torch.equal(model[0].weight, weight)

    def test_weights_of_half_the_precision(self, tmp_path: Path) -> None:
        model = nn.BatchNorm1d(3)
        nn.init.normal_(model.weight)
        save_weights(model, tmp_path / "x.safetensors", bits=16)
        kept = load_file(tmp_path / "x.safetensors")
        assert kept["weight"].dtype == torch.float16
        assert kept["num_batches_tracked"].dtype == torch.int64
        assert torch.equal(kept["weight"].float(), model.weight.half().float())

    def test_a_byte_a_weight(self, tmp_path: Path) -> None:
        """Each row of a matrix is rounded to half a step of its own; vectors have 16 bits."""
        model, other = nn.Linear(300, 4), nn.Linear(300, 4)
        with torch.no_grad():
            model.weight *= torch.tensor([[1.0], [100.0], [0.01], [0.0]])
        save_weights(model, tmp_path / "x.safetensors", bits=8)
        assert (tmp_path / "x.safetensors").stat().st_size < 300 * 4 + 500
        load_weights(other, tmp_path / "x.safetensors")
        step = model.weight.abs().amax(1, keepdim=True) / 127
        assert ((other.weight - model.weight).abs() <= 0.51 * step).all()
        assert torch.equal(other.bias, model.bias.half().float())

    def test_the_weights_of_a_folder_are_the_best_there_are(self, tmp_path: Path) -> None:
        """Those of the finished run before the best, and the best before the last."""
        model = nn.Linear(3, 2)
        for value, name in enumerate(("last", "best", "weights")):
            nn.init.constant_(model.bias, value)
            path = tmp_path / f"{name}.safetensors"
            if name == "weights":
                save_weights(model, path)
            else:
                save_tensors(path, model.state_dict(), {"step": torch.tensor(value)})
            other = nn.Linear(3, 2)
            load_weights(other, tmp_path)
            assert other.bias.tolist() == [value, value]

    def test_a_folder_without_weights(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match=r"no checkpoint .*last\.safetensors"):
            load_weights(nn.Linear(3, 2), tmp_path)


class TestWhoseWeightsTheyAre:
    def text_vae(self, **options: Any) -> TextVAE:
        return TextVAE(LSTMEncoder(9, 4, 5, 2, **options), LSTMDecoder(9, 4, 5, 2))

    @pytest.mark.parametrize("half", [False, True])
    def test_weights_of_a_model_that_was_built_otherwise(self, tmp_path: Path, half: bool) -> None:
        """Although every shape is the same; the model keeps its own."""
        path = tmp_path / "x.safetensors"
        save_weights(self.text_vae(pooling="max"), path, half=half)
        model = self.text_vae()
        before = model.encoder.mean.weight.clone()
        message = r"of another model: its encoder\.pooling is max, now it is last\. Build the model"
        with pytest.raises(ValueError, match=message):
            load_weights(model, path)
        assert torch.equal(model.encoder.mean.weight, before)
        load_weights(self.text_vae(pooling="max"), path)

    def test_a_temperature_that_fell_meanwhile_is_no_other_model(self, tmp_path: Path) -> None:
        def model() -> SemiSupervisedTextVAE:
            decoder = LSTMDecoder(9, 4, 5, 4)
            schedule = tutvae.schedules.temperature_decay(0.1)
            return SemiSupervisedTextVAE(LSTMEncoder(9, 4, 5, 2), decoder, 2, temperature=schedule)

        trained = model()
        trained.at_step(5)
        save_weights(trained, tmp_path / "x.safetensors")
        again = model()
        load_weights(again, tmp_path / "x.safetensors")
        assert again.step == 5

    def test_weights_that_do_not_say_it_are_taken(self, tmp_path: Path) -> None:
        model = self.text_vae(pooling="max")
        save_tensors(tmp_path / "x.safetensors", model.state_dict())
        other = self.text_vae()
        load_weights(other, tmp_path / "x.safetensors")
        assert torch.equal(other.encoder.mean.weight, model.encoder.mean.weight)


class TestOptimisers:
    def test_the_next_step_is_the_same(self, tmp_path: Path) -> None:
        def step(weight: Tensor, optimizer: torch.optim.Optimizer) -> Tensor:
            optimizer.zero_grad()
            weight.pow(4).sum().backward()
            optimizer.step()
            return weight.detach().clone()

        def new() -> tuple[Tensor, torch.optim.Optimizer]:
            weight = torch.tensor([1.0, -2.0, 3.0], requires_grad=True)
            return weight, torch.optim.AdamW([weight], lr=0.1, amsgrad=True)

        weight, optimizer = new()
        step(weight, optimizer)
        save_tensors(tmp_path / "x.safetensors", {}, optimizer.state_dict())
        other, resumed = new()
        other.data.copy_(weight.data)
        resumed.load_state_dict(load_tensors(tmp_path / "x.safetensors")[1])
        assert torch.equal(step(other, resumed), step(weight, optimizer))


class TestRandomStates:
    def test_all_generators_go_on_where_they_were(self, tmp_path: Path) -> None:
        def draw() -> list[float]:
            gauss = random.gauss(0, 1), float(np.random.normal())  # each keeps a second one back
            return [*gauss, random.random(), float(np.random.random()), torch.rand(()).item()]

        draw()
        save_tensors(tmp_path / "x.safetensors", {}, random_state())
        expected = draw()
        draw()
        set_random_state(load_tensors(tmp_path / "x.safetensors")[1])
        assert draw() == expected
