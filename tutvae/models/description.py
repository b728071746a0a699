"""Models as JSON: what they are made of, so that a file of weights can say whose they are."""

import inspect
import json
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from tutvae import models
from tutvae.models.decoders import DECODERS
from tutvae.models.lstm_decoder import tie_weights
from tutvae.models.protocols import Described

# How to read the arguments of a model's constructor that are no attributes of the same name.
READ: dict[str, Callable[[Any], Any]] = {
    "dropout": lambda model: model.label_head.dropout.p,
    "hidden_sizes": lambda model: [
        layer.out_features for layer in model.encoder.hidden if isinstance(layer, nn.Linear)
    ],
    "label_prior": lambda model: None,  # the weights bring it, as a buffer
    "temperature": lambda model: model._present_temperature(),
}


def describe(model: nn.Module) -> dict[str, Any]:
    """Say what a model is, ready for JSON; `build` makes it from that, with new weights.

    `{"class": "TextVAE", "encoder": {"class": "LSTMEncoder", "vocabulary_size": 812, ...},
    "decoder": {"class": "LSTMDecoder", ..., "tied": True}}`: each class with the arguments of its
    constructor. A temperature that is a function of the step is described by its present value.
    A decoder of your own may be in the model if it is in `DECODERS`; any other class is a
    ValueError, as is an argument that cannot be put into JSON.
    """
    name = type(model).__name__
    if _classes().get(name) is not type(model):
        raise ValueError(
            f"{name} is neither one of tutvae.models nor registered: if it is a decoder, write "
            f'tutvae.models.DECODERS["{name}"] = {name} before you save and before you load. A '
            "model of any other class of your own is kept by save_weights and load_weights of "
            "tutvae.training.checkpoints"
        )
    described = {key: _plain(key, value) for key, value in _arguments(model).items()}
    if _is_tied(model):
        described.setdefault("tied", True)
    return {"class": name} | described


def build(description: Mapping[str, Any]) -> Any:
    """Make the model that a description tells of, on the CPU, from torch's random state.

    A class that is not known here, or does not take these arguments, is a ValueError.
    """
    arguments = dict(description)
    name = arguments.pop("class", None)
    if (made := _classes().get(name)) is None:
        raise ValueError(
            f"the model has a part of the class {name!r}, which is not known here: if it is a "
            f'decoder of your own, write tutvae.models.DECODERS["{name}"] = {name} first'
        )
    has_own = "tied" in inspect.signature(made.__init__).parameters
    tied = not has_own and arguments.pop("tied", False)
    for key, x in arguments.items():
        arguments[key] = build(x) if isinstance(x, Mapping) and "class" in x else x
    try:
        module: Any = made(**arguments)
    except TypeError as error:
        raise ValueError(
            f"{name} cannot be built as the description says ({error}): it is of another version"
        ) from error
    if tied:
        tie_weights(module)
    return module


def _classes() -> dict[str | None, type[nn.Module]]:
    """The classes that a description may name: it is data, and cannot name others."""
    public = (getattr(models, name) for name in models.__all__)
    ours = [x for x in public if isinstance(x, type) and issubclass(x, nn.Module)]
    return {made.__name__: made for made in (*DECODERS.values(), *ours)}


def _arguments(model: nn.Module) -> dict[str, Any]:
    """The arguments of a model's constructor, by name."""
    signature = inspect.signature(type(model).__init__)
    if isinstance(model, Described):
        args, kwargs = model.made_with
        bound = signature.bind(model, *args, **kwargs)
        bound.apply_defaults()
        _, *by_position = zip(signature.parameters, bound.args, strict=False)
        return dict(by_position) | bound.kwargs
    _, *names = signature.parameters
    try:
        return {k: READ[k](model) if k in READ else getattr(model, k) for k in names}
    except AttributeError as error:
        raise ValueError(f"{type(model).__name__} cannot be described: {error}") from error


def _plain(name: str, value: Any) -> Any:
    """A constructor's argument as JSON gives it back, with its modules described."""
    if isinstance(value, nn.Module):
        return describe(value)
    try:
        return json.loads(json.dumps(value))
    except TypeError as error:
        raise ValueError(
            f"the argument {name} cannot be put into a file ({error}): give numbers, strings, "
            "lists of them or modules"
        ) from error


def _is_tied(module: Any) -> bool:
    """Whether `tie_weights` was called for a decoder."""
    layers = (getattr(module, name, None) for name in ("embedding", "output"))
    read, predicted = (getattr(layer, "weight", None) for layer in layers)
    return read is not None and read is predicted
