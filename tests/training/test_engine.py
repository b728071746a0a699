from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import kl_divergence

from tutvae.bounds import Elbo
from tutvae.data.batches.images import ImageBatches
from tutvae.data.batches.labelled import MixedBatches
from tutvae.data.batches.text import Batches, EncodedTexts
from tutvae.data.batches.text_batch import TextBatch
from tutvae.data.corpus import Images
from tutvae.models import VAE, LSTMDecoder, LSTMEncoder, TextVAE
from tutvae.training.engine import Engine, rank_and_world_size
from tutvae.training.loop import History, fit

D, V, E, H, Z = 8, 19, 5, 7, 3


@dataclass(frozen=True, eq=False, kw_only=True)
class MarkedElbo(Elbo):
    """A loss that is no sum over documents: means over those that are marked and those not."""

    marked: Tensor

    def loss(self, *arguments: Any) -> Tensor:
        loss = self.reconstruction.new_zeros(())
        for rows in (self.marked, ~self.marked):
            if rows.any():
                part = Elbo(self.reconstruction[rows], self.kl[rows], self.kl_per_dimension[rows])
                loss = loss + part.loss(*arguments)
        return loss


class MeanVAE(TextVAE):
    """A VAE without noise: its code is the posterior's mean."""

    def forward(self, batch: TextBatch) -> Elbo:
        q = self.posterior(batch)
        kl = kl_divergence(q, self.prior())
        marked = batch.tokens[:, 1] > V // 3
        return MarkedElbo(-self.log_likelihood(batch, q.loc), kl.sum(-1), kl, marked=marked)


class Union:
    """What all the processes' batches are together, for one process alone."""

    def __init__(self, parts: Sequence[Batches]) -> None:
        self.parts = parts

    def __iter__(self) -> Iterator[TextBatch]:
        for batches in zip(*self.parts, strict=True):
            positions = np.concatenate([batch.positions for batch in batches])
            yield self.parts[0].texts.batch(positions)


def mean_vae(seed: int = 0) -> MeanVAE:
    torch.manual_seed(seed)
    return MeanVAE(LSTMEncoder(V, E, H, Z), LSTMDecoder(V, E, H, Z))


def documents() -> EncodedTexts:
    """37 documents, which make batches of different sizes under a token budget."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 9, 37)
    return EncodedTexts([[1, *rng.integers(4, V, length).tolist(), 2] for length in lengths])


def feed(rank: int, world_size: int, **options: Any) -> Batches:
    return Batches(documents(), token_budget=30, rank=rank, world_size=world_size, **options)


def run(
    vae: MeanVAE, train: Any, valid: Any, folder: Path | None = None, epochs: int = 2
) -> History:
    """Plain descent, so that the weights show the gradients' size and not only their sign."""
    return fit(
        vae,
        train,
        epochs=epochs,
        valid=valid,
        optimizer=torch.optim.SGD(vae.parameters(), lr=0.05),
        free_bits=0.02,  # above some dimensions' KL and below that of others
        kl_weight=0.7,
        accumulation_steps=2,
        device="cpu",
        run_folder=folder,
    )


class Listed(list[TextBatch]):
    """Batches of one's own, which say that they are one of two shares."""

    world_size = 2


def unshared() -> list[Any]:
    """Batches that are the same in every process."""
    images = Images(torch.zeros(8, D), torch.zeros(8, dtype=torch.int64), 1, D)
    mixed = MixedBatches(None, documents(), token_budget=30)
    return [mixed, ImageBatches(images, 4, shuffle=True), [documents().batch()]]


def weights(vae: MeanVAE) -> list[float]:
    return torch.cat([p.detach().flatten() for p in vae.parameters()]).tolist()


def main(folder: Path) -> None:
    """What each of two processes does; torchrun runs this file."""
    rank, world_size = rank_and_world_size()
    assert world_size == 2
    # Only the first process's weights count at the start.
    vae = mean_vae(seed=rank)
    shares = feed(rank, world_size), feed(rank, world_size, shuffle=False)
    history = run(vae, *shares)
    # The same in two goes, now with all of the validation set in each process.
    all_of_it = feed(0, 1, shuffle=False)
    run(mean_vae(), feed(rank, world_size), all_of_it, folder / "run", epochs=1)
    resumed = mean_vae()
    again = run(resumed, feed(rank, world_size), all_of_it, folder / "run")
    refused = []
    for shares in (feed(0, 1), Listed([documents().batch()] * (1 + rank)), *unshared()):
        try:
            run(mean_vae(), shares, None)
        except ValueError as error:
            refused.append(str(error))
    result = {
        "refused": refused,
        "weights": weights(vae),
        "records": history.records,
        "resumed_weights": weights(resumed),
        "resumed_records": again.records,
        "noise": torch.rand(3).tolist(),
    }
    (folder / f"rank{rank}.json").write_text(json.dumps(result))


