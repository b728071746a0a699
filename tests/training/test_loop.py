from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import kl_divergence

from tutvae.bounds import Elbo
from tutvae.data.batches.images import ImageBatches
from tutvae.data.corpora import digits
from tutvae.models import VAE
from tutvae.training.loop import History, fit, pick_device
from tutvae.training.step import LOOKED_AT_TOGETHER, Stepper

D, Z = 7, 3


def vae() -> VAE:
    torch.manual_seed(0)
    return VAE(D, Z, (11, 6))


def batches(count: int = 3, size: int = 4) -> list[Tensor]:
    """`count` batches `[B, D]`, the last one smaller."""
    generator = torch.Generator().manual_seed(1)
    rows = torch.bernoulli(torch.full((count * size - 1, D), 0.4), generator=generator)
    return list(rows.split(size))


def weights(model: VAE) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def fitted(seed: int = 0, **arguments: Any) -> Tensor:
    """The weights after two epochs under a seed."""
    model = vae()
    torch.manual_seed(seed)
    fit(model, batches(), epochs=2, device="cpu", **arguments)
    return weights(model)


class TestLearning:
    def test_the_bound_improves_on_real_digits(self) -> None:
        corpus = digits()
        torch.manual_seed(0)
        model = VAE(64, 5, (32,))
        train = ImageBatches(corpus.train, 100, shuffle=True)
        valid = ImageBatches(corpus.valid, 200, shuffle=False)
        history = fit(model, train, epochs=6, valid=valid, device="cpu")
        for split in ("train", "valid"):
            columns = history[f"{split}_reconstruction"], history[f"{split}_kl"]
            bounds = [sum(terms) for terms in zip(*columns, strict=True)]
            assert bounds[-1] < bounds[0] - 3
        assert history["valid_kl"][-1] > 0.5

    @pytest.mark.parametrize("free_bits", [0.0, 0.05])
    def test_it_is_the_plain_loop(self, free_bits: float) -> None:
        """Kingma & Welling's algorithm 1, written out."""

        def schedule(step: int) -> float:
            return 0.1 * step

        model = vae()
        torch.manual_seed(5)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        for step, x in enumerate(batches() * 2):
            optimizer.zero_grad()
            model(x).loss(schedule(step), free_bits).backward()
            optimizer.step()
        fit_weights = fitted(5, kl_weight=schedule, free_bits=free_bits)
        torch.testing.assert_close(fit_weights, weights(model))

    def test_it_repeats_under_a_seed(self) -> None:
        assert torch.equal(fitted(3), fitted(3))
        assert not torch.equal(fitted(3), fitted(4))

    def test_validation_leaves_training_alone(self) -> None:
        """Neither the random state nor the mode of the model differs for it."""
        assert torch.equal(fitted(valid=batches(2, 5)), fitted())

    def test_the_kl_weight_holds_the_kl_down(self) -> None:
        def kl(weight: float) -> float:
            model = vae()
            history = fit(model, batches() * 20, epochs=2, kl_weight=weight, device="cpu")
            return history["train_kl"][-1]

        assert kl(0.0) > 5 * kl(1.0)

    def test_free_bits_that_cover_all_leave_the_kl_free(self) -> None:
        assert torch.equal(fitted(free_bits=100.0), fitted(kl_weight=0.0))
        assert not torch.equal(fitted(free_bits=1e-6), fitted(kl_weight=0.0))

    def test_the_kind_of_free_bits_is_passed_on(self) -> None:
        """A little too much for the smallest dimension, nothing for the total."""
        with torch.no_grad():
            kl = torch.cat([vae()(x).kl_per_dimension for x in batches()]).mean(0)
        free_bits = (2 * kl.min()).item()
        assert free_bits < kl.sum() / 2
        assert not torch.equal(fitted(free_bits=free_bits), fitted())
        assert torch.equal(fitted(free_bits=free_bits, free_bits_per="total"), fitted())

    def test_a_longer_gradient_is_scaled_down(self) -> None:
        def step(max_grad_norm: float | None) -> Tensor:
            """The gradient that one step of plain descent goes along."""
            model = vae()
            before = weights(model)
            optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
            torch.manual_seed(0)
            fit(
                model,
                batches(1),
                epochs=1,
                optimizer=optimizer,
                max_grad_norm=max_grad_norm,
                device="cpu",
            )
            return before - weights(model)

        free = step(None)
        norm = free.norm().item()
        torch.testing.assert_close(step(norm / 4), free / 4, rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(step(norm * 4), free)

    @pytest.mark.parametrize("norm", [0.0, -1.0, math.nan])
    def test_a_norm_that_is_not_positive(self, norm: float) -> None:
        with pytest.raises(ValueError, match="max_grad_norm must be positive"):
            fitted(max_grad_norm=norm)

    def test_another_optimizer(self) -> None:
        model = vae()
        before = weights(model)
        history = fit(
            model,
            batches(),
            epochs=1,
            optimizer=torch.optim.SGD(model.parameters(), lr=0.0),
            device="cpu",
        )
        assert history["learning_rate"] == [0.0]
        assert torch.equal(weights(model), before)

    def test_the_device_is_picked(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("tutvae.training.loop.pick_device", lambda: torch.device("meta"))
        with pytest.raises((NotImplementedError, RuntimeError), match="meta"):
            fit(vae(), batches(), epochs=1)
        fit(vae(), batches(), epochs=1, device=torch.device("cpu"))


class Recorder(VAE):
    """Notes at every call whether it is in training mode and records gradients."""

    def __init__(self) -> None:
        super().__init__(D, Z, (5,))
        self.modes: list[tuple[bool, bool]] = []

    def posterior(self, x: Tensor) -> Any:
        self.modes.append((self.training, torch.is_grad_enabled()))
        return super().posterior(x)


def test_training_mode_comes_back_after_validation() -> None:
    model = Recorder().eval()
    fit(model, batches(3), epochs=2, valid=batches(1), device="cpu")
    assert model.modes == [*[(True, True)] * 3, (False, False)] * 2


def test_a_model_is_told_the_step_of_the_schedule() -> None:
    """Once a step, before its batches, however many those are."""
    told: list[Any] = []

    class Follower(VAE):
        def at_step(self, step: int) -> None:
            told.append(step)

        def forward(self, x: Tensor) -> Elbo:
            told.append("batch")
            return super().forward(x)

    asked: list[int] = []

    def schedule(step: int) -> float:
        asked.append(step)
        return 1.0

    fit(
        Follower(D, Z, (5,)),
        batches(3),
        epochs=2,
        accumulation_steps=2,
        kl_weight=schedule,
        device="cpu",
    )
    assert told == [0, "batch", "batch", 1, "batch", 2, "batch", "batch", 3, "batch"]
    assert sorted(set(asked)) == [0, 1, 2, 3]


class TestHistory:
    def test_columns(self) -> None:
        history = fit(vae(), batches(), epochs=2, valid=batches(1), device="cpu")
        assert len(history) == 2
        assert history["epoch"] == [1, 2]
        assert history["step"] == [3, 6]
        assert history["kl_weight"] == [1.0, 1.0]
        assert history["learning_rate"] == [0.001, 0.001]
        terms = {f"{split}_{t}" for split in ("train", "valid") for t in ("reconstruction", "kl")}
        assert set(history.records[0]) == {"epoch", "step", "kl_weight", "learning_rate"} | terms

    def test_without_validation_there_are_no_valid_columns(self) -> None:
        history = fit(vae(), batches(), epochs=1, device="cpu")
        with pytest.raises(KeyError, match=r"no column 'valid_kl'.*train_reconstruction, train_kl"):
            history["valid_kl"]

    def test_before_the_first_epoch(self) -> None:
        assert len(History()) == 0
        assert History()["train_kl"] == []
        assert repr(History()) == "History(epochs=0)"

    def test_it_is_shown_by_its_bounds(self) -> None:
        terms = [(9.0, 1.0), (5.0, 2.5), (6.0, 2.0)]
        rows = [{"train_reconstruction": cost, "train_kl": kl} for cost, kl in terms]
        assert repr(History(rows)) == "History(epochs=3, last bound 8.00, best 7.50)"
        watched = [row | {"valid_reconstruction": 20.0, "valid_kl": 0.0} for row in rows]
        assert repr(History(watched)) == "History(epochs=3, last bound 20.00, best 20.00)"

    def test_it_is_rebuilt_from_its_columns(self) -> None:
        history = fit(vae(), batches(), epochs=2, valid=batches(1), device="cpu")
        columns = {column: history[column] for column in history.records[0]}
        assert History.from_columns(columns).records == history.records
        with pytest.raises(ValueError, match="longer"):
            History.from_columns({**columns, "epoch": [1]})

    def test_the_weight_in_use_at_the_end_of_each_epoch(self) -> None:
        steps: list[int] = []

        def schedule(step: int) -> float:
            steps.append(step)
            return min(1.0, step / 5)

        history = fit(vae(), batches(), epochs=3, kl_weight=schedule, device="cpu")
        assert history["kl_weight"] == [0.4, 1.0, 1.0]
        assert sorted(set(steps)) == list(range(9))

    def test_the_learning_rate_in_use_in_each_epoch(self) -> None:
        model = vae()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.1)
        history = fit(
            model, batches(), epochs=3, optimizer=optimizer, scheduler=scheduler, device="cpu"
        )
        assert history["learning_rate"] == pytest.approx([0.5, 0.05, 0.005])

    def test_terms_are_averaged_over_examples_not_batches(self) -> None:
        class Constant(VAE):
            def forward(self, x: Tensor) -> Elbo:
                zero = 0 * self.encoder.mean.bias.sum()
                return Elbo(x.sum(1) + zero, 2 * x.sum(1) + zero, None)

        x = torch.arange(5.0)[:, None].expand(5, D)  # a row sums to D times its number
        history = fit(Constant(D, Z), x.split(4), epochs=1, device="cpu")
        assert history["train_reconstruction"] == [pytest.approx(2 * D)]
        assert history["train_kl"] == [pytest.approx(4 * D)]


class TestLearningRate:
    @pytest.mark.parametrize(
        ("name", "rates"),
        [("linear", [0.4, 0.3, 0.2, 0.1]), ("cosine", [0.4, 0.341421, 0.2, 0.058579])],
    )
    def test_linear_and_cosine_lower_the_rate_to_zero(self, name: Any, rates: list[float]) -> None:
        model = vae()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.4)
        options: dict[str, Any] = {"optimizer": optimizer, "scheduler": name, "device": "cpu"}
        history = fit(model, batches(1), epochs=4, **options)
        assert history["learning_rate"] == pytest.approx(rates, rel=1e-5)
        assert optimizer.param_groups[0]["lr"] == pytest.approx(0.0, abs=1e-9)

    def test_plateau_halves_the_rate_after_two_epochs_without_a_better_bound(self) -> None:
        model = vae()
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)  # nothing improves
        options: dict[str, Any] = {"optimizer": optimizer, "scheduler": "plateau"}
        history = fit(model, batches(1), epochs=6, valid=batches(1), device="cpu", **options)
        rates = [rate * 1e6 for rate in history["learning_rate"]]
        assert rates == pytest.approx([1, 1, 1, 0.5, 0.5, 0.25])

    def test_an_unknown_name(self) -> None:
        with pytest.raises(
            ValueError, match=r"one of \('plateau', 'linear', 'cosine'\), not 'step'"
        ):
            fitted(scheduler="step")


