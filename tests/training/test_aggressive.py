from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tutvae.data.batches.images import ImageBatches
from tutvae.data.batches.text import Batches
from tutvae.data.corpus import Images
from tutvae.data.tokenization import Tokenizer
from tutvae.models import VAE, TextVAE
from tutvae.reviews.grammar import ReviewGrammar
from tutvae.training import aggressive as module
from tutvae.training.aggressive import AggressiveRound, fit_aggressively
from tutvae.training.checkpoints import load_tensors, save_tensors
from tutvae.training.engine import Engine
from tutvae.training.loop import fit
from tutvae.training.step import Stepper

D, Z = 7, 3


def vae() -> VAE:
    torch.manual_seed(0)
    return VAE(D, Z, (11, 6))


def batches(count: int = 3, size: int = 4) -> list[Tensor]:
    """`count` batches `[B, D]`, the last one smaller."""
    generator = torch.Generator().manual_seed(1)
    rows = torch.bernoulli(torch.full((count * size - 1, D), 0.4), generator=generator)
    return list(rows.split(size))


def optimizers(model: Any, learning_rate: float = 1e-2) -> dict[str, torch.optim.Optimizer]:
    halves = {"encoder_optimizer": model.encoder, "decoder_optimizer": model.decoder}
    return {
        name: torch.optim.SGD(half.parameters(), lr=learning_rate) for name, half in halves.items()
    }


def weights(half: torch.nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in half.parameters()])


def phase(model: Any, train: Any = None, **arguments: Any) -> list[AggressiveRound]:
    torch.manual_seed(2)
    given = optimizers(model) | {"valid": batches(), "device": "cpu"} | arguments
    return fit_aggressively(model, batches() if train is None else train, **given)


class TestOneUpdateOfTheDecoder:
    """With one round of one step; the encoder's loss never counts as falling."""

    ONCE: dict[str, Any] = {"round_steps": 1, "max_rounds": 1}  # noqa: RUF012

    def test_it_is_the_algorithm_written_out(self) -> None:
        """Encoder on a window of batches, then again while the mean falls, then the decoder."""
        model = vae()
        rounds = phase(model, kl_weight=0.5, window=2, max_encoder_steps=5, **self.ONCE)
        expected = vae()
        halves = optimizers(expected)
        torch.manual_seed(2)
        stream = iter(batches() * 9)

        def update(name: str) -> float:
            expected.zero_grad()
            loss = expected(next(stream)).loss(0.5)
            loss.backward()
            halves[name].step()
            return loss.item()

        taken, previous = 0, math.inf
        for window in (2, 2, 1):
            mean = sum(update("encoder_optimizer") for _ in range(window)) / window
            taken += window
            if mean >= previous:
                break
            previous = mean
        update("decoder_optimizer")
        assert rounds[0].encoder_steps == taken
        torch.testing.assert_close(weights(model.encoder), weights(expected.encoder))
        torch.testing.assert_close(weights(model.decoder), weights(expected.decoder))

    @pytest.mark.parametrize("half", ["encoder", "decoder"])
    def test_each_half_is_updated_by_its_own_optimizer_alone(self, half: str) -> None:
        """A learning rate of zero for the one leaves it alone, and not the other."""
        model = vae()
        before = {name: weights(getattr(model, name)) for name in ("encoder", "decoder")}
        still = {f"{half}_optimizer": torch.optim.SGD(getattr(model, half).parameters(), lr=0.0)}
        phase(model, **still, **self.ONCE)
        for name, old in before.items():
            assert torch.equal(weights(getattr(model, name)), old) == (name == half)

    def test_everything_is_trainable_afterwards(self) -> None:
        model = vae()
        phase(model, **self.ONCE)
        assert all(parameter.requires_grad for parameter in model.parameters())

    def test_the_norm_of_the_gradient_is_that_of_one_half(self) -> None:
        """Steps of SGD with rate 1 are as long as the clipped gradient."""
        model = vae()
        decoder = weights(model.decoder)
        rates = optimizers(model, learning_rate=1.0)
        phase(model, max_grad_norm=1e-3, window=1, max_encoder_steps=1, **rates, **self.ONCE)
        moved = (weights(model.decoder) - decoder).norm()
        assert moved == pytest.approx(1e-3, rel=1e-2)


