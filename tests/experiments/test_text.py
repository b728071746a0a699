from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tutvae.data.batches.text import Batches, EncodedTexts
from tutvae.evaluation.classification import TextPredictor
from tutvae.evaluation.diagnostics import probe, sample_codes
from tutvae.evaluation.report import encode, evaluate
from tutvae.experiments import TextExperiment, load_experiment, run_experiment
from tutvae.experiments import text as module
from tutvae.models import LanguageModel, LSTMDecoder, SemiSupervisedTextVAE, TextVAE
from tutvae.models.conv_decoder import DilatedConvDecoder
from tutvae.reviews.grammar import ReviewGrammar, Reviews
from tutvae.saving import load

Run = tuple[TextVAE, dict[str, Any]]
TIMES = ("started", "train_seconds", "tokens_per_second", "initialisation_seconds")


def described(path: Path, *settings: str) -> TextExperiment:
    experiment = load_experiment(path, settings)
    assert isinstance(experiment, TextExperiment)
    return experiment


def without_times(record: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key not in TIMES}


class TestBuilding:
    def test_the_sizes_are_those_of_the_sections(self, reviews_run: Run) -> None:
        model, record = reviews_run
        assert isinstance(model.decoder, LSTMDecoder)
        assert model.encoder.embedding.embedding_dim == 7
        assert model.encoder.lstm.hidden_size == 11
        assert model.decoder.embedding.embedding_dim == 8
        assert model.decoder.lstm.hidden_size == 13
        assert model.latent_size == 3
        assert model.encoder.pooling == "last"
        assert record["parameters"] == sum(p.numel() for p in model.parameters())

    @pytest.mark.parametrize("decoder", ["lstm", "dilated_cnn"])
    def test_dropout_and_marks(self, reviews_toml: Path, decoder: str) -> None:
        sizes = {"lstm": "hidden_size=9", "dilated_cnn": "channels=8, dilations=[1, 4], width=2"}
        section = f"{{kind='{decoder}', embedding_size=5, {sizes[decoder]}, dropout=0.3}}"
        experiment = described(
            reviews_toml,
            f"decoder={section}",
            "decoder.word_dropout=0.2",
            "encoder.pooling=max",
        )
        tokenizer = experiment.load().tokenizer
        model = experiment.build(tokenizer)
        assert isinstance(model, TextVAE)
        assert model.encoder.pooling == "max"
        assert model.decoder.embedding.embedding_dim == 5
        words = model.decoder.word_dropout
        assert (words.rate, words.unk_id, words.bos_id) == (0.2, tokenizer.unk_id, tokenizer.bos_id)
        rates = {m.p for m in model.decoder.modules() if isinstance(m, torch.nn.Dropout)}
        assert rates == {0.3}
        if isinstance(model.decoder, DilatedConvDecoder):
            assert model.decoder.dilations == (1, 4)
            assert model.decoder.receptive_field == 6

    def test_tied_weights(self, reviews_toml: Path, tmp_path: Path) -> None:
        """The one matrix is kept once."""
        settings = ("decoder.tied=true", "decoder.embedding_size=13", "training.epochs=1")
        model, _ = run_experiment(described(reviews_toml, *settings), "train", folder=tmp_path)
        assert model is not None
        assert model.decoder.embedding.weight is model.decoder.output.weight
        kept = load_file(tmp_path / "weights.safetensors")
        assert "decoder.output.weight" not in kept
        assert torch.equal(kept["decoder.embedding.weight"], model.decoder.output.weight)

    def test_tied_weights_of_two_sizes(self, reviews_toml: Path) -> None:
        with pytest.raises(ValueError, match="tied needs an embedding_size equal to hidden_size"):
            described(reviews_toml, "decoder.tied=true")

    def test_without_a_code_it_is_a_language_model(self, reviews_toml: Path) -> None:
        experiment = described(reviews_toml, "model.latent_size=0")
        model = experiment.build(experiment.load().tokenizer)
        assert isinstance(model, LanguageModel)


