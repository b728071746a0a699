"""The bench of remedies: each does what its paper says, and is measured as the table says."""

from __future__ import annotations

import copy
import importlib
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch.distributions import kl_divergence

import tutvae

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
RAMP = 2  # epochs of two steps each
ALL = [
    "none",
    "linear",
    "cyclical",
    "beta_0_4",
    "word_dropout",
    "inputless",
    "free_bits",
    "free_bits_in_total",
    "pooling",
    "aggressive",
    "batch_norm",
    "autoencoder_first",
    "rate",
    "skip",
    "language_model_plain",
    "language_model_word_dropout",
    "language_model_inputless",
    "blank_plain",
    "blank_word_dropout",
    "blank_inputless",
    "blank_skip",
]


@pytest.fixture(scope="module")
def remedies() -> Iterator[ModuleType]:
    """The script, with few epochs and short phases."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXPERIMENTS))
        module = importlib.import_module("remedies")
        patch.setattr(module, "MOST_EPOCHS", 2)
        patch.setattr(module, "BATCH", 32)
        short = {"window": 1, "max_encoder_steps": 2, "round_steps": 3, "max_rounds": 1}
        patch.setattr(module, "AGGRESSIVE", short)
        patch.setattr(module, "FIT", {"max_grad_norm": 5.0})
        patch.setattr(module.bench, "SAMPLES", 4)
        patch.setattr(module.bench, "READ_BACK", 3)
        yield module


@pytest.fixture(scope="module")
def bench(remedies: ModuleType) -> ModuleType:
    return sys.modules["remedies_bench"]


@pytest.fixture(scope="module")
def corpus(remedies: ModuleType) -> Any:
    """A few reviews."""
    grammar = tutvae.ReviewGrammar(openings=2, nouns=1, verbs=1, adjectives=1, fillers=1)
    texts = grammar.corpus(train=64, valid=32, test=80, seed=0)
    tokenizer = tutvae.Tokenizer.train(texts.train.texts)
    return remedies.Corpus("reviews", tokenizer, texts, RAMP, (0,), grammar)


def course(remedies: ModuleType, corpus: Any, name: str) -> Any:
    """A course that has not begun."""
    torch.manual_seed(0)
    model, decoder = remedies.build(remedies.ALL[name], len(corpus.tokenizer))
    return remedies.Course(model, corpus, decoder, seed=0)


def weights(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return copy.deepcopy(module.state_dict())


def test_all_are_here(remedies: ModuleType) -> None:
    assert list(remedies.ALL) == ALL


@pytest.mark.parametrize("name", ALL)
def test_each_runs_from_end_to_end(remedies: ModuleType, corpus: Any, name: str) -> None:
    row = json.loads(json.dumps(remedies.run(name, 0, corpus), allow_nan=False))
    assert row["epochs"]["kl_weight"][-1] == (0.4 if name == "beta_0_4" else 1.0)
    assert row["nll"] <= row["bound"] + 1e-3
    assert row["nll_of_the_grammar"] < row["nll"]
    if row["samples"] > 1:
        assert 1 <= row["effective_samples"] <= row["samples"]
        assert row["mutual_information_ceiling"] == pytest.approx(math.log(80), abs=1e-3)
    assert ("curve" in row) == (name in remedies.REMEDIES)


def test_batch_norm_holds_mean_and_spread_of_the_means_in_a_batch_however_small_they_are(
    remedies: ModuleType, corpus: Any
) -> None:
    model = course(remedies, corpus, "batch_norm").model.train()
    beta = torch.randn(remedies.Z)
    with torch.no_grad():
        model.encoder.mean[0].weight.mul_(0.1)
        model.encoder.mean[1].bias.copy_(beta)
    q = model.posterior(corpus.train.batch(range(32)))
    torch.testing.assert_close(q.loc.mean(0), beta, atol=1e-4, rtol=0)
    gamma = torch.full((remedies.Z,), 0.5)
    torch.testing.assert_close(q.loc.std(0, unbiased=False), gamma, atol=0.02, rtol=0)


def test_batch_norm_keeps_the_kl_of_a_batch_above_its_floor_however_long_it_trains(
    remedies: ModuleType, corpus: Any
) -> None:
    trained = course(remedies, corpus, "batch_norm")
    trained.optimizer = torch.optim.Adam(trained.model.parameters(), lr=0.05)
    trained.fit("end", 5, lambda step: 20.0)  # such a price empties any other code
    model = trained.model.train()
    kl = kl_divergence(model.posterior(corpus.train.batch(range(32))), model.prior()).sum(1)
    assert kl.mean() >= remedies.Z * 0.5**2 / 2 - 0.1 == remedies.NATS - 0.1
    assert model.encoder.mean[1].weight.tolist() == [0.5] * remedies.Z


def test_after_the_autoencoder_the_decoder_is_new_and_the_encoder_kept(
    remedies: ModuleType, corpus: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = course(remedies, corpus, "autoencoder_first")
    before, fit = weights(begun.model), begun.fit
    after: dict[str, torch.Tensor] = {}

    def noting(*args: Any, **options: Any) -> None:
        fit(*args, **options)
        after.update(weights(begun.model))

    monkeypatch.setattr(begun, "fit", noting)
    remedies.autoencoder(begun, lambda step: 1.0)
    assert [epoch["kl_weight"] for epoch in begun.epochs] == [0.0] * RAMP
    for name, now in weights(begun.model).items():
        kept = name.startswith("encoder.")
        assert torch.equal(now, after[name]) == kept, name
        assert not torch.equal(now, before[name]), name
    updated = {id(x) for group in begun.optimizer.param_groups for x in group["params"]}
    assert updated == {id(x) for x in begun.model.parameters()}


def test_a_skip_adds_the_same_to_the_logits_of_every_step(
    remedies: ModuleType, corpus: Any
) -> None:
    decoder = course(remedies, corpus, "skip").model.decoder.eval()
    inputs, H = corpus.train.batch(range(3)).inputs, remedies.H
    codes = torch.randn(2, 3, remedies.Z)
    hidden = decoder(inputs, codes[0])  # [B, T, H + Z]
    other = codes[1][:, None].expand(-1, inputs.shape[1], -1)
    change = decoder.project(torch.cat([hidden[..., :H], other], -1)) - decoder.project(hidden)
    expected = ((codes[1] - codes[0]) @ decoder.skip.weight.T)[:, None].expand_as(change)
    torch.testing.assert_close(change, expected, atol=1e-4, rtol=1e-4)
    assert (change.abs().amax(-1) > 0.01).all()


def test_a_skip_decoder_writes_as_it_reads(remedies: ModuleType, corpus: Any) -> None:
    decoder = course(remedies, corpus, "skip").model.decoder.eval()
    inputs, z = corpus.train.batch(range(3)).inputs, torch.randn(3, remedies.Z)
    expected, state = decoder.project(decoder(inputs, z)), decoder.start(z)
    for t in range(inputs.shape[1]):
        logits, state = decoder.step(inputs[:, t], state)
        torch.testing.assert_close(logits, expected[:, t], atol=1e-4, rtol=1e-4)


def test_patience_counts_from_where_the_weight_has_come_to_its_end(
    remedies: ModuleType, corpus: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remedies, "LEARNING_RATE", 0.0)  # the first epoch stays the best
    monkeypatch.setattr(remedies, "PATIENCE", 1)
    monkeypatch.setattr(remedies, "MOST_EPOCHS", 9)
    monkeypatch.setattr(corpus, "ramp_epochs", 4)
    epochs = remedies.trained(remedies.ALL["linear"], corpus, seed=1).epochs
    assert [epoch["phase"] for epoch in epochs] == ["ramp"] * 4 + ["end"] * 2
    at_ends = [epoch["kl_weight"] for epoch in epochs]  # of an epoch, of two steps each
    assert at_ends == [0.125, 0.375, 0.625, 0.875, 1.0, 1.0]


def test_the_ramp_goes_on_where_the_aggressive_phase_left_it(
    remedies: ModuleType, corpus: Any
) -> None:
    found = remedies.trained(remedies.ALL["aggressive"], corpus, seed=0)
    assert found.rounds[0]["decoder_steps"] == 3
    assert [epoch["phase"] for epoch in found.epochs] == ["ramp", "end", "end"]
    noted = found.model.weights  # of each update of the encoder or the decoder
    assert noted == sorted(noted)
    assert sorted(set(noted)) == pytest.approx([0.1, 0.325, 0.55, 0.775, 1.0])


def test_four_cycles_begin_at_0_and_end_at_1(remedies: ModuleType) -> None:
    schedule = remedies.cycles(2_190)
    values = [schedule(step) for step in range(2_190)]
    assert values.count(0.0) == 4
    assert values[-1] == 1.0


def test_the_weights_are_those_of_the_best_epoch_since_then(
    remedies: ModuleType, corpus: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remedies, "LEARNING_RATE", 0.3)  # which makes things worse
    monkeypatch.setattr(remedies, "MOST_EPOCHS", 4)
    found = remedies.trained(remedies.ALL["none"], corpus, seed=1)
    bounds = [epoch["valid_reconstruction"] + epoch["valid_kl"] for epoch in found.epochs]
    terms = tutvae.evaluation.report.mean_terms(found.model, found.valid)
    assert sum(terms.values()) == pytest.approx(min(bounds), rel=1e-5)
    assert min(bounds) < bounds[-1]


def test_watching_changes_nothing(
    remedies: ModuleType, corpus: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = remedies.trained(remedies.ALL["linear"], corpus, seed=0).model
    monkeypatch.setattr(remedies, "WATCHED_SEED", None)
    alone = remedies.trained(remedies.ALL["linear"], corpus, seed=0).model
    assert type(alone) is tutvae.TextVAE
    for name, expected in alone.state_dict().items():
        torch.testing.assert_close(watched.state_dict()[name], expected)


def test_a_curve_has_the_first_updates_singly_and_then_means_of_ten(remedies: ModuleType) -> None:
    terms = [torch.tensor([float(i), -float(i)]) for i in range(1, 126)]
    found = remedies.curve(SimpleNamespace(weights=[0.5] * 125, terms=terms))
    assert found["update"] == [*range(1, 101), 110, 120, 125]
    assert found["kl"][98:] == [99, 100, 105.5, 115.5, 123]
    assert found["reconstruction"][-1] == -123
    assert set(found["kl_weight"]) == {0.5}


def test_a_blank_code_says_nothing_and_costs_nothing(remedies: ModuleType, corpus: Any) -> None:
    model = course(remedies, corpus, "blank_plain").model
    report = tutvae.evaluate(model, [corpus.test.batch()], importance_samples=1)
    assert (report.kl, report.active_units) == (0.0, 0)
    assert report.mutual_information == pytest.approx(0.0, abs=1e-5)


def test_each_remedy_has_baselines_with_its_decoder(remedies: ModuleType) -> None:
    for remedy in remedies.REMEDIES.values():
        names = [f"blank_{remedy.decoder}", f"language_model_{remedy.decoder}"]
        found = [remedies.BASELINES[name] for name in names if name in remedies.BASELINES]
        assert {one.decoder for one in found} == {remedy.decoder}
        assert len(found) == (1 if remedy.decoder == "skip" else 2)


def test_a_finished_run_is_not_done_again(
    remedies: ModuleType,
    corpus: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    done = []
    real = remedies.run

    def run(name: str, seed: int, corpus: Any) -> Any:
        done.append((name, seed))
        return real(name, seed, corpus)

    monkeypatch.setattr(remedies, "run", run)
    monkeypatch.setattr(remedies, "RECORDS", tmp_path)
    monkeypatch.setitem(remedies.CORPORA, "reviews", lambda: corpus)
    for arguments in (["none"], ["none", "language_model_plain"], ["none"]):
        monkeypatch.setattr(sys, "argv", ["remedies.py", "--seed", "7", "--remedy", *arguments])
        remedies.main()
    assert done == [("none", 7), ("language_model_plain", 7)]
    rows = json.loads((tmp_path / "reviews.json").read_text(encoding="utf-8"))
    assert [row["remedy"] for row in rows] == ["none", "language_model_plain"]
    assert all(row["provenance"]["versions"] for row in rows)
    price = rows[0]["nll"] - rows[1]["nll"]
    assert f"{price:.2f}" in capsys.readouterr().out.splitlines()[-4]


def test_the_nll_is_that_of_evaluate(remedies: ModuleType, bench: ModuleType, corpus: Any) -> None:
    model = course(remedies, corpus, "none").model
    batches = tutvae.Batches(corpus.test, batch_size=30, shuffle=False)
    found = bench.weighed(model, batches)
    report = tutvae.evaluate(model, batches, importance_samples=4)
    assert found["nll"] == pytest.approx(report.importance_weighted_nll)
    assert found["bound"] == pytest.approx(report.bound)


def test_all_samples_count_where_the_decoder_is_deaf(
    remedies: ModuleType, bench: ModuleType, corpus: Any
) -> None:
    model = course(remedies, corpus, "blank_skip").model
    with torch.no_grad():
        model.decoder.skip.weight.zero_()
        model.decoder.code_to_cell.weight.zero_()
        model.decoder.lstm.weight_ih_l0[:, remedies.E :].zero_()
    found = bench.weighed(model, [corpus.test.batch(range(9))])
    assert found["effective_samples"] == pytest.approx(4, abs=1e-3)
    assert found["nll"] == pytest.approx(found["bound"], abs=1e-4)


def test_nobody_is_given_their_own_code_as_a_foreign_one(
    remedies: ModuleType, bench: ModuleType, corpus: Any
) -> None:
    class FarFromTheMean(tutvae.TextVAE):
        def log_likelihood(self, batch: Any, z: torch.Tensor) -> torch.Tensor:
            return -(z != self.posterior(batch).loc).any(-1).float()

    some = corpus.test.part([0, 11, 22, 33, 44])
    parts = vars(course(remedies, corpus, "none").model)["_modules"]
    model = FarFromTheMean(parts["encoder"], parts["decoder"])
    found = bench.own_and_foreign(model, [some.batch()])
    assert found == {"with_own_code": 0.0, "with_foreign_code": 1.0}


def test_words_are_kept_in_any_order_and_counted_once(bench: ModuleType) -> None:
    assert bench.kept(["so so good.", "Bad"], ["good so", "bad bad"]) == 0.75


def test_the_table_shows_mean_and_spread(bench: ModuleType) -> None:
    held = {"words_kept": 0.25}
    of_all = {"kl": 1.0, "samples": 4, "effective_samples": 2.0, "mutual_information": 0.5}
    of_all |= {"mutual_information_ceiling": 3.0, "active_units": 2, "held": held}
    of_all |= {"with_own_code": 9.0, "with_foreign_code": 10.5, "seconds": {"cpu": 90.0}}
    rows = [of_all | {"remedy": "rate", "seed": i, "bound": 10, "nll": 9.0 + i} for i in (0, 1)]
    base = {"samples": 1, "seconds": {"cpu": 30.0}, "remedy": "language_model_plain"}
    rows += [base | {"seed": i, "nll": 8.0 + i} for i in (0, 1)]
    lines = bench.table(rows, {"rate": "plain"}).splitlines()
    assert lines[1].split("  ")[0] == "rate"
    assert "9.50 ± 0.71" in lines[1]  # the NLL
    assert "1.00 ± 0.00" in lines[1]  # less that of the language model of the same seed
    assert "1.50 ± 0.00" in lines[1]  # the own code's worth, and minutes
    assert lines[-1] == "the most that MI can be: 3.0"


@pytest.fixture(scope="module", params=["reviews", "tatoeba"])
def recorded(remedies: ModuleType, request: pytest.FixtureRequest) -> list[Any]:
    """The runs on a corpus that the book shows."""
    path = tutvae.recorded_folder() / "remedies" / f"{request.param}.json"
    return json.loads(path.read_text(encoding="utf-8"))


def test_the_record_holds_every_remedy_with_as_many_seeds_as_the_others(
    remedies: ModuleType, recorded: list[Any]
) -> None:
    done = sorted((row["remedy"], row["seed"]) for row in recorded)
    seeds = sorted({seed for _, seed in done})
    assert done == sorted((name, seed) for name in remedies.ALL for seed in seeds)


def test_the_figures_of_the_record_fit_together(recorded: list[Any]) -> None:
    """A bound is above NLL and true entropy, and every run was trained to its end."""
    for row in recorded:
        assert row["ended_by_patience"] or row["epochs"]["learning_rate"][-1] < 1e-5
        assert row["bound"] == pytest.approx(row["reconstruction"] + row["kl"], abs=0.01)
        assert row["bound"] > row["nll"] - 0.01
        assert row["nll"] > row.get("nll_of_the_grammar", 0)
        if "held" in row:
            assert row["mutual_information"] < row["kl"] + 0.1
            assert sum(row["kl_per_dimension"]) == pytest.approx(row["kl"], abs=0.15)
            exact = [row["held"].get(factor) for factor in ("opening", "person", "tense")]
            nats = sum(found["nats"] for found in exact if found)
            assert nats < row["mutual_information"] + 0.15
