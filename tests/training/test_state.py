from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.optim import SGD, Adam, AdamW, lr_scheduler
from torch.utils.data import DataLoader

from tutvae.data.batches.images import ImageBatches
from tutvae.data.batches.labelled import MixedBatches
from tutvae.data.batches.text import Batches, EncodedTexts
from tutvae.data.corpus import Images, Texts
from tutvae.data.tokenization import Tokenizer
from tutvae.models import VAE, LanguageModel, LSTMDecoder, TextVAE
from tutvae.training.checkpoints import load_tensors, load_weights, save_tensors
from tutvae.training.loop import History, fit
from tutvae.training.step import adam

D, Z, V = 7, 3, 13
STEPS = 4  # an epoch


class KilledError(Exception):
    pass


def vae() -> VAE:
    torch.manual_seed(0)
    return VAE(D, Z, (11, 6))


def pixels() -> Tensor:
    return torch.rand(15, D, generator=torch.Generator().manual_seed(1))


def images() -> ImageBatches:
    labels = torch.zeros(15, dtype=torch.int64)
    return ImageBatches(Images(pixels(), labels, 1, D), 4, shuffle=True, seed=5)


def loader() -> DataLoader[Any]:
    return DataLoader(pixels().round(), batch_size=4, shuffle=True)  # type: ignore[arg-type]


def plain_list() -> list[Tensor]:
    return list(pixels().round().split(4))


