"""The package on a device that is not the CPU: readers bring batches and codes as they come."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils import backend_registration

import tutvae
from tests.pretend_device import Elsewhere, pretend_device
from tutvae import generation
from tutvae.evaluation.diagnostics import own_code_gain
from tutvae.evaluation.report import mean_terms, score
from tutvae.models import (
    DECODERS,
    LanguageModel,
    LSTMEncoder,
    SemiSupervisedTextVAE,
    TextClassifier,
    TextVAE,
)
from tutvae.training.aggressive import fit_aggressively

E, H, Z, K = 5, 6, 3, 4
TEXTS = ["so good", "so bad", "very good indeed", "bad", "good and so bad", "so so"]
LABELS = [0, 1, 2, 1, 3, 0]
TOKENIZER = tutvae.Tokenizer.train(TEXTS)
V = len(TOKENIZER)


@pytest.fixture(autouse=True)
def device() -> Iterator[torch.device]:
    if not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"):
        pytest.skip("this torch knows no devices in Python")
    with pretend_device() as device:
        yield device


def batches(labels: list[int] | None = LABELS) -> tutvae.Batches:
    texts = tutvae.EncodedTexts(TOKENIZER.encode(TEXTS), labels)
    return tutvae.Batches(texts, batch_size=4, shuffle=False)


def decoder(kind: str, latent_size: int = Z) -> nn.Module:
    return DECODERS[kind](V, E, H, latent_size)


def vae(kind: str = "lstm", pooling: str = "last") -> TextVAE:
    return TextVAE(LSTMEncoder(V, E, H, Z, pooling=pooling), decoder(kind))


def semi_supervised(marginal: str = "gumbel") -> SemiSupervisedTextVAE:
    encoder = LSTMEncoder(V, E, H, Z)
    return SemiSupervisedTextVAE(encoder, decoder("lstm", Z + K), K, marginal=marginal)


def of_all_kinds() -> dict[str, Callable[[], nn.Module]]:
    return {
        "lstm": vae,
        "gru": lambda: vae("gru", "max"),
        "dilated_cnn": lambda: vae("dilated_cnn"),
        "language model": lambda: LanguageModel(decoder("lstm", 0)),
        "labels, enumerated": lambda: semi_supervised("enumerate"),
        "labels, drawn": semi_supervised,
        "classifier": lambda: TextClassifier(LSTMEncoder(V, E, H, Z), K),
    }


@pytest.fixture(params=list(of_all_kinds().values()), ids=list(of_all_kinds()))
def build(request: pytest.FixtureRequest) -> Callable[[], nn.Module]:
    return request.param


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_fit_trains_as_on_the_cpu(
    build: Callable[[], nn.Module], precision: str, device: torch.device
) -> None:
    weights = []
    for place in ("cpu", device):
        torch.manual_seed(0)
        model = build()
        options = {"valid": batches(), "max_grad_norm": 1.0, "precision": "fp32"}
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        if place == device:
            options["precision"] = precision
        tutvae.fit(model, batches(), epochs=2, optimizer=optimizer, device=place, **options)
        assert {p.device.type for p in model.parameters()} == {torch.device(place).type}
        weights.append({name: x.cpu() for name, x in model.state_dict().items()})
    torch.testing.assert_close(*weights, rtol=1e-3, atol=1e-4)


def test_what_is_measured_is_what_the_cpu_measures(
    build: Callable[[], nn.Module], device: torch.device
) -> None:
    model = build()
    twin = build()
    twin.load_state_dict(model.state_dict())
    twin.to(device)
    for measure in (
        lambda model: tutvae.encode(model, batches()).loc,
        lambda model: score(model, batches(), importance_samples=2).nll,
        lambda model: mean_terms(model, batches())["reconstruction"],
    ):
        torch.testing.assert_close(measure(twin), measure(model), rtol=1e-4, atol=1e-4)


def test_codes_are_decoded_wherever_they_are(device: torch.device) -> None:
    for kind in DECODERS:
        model, twin = vae(kind), vae(kind)
        twin.load_state_dict(model.state_dict())
        twin.to(device)
        for write in (
            lambda model: tutvae.sample_texts(model, TOKENIZER, 3, max_length=6),
            lambda model: tutvae.reconstruct(model, TOKENIZER, TEXTS, max_length=6),
            lambda model: tutvae.reconstruct(model, TOKENIZER, TEXTS, max_length=6, sampled=True),
            lambda model: tutvae.interpolate_texts(model, TOKENIZER, *TEXTS[:2], max_length=6),
            lambda model: tutvae.impute(model, TOKENIZER, ["so _", "_ bad"], width=2),
            lambda model: generation.decode_codes(model, TOKENIZER, torch.ones(2, Z), max_length=6),
            lambda model: generation.beam_search(model.decoder, torch.ones(2, Z), tokenizer=TOKENIZER, max_length=6)[0].tolist(),
        ):
            assert write(twin) == write(model)