class TestRunning:
    def test_the_record_repeats_the_description(self, reviews_run: Run, reviews_toml: Path) -> None:
        record = reviews_run[1]
        assert record["name"] == "tiny_reviews"
        assert record["command"] == "tutvae train tiny_reviews.toml"
        assert TextExperiment.model_validate(record["configuration"]) == described(reviews_toml)

    def test_the_entropy_is_the_grammar_s(self, reviews_run: Run) -> None:
        entropy = ReviewGrammar(sentences=(1, 2), openings=2, nouns=2).entropy()
        assert reviews_run[1]["entropy"] == pytest.approx(entropy._asdict(), rel=1e-6)

    def test_the_curves_are_those_of_the_run(self, reviews_run: Run) -> None:
        curves = reviews_run[1]["curves"]
        assert curves["epoch"] == [1, 2, 3, 4]
        assert curves["step"] == [9, 18, 27, 36]  # 260 documents by 32
        cosine = [0.005 * (1 + math.cos(math.pi * epoch / 4)) for epoch in range(4)]
        assert curves["learning_rate"] == pytest.approx(cosine, rel=1e-4)
        # One and a half epochs are 13.5 steps, an even number 14; the last step counts.
        assert curves["kl_weight"] == pytest.approx([8 / 14, 1, 1, 1], rel=1e-4)
        assert curves["train_reconstruction"][-1] < curves["train_reconstruction"][0]
        assert len(curves["valid_kl"]) == 4

    def test_the_reports_are_those_of_the_model(self, reviews_run: Run, reviews_toml: Path) -> None:
        """Whatever the batches and chunks: each document has noise of its own."""
        model, record = reviews_run
        corpus = described(reviews_toml).load()
        for name, split in (("valid", corpus.valid), ("test", corpus.test)):
            batches = Batches(split, batch_size=10, shuffle=False)
            expected = evaluate(model, batches, importance_samples=6, chunk_size=4).to_dict()
            kl_per_dimension = expected.pop("kl_per_dimension")
            report = dict(record["reports"][name])
            assert report.pop("kl_per_dimension") == pytest.approx(kl_per_dimension, rel=1e-4)
            assert report == pytest.approx(expected, rel=1e-4)
            assert report["examples"] == len(split)

    def test_the_probes_are_of_sampled_codes(self, reviews_run: Run, reviews_toml: Path) -> None:
        model, record = reviews_run
        corpus = described(reviews_toml).load()
        train, test = corpus.texts.train, corpus.texts.test
        assert isinstance(train, Reviews)
        assert isinstance(test, Reviews)
        codes = [
            sample_codes(encode(model, Batches(split, batch_size=50, shuffle=False)))
            for split in (corpus.train, corpus.test)
        ]
        assert set(record["probes"]) == {"category", "stars", "person", "tense"}
        for factor, found in record["probes"].items():
            expected = probe(codes[0], train.factors[factor], codes[1], test.factors[factor])
            assert found["accuracy"] == pytest.approx(expected.accuracy, abs=0.02)
            assert found["nats"] == pytest.approx(expected.nats, abs=1e-3)
            assert found["entropy"] == pytest.approx(expected.entropy, rel=1e-4)

    def test_it_learns(self, reviews_toml: Path) -> None:
        """Better than the best independent words, which know nothing of each other."""
        experiment = described(
            reviews_toml, "model.latent_size=0", "training.epochs=8", "training.batch_size=8"
        )
        corpus = experiment.load()
        _, outcome = run_experiment(experiment, "tutvae train")
        counts = np.zeros(len(corpus.tokenizer))
        batch = corpus.test.batch()
        targets = batch.targets[batch.mask].numpy()
        np.add.at(counts, targets, 1)
        shares = counts[counts > 0] / counts.sum()
        independent = -(shares * np.log(shares)).sum() * len(targets) / len(corpus.test)
        bound = outcome["reports"]["test"]["bound"]
        entropy = experiment.corpus.grammar().entropy().value
        assert entropy < bound < 0.8 * independent

    def test_it_repeats_under_its_seed(self, reviews_run: Run, reviews_toml: Path) -> None:
        torch.manual_seed(123)
        model, record = reviews_run
        command = record["command"]
        again, record_again = run_experiment(described(reviews_toml), command)
        assert json.dumps(without_times(record_again)) == json.dumps(without_times(record))
        assert all(
            torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True)
        )

    def test_another_seed_is_another_run_on_the_same_data(
        self, reviews_run: Run, reviews_toml: Path
    ) -> None:
        settings = ["seed=4", "training.epochs=1"]
        _, record = run_experiment(described(reviews_toml, *settings), "other")
        assert record["curves"]["train_kl"][0] != reviews_run[1]["curves"]["train_kl"][0]
        assert record["data_sha256"] == reviews_run[1]["data_sha256"]

    def test_divergence_is_told(self, reviews_toml: Path) -> None:
        settings = ["training.optimizer=sgd", "training.learning_rate=1e30"]
        with pytest.raises(FloatingPointError, match=r"learning rate 1e\+30"):
            run_experiment(described(reviews_toml, *settings), "tutvae train")


