"""The LSTM layer of encoder and decoder: PyTorch's, with a faster way for wide ones in bfloat16."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

# From about this width on our own way was the faster one, by one thread and by two.
WIDE = 768


class LSTM(nn.LSTM):
    """PyTorch's LSTM of one layer, `batch_first`; wide ones train faster in bfloat16 on a CPU.

    There PyTorch's library adds to the gradient of every weight at every word, and a wide layer
    has millions of them. Here the words' shares are one matrix product. Parameters, states and
    gradients are the same, to rounding.

    There are no second derivatives, and the last c is in single precision. No chapter defines it;
    they use PyTorch's.

    Source: Hochreiter & Schmidhuber (1997).
    """

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size, batch_first=True)

    def forward(  # type: ignore[override]  # packed, too
        self, x: Tensor, hx: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Read `[B, T, I]` from h and c, `[1, B, H]` each; return states `[B, T, H]`, h and c."""
        if self.hidden_size < WIDE or not (torch.is_grad_enabled() and _in_bf16(x)):
            return super().forward(x, hx)
        zeros = x.new_zeros(1, len(x), self.hidden_size)
        h, c = (zeros, zeros) if hx is None else hx
        self.check_forward_args(x, (h, c), None)
        in_weight, weight, in_bias, bias = self.all_weights[0]
        parts = (x.transpose(0, 1), h[0], in_weight, weight, in_bias + bias)
        states, c = _OneProduct.apply(c[0].float(), *(part.bfloat16() for part in parts))
        return states.transpose(0, 1), (states[-1:], c[None])


def _in_bf16(x: Any) -> bool:
    """Whether PyTorch would read single-precision documents, not packed, in bfloat16 on a CPU."""
    if not (isinstance(x, Tensor) and x.device.type == "cpu" and x.dtype is not torch.double):
        return False
    half = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") is torch.bfloat16
    return half and bool(torch.backends.mkldnn.enabled)


class _OneProduct(torch.autograd.Function):
    """The recurrence, and its gradient with one product for all words' shares of the weights'."""

    @staticmethod
    def forward(
        ctx: Any, c: Tensor, x: Tensor, h: Tensor, in_weight: Tensor, weight: Tensor, bias: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Read words `[T, B, I]` from h and c, `[B, H]`: states `[T, B, H]` and the last c."""
        T, B, _ = x.shape
        sums = torch.addmm(bias, x.flatten(0, 1), in_weight.t()).view(T, B, len(bias))
        gates = c.new_empty(T, B, 4, c.shape[1])  # input, forget, new, output
        states, cells = h.new_empty(T + 1, *h.shape), c.new_empty(T + 1, *c.shape)
        states[0], cells[0] = h, c
        for t, (i, f, g, o) in enumerate(gate.unbind(1) for gate in gates):
            gates[t] = torch.addmm(sums[t], states[t], weight.t()).view(B, 4, c.shape[1])
            gates[t, :, :2].sigmoid_()
            g.tanh_()
            o.sigmoid_()
            torch.addcmul(f * cells[t], i, g, out=cells[t + 1])
            states[t + 1] = o * cells[t + 1].tanh()
        ctx.save_for_backward(x, states, cells, gates, in_weight, weight)
        return states[1:], cells[-1].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_states: Tensor, of_c: Tensor) -> tuple[Tensor | None, ...]:
        """Go back through time; what reaches the gates' sums is kept, `[T, B, 4, H]`."""
        x, states, cells, gates, in_weight, weight = ctx.saved_tensors
        of_sums = x.new_empty(gates.shape)
        of_h, of_c = torch.zeros_like(of_c), of_c.clone()
        for t in reversed(range(len(x))):
            i, f, g, o = gates[t].unbind(1)
            of_h = of_h + of_states[t]
            seen = cells[t + 1].tanh()
            of_c.addcmul_(of_h * o, 1 - seen**2)
            of_gates = torch.stack([of_c * g, of_c * cells[t], of_c * i, of_h * seen], dim=1)
            slopes = gates[t] * (1 - gates[t])
            slopes[:, 2] = 1 - g**2
            of_sums[t] = of_gates.mul_(slopes)
            of_h = (of_sums[t].flatten(1) @ weight).to(of_c)
            of_c.mul_(f)
        rows = of_sums.flatten(0, 1).flatten(1)  # [T * B, 4 * H]
        # Frozen weights cost nothing.
        _, of_x, _, of_in_weight, of_weight, _ = ctx.needs_input_grad
        return (
            of_c,
            (rows @ in_weight).view_as(x) if of_x else None,
            of_h,
            rows.t() @ x.flatten(0, 1) if of_in_weight else None,
            rows.t() @ states[:-1].flatten(0, 1) if of_weight else None,
            rows.sum(0),
        )
