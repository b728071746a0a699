"""What a CUDA GPU makes of it: steps recorded as graphs and not, three precisions, the usual way.

First come checks that only a GPU can do. A row that fails says why, and one for which no time is
left says so.

    TUTVAE_DATA=data python -m benchmarks.gpu --out gpu.json
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain, product
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Normal

import tutvae
from benchmarks import usual
from benchmarks.common import V, documents, file_order, forward_gflop
from benchmarks.evaluation import posteriors
from benchmarks.generation import by_generate, never_ending
from benchmarks.gpu_checks import Found, Task, checks, cnn, lstm, recording
from tutvae.data.batches.fixed import padded_shape
from tutvae.data.batches.resumable import endless
from tutvae.data.batches.text_batch import TextBatch
from tutvae.experiments.records import significant
from tutvae.models import LSTMDecoder, TextVAE
from tutvae.training.engine import Precision

SECONDS = 0.6  # that a row measures, once it is warm
BATCHES = (32, 256)
MATRIX = 8192
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
LSTMS = {"LSTM 300/256/16": (300, 256, 16), "LSTM 512/1024/32": (512, 1024, 32)}
CNN, CNN_SIZES = "CNN large 512/512/32", (512, 512, 32)
WAYS = [*product(("bf16", "fp32"), ("graph", "eager")), ("fp32", "usual")]
WAYS += product(["fp16"], ("graph", "eager"))
AIMS = {  # real tokens a second
    ("LSTM 300/256/16", 32): 308_000,
    ("LSTM 512/1024/32", 32): 327_000,
    ("LSTM 512/1024/32", 256): 1_115_000,
}


def model_called(name: str) -> TextVAE:
    return cnn(CNN_SIZES, V) if name == CNN else lstm(LSTMS[name], V)


def wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def rate(work: Callable[[], float]) -> Found:
    """Units a second of some work, which says how many units it was."""
    work()  # sets things up
    wait()
    start, units, calls = perf_counter(), 0.0, 0
    while perf_counter() - start < SECONDS:
        units += work()
        calls += 1
        wait()  # or else the GPU would be far behind
    seconds = perf_counter() - start
    return {"rate": units / seconds, "ms": 1000 * seconds / calls}


@dataclass
class Timed:
    """Batches for `fit`: each shape of an epoch twice, then as many as there is time for."""

    texts: tutvae.EncodedTexts
    batch_size: int

    def __iter__(self) -> Iterator[TextBatch]:
        self.tokens, self.batches, began = 0, 0, perf_counter()
        batches = tutvae.Batches(self.texts, batch_size=self.batch_size)
        shapes = {padded_shape(batch): batch for batch in batches}
        yield from chain(shapes.values(), shapes.values())
        wait()
        start = perf_counter()
        self.setup = start - began
        for batch in endless(batches):
            self.tokens += batch.predicted_tokens
            self.batches += 1
            yield batch
            if perf_counter() - start > SECONDS:
                break
        wait()
        self.seconds = perf_counter() - start

    def found(self) -> Found:
        """Tokens a second, and the time that a step and all before the first one took."""
        speed = {"rate": self.tokens / self.seconds, "ms": 1000 * self.seconds / self.batches}
        return speed | {"setup_s": self.setup}


def by_fit(
    model: TextVAE,
    texts: tutvae.EncodedTexts,
    B: int,
    precision: Precision,
    captured: bool,
    device: str = "cuda",
) -> Found:
    timed = Timed(texts, B)
    with recording(captured):
        tutvae.fit(model, timed, epochs=1, precision=precision, device=device, progress=False)
    return timed.found()


def by_usual(name: str, texts: tutvae.EncodedTexts, B: int, device: str = "cuda") -> Found:
    model = model_called(name).to(device)
    optimizer = torch.optim.Adam(model.parameters())
    batches = endless(list(file_order(texts, B)))

    def work() -> float:
        batch = next(batches)
        usual.train(model, [batch], optimizer)
        return batch.predicted_tokens

    return rate(work)


def trained(
    name: str,
    texts: tutvae.EncodedTexts,
    B: int,
    precision: Precision,
    captured: bool,
    matrices: dict[str, float],
) -> Found:
    """A row's speed, also in operations, and their share of what matrix products reach."""
    model = model_called(name)
    found = by_fit(model, texts, B, precision, captured)
    tflops = 3e-3 * forward_gflop(model) * found["rate"]
    return found | {"tflops": tflops, "of_matrix_rate": tflops / matrices[precision]}


