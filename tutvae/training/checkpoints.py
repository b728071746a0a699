"""Checkpoints: safetensors and JSON in one file, written whole or not at all."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from tutvae.data.readers.files import write_beside

LAST, BEST = "last.safetensors", "best.safetensors"  # in a run folder
WEIGHTS = "weights.safetensors"  # there, too: a model's state dict alone
ABOUT = "tutvae"  # the entry of a checkpoint's metadata


def save_tensors(path: str | Path, tensors: Mapping[str, Tensor], about: Any = None) -> None:
    """Write tensors, and what JSON can say about them, into one safetensors file.

    Args:
        path: the file. It is replaced in one move, once the new one is whole.
        tensors: by name.
        about: numbers, strings, None, lists and mappings of them.

    Raises:
        OSError: it cannot be written; what was there before stays.
        TypeError: `about` holds something else, or a value is no tensor.
    """
    metadata = {ABOUT: json.dumps(_to_json(about))}
    write_or_explain(Path(path), safetensors.torch.save(_independent(tensors), metadata))


def load_tensors(path: str | Path) -> tuple[dict[str, Tensor], Any]:
    """Read what `save_tensors` wrote: the tensors, on the CPU, and what it says about them.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged or was not written by `save_tensors`.
    """
    with _opened(path) as file:
        return _tensors(file), _about(path, file.metadata())


def configuration_of(path: str | Path) -> dict[str, Any] | None:
    """Read which run a checkpoint, or a file of weights, is of; None if it does not say."""
    try:
        with _opened(path) as file:
            metadata = file.metadata() or {}
        about = _about(path, metadata) if ABOUT in metadata else metadata
        found = about["configuration"]
        return dict(json.loads(found) if isinstance(found, str) else found)
    except (KeyError, TypeError, ValueError):
        return None  # whoever reads all of it is told what is wrong


def save_weights(
    model: nn.Module,
    path: str | Path,
    *,
    half: bool = False,
    configuration: Mapping[str, Any] | None = None,
) -> None:
    """Write a model's state dict into a safetensors file.

    Args:
        model: on any device. Tied weights are written once.
        path: the file. It is replaced in one move, once the new one is whole.
        half: write 16 bits a weight (fp16).
        configuration: of the run that the weights are of; see `RunFolder.open`.

    Raises:
        OSError: it cannot be written; what was there before stays.

    Source: chapter 10.
    """
    state = model.state_dict()
    first = _first_names(state)
    tensors = _independent({name: x for name, x in state.items() if first[name] == name})
    if half:
        tensors = {n: x.half() if x.is_floating_point() else x for n, x in tensors.items()}
    metadata = None if configuration is None else {"configuration": json.dumps(dict(configuration))}
    write_or_explain(Path(path), safetensors.torch.save(tensors, metadata))


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Give a model the weights of a run.

    Args:
        model: built as it was for the run; on any device. It keeps its precision, whatever that
            of the file.
        path: a safetensors file with a model's weights; or a run folder, which means those of
            the finished run, else its best, else its last.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the weights are those of another model.

    Source: chapter 10.
    """
    path = Path(path)
    if path.is_dir():
        there = [path / name for name in (WEIGHTS, BEST, LAST) if (path / name).exists()]
        path = there[0] if there else path / LAST
    with _opened(path) as file:
        tensors, is_checkpoint = _tensors(file), ABOUT in (file.metadata() or {})
    set_weights(model, model_weights(tensors) if is_checkpoint else tensors, str(path))


def model_tensors(model: nn.Module) -> dict[str, Tensor]:
    """A model's state dict as the tensors of a checkpoint."""
    return {f"model.{name}": tensor for name, tensor in model.state_dict().items()}


def model_weights(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The entries of a model's state dict among a checkpoint's tensors."""
    prefix = "model."
    return {name[len(prefix) :]: x for name, x in tensors.items() if name.startswith(prefix)}


def set_weights(model: nn.Module, weights: Mapping[str, Tensor], where: str) -> None:
    """Load a state dict, in which tied weights may stand once.

    Raises:
        ValueError: a name or a shape differs; the message names `where` they came from.
    """
    state = model.state_dict()
    tied = {name: first for name, first in _first_names(state).items() if first in weights}
    weights = {name: weights[first] for name, first in tied.items()} | dict(weights)
    own = {name: tuple(x.shape) for name, x in state.items()}
    theirs = {name: tuple(x.shape) for name, x in weights.items()}
    wrong = [name for name in {**own, **theirs} if own.get(name) != theirs.get(name)]
    if wrong:
        name = wrong[0]
        raise ValueError(
            f"{where} holds the weights of another model: {len(wrong)} tensors differ, the first "
            f"of them {name!r}, {theirs.get(name, 'absent')} there and {own.get(name, 'absent')} "
            "in the model. Build the model as it was for that run, or choose another folder"
        )
    model.load_state_dict(weights)


def optimizer_state(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], Any]:
    """Divide an optimizer's state into tensors by name, and the rest for JSON."""
    state = optimizer.state_dict()
    tensors: dict[str, Tensor] = {}
    rest: dict[int, dict[str, Any]] = {}
    for index, values in state["state"].items():
        rest[index] = {k: v for k, v in values.items() if not isinstance(v, Tensor)}
        found = values.keys() - rest[index].keys()
        tensors |= {f"optimizer.{index}.{name}": values[name] for name in found}
    return tensors, state | {"state": rest}


def set_optimizer_state(
    optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], rest: Any
) -> None:
    """Restore what `optimizer_state` returned.

    Raises:
        ValueError: the state is that of other parameters or another kind of optimizer.
    """
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, index, entry = name.split(".", 2)
            rest["state"][int(index)][entry] = tensor
    known = [set(group) for group in optimizer.state_dict()["param_groups"]]
    if known != [set(group) for group in rest["param_groups"]]:
        raise ValueError(
            "the checkpoint is of another optimizer: resume with the one the run was started with"
        )
    optimizer.load_state_dict(rest)