class Scripted:
    """Stands for the encoder's turn: each step has the next of the given losses."""

    def __init__(self, losses: list[float]) -> None:
        self.losses = iter(losses)

    def step(self, kl_weight: float) -> float:
        return next(self.losses)


class TestStopping:
    @pytest.mark.parametrize(
        ("losses", "limit", "steps"),
        [
            ([5, 4, 4, 4, 9, 9], 6, 6),  # means 4.5, 4, 9
            ([5, 4, 4, 5], 6, 4),  # 4.5 and 4.5: no longer falling
            ([5, 4, 4, 3, 2], 5, 5),  # falling still, when there are no more
            ([5], 1, 1),
        ],
    )
    def test_encoder_updates_stop_when_a_window_s_mean_no_longer_falls(
        self, losses: list[float], limit: int, steps: int
    ) -> None:
        turn: Any = Scripted(losses)
        assert module._train_until_flat(turn, 1.0, window=2, max_steps=limit) == steps
        assert next(turn.losses, None) is None  # every loss was used

    @pytest.mark.parametrize(
        ("information", "rounds"),
        [([0.5, 0.7, 0.9, 0.8, 1.5], 4), ([0.5, 0.5, 0.6], 2), ([0.1, 0.2, 0.3, 0.4, 0.5], 5)],
    )
    def test_the_phase_stops_when_the_information_no_longer_rises(
        self, monkeypatch: pytest.MonkeyPatch, information: list[float], rounds: int
    ) -> None:
        values: Iterator[float] = iter(information)
        monkeypatch.setattr(module, "mutual_information", lambda q: next(values))
        done = phase(vae(), round_steps=2, max_rounds=5, window=1, max_encoder_steps=1)
        assert [r.mutual_information for r in done] == information[:rounds]
        assert all(r.decoder_steps == 2 and r.encoder_steps == 2 for r in done)

    def test_the_schedule_follows_the_decoder_s_steps(self) -> None:
        seen: list[int] = []

        def schedule(step: int) -> float:
            seen.append(step)
            return 1.0

        phase(vae(), kl_weight=schedule, round_steps=2, max_rounds=1)
        assert seen == [0, 1]


def test_the_same_seed_gives_the_same_phase() -> None:
    models = [vae(), vae()]
    rounds = [phase(model, round_steps=3, max_rounds=2) for model in models]
    assert rounds[0] == rounds[1]
    assert torch.equal(weights(models[0]), weights(models[1]))


def test_the_encoder_s_loss_is_told_a_predicted_token() -> None:
    """Long documents cost more, and a window of them must not look like a loss that rises."""
    corpus = ReviewGrammar(sentences=(1, 2), openings=2, nouns=2).corpus(23, 9, 1, seed=1)
    tokenizer = Tokenizer.train(corpus.train.texts)
    batch = Batches.from_texts(corpus.train, tokenizer, batch_size=23).texts.batch()
    torch.manual_seed(0)
    model = TextVAE.lstm(tokenizer, embedding_size=5, hidden_size=6, latent_size=Z)
    torch.manual_seed(3)
    expected = model(batch).loss(0.5).item() * 23 / batch.predicted_tokens
    optimizer = torch.optim.SGD(model.encoder.parameters(), lr=0.1)
    turn = module._Turn(model.decoder, Stepper(Engine(model, "cpu"), optimizer), iter([batch]))
    torch.manual_seed(3)
    assert turn.step(0.5) == pytest.approx(expected, rel=1e-6)