class TestEarlyStopping:
    def valid_bounds(self, patience: int | None) -> list[float]:
        """A rate that is far too high first helps and then does not."""
        model = vae()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
        history = fit(
            model,
            batches(),
            epochs=14,
            valid=batches(2, 5),
            optimizer=optimizer,
            patience=patience,
            device="cpu",
        )
        columns = history["valid_reconstruction"], history["valid_kl"]
        return [sum(terms) for terms in zip(*columns, strict=True)]

    def test_training_stops_when_the_best_epoch_is_so_long_ago(self) -> None:
        endless = self.valid_bounds(None)
        stopped = self.valid_bounds(2)
        ages = [n - endless.index(min(endless[: n + 1])) for n in range(14)]
        assert len(stopped) == ages.index(2) + 1 < 14
        assert stopped == endless[: len(stopped)]

    def test_the_best_epoch(self) -> None:
        history = fit(vae(), batches(), epochs=3, device="cpu")
        totals = [r["train_kl"] + r["train_reconstruction"] for r in history.records]
        assert history.best is history.records[totals.index(min(totals))]
        with pytest.raises(ValueError, match="no epoch"):
            _ = History().best

    def test_with_a_rate_a_smaller_kl_makes_no_epoch_better(self) -> None:
        kls, reconstructions = (0.0, 1.0, 2.5), (9.0, 8.5, 8.2)
        rows = [
            {"valid_kl": kl, "valid_reconstruction": cost}
            for kl, cost in zip(kls, reconstructions, strict=True)
        ]
        assert History(rows).best is rows[0]
        held = [row | {"rate": 2.0} for row in rows]
        assert History(held).best is held[1]

    def test_an_epoch_without_a_bound_is_never_the_best(self) -> None:
        bounds = [math.nan, 3.0, 2.0, math.nan]
        history = History({"train_kl": 0.0, "train_reconstruction": bound} for bound in bounds)
        assert history.best is history.records[2]


