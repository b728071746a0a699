"""Checkpoints: safetensors and JSON in one file, written whole or not at all."""

import json
import random
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from tutvae.data.readers.files import write_beside
from tutvae.models.description import build, describe

LAST, BEST = "last.safetensors", "best.safetensors"  # in a run folder
WEIGHTS = "weights.safetensors"  # there, too: a model's state dict alone
REMEDY = "Build the model as it was for that run, or choose another folder"
# What may change while a model trains, and so tells nothing about whose weights they are.
PASSING = {"temperature": None}
SCALE = ".scale"  # behind the name of a tensor of bytes: what its rows are multiplied by
Bits = Literal[8, 16, 32]
ABOUT = "tutvae"  # the entry of a file's metadata, and how its tensors' names begin


def save_tensors(path: str | Path, tensors: Mapping[str, Tensor], about: Any = None) -> None:
    """Write tensors, and what there is to say about them, into one safetensors file.

    `about` may hold numbers, strings, None, tensors, lists and mappings of them; anything else is a
    TypeError. A file that cannot be written is an OSError: what was there before stays.
    """
    tensors = dict(tensors)
    metadata = {ABOUT: json.dumps(_to_json(about, tensors))}
    # Copies, because tied weights share their memory, which the format forbids.
    copies = {name: x.detach().cpu().clone().contiguous() for name, x in tensors.items()}
    write_or_explain(Path(path), safetensors.torch.save(copies, metadata))


def load_tensors(path: str | Path) -> tuple[dict[str, Tensor], Any]:
    """Read what `save_tensors` wrote: the tensors, on the CPU, and what it says about them.

    No file is a FileNotFoundError, a damaged or foreign one a ValueError.
    """
    tensors, metadata = _read(path)
    try:
        return tensors, _from_json(json.loads(metadata[ABOUT]), tensors)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise not_ours(path, f"its metadata and its tensors are not ours: {error!r}") from error


def said_of(path: str | Path, key: str) -> Any:
    """Read one thing that a checkpoint, or a file of weights, says; None if it does not say it.

    That is the "configuration" of the run it is of, or the description of its "model".
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return json.loads(file.metadata()[ABOUT])[key]
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError):
        return None  # whoever reads all of it is told what is wrong


def save_weights(model: nn.Module, path: str | Path, *, bits: Bits = 32, **about: Any) -> None:
    """Write a model's weights and what the model is into a safetensors file. The page on scaling.

    Tied weights are in it once, with so many `bits` each (16 are fp16; with 8, each row of a matrix
    has a scale of its own). `about` is what else to say of them, ready for JSON: a `configuration`
    is that of the run that they are of; see `RunFolder.open`. The error is that of `save_tensors`.
    """
    state = model.state_dict()
    first = _first_names(state)
    tensors = {name: x for name, x in state.items() if first[name] == name}
    if bits == 8:
        tensors = _in_bytes(tensors)
    if bits < 32:
        tensors = {n: x.half() if x.is_floating_point() else x for n, x in tensors.items()}
    save_tensors(path, tensors, {"model": described(model), **about})


def _in_bytes(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Round each row of a matrix to 255 multiples of the 127th part of its largest number."""
    rounded = {}
    for name, x in tensors.items():
        if x.is_floating_point() and x.dim() == 2:
            scale = (x.abs().amax(1, keepdim=True) / 127).clamp(min=6e-8).half()
            rounded[name + SCALE] = scale
            x = (x / scale.float()).round().clamp(-127, 127).to(torch.int8)
        rounded[name] = x
    return rounded