def hyperparameters(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    """What was chosen for each group of an optimizer's parameters, ready for JSON."""
    other = ("params", "initial_lr", "foreach", "fused", "capturable", "differentiable")
    return [
        {k: list(v) if isinstance(v, tuple) else v for k, v in group.items() if k not in other}
        for group in optimizer.param_groups
    ]


def random_state() -> dict[str, Any]:
    """All of this process's random states, ready for JSON: torch's, numpy's and Python's."""
    states: dict[str, Any] = {name: x.get_rng_state().tolist() for name, x in _devices().items()}
    kind, keys, *rest = np.random.get_state()
    return states | {"numpy": [kind, np.asarray(keys).tolist(), *rest], "python": random.getstate()}


def set_random_state(state: Mapping[str, Any]) -> None:
    """Restore what `random_state` returned."""
    for name, device in _devices().items():
        if name in state:
            device.set_rng_state(torch.tensor(state[name], dtype=torch.uint8))
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), *rest))
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))


def _devices() -> dict[str, Any]:
    """What has a random state in torch."""
    there = {"cpu": True, "cuda": torch.cuda.is_available()}
    there["mps"] = torch.backends.mps.is_available()
    return {name: getattr(torch, name) if name != "cpu" else torch for name in there if there[name]}


def write_or_explain(path: Path, content: bytes) -> None:
    """Write a whole file, or raise the one OSError that says what to do."""
    try:
        write_beside(path, content)
    except OSError as error:
        raise not_written(path, error) from error


def not_written(path: Path, error: OSError) -> OSError:
    """The one error for a full disk and for a folder that cannot be written to."""
    return OSError(
        f"{path} could not be written ({error}). What was there before is whole: make room, or "
        "the folder writable, and start the same run again to go on from its last checkpoint"
    )


def not_ours(path: str | Path, why: str) -> ValueError:
    """The one error for a checkpoint from which nothing can go on."""
    return ValueError(
        f"{path} is no whole checkpoint of this package ({why}): choose another folder, or remove "
        "the file to begin anew"
    )


@contextmanager
def _opened(path: str | Path) -> Iterator[Any]:
    """A safetensors file."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no checkpoint {path}")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            yield file
    except safetensors.SafetensorError as error:
        raise not_ours(path, str(error)) from error


def _tensors(file: Any) -> dict[str, Tensor]:
    """All the tensors of an open file."""
    return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def _about(path: str | Path, metadata: Mapping[str, str] | None) -> Any:
    """What `save_tensors` was told about the tensors of a file."""
    try:
        return _from_json(json.loads((metadata or {})[ABOUT]))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise not_ours(path, f"its metadata is not ours: {error!r}") from error


def _first_names(state: Mapping[str, Tensor]) -> dict[str, str]:
    """For each name the first of the same memory: tied weights have several names."""
    first: dict[Any, str] = {}
    return {
        name: first.setdefault((x.data_ptr() or name, x.shape), name) for name, x in state.items()
    }


def _independent(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies on the CPU: tied weights share their memory, which the format forbids."""
    return {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}


def _to_json(value: Any) -> Any:
    """Make mappings whose keys are no strings fit for JSON."""
    if isinstance(value, Mapping):
        items = [[key, _to_json(entry)] for key, entry in value.items()]
        plain = all(isinstance(key, str) for key in value)
        return dict(items) if plain else {"__items__": items}
    return [_to_json(entry) for entry in value] if isinstance(value, (list, tuple)) else value


def _from_json(value: Any) -> Any:
    """Undo `_to_json`; tuples stay lists."""
    if isinstance(value, dict):
        items = value["__items__"] if "__items__" in value else value.items()
        return {key: _from_json(entry) for key, entry in items}
    return [_from_json(entry) for entry in value] if isinstance(value, list) else value
