"""Linear maps without bias: PyTorch's, and one that adds its weight's gradient in place.

A map computes in the dtype of its input, so bf16 activations mean bf16 products.

Axes:  N rows   X width in   Y width out
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from fathom.ops.deferred import WeightGradients, make_or_leave
from fathom.ops.matmul import add_matmul, matmul


class Linear(nn.Module):
    """y = x W^T with W [width_out, width_in]."""

    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width_out, width_in))

    def forward(self, x: Tensor) -> Tensor:
        """[..., width_in] -> [..., width_out], in the dtype of `x`."""
        return F.linear(x, self.weight.to(x.dtype))


class FastLinear(Linear):
    """The same; the gradient of the weight is added to `weight.grad` if that is there and of the same dtype.

    It saves a tensor of the weight's size and two passes over it. `weight.grad` is there when the optimizer
    holds the gradients of all parameters as views of one buffer. It waits if `weight_gradients` say so.
    """

    def __init__(self, width_in: int, width_out: int, weight_gradients: WeightGradients) -> None:
        super().__init__(width_in, width_out)
        self._weight_gradients = weight_gradients

    def forward(self, x: Tensor) -> Tensor:
        """[..., width_in] -> [..., width_out], in the dtype of `x`."""
        y: Tensor = _Linear.apply(x, self.weight, self._weight_gradients)
        return y


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_YX: Tensor, weight_gradients: WeightGradients) -> Tensor:
        ctx.save_for_backward(x)
        ctx.weight_YX = weight_YX  # as it is, because its gradient is added to in place
        ctx.weight_gradients = weight_gradients
        return matmul(x, weight_YX.to(x.dtype).T)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor | None, ...]:
        (x,) = ctx.saved_tensors
        dy_NY, x_NX = grad[0].flatten(0, -2), x.flatten(0, -2)
        wants_x, wants_weight, _ = ctx.needs_input_grad
        weight_YX = ctx.weight_YX
        dx = matmul(dy_NY, weight_YX.to(dy_NY.dtype)).view_as(x) if wants_x else None
        own = ((weight_YX,), ((dy_NY, x_NX),), (wants_weight,))
        return dx, *make_or_leave(ctx.weight_gradients, *own, add_product), None


def add_product(weight_YX: Tensor, dy_NY: Tensor, x_NX: Tensor) -> Tensor | None:
    """Add dy^T x to `weight_YX.grad` and return None, if that is there in the same dtype; else return it."""
    into_YX = weight_YX.grad
    if into_YX is None or into_YX.dtype != dy_NY.dtype:
        return matmul(dy_NY.T, x_NX).to(weight_YX.dtype)
    add_matmul(into_YX, dy_NY.T, x_NX)
    return None