def _from_bytes(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Undo `_in_bytes`, up to the rounding."""
    scales = {name.removesuffix(SCALE): x for name, x in tensors.items() if name.endswith(SCALE)}
    return {
        name: x.float() * scales[name].float() if name in scales else x
        for name, x in tensors.items()
        if not name.endswith(SCALE)
    }


def described(model: nn.Module) -> dict[str, Any] | None:
    """What a model is, for a file of its weights; None of a class that cannot be described."""
    with suppress(ValueError):
        return describe(model)
    return None


def best_weights(folder: str | Path) -> Path:
    """The weights in a run folder: those of the finished run, else its best, else its last."""
    there = (Path(folder) / name for name in (WEIGHTS, BEST) if (Path(folder) / name).exists())
    return next(there, Path(folder) / LAST)


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Give a model, built as it was for a run, the weights of that run. The page on scaling.

    It may be on any device, and keeps its precision. `path` is a safetensors file with a model's
    weights, or a run folder, which means those of the finished run, else its best, else its last.
    Weights of another model, also of one with the same shapes, are a ValueError.
    """
    path = best_weights(path) if Path(path).is_dir() else Path(path)
    tensors, _ = _read(path)
    tensors = {name: x for name, x in tensors.items() if not name.startswith(f"{ABOUT}.")}
    set_weights(model, _from_bytes(tensors), str(path), said_of(path, "model"))


def set_weights(
    model: nn.Module,
    weights: Mapping[str, Tensor],
    where: str,
    description: Mapping[str, Any] | None = None,
) -> None:
    """Load a state dict, in which tied weights may stand once.

    A name or a shape that differs, or another model than the description, where there is one,
    tells of, is a ValueError; it names `where` they came from.
    """
    state = model.state_dict()
    tied = {name: first for name, first in _first_names(state).items() if first in weights}
    weights = {name: weights[first] for name, first in tied.items()} | dict(weights)
    own = {name: tuple(x.shape) for name, x in state.items()}
    theirs = {name: tuple(x.shape) for name, x in weights.items()}
    if wrong := [name for name in {**own, **theirs} if own.get(name) != theirs.get(name)]:
        name = wrong[0]
        raise ValueError(
            f"{where} holds the weights of another model: {len(wrong)} tensors differ, the first "
            f"of them {name!r}, {theirs.get(name, 'absent')} there and {own.get(name, 'absent')} "
            f"in the model. {REMEDY}"
        )
    # What this version can tell of a model and an older one could not, has its default.
    with torch.device("meta"):
        there = described(build(description)) if description else None
    here, there = described(model) or {}, there or {}
    if different := here and there and difference({**there, **PASSING}, {**here, **PASSING}):
        raise ValueError(f"{where} holds the weights of another model: {different}. {REMEDY}")
    model.load_state_dict(weights)


def random_state() -> dict[str, Any]:
    """All of this process's random states: torch's, numpy's and Python's."""
    states: dict[str, Any] = {name: x.get_rng_state() for name, x in _devices().items()}
    kind, keys, *rest = np.random.get_state()
    return states | {"numpy": [kind, np.asarray(keys).tolist(), *rest], "python": random.getstate()}


def set_random_state(state: Mapping[str, Any]) -> None:
    """Restore what `random_state` returned."""
    for name, device in _devices().items():
        if name in state:
            device.set_rng_state(state[name])
    np.random.set_state(state["numpy"])
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))


def _devices() -> dict[str, Any]:
    """What has a random state in torch."""
    devices: dict[str, Any] = {"cpu": torch}
    if torch.cuda.is_available():
        devices["cuda"] = torch.cuda
    if torch.backends.mps.is_available():
        devices["mps"] = torch.mps
    return devices


def difference(old: Mapping[Any, Any], new: Mapping[Any, Any], prefix: str = "") -> str:
    """Name the first key in which two configurations differ, with both its values; "" if none."""
    for key in {**old, **new}:
        one, other = old.get(key), new.get(key)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            if found := difference(one, other, f"{prefix}{key}."):
                return found
        elif one != other:
            return f"its {prefix}{key} is {one}, now it is {other}"
    return ""


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


def _read(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the metadata of a safetensors file."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no checkpoint {path}")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return tensors, file.metadata() or {}
    except safetensors.SafetensorError as error:
        raise not_ours(path, str(error)) from error


def _first_names(state: Mapping[str, Tensor]) -> dict[str, str]:
    """For each name the first of the same memory: tied weights have several names."""
    first: dict[Any, str] = {}
    return {k: first.setdefault((x.data_ptr() or k, x.shape), k) for k, x in state.items()}


def _to_json(value: Any, tensors: dict[str, Tensor]) -> Any:
    """Make a value fit for JSON: its tensors go to the others, its keys may be no strings."""
    if isinstance(value, Tensor):
        name = f"{ABOUT}.{len(tensors)}"
        tensors[name] = value
        return {"__tensor__": name}
    if isinstance(value, Mapping):
        items = [[key, _to_json(entry, tensors)] for key, entry in value.items()]
        plain = all(isinstance(key, str) for key in value)
        return dict(items) if plain else {"__items__": items}
    if isinstance(value, (list, tuple)):
        return [_to_json(entry, tensors) for entry in value]
    return value


def _from_json(value: Any, tensors: dict[str, Tensor]) -> Any:
    """Undo `_to_json`; tuples stay lists."""
    if isinstance(value, list):
        return [_from_json(entry, tensors) for entry in value]
    if not isinstance(value, dict):
        return value
    if "__tensor__" in value:
        return tensors.pop(value["__tensor__"])
    items = value["__items__"] if "__items__" in value else value.items()
    return {key: _from_json(entry, tensors) for key, entry in items}
