"""What only a GPU can check: recorded steps, a run that goes on, operations that would wait."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from copy import deepcopy
from functools import partial
from itertools import product
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from torch import nn

import tutvae
from tutvae.data.batches.resumable import endless
from tutvae.models import DilatedConvDecoder, LanguageModel, LSTMDecoder, LSTMEncoder, TextVAE
from tutvae.training.captured import CapturedSteps
from tutvae.training.engine import Engine, Precision
from tutvae.training.step import Stepper, adam

Found = dict[str, Any]
Task = tuple[Found, Callable[[], Found]]  # what is asked, and what finds out
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16", "fp16")
SMALL = {"sizes": (64, 128, 16), "V": 1000}


def lstm(sizes: Sequence[int], V: int, **options: float) -> TextVAE:
    return TextVAE(LSTMEncoder(V, *sizes), LSTMDecoder(V, *sizes, **options))


def cnn(sizes: Sequence[int], V: int, **options: float) -> TextVAE:
    decoder = DilatedConvDecoder(V, *sizes, dilations="large", **options)
    return TextVAE(LSTMEncoder(V, *sizes), decoder)


def language_model(sizes: Sequence[int], V: int, **options: float) -> LanguageModel:
    return LanguageModel(LSTMDecoder(V, *sizes[:2], **options))


def recording(captured: bool) -> Any:
    """Let steps be recorded, or not."""
    return (
        nullcontext() if captured else patch("tutvae.training.step.can_capture", lambda *_: False)
    )


def random_texts(count: int = 640) -> tutvae.EncodedTexts:
    random = torch.Generator().manual_seed(0)
    lengths = torch.randint(3, 31, (count,), generator=random).tolist()
    words = (torch.randint(4, SMALL["V"], (n,), generator=random).tolist() for n in lengths)
    return tutvae.EncodedTexts([[1, *ids, 2] for ids in words])


def far(ours: nn.Module, theirs: nn.Module, start: nn.Module) -> float:
    """How far two models went apart, as a share of how far they went."""
    flat = [
        nn.utils.parameters_to_vector(x.parameters()).detach().cpu() for x in (ours, theirs, start)
    ]
    return ((flat[0] - flat[1]).norm() / (flat[1] - flat[2]).norm()).item()


# In place of a recorder: the same work is done again.
AGAIN: Any = SimpleNamespace(rehearse=lambda work: work(), record=lambda work: work)


def steps_taken(
    model: nn.Module, precision: Precision, way: str, steps: int, device: str
) -> tuple[list[float], int]:
    """The losses of steps, all from the same seed, and how many graphs there are."""
    with recording(way == "graph"):
        engine = Engine(model, device, precision)
        stepper = Stepper(engine, adam(model.parameters()), max_grad_norm=5.0)
    if way == "again":
        stepper.captured = CapturedSteps(engine, stepper.optimizer, 5.0, AGAIN)
    batches = endless(tutvae.Batches(random_texts(), batch_size=32))
    torch.manual_seed(1)
    losses = []
    for number in range(steps):
        stepper.optimizer.param_groups[0]["lr"] = 1e-3 / (1 + number / steps)
        losses.append(stepper.step([next(batches)], number, number / steps)[0].item())
    shapes = stepper.captured.shapes.values() if stepper.captured else ()
    return losses, sum(shape.play is not None for shape in shapes)


def same_steps(
    build: Callable[..., nn.Module], precision: Precision, steps: int = 20, device: str = "cuda"
) -> Found:
    """Graphs end where the same operations do, and near to steps without more padding.

    The figures of the latter, "plain", tell what rounding does to other shapes.
    """
    torch.manual_seed(0)
    start = build(**SMALL)
    models = {way: deepcopy(start) for way in ("graph", "again", "plain")}
    losses, graphs = {}, {}
    for way, model in models.items():
        losses[way], graphs[way] = steps_taken(model, precision, way, steps, device)

    def differ(one: str, other: str) -> list[float]:
        pairs = zip(losses[one], losses[other], strict=True)
        return [max(abs(x / y - 1) for x, y in pairs), far(models[one], models[other], start)]

    exact, plain = differ("graph", "again"), differ("graph", "plain")
    near = 1e-3 if precision == "fp32" else 0.02
    passed = max(exact) < 1e-3 and plain[0] < near and graphs["graph"] > 0
    return {"passed": passed, "same": exact, "plain": plain, "graphs": graphs["graph"]}


def resumed(precision: Precision, device: str = "cuda") -> Found:
    """A run that breaks off ends, after another call, where one does that was left alone."""

    def train(
        folder: str | None, breaks_at: int | None
    ) -> tuple[nn.Module, list[dict[str, float]]]:
        def weight(step: int) -> float:
            if step == breaks_at:
                raise InterruptedError
            return min(1.0, step / 15)

        torch.manual_seed(0)
        model = lstm(**SMALL, word_dropout=0.3, dropout=0.1)
        history = tutvae.fit(
            model,
            tutvae.Batches(random_texts(320), batch_size=32),
            epochs=2,
            kl_weight=weight,
            scheduler="cosine",
            max_grad_norm=5.0,
            precision=precision,
            device=device,
            run_folder=folder,
            checkpoint_minutes=0,
            progress=False,
        )
        return model, history.records

    whole, records = train(None, None)
    with tempfile.TemporaryDirectory() as folder:
        try:
            train(folder, 13)
        except InterruptedError:
            after, again = train(folder, None)
    torch.manual_seed(0)
    apart = far(after, whole, lstm(**SMALL))  # the one that both began with
    ratio = again[-1]["train_reconstruction"] / records[-1]["train_reconstruction"]
    return {"passed": apart < 0.01, "losses": abs(ratio - 1), "weights": apart}


def no_wait(build: Callable[..., nn.Module], precision: Precision, captured: bool) -> Found:
    """No operation of a step waits for the GPU."""
    model = build(**SMALL)
    with recording(captured):
        engine = Engine(model, "cuda", precision)
        stepper = Stepper(engine, adam(model.parameters()), max_grad_norm=5.0)
    batch = random_texts().batch(range(32)).to("cuda")
    for number in range(3):
        stepper.step([batch], number, 0.5, 0.1)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for number in range(3):
            stepper.step([batch], number, 0.5, 0.1)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return {"passed": True}


def checks() -> Iterator[Task]:
    builds = {"language model": language_model, "LSTM": lstm, "CNN": cnn}
    for precision in PRECISIONS:
        for name, build in builds.items():
            about = {"check": f"graph as eager, {name}", "precision": precision}
            yield about, partial(same_steps, build, precision)
    for precision in PRECISIONS:
        about = {"check": "killed and resumed, LSTM", "precision": precision}
        yield about, partial(resumed, precision)
    for (name, build), precision, captured in product(builds.items(), PRECISIONS, (True, False)):
        about = {"check": f"no wait in a step, {name}", "precision": precision}
        way = "graph" if captured else "eager"
        yield about | {"way": way}, partial(no_wait, build, precision, captured)