class TestRate:
    def test_the_kl_is_held(self) -> None:
        """On the bound alone it would be smaller; below the rate, nothing pushes it down."""
        kls = []
        for rate in (None, 2.0):
            torch.manual_seed(0)
            history = fit(vae(), batches(9), epochs=150, rate=rate, device="cpu")
            kls.append(history["train_kl"][-1])
        assert kls[0] < 1 < 1.5 < kls[1] < 2.5

    @pytest.mark.parametrize("rate", [-1.0, math.nan, math.inf])
    def test_impossible_rates(self, rate: float) -> None:
        with pytest.raises(ValueError, match="rate must be a number of at least 0"):
            fit(vae(), batches(), epochs=1, rate=rate)


class TestAccumulation:
    def test_batches_of_a_step_stand_for_one(self) -> None:
        """Examples count alike, whichever batch they are in."""

        class MeanCode(VAE):
            def forward(self, x: Tensor) -> Elbo:
                q = self.posterior(x)
                kl = kl_divergence(q, self.prior())
                return Elbo(-self.log_likelihood(x, q.loc), kl.sum(-1), kl)

        def trained(train: list[Tensor], accumulation_steps: int) -> tuple[Tensor, History]:
            torch.manual_seed(0)
            model = MeanCode(D, Z, (11, 6))
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            options: dict[str, Any] = {"optimizer": optimizer, "device": "cpu", "epochs": 2}
            options |= {"accumulation_steps": accumulation_steps, "max_grad_norm": 1.0}
            history = fit(model, train, **options)
            return weights(model), history

        rows = torch.cat(batches())
        small, history = trained(list(rows.split([3, 1, 2, 5])), 3)
        large, expected = trained(list(rows.split([6, 5])), 1)
        torch.testing.assert_close(small, large, rtol=0, atol=1e-6)
        for ours, theirs in zip(history.records, expected.records, strict=True):
            assert ours == pytest.approx(theirs)

    @pytest.mark.parametrize("value", [0, -1, 1.5, math.nan])
    @pytest.mark.parametrize("option", ["accumulation_steps", "patience"])
    def test_numbers_that_count_nothing(self, option: str, value: float) -> None:
        with pytest.raises(ValueError, match=f"{option} must be at least 1 and whole, not"):
            fitted(**{option: value})