class TestOptions:
    """What reaches `fit` and `evaluate`."""

    @pytest.fixture
    def asked(self, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
        """The arguments of each call of `fit`, which trains nonetheless."""
        calls: list[dict[str, Any]] = []

        def spy(model: Any, train: Any, **options: Any) -> Any:
            calls.append({"model": model, "train": train, **options})
            return fit(model, train, **options)

        fit = module.fit
        monkeypatch.setattr(module, "fit", spy)
        return calls

    def run(self, path: Path, *settings: str) -> dict[str, Any]:
        experiment = described(path, "training.epochs=1", "evaluation.factors=false", *settings)
        return run_experiment(experiment, "tutvae train")[1]

    def test_batches_loss_and_optimiser(
        self, reviews_toml: Path, asked: list[dict[str, Any]]
    ) -> None:
        training = "{epochs=2, token_budget=300, learning_rate=0.5, optimizer='sgd'}"
        self.run(
            reviews_toml,
            f"training={training}",
            "training.learning_rate_schedule=linear",
            "training.kl_weight=0.25",
            "training.free_bits=0.5",
            "training.free_bits_per=total",
            "training.precision=bf16",
            "seed=6",
        )
        (call,) = asked
        assert isinstance(call["optimizer"], torch.optim.SGD)
        assert (call["train"].token_budget, call["train"].seed) == (300, 6)
        assert call["train"].shuffle
        assert call["kl_weight"] == 0.25
        assert (call["free_bits"], call["free_bits_per"]) == (0.5, "total")
        assert call["max_grad_norm"] is None
        assert call["precision"] == "bf16"

    def test_a_learning_rate_that_falls_evenly(self, reviews_toml: Path) -> None:
        settings = ["training.learning_rate_schedule=linear", "training.epochs=4"]
        rates = self.run(reviews_toml, *settings)["curves"]["learning_rate"]
        assert rates == pytest.approx([0.01, 0.0075, 0.005, 0.0025])

    def test_a_constant_one(self, reviews_toml: Path, asked: list[dict[str, Any]]) -> None:
        self.run(reviews_toml, "training.learning_rate_schedule=constant")
        assert asked[0]["scheduler"] is None
        assert asked[0]["max_grad_norm"] == 5

    def test_what_is_not_said_stays_as_it_was(
        self, reviews_toml: Path, asked: list[dict[str, Any]]
    ) -> None:
        self.run(reviews_toml)
        (call,) = asked
        assert (call["accumulation_steps"], call["patience"]) == (1, None)
        assert call["precision"] == "fp32"

    def test_precision_patience_and_accumulation(
        self, reviews_toml: Path, asked: list[dict[str, Any]]
    ) -> None:
        """Where a step takes several batches, an epoch has fewer steps."""
        settings = ["patience=3", "precision=bf16", "accumulation_steps=2"]
        record = self.run(reviews_toml, *(f"training.{setting}" for setting in settings))
        (call,) = asked
        assert (call["accumulation_steps"], call["patience"]) == (2, 3)
        assert call["precision"] == "bf16"
        assert record["curves"]["step"] == [5]  # of 9 batches
        # One and a half epochs are 7.5 steps, an even number 8; the last step counts.
        assert record["curves"]["kl_weight"] == pytest.approx([4 / 8])

    def test_a_learning_rate_that_is_halved_where_nothing_improves(
        self, reviews_toml: Path
    ) -> None:
        settings = ["learning_rate_schedule=plateau", "learning_rate=1e-7", "optimizer=sgd"]
        settings += ["epochs=5"]
        rates = self.run(reviews_toml, *(f"training.{setting}" for setting in settings))
        found = [rate * 1e7 for rate in rates["curves"]["learning_rate"]]
        assert found == pytest.approx([1, 1, 1, 0.5, 0.5])

    def test_fewer_examples_are_spread_over_the_split(self, reviews_toml: Path) -> None:
        """Their scores are those that they have among all."""
        experiment = described(reviews_toml, "evaluation.max_examples=10", "training.epochs=1")
        corpus = experiment.load()
        model, outcome = run_experiment(experiment, "tutvae train")
        reports = outcome["reports"]
        assert [reports[split]["examples"] for split in ("valid", "test")] == [10, 10]
        chosen = corpus.test.batch(np.arange(10) * 53 // 10)
        expected = evaluate(model, [chosen], importance_samples=6)
        assert reports["test"]["bound"] == pytest.approx(expected.bound, rel=1e-5)
        assert reports["test"]["tokens"] == chosen.predicted_tokens

    def test_fewer_samples_on_the_validation_set(self, reviews_toml: Path) -> None:
        reports = self.run(reviews_toml, "evaluation.valid_importance_samples=2")["reports"]
        assert [reports[split]["importance_samples"] for split in ("valid", "test")] == [2, 6]

    def test_half_the_precision(self, reviews_toml: Path, reviews_run: Run) -> None:
        """The same noise, and nearly the same figures."""
        _, record = run_experiment(described(reviews_toml, "evaluation.precision=bf16"), "again")
        for split, report in record["reports"].items():
            exact = reviews_run[1]["reports"][split]
            for name in ("bound", "importance_weighted_nll"):
                assert report[name] != exact[name]
                assert report[name] == pytest.approx(exact[name], rel=1e-3)

    def test_more_than_there_are(self, reviews_toml: Path) -> None:
        record = self.run(reviews_toml, "evaluation.max_examples=1000")
        assert record["reports"]["test"]["examples"] == 53

    def test_a_small_budget_of_logits_changes_nothing(
        self, reviews_toml: Path, reviews_run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "EVALUATION_TOKENS", 70)
        monkeypatch.setattr(module, "EVALUATION_LOGITS", 1)
        _, record = run_experiment(described(reviews_toml), "again")
        bound = reviews_run[1]["reports"]["test"]["bound"]
        assert record["reports"]["test"]["bound"] == pytest.approx(bound, rel=1e-5)

    def test_without_probes(self, reviews_toml: Path) -> None:
        assert "probes" not in self.run(reviews_toml)

    def test_a_language_model_has_nothing_to_probe(self, reviews_toml: Path) -> None:
        record = self.run(reviews_toml, "model.latent_size=0", "evaluation.factors=true")
        assert "probes" not in record
        assert record["reports"]["test"]["kl"] == 0

    def test_a_receptive_field_where_there_is_one(
        self, reviews_toml: Path, reviews_run: Run
    ) -> None:
        decoder = "{kind='dilated_cnn', embedding_size=4, channels=6, dilations=[1, 2], width=2}"
        assert self.run(reviews_toml, f"decoder={decoder}")["receptive_field"] == 4
        bag = "{kind='bag', embedding_size=4, hidden_size=6}"
        assert self.run(reviews_toml, f"decoder={bag}")["receptive_field"] == 0
        assert "receptive_field" not in reviews_run[1]


class TestLabels:
    SECTION = "semi_supervised={classification_weight=5, labelled_size=4}"

    def test_a_model_of_texts_and_labels_and_its_accuracy(
        self, reviews_toml: Path, tmp_path: Path
    ) -> None:
        experiment = described(reviews_toml, self.SECTION, "evaluation.factors=false")
        model, record = run_experiment(experiment, "train", folder=tmp_path)
        assert isinstance(model, SemiSupervisedTextVAE)
        data = experiment.load()
        for split, accuracy in record["accuracy"].items():
            texts, labels = getattr(data.texts, split).texts, getattr(data, split).labels
            predictor = TextPredictor(model, data.tokenizer)
            assert accuracy == pytest.approx(predictor.score(texts, labels))
        assert "train_label_kl" in record["curves"]
        assert load(tmp_path).label_names == list(data.texts.train.label_names or ())

    def test_texts_without_a_label_join_no_mean_over_labels(self, reviews_toml: Path) -> None:
        experiment = described(reviews_toml, self.SECTION)
        texts = EncodedTexts([[1, 4, 2], [1, 5, 2], [1, 6, 2]], [-1, 1, -1])
        (batch,) = experiment.batches(texts)
        assert batch.labels.tolist() == [1] * 4 + [-1] * 3
        assert set(batch.tokens[:4, 1].tolist()) == {5}

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            (["model.latent_size=0"], "semi_supervised goes with a code"),
            (["initialisation.epochs=1"], "neither initialisation nor aggressive"),
            (["semi_supervised.labelled_size=0"], "semi_supervised.labelled_size"),
        ],
    )
    def test_what_does_not_go_together(
        self, reviews_toml: Path, settings: list[str], message: str
    ) -> None:
        with pytest.raises(ValueError, match=message):
            described(reviews_toml, self.SECTION, "evaluation.factors=false", *settings)


