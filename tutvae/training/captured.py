"""A training step on a GPU, recorded once for each shape of a batch and played again."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.optim import Adam, AdamW, Optimizer

from tutvae.data.batches.fixed import FixedBatch, padded_shape
from tutvae.data.batches.text_batch import TextBatch
from tutvae.models.text_vae import LanguageModel, TextVAE, check_tokens
from tutvae.training.engine import Engine

MOST_SHAPES = 32  # for each, a graph is kept
OWN = ("torch", "tutvae")  # where layers are from that do the same every time

Outputs = tuple[Tensor, dict[str, Tensor]]  # the loss, and the terms of the bound `[B]`
Result = TypeVar("Result")


class Recorder:
    """Records work on a GPU as CUDA graphs, which share their memory."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device)
        self.pool = torch.cuda.graph_pool_handle()

    def rehearse(self, work: Callable[[], Result]) -> Result:
        """Do it where it will be recorded: what is set up at the first call cannot be recorded."""
        present = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(present)
        with torch.cuda.stream(self.stream):
            result = work()
        present.wait_stream(self.stream)
        return result

    def record(self, work: Callable[[], Result]) -> Callable[[], Result]:
        """Return what does it again, by a single call to the GPU, into the same tensors."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self.pool, stream=self.stream):
            result = work()

        def play() -> Result:
            graph.replay()
            return result

        return play


@dataclass
class _Shape:
    """The batch of a shape, whose tensors stay where they are, and the step on it, if recorded."""

    batch: FixedBatch
    play: Callable[[], Outputs] | None = None


class CapturedSteps:
    """Takes the steps of one batch, by graphs where the shape was seen before.

    A step is hundreds of small operations, and Python takes longer to start them than a GPU to
    compute them. A CUDA graph holds all of them, from the batch to the new weights, and starts
    at once. It reads and writes the same memory every time, so whatever changes from step to
    step is put into tensors that stay: tokens and lengths, the KL weight, the learning rates.
    Dropout and samples are new each time: the graph moves the GPU's generator on. The first
    step of a shape is an ordinary one, the second is recorded. No chapter defines it.
    """

    def __init__(
        self,
        engine: Engine,
        optimizer: Optimizer,
        max_grad_norm: float | None,
        recorder: Recorder | None = None,
    ) -> None:
        self.engine, self.optimizer, self.max_grad_norm = engine, optimizer, max_grad_norm
        self.recorder = recorder or Recorder(engine.device)
        self.kl_weight = torch.zeros((), device=engine.device)
        self.rates = [torch.zeros((), device=engine.device) for _ in optimizer.param_groups]
        self.shapes: dict[Any, _Shape] = {}

    def step(self, batches: Sequence[Any], kl_weight: float = 1.0, *options: Any) -> Outputs | None:
        """Take a step, or return None where it is none to record: then it is still to be taken.

        A step of several batches has no graph, nor have images, nor one shape too many. `options`
        are the others of `Elbo.loss`; each choice of them has graphs of its own.
        """
        if len(batches) > 1 or not isinstance(batches[0], TextBatch):
            return None
        (batch,) = batches
        settings = [{k: v for k, v in g.items() if k not in ("params", "lr")} for g in self._groups]
        key = (padded_shape(batch), options, str(settings))
        known = key in self.shapes
        if not known and len(self.shapes) == MOST_SHAPES:
            return None
        if not known:
            self.shapes[key] = _Shape(FixedBatch.for_those_like(batch, self.engine.device))
        shape = self.shapes[key]
        self._fill(shape.batch, batch, kl_weight)
        work = partial(self._take, shape.batch, *options)
        if not known:
            return self.recorder.rehearse(work)
        if shape.play is None:
            with self._capturable():
                shape.play = self.recorder.record(work)
        loss, terms = shape.play()
        # Copies, because the next step, of whichever shape, may write to the same memory.
        return loss.clone(), {name: x.clone() for name, x in terms.items()}

    @property
    def _groups(self) -> list[dict[str, Any]]:
        return self.optimizer.param_groups

    def _fill(self, fixed: FixedBatch, batch: TextBatch, kl_weight: float) -> None:
        """Write down what is new in this step."""
        model: Any = self.engine.model
        check_tokens(batch, model.decoder.vocabulary_size)  # a recorded step does not look
        fixed.hold(batch.to(self.engine.device))
        self.kl_weight.fill_(kl_weight)
        for rate, group in zip(self.rates, self._groups, strict=True):
            rate.fill_(group["lr"])

    def _take(self, batch: FixedBatch, *options: Any) -> Outputs:
        """An ordinary step on one batch, none of whose operations waits for the GPU."""
        self.engine.model.zero_grad()
        elbo = self.engine.forward(batch)
        weight: Any = self.kl_weight
        loss = elbo.loss(weight, *options)
        self.engine.backward(loss)
        self.engine.update(self.optimizer, self.max_grad_norm)
        return loss.detach(), {name: x.detach() for name, x in elbo.terms.items()}

    @contextmanager
    def _capturable(self) -> Iterator[None]:
        """Let the optimizer read its learning rates on the GPU, while it is recorded only."""
        own = [dict(group) for group in self._groups]
        for group, rate in zip(self._groups, self.rates, strict=True):
            group |= {"lr": rate, "capturable": True}
        try:
            yield
        finally:
            for group, before in zip(self._groups, own, strict=True):
                group |= before


def can_capture(engine: Engine, optimizer: Optimizer) -> bool:
    """Whether steps can be recorded: those of the package's models of text on one CUDA device.

    The layers must be the package's, since those of others might do what is not repeated, and
    Adam fused, so that it counts its steps on the device.
    """
    return (
        engine.device.type == "cuda"
        and type(optimizer) in (Adam, AdamW)
        and all(group["fused"] for group in optimizer.param_groups)
        and engine.processes == 1
        and type(engine.model) in (LanguageModel, TextVAE)
        and all(type(x).__module__.split(".")[0] in OWN for x in engine.model.modules())
    )