class TestTensorBoard:
    def test_tensorboard_gets_the_metrics(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """Those of epochs that are done again replace the earlier ones."""
        written: list[tuple[Any, ...]] = []

        class SummaryWriter:
            def __init__(self, folder: str, purge_step: int) -> None:
                written.append((Path(folder).name, purge_step))

            def add_scalar(self, *arguments: Any) -> None:
                written.append(arguments)

            def flush(self) -> None:
                pass

        module = SimpleNamespace(SummaryWriter=SummaryWriter)
        monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
        options: dict[str, Any] = {"run_folder": tmp_path, "tensorboard": True, "device": "cpu"}
        fit(vae(), batches(), epochs=1, **options)
        history = fit(vae(), batches(), epochs=2, **options)
        rows = [
            [(name, value, epoch) for name, value in record.items()]
            for epoch, record in enumerate(history.records, 1)
        ]
        assert written == [("tensorboard", 1), *rows[0], ("tensorboard", 2), *rows[1]]

    def test_tensorboard_that_is_not_installed(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
        with pytest.raises(ImportError, match="pip install tensorboard"):
            fitted(run_folder=tmp_path, tensorboard=True)

    def test_tensorboard_needs_a_folder(self) -> None:
        with pytest.raises(ValueError, match="give run_folder"):
            fitted(tensorboard=True)


class TestBadInput:
    @pytest.mark.parametrize("value", [math.nan, math.inf])
    def test_a_loss_that_is_not_finite_does_not_reach_the_weights(self, value: float) -> None:
        bad = batches(4)
        bad[2][1, 3] = value
        model, unharmed = vae(), vae()
        for m, train in ((unharmed, bad[:2]), (model, bad)):
            torch.manual_seed(0)
            optimizer = torch.optim.Adam(m.parameters(), lr=0.02)
            if m is unharmed:
                fit(m, train, epochs=1, optimizer=optimizer, device="cpu")
                continue
            with pytest.raises(FloatingPointError, match=r"at step 2, with learning rate 0\.02"):
                fit(m, train, epochs=1, optimizer=optimizer, device="cpu")
        assert torch.equal(weights(model), weights(unharmed))

    def test_on_a_gpu_losses_are_looked_at_together(self) -> None:
        """Or when somebody asks; then each bad one still has its own step."""
        optimizer = torch.optim.SGD(vae().parameters(), lr=0.02)
        engine: Any = SimpleNamespace(device=torch.device("cuda"))
        losses = Stepper(engine, optimizer)
        for step in range(LOOKED_AT_TOGETHER - 1):
            losses.watch(torch.tensor(math.nan if step in (7, 9) else 1.0), step)
        with pytest.raises(FloatingPointError, match=r"is nan at step 7, .* rate 0\.02"):
            losses.watch(torch.tensor(1.0), LOOKED_AT_TOGETHER - 1)
        losses.watch(torch.tensor(math.inf), 60)
        with pytest.raises(FloatingPointError, match="is inf at step 60"):
            losses.check()
        losses.check()

    @pytest.mark.parametrize("value", [math.nan, math.inf])
    def test_a_validation_bound_that_is_not_finite(self, value: float, tmp_path: Path) -> None:
        """It is neither recorded nor the best."""
        bad = batches(1)
        bad[0][1, 3] = value
        message = r"valid_reconstruction is (nan|-inf) after epoch 1, at step 3"
        with pytest.raises(FloatingPointError, match=message):
            fit(vae(), batches(), epochs=3, valid=bad, device="cpu", run_folder=tmp_path)
        assert not (tmp_path / "metrics.jsonl").exists()
        assert not (tmp_path / "best.safetensors").exists()

    @pytest.mark.parametrize("epochs", [-1, 2.5, math.nan, "3"])
    def test_epochs_that_are_no_number_of_epochs(self, epochs: Any) -> None:
        with pytest.raises(ValueError, match="epochs must be at least 0 and whole, not"):
            fit(vae(), batches(), epochs=epochs, device="cpu")

    @pytest.mark.parametrize("name", ["linear", "cosine"])
    def test_a_schedule_over_no_epochs(self, name: Any) -> None:
        with pytest.raises(ValueError, match=f"'{name}' lowers the rate over all epochs"):
            fit(vae(), batches(), epochs=0, scheduler=name, device="cpu")

    @pytest.mark.parametrize("value", [-0.1, math.nan, math.inf])
    @pytest.mark.parametrize("option", ["kl_weight", "free_bits"])
    def test_costs_that_are_no_costs(self, option: str, value: float) -> None:
        with pytest.raises(ValueError, match=f"{option} must be a number of at least 0, not"):
            fitted(**{option: value})

    def test_no_batch(self) -> None:
        with pytest.raises(ValueError, match="no batch"):
            fit(vae(), [], epochs=1, device="cpu")

    def test_batches_that_can_be_had_only_once(self) -> None:
        with pytest.raises(ValueError, match="no batch"):
            fit(vae(), iter(batches()), epochs=2, device="cpu")

    def test_no_batch_to_validate_on(self) -> None:
        with pytest.raises(ValueError, match="no batch"):
            fit(vae(), batches(), epochs=1, valid=[], device="cpu")

    def test_a_batch_of_one(self) -> None:
        history = fit(vae(), [batches()[0][:1]], epochs=1, device="cpu")
        assert math.isfinite(history["train_reconstruction"][0])


class TestProgress:
    @pytest.fixture
    def bar(self, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
        def run(**arguments: Any) -> str:
            fit(vae(), batches(), epochs=2, device="cpu", **arguments)
            captured = capsys.readouterr()
            assert captured.out == ""
            return captured.err

        return run

    def test_no_bar_where_nobody_watches(self, bar: Callable[..., str]) -> None:
        assert bar() == ""

    def test_a_bar_on_a_terminal(
        self, bar: Callable[..., str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
        assert "train_kl=" in bar()
        assert bar(progress=False) == ""

    def test_a_bar_when_asked_for(self, bar: Callable[..., str]) -> None:
        assert "train_kl=" in bar(progress=True)


class TestPickDevice:
    @pytest.fixture(params=[(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")])
    def expected(self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
        cuda, mps, name = request.param
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
        return name

    def test_the_fastest_at_hand(self, expected: str) -> None:
        assert pick_device().type == expected