def vae() -> VAE:
    torch.manual_seed(0)
    return VAE(D, Z, (11, 6))


def rows(count: int = 10) -> torch.Tensor:
    return torch.bernoulli(torch.full((count, D), 0.4), generator=torch.manual_seed(1))


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two processes made of `main`."""
    folder = tmp_path_factory.mktemp("pair")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    done = subprocess.run(
        [*torchrun, "--nproc-per-node", "2", __file__, str(folder)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(2)]


@pytest.fixture(scope="module")
def alone() -> tuple[list[float], list[dict[str, float]]]:
    """The weights and records of one process that trains on the union of the batches."""
    model = mean_vae()
    union = Union([feed(rank, 2) for rank in range(2)])
    history = run(model, union, feed(0, 1, shuffle=False))
    return weights(model), history.records


class TestTwoProcesses:
    @pytest.mark.parametrize("run", ["weights", "resumed_weights"])
    def test_gradients_are_those_of_the_union(
        self, pair: list[dict[str, Any]], alone: Any, run: str
    ) -> None:
        """By plain descent: batches of different sizes, accumulated, with free bits."""
        for process in pair:
            assert process[run] == pytest.approx(alone[0], rel=0, abs=1e-6)
        assert pair[0][run] == pair[1][run]
        start = weights(mean_vae())
        assert max(abs(a - b) for a, b in zip(start, alone[0], strict=True)) > 0.1

    def test_metrics_agree(self, pair: list[dict[str, Any]], alone: Any) -> None:
        assert pair[0]["records"] == pair[1]["records"]
        for ours, theirs in zip(pair[0]["records"], alone[1], strict=True):
            # Divided among processes, the validation set meets other noise.
            noisy = ours.pop("valid_reconstruction"), theirs["valid_reconstruction"]
            assert noisy[0] == pytest.approx(noisy[1], rel=1e-3)
            assert ours == pytest.approx({name: theirs[name] for name in ours}, rel=1e-6)
        for ours, theirs in zip(pair[0]["resumed_records"], alone[1], strict=True):
            assert ours == pytest.approx(theirs, rel=1e-6)

    def test_each_has_noise_of_its_own(self, pair: list[dict[str, Any]]) -> None:
        assert pair[0]["noise"] != pair[1]["noise"]

    def test_shares_that_are_not_equal_are_refused(self, pair: list[dict[str, Any]]) -> None:
        for process in pair:
            whole, unequal, *_ = process["refused"]
            assert "2 processes, for 1 shares" in whole
            assert "have [1, 2] batches" in unequal

    def test_batches_that_every_process_has_alike_are_refused(
        self, pair: list[dict[str, Any]]
    ) -> None:
        """Those with labels, images and plain lists know nothing of shares."""
        for process in pair:
            alike = process["refused"][2:]
            assert len(alike) == 3
            assert all("2 processes, for 1 shares" in message for message in alike)


class TestRank:
    def test_a_process_alone_is_the_first_of_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("RANK", raising=False)
        monkeypatch.delenv("WORLD_SIZE", raising=False)
        assert rank_and_world_size() == (0, 1)

    def test_rank_and_world_size_are_those_of_torchrun(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("RANK", "2")
        monkeypatch.setenv("WORLD_SIZE", "5")
        assert rank_and_world_size() == (2, 5)

    def test_processes_that_cannot_be_found(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A variable that something left behind is an error at once: nobody would ever come."""
        for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("WORLD_SIZE", "2")
        with pytest.raises(ValueError, match=r"RANK, MASTER_ADDR, MASTER_PORT is not set: start"):
            Engine(vae(), "cpu")


