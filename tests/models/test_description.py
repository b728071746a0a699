from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tutvae import (
    VAE,
    DilatedConvDecoder,
    LanguageModel,
    LSTMDecoder,
    LSTMEncoder,
    SemiSupervisedTextVAE,
    TextBatch,
    TextClassifier,
    TextVAE,
)
from tutvae.models import DECODERS, BagDecoder, BagEncoder, Decoder, GRUDecoder, tie_weights
from tutvae.models.description import build, describe

V, Z = 20, 3


def encoder(**options: Any) -> LSTMEncoder:
    return LSTMEncoder(V, 5, hidden_size=6, latent_size=Z, **options)


def tied() -> LSTMDecoder:
    decoder = LSTMDecoder(V, 6, 6, Z, word_dropout=0.2, code_to_inputs=False)
    tie_weights(decoder)
    return decoder


def with_labels(**options: Any) -> SemiSupervisedTextVAE:
    return SemiSupervisedTextVAE(encoder(), GRUDecoder(V, 5, 6, Z + 2), 2, **options)


MODELS: dict[str, Callable[[], nn.Module]] = {
    "vae": lambda: TextVAE(encoder(pooling="max"), LSTMDecoder(V, 5, 6, Z)),
    "tied": lambda: TextVAE(encoder(), tied()),
    "cnn": lambda: TextVAE(encoder(), DilatedConvDecoder(V, 5, 6, Z, dilations=(1, 3))),
    "bags": lambda: TextVAE(BagEncoder(V, 5, 6, Z, dropout=0.3), BagDecoder(V, 5, 6, Z)),
    "language-model": lambda: LanguageModel(GRUDecoder(V, 5, 6, dropout=0.1)),
    "classifier": lambda: TextClassifier(encoder(), 4, dropout=0.3),
    "semi-supervised": lambda: with_labels(
        label_prior=torch.tensor([0.25, 0.75]), marginal="gumbel", temperature=0.7, dropout=0.2
    ),
    "images": lambda: VAE(9, 2, [5, 4]),
}


class Echo(Decoder):
    """A decoder of somebody's own, with a signature of its own."""

    def __init__(self, words: int, *, inner: Decoder, tied: bool = False, **sizes: Any) -> None:
        super().__init__(words, sizes["code"])
        self.inner = inner

    def forward(self, inputs: Tensor, z: Tensor | None = None) -> Tensor:
        return self.inner(inputs, z)

    def project(self, hidden: Tensor) -> Tensor:
        return self.inner.project(hidden)

    def start(self, z: Tensor | None = None, batch_size: int | None = None) -> Any:
        return self.inner.start(z, batch_size)

    def step(self, token: Tensor, state: Any) -> Any:
        return self.inner.step(token, state)


def echo(**options: Any) -> Echo:
    return Echo(V, inner=GRUDecoder(V, 5, 6, Z), code=Z, **options)


def output(model: Any) -> Tensor:
    """What a model makes of a batch, in eval mode, by the same noise."""
    torch.manual_seed(1)
    tokens = torch.tensor([[1, 7, 9, 2], [1, 8, 2, 0]])
    batch: Any = TextBatch(tokens, torch.tensor([4, 3]), torch.tensor([0, 1]))
    return model.eval()(torch.ones(2, 9) if isinstance(model, VAE) else batch).reconstruction


@pytest.fixture(params=list(MODELS.values()), ids=list(MODELS))
def model(request: pytest.FixtureRequest) -> nn.Module:
    return request.param()


class TestRoundTrip:
    def test_the_same_model_comes_back(self, model: nn.Module) -> None:
        """Its options, by what it describes; its weights, by what it computes."""
        described = json.loads(json.dumps(describe(model)))
        again = build(described)
        assert describe(again) == described
        assert list(again.state_dict()) == list(model.state_dict())
        again.load_state_dict(model.state_dict())
        assert torch.equal(output(again), output(model))

    @pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
    def test_a_copy_is_described_like_its_original(
        self, model: nn.Module, copied: Callable[[nn.Module], nn.Module]
    ) -> None:
        assert describe(copied(model)) == describe(model)

    @pytest.mark.parametrize("name", list(DECODERS))
    def test_every_registered_decoder(self, name: str) -> None:
        decoder = DECODERS[name](V, 5, 6, Z, dropout=0.1)
        again = build(describe(decoder))
        assert type(again) is type(decoder)
        assert describe(again)["dropout"] == 0.1

    def test_tied_weights_are_one_again(self) -> None:
        decoder = build(describe(tied()))
        assert decoder.embedding.weight is decoder.output.weight
        assert "tied" not in describe(LSTMDecoder(V, 6, 6, Z))

    def test_arguments_that_were_not_given_are_told_too(self) -> None:
        """So that a default may change and old files stay what they were."""
        assert describe(encoder())["pooling"] == "last"

    def test_a_temperature_that_falls_is_told_as_it_is_now(self) -> None:
        model = with_labels(temperature=lambda step: 1 / (1 + step))
        model.at_step(3)
        assert describe(model)["temperature"] == 0.25


class TestOwnDecoders:
    def test_one_that_is_registered(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Also with another decoder, options by name and an option `tied` of its own."""
        monkeypatch.setitem(DECODERS, "echo", Echo)
        model = TextVAE(encoder(), echo(tied=True))
        again = build(describe(model))
        assert type(again.decoder.inner) is GRUDecoder
        assert describe(again) == describe(model)

    def test_one_that_is_not_says_how_to(self) -> None:
        with pytest.raises(ValueError, match=r'DECODERS\["Echo"\] = Echo before you save'):
            describe(TextVAE(encoder(), echo()))

    def test_one_that_is_not_registered_where_it_is_loaded(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as patch:
            patch.setitem(DECODERS, "echo", Echo)
            described = describe(echo())
        with pytest.raises(ValueError, match=r"'Echo', which is not known here: if it is a deco"):
            build(described)

    def test_a_class_that_has_the_name_of_one_of_the_package(self) -> None:
        own = type("LSTMEncoder", (LSTMEncoder,), {})
        with pytest.raises(ValueError, match="neither one of"):
            describe(own(V, 5, 6, Z))

    def test_an_argument_that_no_file_can_hold(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(DECODERS, "echo", Echo)
        with pytest.raises(ValueError, match="the argument extra cannot be put into a file"):
            describe(echo(extra=torch.ones(2)))


class TestWhatCannotBeBuilt:
    @pytest.mark.parametrize("name", ["os.system", "Module", "tie_weights", "DECODERS", None])
    def test_a_file_names_models_and_nothing_else(self, name: str | None) -> None:
        with pytest.raises(ValueError, match="which is not known here"):
            build({"class": name})

    def test_an_option_that_only_another_version_has(self) -> None:
        described = describe(encoder()) | {"heads": 4}
        with pytest.raises(ValueError, match=r"'heads'\): it is of another version"):
            build(described)

    @pytest.mark.parametrize("part", [nn.Linear(2, 3), VAE(9, 2).encoder])
    def test_parts_and_modules_of_other_kinds(self, part: nn.Module) -> None:
        with pytest.raises(ValueError, match=r"neither one of|cannot be described"):
            describe(part)


@pytest.mark.parametrize("wrong", [{}, {"vocabulary_size": V, "width": 3}])
def test_wrong_arguments_are_still_python_s_own_error(wrong: dict[str, int]) -> None:
    with pytest.raises(TypeError, match=r"LSTMEncoder\.__init__\(\)"):
        LSTMEncoder(**wrong)  # type: ignore[arg-type]