def training(texts: tutvae.EncodedTexts, matrices: dict[str, float]) -> Iterator[Task]:
    """Each model and batch size; `matrices` are TFLOP/s of matrix products by precision."""
    for (precision, way), B, name in product(WAYS, BATCHES, [*LSTMS, CNN]):
        row = {"question": f"train {name}", "batch": B, "precision": precision, "way": way}
        if aim := AIMS.get((name, B)):
            row["aim"] = aim
        if way != "usual" and (precision != "fp16" or "1024" in name):
            yield row, partial(trained, name, texts, B, precision, way == "graph", matrices)
        elif way == "usual" and name != CNN:
            yield row, partial(by_usual, name, texts, B)


def matrix_rate(name: str, matrices: dict[str, float]) -> Found:
    a, b = torch.randn(2, MATRIX, MATRIX, device="cuda").to(DTYPES[name])

    def work() -> float:
        for _ in range(8):
            torch.mm(a, b)
        return 8 * 2e-12 * MATRIX**3

    matrices[name] = rate(work)["rate"]
    return {"tflops": matrices[name]}


def using(texts: tutvae.EncodedTexts, device: str = "cuda") -> Iterator[Task]:
    """What is done with a trained model, by us and the usual way."""
    sizes = LSTMS["LSTM 300/256/16"]
    batch = texts.batch(range(32))
    alone = texts.batch([0])

    def nll() -> Found:
        model = lstm(sizes, V).to(device)
        count = 500 * batch.predicted_tokens

        def work() -> float:
            tutvae.evaluate(model, [batch], importance_samples=500)
            return count

        return rate(work)

    def usual_nll() -> Found:
        model = lstm(sizes, V).to(device)
        there, count = alone.to(device), 500 * alone.predicted_tokens

        def work() -> float:
            usual.importance_weighted_nll(model, there, 500, 100)
            return count

        return rate(work)

    def write(way: Callable[[Any, Tensor, int], Tensor]) -> Found:
        decoder = never_ending(LSTMDecoder(V, *sizes)).to(device)
        z = torch.randn(64, sizes[-1], device=device)
        return rate(lambda: way(decoder, z, 60).numel())

    def information(way: Callable[[Normal], float], N: int = 10_000) -> Found:
        q = posteriors(N)
        there = Normal(q.loc.to(device), q.scale.to(device))

        def work() -> float:
            way(there)
            return N

        return rate(work)

    way_of = {"ours": (nll, by_generate, tutvae.mutual_information)}
    way_of["usual"] = (usual_nll, usual.greedy, lambda q: usual.mutual_information(q, q.sample()))
    for way, (score, writes, informs) in way_of.items():
        yield {"question": "NLL by 500 samples, token-samples", "way": way}, score
        yield {"question": "write 64 x 60 tokens", "way": way}, partial(write, writes)
        about = {"question": "mutual information, 10,000 x 32", "way": way}
        yield about, partial(information, informs)


def everything(texts: tutvae.EncodedTexts) -> Iterator[Task]:
    matrices: dict[str, float] = {}
    yield from checks()
    for name in DTYPES:
        about = {"question": f"{MATRIX} x {MATRIX} matrices", "precision": name}
        yield about, partial(matrix_rate, name, matrices)
    yield from using(texts)
    yield from training(texts, matrices)


def done(tasks: Iterator[Task], seconds: float) -> list[Found]:
    """Do what there is time for; what fails is a row, too."""
    start, rows = perf_counter(), []
    for row, work in tasks:
        if perf_counter() - start > seconds:
            row = row | {"skipped": True}
        else:
            began = perf_counter()
            try:
                row = row | work()
            except Exception as error:
                traceback.print_exc(limit=-3)
                row = row | {"error": f"{type(error).__name__}: {error}"}
            row["took_s"] = perf_counter() - began
            gc.collect()
            torch.cuda.empty_cache()
        rows.append(significant(row, 4))
        print("  ".join(f"{key} {value}" for key, value in rows[-1].items()), flush=True)
    return rows


def machine() -> Found:
    """The card and what drives it."""
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    driver = None
    with suppress(OSError):
        driver = subprocess.run(query, capture_output=True, text=True).stdout.strip()
    card = torch.cuda.get_device_properties(0)
    return {
        "card": f"{card.name}, {card.total_memory / 2**30:.0f} GiB",
        "driver": driver,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="a JSON file to write")
    parser.add_argument("--seconds", type=float, default=90, help="begin nothing new after these")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("benchmarks.gpu needs a CUDA GPU, and there is none.")
    start = perf_counter()
    texts, corpus = documents()
    texts = texts.part(range(len(texts) // max(BATCHES) * max(BATCHES)))  # whole batches only
    record = machine() | {"corpus": corpus}
    print(json.dumps(record), flush=True)
    record["rows"] = done(everything(texts), arguments.seconds - (perf_counter() - start))
    if arguments.out:
        arguments.out.write_text(
            json.dumps(record, indent=1, default=float) + "\n", encoding="utf-8"
        )


if __name__ == "__main__":
    main()