def test_what_a_user_set_up_with_accelerate_is_left_alone(tmp_path: Path) -> None:
    """`fit` has no business with it: the package is not even imported."""
    code = (
        "import sys, torch\n"
        "from tutvae.models import VAE\n"
        "from tutvae.training.loop import fit\n"
        "fit(VAE(3, 2, (4,)), [torch.ones(2, 3)], epochs=1, device='cpu', precision='bf16')\n"
        "sys.exit('accelerate' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path).returncode == 0


class TestUpdate:
    def test_a_scaled_loss_makes_the_same_step(self) -> None:
        """As in fp16, where the gradient is scaled back before it is clipped."""
        results = []
        for scale in (None, 1024.0):
            model = vae()
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            engine = Engine(model, "cpu")
            if scale is not None:
                engine.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
            torch.manual_seed(0)
            engine.backward(engine.forward(rows()).loss())
            engine.update(optimizer, max_grad_norm=0.5)
            results.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
        torch.testing.assert_close(*results)
        assert not torch.equal(results[0], torch.cat([p.flatten() for p in vae().parameters()]))

    def test_a_gradient_that_overflows_makes_no_step(self) -> None:
        model = vae()
        engine = Engine(model, "cpu")
        engine.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        engine.backward(engine.forward(rows()).loss() * 1e38)
        engine.update(optimizer)
        assert all(map(torch.equal, model.parameters(), vae().parameters()))
        assert engine.scaler.get_scale() == 512


class TestPrecision:
    def test_bf16_is_close_and_not_equal(self) -> None:
        full, half = (Engine(vae(), "cpu", p).forward(rows()) for p in ("fp32", "bf16"))
        assert half.reconstruction.dtype == half.kl.dtype == torch.float32
        assert not torch.equal(half.kl, full.kl)
        torch.testing.assert_close(half.kl, full.kl, rtol=0.05, atol=0.01)

    def test_weights_stay_in_32_bits_and_the_model_as_it_was(self) -> None:
        """After training in bf16 the model itself computes in fp32 again."""
        model = vae()
        fit(model, [rows()], epochs=1, device="cpu", precision="bf16")
        assert {p.dtype for p in model.parameters()} == {torch.float32}
        assert model.posterior(rows()).loc.dtype == torch.float32
        assert "forward" not in vars(model)

    def test_precisions_change_from_one_run_to_the_next(self) -> None:
        for precision in ("bf16", "fp32", "bf16"):
            history = fit(vae(), [rows()], epochs=1, device="cpu", precision=precision)
            assert math.isfinite(history["train_kl"][0])

    @pytest.mark.parametrize(
        ("capability", "scaled"), [((7, 5), True), ((8, 0), False), ((9, 0), False)], ids=str
    )
    def test_a_gpu_without_bf16_takes_fp16(
        self, capability: tuple[int, int], scaled: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """fp16 is what is scaled."""
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
        monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
        monkeypatch.setattr(nn.Module, "to", lambda self, device: self)
        assert Engine(nn.Linear(1, 1), "cuda", "bf16").scaler.is_enabled() == scaled

    @pytest.mark.parametrize(
        ("precision", "message"), [("fp16", "needs a GPU"), ("half", "must be one of")]
    )
    def test_an_impossible_precision_is_refused(self, precision: Any, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            Engine(vae(), "cpu", precision)


class TestShares:
    def test_a_share_is_the_batch_s_part_of_the_examples(self) -> None:
        engine = Engine(vae(), "cpu")
        batches = [rows(1), rows(4), rows(3)]
        shares = list(engine.shares(batches))
        assert [share for _, share in shares] == [1 / 8, 1 / 2, 3 / 8]
        assert all(torch.equal(a, b) for a, (b, _) in zip(batches, shares, strict=True))

    def test_the_bound_keeps_all_its_terms(self) -> None:
        engine = Engine(vae(), "cpu")
        elbo = engine.forward(rows())
        assert isinstance(elbo, Elbo)
        assert elbo.kl_per_dimension is not None
        assert elbo.kl_per_dimension.shape == (10, Z)


if __name__ == "__main__":
    main(Path(sys.argv[1]))


class TestAutocast:
    def test_without_bfloat16_in_onednn_an_lstm_is_computed_all_the_same(self) -> None:
        """In a process of its own: oneDNN reads the variable once."""
        code = (
            "import torch; from tutvae.training.engine import autocast\n"
            "cpu, lstm = torch.device('cpu'), torch.nn.LSTM(3, 4)\n"
            "with autocast(cpu, torch.bfloat16): y, _ = lstm(torch.ones(2, 1, 3))\n"
            "y.sum().backward(); print(torch.backends.mkldnn.enabled)"
        )
        environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"}
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env=environment
        )
        assert done.stderr == ""
        assert done.stdout == "True\n"
