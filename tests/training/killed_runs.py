"""Kills the same training again and again, run after run, for `test_state.py`.

It prints whether there were enough kills, and the folders of the runs. It is a program of its own,
so that its processes fork from one that has no threads.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from tutvae.data.batches.text import Batches, EncodedTexts
from tutvae.models import TextVAE
from tutvae.models.encoders import LSTMEncoder
from tutvae.models.lstm_decoder import LSTMDecoder
from tutvae.schedules import linear
from tutvae.training.loop import fit

V, E, H, Z = 23, 5, 7, 3


def documents(count: int, seed: int) -> EncodedTexts:
    rng = random.Random(seed)
    words = [[rng.randrange(4, V) for _ in range(rng.randrange(1, 9))] for _ in range(count)]
    return EncodedTexts([[1, *ids, 2] for ids in words])


def train(folder: Path) -> None:
    """The run: randomness in the batches, the codes and the hidden words; 3 epochs of 9 steps."""
    torch.manual_seed(0)
    decoder = LSTMDecoder(V, E, H, Z, word_dropout=0.3, dropout=0.1)
    model = TextVAE(LSTMEncoder(V, E, H, Z), decoder)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    history = fit(
        model,
        Batches(documents(68, 1), batch_size=4),
        epochs=3,
        valid=Batches(documents(11, 2), batch_size=4, shuffle=False),
        optimizer=optimizer,
        scheduler="cosine",
        kl_weight=linear(20),
        max_grad_norm=1.0,
        accumulation_steps=2,
        device="cpu",
        run_folder=folder,
        configuration={"sizes": [V, E, H, Z]},
        checkpoint_minutes=0,
    )
    weights = b"".join(p.detach().numpy().tobytes() for p in model.parameters())
    (folder / "result.json").write_text(
        json.dumps([hashlib.sha256(weights).hexdigest(), history.records])
    )


def die_in_a_write(calls: int) -> None:
    """Kill this very process in a later write: half-way, when it is whole, or when it is done."""
    where = random.choice(["half", "whole", "done"])
    real = {"fsync": os.fsync, "replace": os.replace}
    left = calls

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def fsync(descriptor: int) -> None:
        nonlocal left
        left -= 1
        if left == 0 and where == "half":
            os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)
            die()
        real["fsync"](descriptor)

    def replace(source: str, target: str) -> None:
        if left == 0 and where == "whole":
            die()
        real["replace"](source, target)
        if left == 0:
            die()

    os.fsync, os.replace = fsync, replace


def in_a_child(work: Callable[[], None], kill_after: float | None) -> bool:
    """Work in a process of its own, killed after some seconds; whether it came to its end."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        finally:
            os._exit(1)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status) != 0:
        sys.exit("the run failed by itself")
    return os.WIFEXITED(status)


@dataclass
class Kills:
    """How often runs were killed, how often in a write, and how often a state was there then."""

    all: int = 0
    in_writes: int = 0
    resumed: int = 0

    @property
    def enough(self) -> bool:
        return self.all >= 10 and self.in_writes >= 3 and self.resumed >= 8


def killed_until_done(folder: Path, seconds: float, kills: Kills) -> None:
    """One run to its end, `seconds` long if nobody killed it."""
    finished = False
    attempts = 0
    while not finished:
        attempts += 1
        kills.resumed += (folder / "last.safetensors").exists()
        if random.random() < 0.4:
            calls = random.randrange(1, 6)

            def work(calls: int = calls) -> None:
                die_in_a_write(calls)
                train(folder)

            finished = in_a_child(work, None)
            kills.in_writes += not finished
        else:
            delay = None if attempts > 60 else random.uniform(0.1, 0.25) * seconds
            finished = in_a_child(lambda: train(folder), delay)
        kills.all += not finished


def main(folder: Path, seed: int) -> None:
    random.seed(seed)
    torch.optim.Adam([torch.zeros(1)])  # imports much, once, before the forks
    start = time.perf_counter()
    in_a_child(lambda: train(folder / "whole"), None)
    seconds = time.perf_counter() - start
    kills = Kills()
    runs = []
    # On a hurried machine one run may end before there were enough kills: then another follows.
    while not kills.enough and len(runs) < 10:
        runs.append(f"killed_{len(runs)}")
        killed_until_done(folder / runs[-1], seconds, kills)
    print(json.dumps({"enough": kills.enough, "runs": runs}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