class TestRate:
    def test_it_reaches_training_and_the_best_epoch(self, reviews_toml: Path) -> None:
        settings = ("training.rate=2.5", "training.weights=best")
        _, record = run_experiment(described(reviews_toml, *settings), "train")
        curves = record["curves"]
        assert set(curves["rate"]) == {2.5}
        held = [
            cost + max(kl, 2.5)
            for cost, kl in zip(curves["valid_reconstruction"], curves["valid_kl"], strict=True)
        ]
        assert record["best_epoch"] == 1 + held.index(min(held))

    def test_not_beside_free_bits(self, reviews_toml: Path) -> None:
        with pytest.raises(ValueError, match="give either rate or free_bits"):
            described(reviews_toml, "training.rate=2", "training.free_bits=1")


class TestInitialisation:
    def test_the_encoder_starts_from_a_language_model(
        self, reviews_toml: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Trained first, on the same documents, with the encoder's sizes."""
        seen: list[tuple[Any, int, torch.Tensor]] = []

        def spy(model: Any, train: Any, *, epochs: int, **options: Any) -> Any:
            first = model.encoder if isinstance(model, TextVAE) else model.decoder
            before = first.embedding.weight.detach().clone()
            history = fit(model, train, epochs=epochs, **options)
            seen.append((model, epochs, before))
            return history

        fit = module.fit
        monkeypatch.setattr(module, "fit", spy)
        settings = ["initialisation.epochs=2", "training.epochs=1", "decoder.dropout=0.25"]
        _, record = run_experiment(described(reviews_toml, *settings), "tutvae train")
        (language_model, epochs, _), (_, epochs_after, start) = seen
        assert (epochs, epochs_after) == (2, 1)
        assert isinstance(language_model, LanguageModel)
        assert language_model.decoder.lstm.hidden_size == 11
        assert language_model.decoder.dropout.p == 0.25
        assert torch.equal(start, language_model.decoder.embedding.weight)
        assert record["initialisation_seconds"] >= 0


class TestAggressive:
    SETTINGS = (
        "training.aggressive={window=2, max_encoder_steps=5, round_steps=3, max_rounds=2}",
        "training.epochs=1",
        "evaluation.factors=false",
    )

    def test_a_phase_before_the_rest(self, reviews_toml: Path) -> None:
        _, record = run_experiment(described(reviews_toml, *self.SETTINGS), "tutvae train")
        phase = record["aggressive"]
        rounds = len(phase["mutual_information"])
        assert rounds in (1, 2)
        assert phase["decoder_steps"] == 3 * rounds
        assert 2 * 3 * rounds <= phase["encoder_steps"] <= 5 * 3 * rounds
        # The schedule of 14 steps goes on where the phase left it; the last of 9 steps counts.
        weight = min(1, (3 * rounds + 8) / 14)
        assert record["curves"]["kl_weight"][0] == pytest.approx(weight, rel=1e-4)

    def test_what_reaches_it(self, reviews_toml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        seen: list[tuple[Any, dict[str, Any]]] = []

        def spy(model: Any, train: Any, **options: Any) -> Any:
            seen.append((model, options))
            return fit_aggressively(model, train, **options)

        fit_aggressively = module.fit_aggressively
        monkeypatch.setattr(module, "fit_aggressively", spy)
        settings = ("training.learning_rate=0.004", "training.precision=bf16")
        run_experiment(described(reviews_toml, *self.SETTINGS, *settings), "train")
        ((model, options),) = seen
        for half in ("encoder", "decoder"):
            (group,) = options[f"{half}_optimizer"].param_groups
            assert set(group["params"]) == set(getattr(model, half).parameters())
            assert group["lr"] == 0.004
        assert [options["kl_weight"](step) for step in (0, 7, 14)] == [0, 0.5, 1]
        assert (options["max_grad_norm"], options["precision"]) == (5, "bf16")
        assert [options[name] for name in ("window", "max_encoder_steps")] == [2, 5]

    def test_a_language_model_has_none(self, reviews_toml: Path) -> None:
        with pytest.raises(ValueError, match=r"training\.aggressive is of an encoder"):
            described(reviews_toml, *self.SETTINGS, "model.latent_size=0")
