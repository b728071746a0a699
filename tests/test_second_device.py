"""The package on a device that is not the CPU: readers bring batches and codes as they come."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import tutvae
from tests.pretend_device import KNOWN, Elsewhere, pretend_device
from tutvae import generation
from tutvae.evaluation.report import mean_terms, score
from tutvae.models import (
    DECODERS,
    LanguageModel,
    LSTMEncoder,
    RefinedTextVAE,
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
    if not KNOWN:
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


def test_fit_trains_as_on_the_cpu(build: Callable[[], nn.Module], device: torch.device) -> None:
    weights = []
    for place in (torch.device("cpu"), device):
        torch.manual_seed(0)
        model = build()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        options = {"valid": batches(), "max_grad_norm": 1.0, "optimizer": optimizer}
        tutvae.fit(model, batches(), epochs=1, device=place, **options)
        assert {p.device for p in model.parameters()} == {place}
        weights.append({name: x.cpu() for name, x in model.state_dict().items()})
    torch.testing.assert_close(*weights, rtol=1e-3, atol=1e-4)


def test_fit_in_half_precision(device: torch.device) -> None:
    model = vae()
    history = tutvae.fit(model, batches(), epochs=1, precision="bf16", device=device)
    assert history["train_kl"][0] > 0
    assert next(model.parameters()).dtype == torch.float32


def test_posteriors_are_refined_there(device: torch.device) -> None:
    model = RefinedTextVAE(vae().encoder, decoder("gru"), steps=3)
    here, there = (tutvae.encode(x, batches()).loc for x in twins(model, device))
    torch.testing.assert_close(there, here, rtol=1e-4, atol=1e-4)


def twins(model: nn.Module, device: torch.device) -> tuple[nn.Module, nn.Module]:
    """The same model twice, on the CPU and on the device."""
    return model, copy.deepcopy(model).to(device)


def test_what_is_measured_is_what_the_cpu_measures(
    build: Callable[[], nn.Module], device: torch.device
) -> None:
    model, twin = twins(build(), device)
    for measure in (
        lambda model: tutvae.encode(model, batches()).loc,
        lambda model: score(model, batches(), importance_samples=2).nll,
        lambda model: mean_terms(model, batches())["reconstruction"],
    ):
        torch.testing.assert_close(measure(twin), measure(model), rtol=1e-4, atol=1e-4)


Z0 = torch.linspace(-1, 1, 2 * Z).view(2, Z)
LENGTH = {"max_length": 6}


@pytest.mark.parametrize(
    "write",
    [
        lambda model: tutvae.sample_texts(model, TOKENIZER, 3, top_k=4, top_p=0.9, **LENGTH),
        lambda model: tutvae.reconstruct(model, TOKENIZER, TEXTS, **LENGTH),
        lambda model: tutvae.reconstruct(model, TOKENIZER, TEXTS, sampled=True, **LENGTH),
        lambda model: tutvae.interpolate_texts(model, TOKENIZER, *TEXTS[:2], **LENGTH),
        lambda model: tutvae.impute(model, TOKENIZER, ["so _", "_ bad"], width=2),
    ],
    ids=["sample", "reconstruct", "reconstruct samples", "interpolate", "impute"],
)
@pytest.mark.parametrize(
    "model",
    [vae(), vae("gru"), vae("dilated_cnn"), semi_supervised()],
    ids=["lstm", "gru", "cnn", "labels"],
)
def test_texts_are_those_of_the_cpu(
    model: nn.Module, write: Callable[[nn.Module], list[str]], device: torch.device
) -> None:
    here, there = map(write, twins(model, device))
    assert here == there


@pytest.mark.parametrize(
    "decode",
    [
        lambda model, z: generation.decode_codes(model, TOKENIZER, z, **LENGTH),
        lambda model, z: generation.generate(model.decoder, z, tokenizer=TOKENIZER, **LENGTH),
        lambda model, z: generation.beam_search(model.decoder, z, tokenizer=TOKENIZER, **LENGTH)[0],
        lambda model, z: generation.interpolate(*z, torch.linspace(0, 1, 3)),
    ],
    ids=["decode_codes", "generate", "beam_search", "interpolate"],
)
def test_codes_may_come_from_either_device(
    decode: Callable[[nn.Module, Tensor], Any], device: torch.device
) -> None:
    model = vae().to(device)
    z = generation.sample_prior(model, 2)
    assert isinstance(z, Elsewhere)
    here, there = (
        x.tolist() if isinstance(x, Tensor) else x
        for x in (decode(model, z.cpu()), decode(model, z))
    )
    assert here == there


def test_labels_are_told_and_written(device: torch.device) -> None:
    model, twin = twins(semi_supervised(), device)
    for ask in (
        lambda model: tutvae.TextPredictor(model, TOKENIZER).predict(TEXTS).tolist(),
        lambda model: tutvae.TextPredictor(model, TOKENIZER).score(TEXTS, LABELS),
        lambda model: tutvae.sample_with_label(model, TOKENIZER, LABELS, **LENGTH),
        lambda model: tutvae.sample_with_label(model, TOKENIZER, LABELS, z=Z0[0], **LENGTH),
        lambda model: tutvae.change_label(model, TOKENIZER, TEXTS, LABELS, **LENGTH),
        lambda model: tutvae.change_label(
            model, TOKENIZER, TEXTS, LABELS, own_labels=LABELS, **LENGTH
        ),
    ):
        assert ask(twin) == ask(model)


def test_codes_are_clustered_and_probed(device: torch.device) -> None:
    _, twin = twins(vae(), device)
    z = generation.sample_prior(twin, 20)
    assert tutvae.mixture_clusters(z, 2).tolist() == tutvae.mixture_clusters(z.cpu(), 2).tolist()
    factor = [0, 1] * 10
    assert tutvae.probe(z, factor, z.cpu(), factor) == tutvae.probe(z.cpu(), factor, z, factor)
    q = twin.posterior(batches().texts.batch().to(device))
    assert tutvae.mutual_information(q) == pytest.approx(
        tutvae.mutual_information(tutvae.encode(twin, batches()))
    )
    assert tutvae.sample_codes(q).device == device


SMALL = {"tokenizer": "words", "embedding_size": E, "hidden_size": H, "latent_size": Z}
SMALL |= {"epochs": 1, "progress": False}


@pytest.mark.filterwarnings("ignore:the code is empty")
def test_a_sentence_vae_is_trained_there_saved_and_used(
    device: torch.device, tmp_path: Path
) -> None:
    trained = tutvae.SentenceVAE(**SMALL, device=device).fit(TEXTS)
    assert next(trained.model_.parameters()).device == device
    trained.save(tmp_path / "model")
    loaded = tutvae.load(tmp_path / "model")
    for ask in (
        lambda vae: vae.transform(TEXTS).round(4).tolist(),
        lambda vae: vae.inverse_transform(np.zeros((2, Z))),
        lambda vae: vae.score_samples(TEXTS, 2).round(2).tolist(),
        lambda vae: vae.reconstruct(TEXTS),
        lambda vae: vae.interpolate(*TEXTS[:2]),
        lambda vae: vae.impute(["so _"]),
        lambda vae: vae.sample(2),
        lambda vae: vae.evaluate(TEXTS).examples,
        lambda vae: vae.diagnose(TEXTS).healthy,
    ):
        assert ask(trained) == ask(loaded)


@pytest.mark.filterwarnings("ignore:the code is empty")
def test_a_semi_supervised_classifier_is_trained_there_and_used(device: torch.device) -> None:
    classifier = tutvae.SemiSupervisedClassifier(**SMALL, device=device)
    classifier.fit(TEXTS, [0, 1, -1, -1, 1, 0])
    assert next(classifier.model_.parameters()).device == device
    assert len(classifier.predict(TEXTS)) == len(TEXTS)
    assert len(classifier.sample(2, label=1)) == 2
    assert len(classifier.inverse_transform(np.zeros((2, Z)))) == 2


def test_images(device: torch.device) -> None:
    images = tutvae.digits().test.pixels[:20].round().split(10)
    model = tutvae.VAE(64, 2, (8,))
    tutvae.fit(model, images, epochs=1, valid=images, device=device)
    here = copy.deepcopy(model).cpu()
    bounds = [tutvae.evaluate(m, images, importance_samples=2).bound for m in (here, model)]
    assert bounds[0] == pytest.approx(bounds[1])
    assert not tutvae.diagnose(model, images, importance_samples=2).healthy
    tutvae.plots.manifold(model, height=8, points=3)


def test_the_encoder_s_own_phase(device: torch.device) -> None:
    model = vae()
    optimizers = {
        f"{part}_optimizer": torch.optim.SGD(getattr(model, part).parameters(), 0.01)
        for part in ("encoder", "decoder")
    }
    steps = {"window": 1, "max_encoder_steps": 1, "round_steps": 1, "max_rounds": 1}
    rounds = fit_aggressively(
        model, batches(), valid=batches(), device=device, **optimizers, **steps
    )
    assert rounds[0].decoder_steps == 1


def test_a_run_is_resumed_there(device: torch.device, tmp_path: Path) -> None:
    for epochs in (1, 2):
        torch.manual_seed(0)
        model = vae()
        history = tutvae.fit(model, batches(), epochs=epochs, run_folder=tmp_path, device=device)
    assert history["epoch"] == [1, 2]


def test_an_encoder_starts_from_a_language_model(device: torch.device) -> None:
    model, language_model = vae().to(device), LanguageModel(decoder("lstm", 0))
    tutvae.initialise_encoder(model, language_model)
    expected = language_model.decoder.embedding.weight.detach()
    assert torch.equal(model.encoder.embedding.weight.detach().cpu(), expected)


@pytest.mark.parametrize(
    "mix",
    [
        lambda x: x + torch.ones(2),
        lambda x: torch.ones(2) + x.sum(),
        lambda x: torch.ones(2).add_(x),
        lambda x: torch.ones(2)[x.long()],
        lambda x: torch.cat([x, torch.ones(2)]),
        lambda x: torch.rand(2, device=x.device, generator=torch.Generator()),
        lambda x: x.numpy(),
        lambda x: np.asarray(x),
    ],
    ids=["add", "add a number", "in place", "index", "cat", "generator", "numpy", "array"],
)
def test_the_device_raises_where_a_gpu_does(
    mix: Callable[[Tensor], Any], device: torch.device
) -> None:
    with pytest.raises(RuntimeError, match=r"same device|generator|numpy"):
        mix(torch.zeros(2, device=device))


def test_the_device_takes_from_the_cpu_what_a_gpu_takes(device: torch.device) -> None:
    x = torch.zeros(2, device=device)
    assert (torch.tensor(2.0) - x)[torch.tensor([1])].tolist() == [2.0]
    assert x.copy_(torch.ones(2)).cpu().numpy().tolist() == [1.0, 1.0]
