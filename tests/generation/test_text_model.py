"""Texts in, texts out: what trained models are asked, whatever they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tutvae
from tutvae.generation.text_model import TextModel

TEXTS = ["this tea is fine .", "", "this tea"]
# Each of them asks for a text, or for what becomes one.
USES: dict[str, Callable[[Any], Any]] = {
    "transform": lambda x: x.transform(TEXTS),
    "inverse_transform": lambda x: x.inverse_transform(np.zeros((1, x.model_.latent_size))),
    "reconstruct": lambda x: x.reconstruct(TEXTS),
    "interpolate": lambda x: x.interpolate(*TEXTS[:2]),
    "score_samples": lambda x: x.score_samples(TEXTS, importance_samples=2),
    "sample": lambda x: x.sample(2),
    "impute": lambda x: x.impute(["this _ ."]),
    "evaluate": lambda x: x.evaluate(TEXTS, importance_samples=2),
    "diagnose": lambda x: x.diagnose(TEXTS, importance_samples=2),
}
NEED_A_CODE = ("transform", "inverse_transform", "reconstruct", "interpolate")


@pytest.fixture(scope="module")
def with_labels(tmp_path_factory: pytest.TempPathFactory) -> TextModel:
    """A model with three classes, as `tutvae.save` writes it."""
    torch.manual_seed(0)
    tokenizer = tutvae.Tokenizer.train(["this tea is fine ."])
    encoder = tutvae.LSTMEncoder(len(tokenizer), 5, 6, 2)
    decoder = tutvae.LSTMDecoder(len(tokenizer), 5, 6, 2 + 3)
    prior = torch.tensor([0.2, 0.7, 0.1])
    model = tutvae.SemiSupervisedTextVAE(encoder, decoder, 3, label_prior=prior)
    folder = tmp_path_factory.mktemp("models") / "labels"
    return tutvae.load(tutvae.save(model, folder, tokenizer=tokenizer))


@pytest.mark.parametrize("use", USES)
class TestEveryModel:
    def test_a_vae_refined_or_not_and_a_model_with_labels_answer_everything(
        self, run_folders: dict[str, Path], with_labels: TextModel, use: str
    ) -> None:
        vae = tutvae.load(run_folders["vae"])
        for trained in (vae, vae.refined(steps=2), with_labels):
            assert USES[use](trained) is not None

    def test_a_language_model_lacks_a_code_alone(
        self, run_folders: dict[str, Path], use: str
    ) -> None:
        trained = tutvae.load(run_folders["language_model"])
        if use in NEED_A_CODE:
            with pytest.raises(ValueError, match="a language model has no code"):
                USES[use](trained)
        else:
            assert USES[use](trained) is not None

    def test_a_model_of_images_says_that_it_is_none_of_texts(
        self, run_folders: dict[str, Path], use: str
    ) -> None:
        with pytest.raises(ValueError, match="has no tokenizer, so its model reads no texts"):
            USES[use](tutvae.load(run_folders["images"]))


def test_codes_are_decoded_with_the_likeliest_label_a_priori(with_labels: TextModel) -> None:
    z = torch.randn(4, 2)
    code = torch.cat([z, torch.eye(3)[[1, 1, 1, 1]]], dim=1)
    expected = tutvae.generation.decode_codes(with_labels.model_, with_labels.tokenizer_, code)
    assert with_labels.inverse_transform(z.numpy()) == expected


@pytest.mark.filterwarnings("ignore:.*were cut")
def test_a_long_text_is_read_as_far_as_in_training(run_folders: dict[str, Path]) -> None:
    trained = tutvae.load(run_folders["vae"])
    short, long = "this tea is", "this tea is fine . this tea is fine ."
    expected = trained.transform([short])
    assert not np.allclose(trained.transform([long]), expected)
    trained.max_length = len(trained.tokenizer_.encode([short])[0]) - 1
    np.testing.assert_allclose(trained.transform([long]), trained.transform([short]), rtol=1e-5)
    assert trained.reconstruct([long]) == trained.reconstruct([short])
