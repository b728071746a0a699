"""A second device in plain Python, for computers that have none.

Its tensors stand for tensors of the CPU, which do the work. What raises on a GPU raises here: to
mix the two devices, to read its tensors as arrays, to draw on it by a generator of the CPU. So
tests find code that forgets to move a tensor. Autocast does nothing there.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import backend_registration
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

NAME = "pretend"
AUTOCAST = torch.library.Library("_", "IMPL", "AutocastPrivateUse1")
aten = torch.ops.aten
COPIES = (aten._to_copy.default, aten.copy_.default)
INDEXED = (aten.index.Tensor, aten.index_put.default, aten.index_put_.default)


class Elsewhere(Tensor):
    """A tensor on the second device, whose values are those of `here`, on the CPU."""

    here: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, here: Tensor) -> Elsewhere:
        size, stride, offset = here.shape, here.stride(), here.storage_offset()
        tensor = Tensor._make_wrapper_subclass(
            cls, size, stride, offset, dtype=here.dtype, device=f"{NAME}:0"
        )
        tensor.here = here
        return tensor

    # With these two `Module.to` keeps a parameter the same object, as it does for a GPU.
    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["here"], None

    @staticmethod
    def __tensor_unflatten__(inner: dict[str, Tensor], *_: Any) -> Elsewhere:
        return Elsewhere(inner["here"])

    def __repr__(self) -> str:
        return f"Elsewhere({self.here})"

    def __format__(self, spec: str) -> str:
        return format(self.here, spec)

    def tolist(self) -> Any:
        return self.here.tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(func, args, kwargs or {})


class Dispatch(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(func, args, kwargs or {})


class Constructors(TorchFunctionMode):
    """What makes tensors of lists does not ask `Dispatch`: it gets two steps instead of one."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in (torch.tensor, torch.as_tensor) and kwargs.get("device") is not None:
            return func(*args, **kwargs | {"device": "cpu"}).to(kwargs["device"])
        return func(*args, **kwargs)


class Backend:
    """What torch asks of a device besides."""

    def is_initialized(self) -> bool:
        return True

    is_available = is_initialized

    def device_count(self) -> int:
        return 1

    def current_device(self) -> int:
        return 0

    def manual_seed_all(self, seed: int) -> None:
        """It draws by the generator of the CPU."""

    def get_rng_state(self, device: torch.device) -> Tensor:
        return torch.empty(0)

    def set_rng_state(self, state: Tensor, device: torch.device) -> None:
        pass

    def _is_in_bad_fork(self) -> bool:
        return False

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]


# At import, so before the first backward pass of a test: torch counts the devices there.
KNOWN = hasattr(backend_registration, "_setup_privateuseone_for_python_backend")
if KNOWN and not hasattr(torch, NAME):
    backend_registration._setup_privateuseone_for_python_backend(NAME, Backend())
    AUTOCAST.fallback(torch.library.fallthrough_kernel)


@contextmanager
def pretend_device() -> Iterator[torch.device]:
    """A context in which there is the device."""
    with Dispatch(), Constructors():
        yield torch.device(NAME, 0)


def run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Do an operation on the CPU; its results are where it is told, else where its operands are."""
    leaves = tree_leaves((args, kwargs))
    there = any(isinstance(x, Elsewhere) for x in leaves)
    if there and func not in COPIES:
        check_places(func, args)
    if kwargs.get("device") is not None:
        there = torch.device(kwargs["device"]).type == NAME
        kwargs = kwargs | {"device": torch.device("cpu")}
    if there and any(isinstance(x, torch.Generator) for x in leaves):
        raise RuntimeError(f"Expected a '{NAME}' device type for generator but found 'cpu'")
    on_cpu = tree_map(lambda x: x.here if isinstance(x, Elsewhere) else x, (args, kwargs))
    result = CELLS.get(func, func)(*on_cpu[0], **on_cpu[1])
    if torch.Tag.inplace_view in func.tags and there:
        with no_dispatch():
            func(*args, **kwargs)  # the shape of the tensor that stands for the changed one
    if is_in_place(func):
        return None if result is None else args[0]
    return tree_map(lambda x: Elsewhere(x) if there and isinstance(x, Tensor) else x, result)


def is_in_place(func: Any) -> bool:
    return func._schema.name.endswith("_")


def check_places(func: Any, args: Any) -> None:
    """Raise RuntimeError where a GPU would; what is read may be an index or a number of the CPU."""
    if func in INDEXED:
        args = args[0], *args[2:]
    read = tree_leaves(args[1:] if is_in_place(func) else args)
    must = [x for x in read if isinstance(x, Tensor) and x.dim() > 0]
    must += tree_leaves(args[:1] if is_in_place(func) else ())
    if not all(isinstance(x, Elsewhere) for x in must):
        raise RuntimeError(
            "Expected all tensors to be on the same device, but found at least two devices, "
            f"{NAME}:0 and cpu! ({func})"
        )


# What torch computes in one operation on every device but the CPU. The pre-activations are kept
# for the way back, for which torch has functions of many operations.
def lstm_cell(
    inputs: Tensor, hidden: Tensor, c: Tensor, *biases: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    gates = sum(biases, inputs + hidden)
    i, f, g, o = gates.chunk(4, 1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c, gates


def lstm_cell_backward(
    grad_h: Any, grad_c: Any, c: Tensor, new_c: Tensor, gates: Tensor, has_bias: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    back = aten._thnn_differentiable_lstm_cell_backward
    zeros = torch.zeros_like(gates)
    grad, _, grad_c, _, _ = back(grad_h, grad_c, gates, zeros, None, None, c, new_c)
    return grad, grad_c, grad.sum(0) if has_bias else None


def gru_cell(
    inputs: Tensor, hidden: Tensor, h: Tensor, bias: Tensor, hidden_bias: Tensor
) -> tuple[Tensor, Tensor]:
    inputs, hidden = inputs + bias, hidden + hidden_bias
    (r, z, n), (r_h, z_h, n_h) = inputs.chunk(3, 1), hidden.chunk(3, 1)
    n = (n + (r + r_h).sigmoid() * n_h).tanh()
    return n + (z + z_h).sigmoid() * (h - n), torch.cat([inputs, hidden, h], 1)


def gru_cell_backward(grad_h: Tensor, kept: Tensor, has_bias: bool) -> tuple[Tensor, ...]:
    H = grad_h.shape[1]
    back = aten._thnn_differentiable_gru_cell_backward
    inputs, hidden, h = kept.split([3 * H, 3 * H, H], 1)
    grads = back(grad_h, inputs, hidden, h, None, None)[:3]
    return *grads, grads[0].sum(0), grads[1].sum(0)


CELLS = {
    aten._thnn_fused_lstm_cell.default: lstm_cell,
    aten._thnn_fused_lstm_cell_backward_impl.default: lstm_cell_backward,
    aten._thnn_fused_gru_cell.default: gru_cell,
    aten._thnn_fused_gru_cell_backward.default: gru_cell_backward,
}
