from __future__ import annotations

import json
import math
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from tutvae.experiments import (
    TextExperiment,
    load_experiment,
    run_experiment,
    validate_experiment,
)
from tutvae.experiments.sections import KLWeightSection
from tutvae.models import DECODERS, LSTMDecoder, TextVAE


class TestKLWeights:
    @pytest.mark.parametrize(
        ("section", "weights"),
        [
            # Hand values at steps 0, 5, 10, 20 and 25 with 10 steps an epoch.
            ({"schedule": "linear", "steps": 20}, [0, 0.25, 0.5, 1, 1]),
            ({"schedule": "linear", "epochs": 2, "start": 0.5}, [0.5, 0.625, 0.75, 1, 1]),
            ({"schedule": "cosine", "epochs": 2}, [0, 0.5 - 0.5**1.5, 0.5, 1, 1]),
            ({"schedule": "cyclical", "epochs": 2}, [0, 0.5, 1, 0, 0.5]),
            ({"schedule": "cyclical", "steps": 20, "ramp": 0.25}, [0, 1, 1, 0, 1]),
            ({"schedule": "logistic", "epochs": 1}, [1 / (1 + math.exp(10)), None, 0.5]),
            (
                {"schedule": "logistic", "steps": 10, "slope": 0.2},
                [1 / (1 + math.exp(2)), None, 0.5],
            ),
            ({"schedule": "linear", "epochs": 0.01}, [0, 1, 1, 1, 1]),
        ],
    )
    def test_every_schedule_in_steps_and_in_epochs(
        self, section: dict[str, Any], weights: list[float | None]
    ) -> None:
        schedule = KLWeightSection.model_validate(section).build(steps_per_epoch=10)
        for step, weight in zip((0, 5, 10, 20, 25), weights, strict=False):
            assert weight is None or schedule(step) == pytest.approx(weight, abs=1e-12)


class ToyDecoder(LSTMDecoder):
    """A decoder of somebody else's, whose constructor has an option of its own."""

    def __init__(
        self, vocabulary_size: int, width: int, latent_size: int = 0, *, loud: bool = False
    ) -> None:
        if width > 99:
            raise ValueError("a toy is at most 99 wide")
        super().__init__(vocabulary_size, width, width, latent_size)
        self.loud = loud


class TestRegisteredDecoders:
    @pytest.fixture(autouse=True)
    def toy(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(DECODERS, "toy", ToyDecoder)

    def test_a_registered_one_is_trained_by_its_name(
        self, reviews_toml: Path, tmp_path: Path
    ) -> None:
        """Its constructor's options are the keys."""
        settings = ["decoder={kind='toy', width=6, loud=true}", "training.epochs=1"]
        experiment = load_experiment(reviews_toml, settings)
        model, record = run_experiment(experiment, "tutvae train", folder=tmp_path)
        assert isinstance(model, TextVAE)
        assert isinstance(model.decoder, ToyDecoder)
        assert model.decoder.loud
        assert validate_experiment(json.loads(json.dumps(record["configuration"]))) == experiment

    def test_it_can_be_sent_to_another_process(self, reviews_toml: Path) -> None:
        experiment = load_experiment(reviews_toml, ["decoder={kind='toy', width=6}"])
        assert pickle.loads(pickle.dumps(experiment)) == experiment

    @pytest.mark.parametrize(
        ("decoder", "message"),
        [
            ("{kind='toy', width=100}", "decoder: a toy is at most 99 wide"),
            ("{kind='toy'}", r"decoder\.width: Field required"),
            ("{kind='toy', width=3, dropout=0.5}", "the keys here are kind, tied, width, loud"),
            ("{kind='toy', width=3, unk_id=3}", r"decoder\.unk_id: Extra inputs"),
            ("{width=3}", "decoder: kind should be .* or 'toy', not None"),
        ],
    )
    def test_it_says_what_is_impossible(
        self, reviews_toml: Path, decoder: str, message: str
    ) -> None:
        with pytest.raises(ValueError, match=message):
            load_experiment(reviews_toml, [f"decoder={decoder}"])

    def test_checking_a_file_draws_no_random_numbers(self, reviews_toml: Path) -> None:
        torch.manual_seed(0)
        expected = torch.rand(1)
        torch.manual_seed(0)
        load_experiment(reviews_toml, ["decoder={kind='toy', width=6}"])
        assert torch.rand(1) == expected

    def test_any_with_two_equal_layers_can_be_tied(self, reviews_toml: Path) -> None:
        decoder = "{kind='dilated_cnn', embedding_size=6, channels=6, tied=true}"
        experiment = load_experiment(reviews_toml, [f"decoder={decoder}"])
        assert isinstance(experiment, TextExperiment)
        built: Any = experiment.build(experiment.load().tokenizer).decoder
        assert built.embedding.weight is built.output.weight