class TestRunFolder:
    ROUNDS: dict[str, Any] = {"round_steps": 3, "max_rounds": 2}  # noqa: RUF012

    @staticmethod
    def both(folder: Path | None, train: Any, **arguments: Any) -> tuple[Any, Tensor, Any]:
        """The phase, and training after it; the rounds, the weights and the records."""
        model = vae()
        kept: dict[str, Any] = {"run_folder": folder, "configuration": {"seed": 1}}
        rounds = phase(model, train, **kept, **TestRunFolder.ROUNDS | arguments)
        history = fit(model, train, epochs=2, device="cpu", **kept)
        return rounds, weights(model), history.records

    @staticmethod
    def images() -> ImageBatches:
        pixels = torch.cat(batches())
        corpus = Images(pixels, torch.zeros(len(pixels), dtype=torch.int64), 1, D)
        return ImageBatches(corpus, 4, shuffle=True, seed=5)

    @pytest.mark.parametrize("feed", [batches, images])
    def test_a_finished_phase_is_not_done_again(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, feed: Any
    ) -> None:
        """And what follows is the same as without an interruption."""
        expected = self.both(None, feed())
        model = vae()
        options = {"run_folder": tmp_path, "configuration": {"seed": 1}}
        phase(model, feed(), **options, **self.ROUNDS)
        torch.rand(5)
        monkeypatch.setattr(module._Turn, "step", None)
        for _ in range(2):  # from the end of the phase, and of all
            rounds, trained, records = self.both(tmp_path, feed())
            assert rounds == expected[0]
            assert torch.equal(trained, expected[1])
            assert records == expected[2]
        assert all(done.seconds > 0 for done in rounds)

    def test_a_phase_that_broke_off_is_done_again(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        expected = self.both(None, batches())

        def weight(step: int) -> float:
            if step == 4:
                raise KeyboardInterrupt
            return 1.0

        with pytest.raises(KeyboardInterrupt):
            self.both(tmp_path, batches(), kl_weight=weight)
        rounds, trained, records = self.both(tmp_path, batches())
        assert (rounds, records) == (expected[0], expected[2])
        assert torch.equal(trained, expected[1])

    def test_a_phase_of_another_run_is_refused(self, tmp_path: Path) -> None:
        self.both(tmp_path, batches())
        for name in ("configuration.json", "last.safetensors", "best.safetensors"):
            (tmp_path / name).unlink()
            with pytest.raises(ValueError, match="another run: its seed is 1, now it is 2"):
                phase(vae(), run_folder=tmp_path, configuration={"seed": 2})

    def test_a_damaged_phase_is_refused(self, tmp_path: Path) -> None:
        self.both(tmp_path, batches())
        path = tmp_path / "aggressive.safetensors"
        tensors, about = load_tensors(path)
        save_tensors(path, tensors, {"configuration": about["configuration"]})
        with pytest.raises(ValueError, match=r"aggressive.safetensors is no whole checkpoint"):
            self.both(tmp_path, batches())


class TestErrors:
    @pytest.mark.parametrize("norm", [0.0, -1.0, math.nan])
    def test_a_norm_that_is_not_positive(self, norm: float) -> None:
        with pytest.raises(ValueError, match="max_grad_norm must be positive"):
            phase(vae(), max_grad_norm=norm)

    @pytest.mark.parametrize("weight", [-1.0, math.nan])
    def test_a_kl_weight_that_is_no_weight(self, weight: float) -> None:
        with pytest.raises(ValueError, match="kl_weight must be a number of at least 0"):
            phase(vae(), kl_weight=weight)

    @pytest.mark.parametrize("name", ["window", "max_encoder_steps", "round_steps", "max_rounds"])
    def test_numbers_below_one_are_refused(self, name: str) -> None:
        with pytest.raises(ValueError, match=f"{name} must be at least 1"):
            phase(vae(), **{name: 0})

    def test_no_batch_is_an_error(self) -> None:
        with pytest.raises(ValueError, match="nothing to train on"):
            phase(vae(), train=[])

    def test_a_loss_that_is_not_finite(self) -> None:
        with pytest.raises(FloatingPointError, match="at step 0"):
            phase(vae(), train=[torch.full((2, D), math.nan)])

    def test_several_processes_are_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Two:
            processes = 2

        monkeypatch.setattr(module, "Engine", lambda *arguments: Two())
        with pytest.raises(ValueError, match="in one process"):
            phase(vae())