def weights(model: torch.nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def run(
    folder: Path | None,
    *,
    feed: Callable[[], Any] = plain_list,
    killed_at: int | None = None,
    optimizer: Callable[[Any], torch.optim.Optimizer] = Adam,
    scheduler: Callable[[Any], Any] | None = None,
    epochs: int = 3,
    **options: Any,
) -> tuple[Tensor, History]:
    """Train from scratch, or go on, up to a step at which the process would die."""

    def kl_weight(step: int) -> float:
        if step == killed_at:
            raise KilledError
        return min(1.0, step / 7)

    model = vae()
    descent = optimizer(model.parameters())
    defaults: dict[str, Any] = {"valid": plain_list(), "device": "cpu", "checkpoint_minutes": 0}
    history = fit(
        model,
        feed(),
        epochs=epochs,
        optimizer=descent,
        scheduler=scheduler(descent) if scheduler else None,
        kl_weight=kl_weight,
        run_folder=folder,
        **defaults | options,
    )
    return weights(model), history


def interrupted(folder: Path, kills: tuple[int, ...], **options: Any) -> tuple[Tensor, History]:
    for step in kills:
        with pytest.raises(KilledError):
            run(folder, killed_at=step, **options)
        torch.rand(step)  # the next process has another random state
    return run(folder, **options)


def same(one: tuple[Tensor, History], other: tuple[Tensor, History]) -> bool:
    return torch.equal(one[0], other[0]) and one[1].records == other[1].records


class TestKilled:
    def test_kills_at_random_moments_change_nothing(self, tmp_path: Path) -> None:
        """SIGKILL at least ten times, several of them while a file is being written."""
        script = Path(__file__).with_name("killed_runs.py")
        done = subprocess.run(
            [sys.executable, script, tmp_path, "1"], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        said = json.loads(done.stdout)
        assert said["enough"], (
            "ten runs without ten kills, three in writes, and eight starts from a state"
        )
        for run in said["runs"]:
            assert {path.name for path in (tmp_path / run).glob(".*")} <= {".lock"}
            for name in ("result.json", "metrics.jsonl", "best.safetensors", "configuration.json"):
                whole, killed = tmp_path / "whole" / name, tmp_path / run / name
                assert whole.read_bytes() == killed.read_bytes()

    @pytest.mark.parametrize("feed", [images, loader, plain_list])
    @pytest.mark.parametrize("accumulation_steps", [1, 3])
    def test_a_kill_at_any_step_changes_nothing(
        self, tmp_path: Path, feed: Callable[[], Any], accumulation_steps: int
    ) -> None:
        options: dict[str, Any] = {"feed": feed, "accumulation_steps": accumulation_steps}
        options |= {"epochs": 2}
        steps = -(-STEPS // accumulation_steps)
        whole = run(None, **options)
        for step in range(2 * steps):
            assert same(interrupted(tmp_path / str(step), (step,), **options), whole)
        every = tuple(range(2 * steps))
        assert same(interrupted(tmp_path / "every", every, **options), whole)

    @pytest.mark.parametrize("feed", [images, loader, plain_list])
    @pytest.mark.parametrize("accumulation_steps", [1, 3])
    def test_a_kill_between_the_last_step_of_an_epoch_and_its_end(
        self, tmp_path: Path, feed: Callable[[], Any], accumulation_steps: int
    ) -> None:
        """Then no batch is left, and still the epoch is to be recorded."""

        class Deadly:
            def __iter__(self) -> Any:
                raise KilledError

        options: dict[str, Any] = {"feed": feed, "accumulation_steps": accumulation_steps}
        with pytest.raises(KilledError):
            run(tmp_path, valid=Deadly(), **options)
        assert same(run(tmp_path, **options), run(None, **options))

    @pytest.mark.parametrize(
        "optimizer",
        [
            lambda p: SGD(p, lr=0.1),
            lambda p: SGD(p, lr=0.1, momentum=0.9),
            lambda p: AdamW(p, lr=0.01, amsgrad=True),
            adam,
            lambda p: Adam([{"params": [x], "lr": 0.01 * i} for i, x in enumerate(p, 1)]),
        ],
    )
    @pytest.mark.parametrize(
        "scheduler",
        [
            lambda o: lr_scheduler.MultiStepLR(o, [1, 2], gamma=0.3),
            lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=0, threshold=0.5),
            lambda o: lr_scheduler.LambdaLR(o, lambda epoch: 1 / (1 + epoch)),
            lambda o: lr_scheduler.OneCycleLR(o, 0.1, total_steps=5),
            lambda o: lr_scheduler.SequentialLR(
                o,
                [lr_scheduler.ConstantLR(o, 0.5, 1), lr_scheduler.CosineAnnealingLR(o, 3)],
                milestones=[1],
            ),
        ],
    )
    def test_optimizers_and_schedules(
        self, tmp_path: Path, optimizer: Callable[..., Any], scheduler: Callable[..., Any]
    ) -> None:
        options = {"optimizer": optimizer, "scheduler": scheduler}
        assert same(interrupted(tmp_path, (3, 4, 9), **options), run(None, **options))

    def test_a_run_begun_with_a_plain_adam_goes_on_with_a_fused_one(self, tmp_path: Path) -> None:
        with pytest.raises(KilledError):
            run(tmp_path, killed_at=5)
        mixed, fused = run(tmp_path, optimizer=adam), run(None, optimizer=adam)
        torch.testing.assert_close(mixed[0], fused[0])
        groups = load_tensors(tmp_path / "last.safetensors")[1]["optimizer"]["param_groups"]
        assert groups[0]["fused"]

    def test_the_time_adds_up(self, tmp_path: Path) -> None:
        with pytest.raises(KilledError):
            run(tmp_path, killed_at=9)
        earlier = load_tensors(tmp_path / "last.safetensors")[1]["seconds"]
        assert run(tmp_path)[1].seconds > earlier > 0

    def test_a_finished_run_is_not_trained_again(self, tmp_path: Path) -> None:
        first = run(tmp_path)
        assert same(run(tmp_path, killed_at=0), first)

    def test_more_epochs_go_on(self, tmp_path: Path) -> None:
        run(tmp_path, epochs=2)
        assert same(run(tmp_path), run(None))

    def test_early_stopping_is_remembered(self, tmp_path: Path) -> None:
        options: dict[str, Any] = {"optimizer": lambda p: SGD(p, lr=3.0), "patience": 2}
        options |= {"epochs": 30, "max_grad_norm": 1.0}
        stopped = run(tmp_path, **options)
        assert len(stopped[1]) < 30
        assert same(run(tmp_path, killed_at=stopped[1]["step"][-1], **options), stopped)

    def test_checkpoints_within_an_epoch_come_when_they_are_due(self, tmp_path: Path) -> None:
        with pytest.raises(KilledError):
            run(tmp_path, killed_at=STEPS + 2, checkpoint_minutes=60.0)
        assert load_tensors(tmp_path / "last.safetensors")[1]["step"] == STEPS


class TestFiles:
    def test_metrics_are_the_history(self, tmp_path: Path) -> None:
        _, history = run(tmp_path, configuration={"name": "tiny"})
        lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
        assert [json.loads(line) for line in lines] == history.records
        assert json.loads((tmp_path / "configuration.json").read_text()) == {"name": "tiny"}

    def test_best_and_last_weights(self, tmp_path: Path) -> None:
        """A run whose bound gets worse: the best epoch's weights are those of a shorter run."""
        options: dict[str, Any] = {"optimizer": lambda p: SGD(p, lr=0.3), "epochs": 12}
        last, history = run(tmp_path / "run", **options)
        epoch = int(history.best["epoch"])
        bounds = [sum(t) for t in zip(history["valid_kl"], history["valid_reconstruction"])]  # noqa: B905
        assert bounds.index(min(bounds)) == epoch - 1 < 11
        model = VAE(D, Z, (11, 6))
        load_weights(model, tmp_path / "run" / "last.safetensors")
        assert torch.equal(weights(model), last)
        load_weights(model, tmp_path / "run")
        shorter, _ = run(None, **options | {"epochs": epoch})
        assert torch.equal(weights(model), shorter)

    @pytest.mark.parametrize("labelled", [False, True])
    def test_the_tokenizer_of_batches_that_were_made_of_texts(
        self, tmp_path: Path, labelled: bool
    ) -> None:
        tokenizer = Tokenizer.train(["a b", "b c d"])
        feed: Any = Batches.from_texts(["a b", "b c"], tokenizer, batch_size=1)
        if labelled:
            texts = EncodedTexts.from_texts(Texts(["a b", "b c"], [0, 1]), tokenizer)
            feed = MixedBatches(texts, None, batch_size=2)
        model = TextVAE.lstm(tokenizer, embedding_size=2, hidden_size=2, latent_size=1)
        fit(model, feed, epochs=0, device="cpu", run_folder=tmp_path)
        kept = Tokenizer.load(tmp_path / "tokenizer.json")
        assert kept.fingerprint == tokenizer.fingerprint

    def test_a_run_that_is_refused_keeps_its_tokenizer(self, tmp_path: Path) -> None:
        """Other texts, and so other words."""

        def train(texts: list[str]) -> None:
            feed = Batches.from_texts(texts, Tokenizer.train(texts), batch_size=1)
            model = LanguageModel(LSTMDecoder(V, 2, 2))
            fit(model, feed, epochs=1, device="cpu", run_folder=tmp_path)

        train(["a b", "b c"])
        with pytest.raises(ValueError, match="these batches have tokens 7, the saved state has 8"):
            train(["d e", "f"])
        assert "a" in Tokenizer.load(tmp_path / "tokenizer.json").tokens

    def test_a_run_of_a_model_that_was_built_otherwise(self, tmp_path: Path) -> None:
        """Although every shape is the same."""
        feed = Batches(EncodedTexts([[1, 4, 2], [1, 5, 2]]), batch_size=1)

        def train(dropout: float, epochs: int) -> None:
            model = LanguageModel(LSTMDecoder(V, 2, 2, dropout=dropout))
            fit(model, feed, epochs=epochs, device="cpu", run_folder=tmp_path)

        train(0.1, 1)
        with pytest.raises(ValueError, match=r"its decoder\.dropout is 0\.1, now it is 0\.2"):
            train(0.2, 2)
        train(0.1, 2)

    def test_tied_weights(self, tmp_path: Path) -> None:
        def model() -> LanguageModel:
            torch.manual_seed(0)
            lm = LanguageModel(LSTMDecoder(V, 5, 5))
            lm.decoder.output.weight = lm.decoder.embedding.weight  # type: ignore[union-attr]
            return lm

        def trained(folder: Path | None, epochs: int) -> Tensor:
            lm = model()
            texts = EncodedTexts([[1, 4, 5, 2], [1, 6, 2], [1, 7, 8, 9, 2]])
            fit(lm, Batches(texts, batch_size=2), epochs=epochs, device="cpu", run_folder=folder)
            return weights(lm)

        trained(tmp_path, 1)
        assert torch.equal(trained(tmp_path, 2), trained(None, 2))


class TestWhatCannotGoOn:
    def test_another_configuration(self, tmp_path: Path) -> None:
        run(tmp_path, configuration={"seed": 1, "sizes": (3, 4)})
        run(tmp_path, configuration={"seed": 1, "sizes": (3, 4)})
        with pytest.raises(ValueError, match=r"its seed is 1, now it is 2"):
            run(tmp_path, configuration={"seed": 2, "sizes": (3, 4)})

    def test_the_checkpoint_of_another_run(self, tmp_path: Path) -> None:
        """Whatever the folder says, each file knows its own run."""
        for name, rate in (("fast", 0.05), ("slow", 0.005)):
            run(tmp_path / name, epochs=1, configuration={"rate": rate})
        for file in ("last.safetensors", "best.safetensors"):
            kept = (tmp_path / "slow" / file).read_bytes()
            shutil.copy(tmp_path / "fast" / file, tmp_path / "slow" / file)
            message = rf"{file} holds another run: its rate is 0\.05, now it is 0\.005"
            with pytest.raises(ValueError, match=message):
                run(tmp_path / "slow", configuration={"rate": 0.005})
            (tmp_path / "slow" / file).write_bytes(kept)
        assert same(run(tmp_path / "slow", configuration={"rate": 0.005}), run(None))

    def test_a_configuration_that_was_removed(self, tmp_path: Path) -> None:
        """It is written anew only where the checkpoint is of the same run."""
        run(tmp_path, epochs=1, configuration={"rate": 0.05})
        (tmp_path / "configuration.json").unlink()
        with pytest.raises(ValueError, match=r"its rate is 0\.05, now it is 0\.005"):
            run(tmp_path, configuration={"rate": 0.005})
        assert not (tmp_path / "configuration.json").exists()
        run(tmp_path, configuration={"rate": 0.05})
        assert json.loads((tmp_path / "configuration.json").read_text()) == {"rate": 0.05}

    @pytest.mark.parametrize("scheduler", [None, lambda o: lr_scheduler.ConstantLR(o, 0.5, 9)])
    def test_another_learning_rate(self, tmp_path: Path, scheduler: Any) -> None:
        run(tmp_path, epochs=1, scheduler=scheduler)
        message = r"began with lr 0\.00(1|05), now it has 0\.(02|01): give it the same"
        with pytest.raises(ValueError, match=message):
            run(tmp_path, optimizer=lambda p: Adam(p, lr=0.02), scheduler=scheduler)

    def test_a_scheduler_where_there_was_none(self, tmp_path: Path) -> None:
        run(tmp_path, epochs=1)
        with pytest.raises(ValueError, match="of a run without a scheduler: go on without one"):
            run(tmp_path, scheduler=lambda o: lr_scheduler.CosineAnnealingLR(o, 3))

    def test_the_same_optimizer_after_its_rate_was_lowered(self, tmp_path: Path) -> None:
        """As in a notebook, whose cell is run again with more epochs."""
        model = vae()
        optimizer = SGD(model.parameters(), lr=1e-6)
        for epochs in (5, 8):
            scheduler = lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, threshold=0.5)
            history = fit(
                model,
                plain_list(),
                epochs=epochs,
                optimizer=optimizer,
                scheduler=scheduler,
                device="cpu",
                run_folder=tmp_path,
            )
        assert history["learning_rate"][4] < 1e-7
        assert len(history) == 8

    def test_another_model(self, tmp_path: Path) -> None:
        run(tmp_path)
        with pytest.raises(ValueError, match=r"another model.*\(11, 7\) there and \(11, 9\)"):
            fit(VAE(9, Z, (11, 6)), [], epochs=4, device="cpu", run_folder=tmp_path)

    def test_another_optimizer(self, tmp_path: Path) -> None:
        run(tmp_path)
        with pytest.raises(ValueError, match="another optimizer"):
            run(tmp_path, optimizer=SGD)

    def test_fewer_batches_than_were_done(self, tmp_path: Path) -> None:
        with pytest.raises(KilledError):
            run(tmp_path, killed_at=3)
        with pytest.raises(ValueError, match="3 batches and has only 1 now"):
            run(tmp_path, feed=lambda: plain_list()[:1])

    def test_other_documents(self, tmp_path: Path) -> None:
        def train(documents: list[list[int]]) -> None:
            batches = Batches(EncodedTexts(documents), batch_size=2)
            lm = LanguageModel(LSTMDecoder(V, 4, 5))
            fit(lm, batches, epochs=2, device="cpu", run_folder=tmp_path)

        train([[1, 2], [1, 4, 2]])
        with pytest.raises(ValueError, match="documents 3, the saved state has 2"):
            train([[1, 2], [1, 4, 2], [1, 5, 2]])

    def test_another_number_of_processes(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(
            "tutvae.training.engine.Engine.gather", lambda self, value: [value, value]
        )
        monkeypatch.setattr(
            "tutvae.training.engine.Engine.shares", lambda self, b: [(x, 1.0) for x in b]
        )
        run(tmp_path, epochs=1, valid=None)
        monkeypatch.undo()
        with pytest.raises(ValueError, match="by 2 processes, and now there are 1"):
            run(tmp_path)

    @pytest.mark.parametrize(
        "key", ["configuration", "records", "optimizer", "processes", "terms", "step"]
    )
    def test_a_checkpoint_without_a_key(self, tmp_path: Path, key: str) -> None:
        run(tmp_path, epochs=1)
        tensors, about = load_tensors(tmp_path / "last.safetensors")
        del about[key]
        save_tensors(tmp_path / "last.safetensors", tensors, about)
        message = rf"last.safetensors is no whole checkpoint.*{key}.*remove the file to begin anew"
        with pytest.raises(ValueError, match=message):
            run(tmp_path)

    @pytest.mark.parametrize("about", [None, [], "mine", {"records": 3}])
    def test_a_checkpoint_that_says_something_else(self, tmp_path: Path, about: Any) -> None:
        run(tmp_path, epochs=1)
        tensors, _ = load_tensors(tmp_path / "last.safetensors")
        save_tensors(tmp_path / "last.safetensors", tensors, about)
        with pytest.raises(ValueError, match=r"last.safetensors is no whole checkpoint"):
            run(tmp_path)

    def test_an_optimizer_s_tensor_that_is_gone(self, tmp_path: Path) -> None:
        run(tmp_path, epochs=1)
        last = tmp_path / "last.safetensors"
        with safe_open(last, framework="pt") as file:
            metadata = file.metadata()
        tensors = load_file(last)
        del tensors[next(name for name in tensors if name.startswith("tutvae."))]
        save_file(tensors, last, metadata)
        with pytest.raises(ValueError, match=r"last.safetensors is no whole checkpoint"):
            run(tmp_path)

    def test_a_configuration_that_is_none(self, tmp_path: Path) -> None:
        run(tmp_path, epochs=1)
        for content in ("{", "[3]"):
            (tmp_path / "configuration.json").write_text(content)
            with pytest.raises(ValueError, match=r"configuration.json is no .*put it back"):
                run(tmp_path)

    def test_a_folder_that_another_run_writes_to(self, tmp_path: Path) -> None:
        """The second one fails at once, and leaves alone what the first is about to write."""
        partial = tmp_path / ".last.safetensors.abc"
        refused = []

        class Meanwhile:
            def __iter__(self) -> Any:
                partial.write_text("half")
                thread = threading.Thread(target=second)
                thread.start()
                thread.join()
                return iter(plain_list())

        def second() -> None:
            try:
                run(tmp_path)
            except BlockingIOError as error:
                refused.append(str(error))

        run(tmp_path, feed=Meanwhile, epochs=1)
        assert len(refused) == 1
        assert "another process is writing to" in refused[0]
        assert partial.read_text() == "half"

    @pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"x"])
    def test_a_damaged_checkpoint(self, tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
        run(tmp_path, epochs=1)
        last = tmp_path / "last.safetensors"
        last.write_bytes(damage(last.read_bytes()))
        with pytest.raises(ValueError, match=r"last.safetensors is no whole checkpoint"):
            run(tmp_path)


class TestTheDisk:
    @pytest.mark.parametrize("call", ["fsync", "replace"])
    def test_a_disk_that_is_full_in_the_middle_of_a_run(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
    ) -> None:
        whole = run(None)
        with pytest.raises(KilledError):
            run(tmp_path, killed_at=6)
        before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
        real = getattr(os, call)

        def full(*arguments: Any) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, call, full)
        with pytest.raises(OSError, match=r"last.safetensors could not be written.*No space left"):
            run(tmp_path)
        monkeypatch.setattr(os, call, real)
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
        assert same(run(tmp_path), whole)

    def test_a_limit_on_the_size_of_files(self, tmp_path: Path) -> None:
        """The operating system itself refuses, in a process of its own."""
        code = (
            "import pathlib, resource, runpy, sys\n"
            "run, folder = runpy.run_path(sys.argv[1])['run'], pathlib.Path(sys.argv[2])\n"
            "run(folder, epochs=1)\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
            "run(folder)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, __file__, tmp_path], capture_output=True, text=True
        )
        assert done.returncode == 1
        assert "last.safetensors could not be written ([Errno 27] File too large)" in done.stderr
        assert load_tensors(tmp_path / "last.safetensors")[1]["step"] == STEPS
        assert same(run(tmp_path), run(None))

    def test_a_folder_that_cannot_be_made(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("in the way")
        with pytest.raises(OSError, match=r"file/run could not be written"):
            run(tmp_path / "file" / "run")

    def test_what_a_kill_left_half_written_is_swept_away(self, tmp_path: Path) -> None:
        (tmp_path / ".last.safetensors.abc").write_text("half")
        (tmp_path / ".mine").write_text("not ours")
        run(tmp_path, epochs=1)
        assert {path.name for path in tmp_path.glob(".*")} == {".mine", ".lock"}


class TestBadLosses:
    def test_the_last_good_checkpoint_stays(self, tmp_path: Path) -> None:
        bad = plain_list()
        bad[2][1, 3] = torch.nan
        with pytest.raises(FloatingPointError, match="at step 2, with learning rate"):
            run(tmp_path, feed=lambda: bad)
        assert load_tensors(tmp_path / "last.safetensors")[1]["step"] == 2
        assert same(run(tmp_path), run(None))

    def test_weights_that_are_not_finite_are_not_saved(self, tmp_path: Path) -> None:
        """A gradient can be NaN where the loss is not."""

        class Fragile(VAE):
            def forward(self, x: Tensor) -> Any:
                if bool(x.sum() == poison):
                    self.encoder.mean.bias.register_hook(lambda grad: grad * torch.nan)
                return super().forward(x)

        poison = plain_list()[2].sum()
        model = Fragile(D, Z, (11, 6))
        options: dict[str, Any] = {"device": "cpu", "checkpoint_minutes": 0}
        with pytest.raises(FloatingPointError, match="weights became NaN or infinite by step 3"):
            fit(model, plain_list(), epochs=1, run_folder=tmp_path, **options)
        tensors, about = load_tensors(tmp_path / "last.safetensors")
        assert about["step"] == 2
        assert all(bool(x.isfinite().all()) for x in tensors.values())
