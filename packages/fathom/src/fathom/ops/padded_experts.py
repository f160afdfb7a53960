"""Experts over rows padded to a few sizes, with a backward pass that adds the weights' gradients in place.

A loop of products over contiguous slices. oneDNN, which multiplies bf16 on a CPU, compiles a kernel for every
count of rows it has not met; rows per expert change with every step, so filling them up to a multiple of 32
saves more than it costs. Gate and up are apart because SwiGLU over halves of one buffer is the slower way.

Axes:  R rows, sorted by expert   E experts   D model width   F inner width   r rows of one expert
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from fathom.ops.deferred import WeightGradients, make_or_leave
from fathom.ops.experts import Experts, can_group
from fathom.ops.grouped_experts import grouped_experts
from fathom.ops.matmul import add_matmul, matmul_into


class PaddedExperts(Experts):
    """`Experts` for rows in multiples of `row_multiple`; on a GPU the grouped form.

    Gradients of the weights wait if `weight_gradients` say so.
    """

    def __init__(self, num_experts: int, width: int, inner: int, weight_gradients: WeightGradients) -> None:
        super().__init__(num_experts, width, inner)
        self._weight_gradients = weight_gradients

    def forward(self, x_RD: Tensor, count_E: Tensor, weight_R: Tensor) -> Tensor:
        """Rows sorted by expert, `count_E` of each, times `weight_R`: [R, D] -> [R, D]."""
        weights, wait = (self.gate, self.up, self.down), self._weight_gradients
        if x_RD.is_cuda and can_group(x_RD, self.gate) and can_group(x_RD, self.down):
            return grouped_experts(x_RD, weights, weight_R, count_E, wait)
        y: Tensor = _Experts.apply(x_RD, *weights, weight_R.to(x_RD.dtype), (count_E, wait))
        return y


class _Experts(torch.autograd.Function):
    """h = SiLU(g) u w with g = gate x, u = up x;  y = down h."""

    @staticmethod
    def forward(
        ctx: Any,
        x_RD: Tensor,
        gate: Tensor,
        up: Tensor,
        down: Tensor,
        weight_R: Tensor,
        how: tuple[Tensor, WeightGradients],
    ) -> Tensor:
        count_E, weight_gradients = how
        counts = count_E.tolist()
        gate_EFD, up_EFD, down_EDF = (w.to(x_RD.dtype) for w in (gate, up, down))
        g_RF = x_RD.new_empty(len(x_RD), gate.shape[1])
        u_RF, y_RD = torch.empty_like(g_RF), torch.empty_like(x_RD)
        for x_rD, gate_FD, up_FD, g_rF, u_rF in _each(counts, x_RD, gate_EFD, up_EFD, g_RF, u_RF):
            matmul_into(g_rF, x_rD, gate_FD.T)
            matmul_into(u_rF, x_rD, up_FD.T)
        h_RF = F.silu(g_RF).mul_(u_RF).mul_(weight_R[:, None])
        for h_rF, down_DF, y_rD in _each(counts, h_RF, down_EDF, y_RD):
            matmul_into(y_rD, h_rF, down_DF.T)
        ctx.save_for_backward(x_RD, weight_R, g_RF, u_RF)
        ctx.counts, ctx.weights, ctx.weight_gradients = counts, (gate, up, down), weight_gradients
        return y_RD

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor | None, ...]:
        x_RD, weight_R, g_RF, u_RF = ctx.saved_tensors
        dy_RD, counts = grad[0].contiguous(), ctx.counts
        gate_EFD, up_EFD, down_EDF = (w.to(x_RD.dtype) for w in ctx.weights)
        s_RF = F.silu(g_RF)
        h_RF = s_RF * u_RF
        dh_RF, dx_RD = torch.empty_like(h_RF), torch.empty_like(x_RD)
        for dy_rD, down_DF, dh_rF in _each(counts, dy_RD, down_EDF, dh_RF):
            matmul_into(dh_rF, dy_rD, down_DF)
        dweight_R = torch.linalg.vecdot(dh_RF, h_RF)
        h_RF.mul_(weight_R[:, None])
        dh_RF.mul_(weight_R[:, None])
        du_RF = s_RF.mul_(dh_RF)
        dg_RF = torch.ops.aten.silu_backward(dh_RF.mul_(u_RF), g_RF)
        for dg_rF, du_rF, gate_FD, up_FD, dx_rD in _each(counts, dg_RF, du_RF, gate_EFD, up_EFD, dx_RD):
            matmul_into(dx_rD, dg_rF, gate_FD)
            add_matmul(dx_rD, du_rF, up_FD)
        rows = ((dg_RF, x_RD), (du_RF, x_RD), (dy_RD, h_RF))
        outer = partial(_outer, counts)
        wanted = ctx.needs_input_grad[1:4]
        made = make_or_leave(ctx.weight_gradients, ctx.weights, rows, wanted, outer)
        return dx_RD, *made, dweight_R, None


def _outer(counts: list[int], weight_EYX: Tensor, dy_RY: Tensor, x_RX: Tensor) -> Tensor | None:
    """Add each expert's dy^T x to `weight.grad` and return None, if that is there in this dtype; else it."""
    ready = weight_EYX.grad is not None and weight_EYX.grad.dtype == x_RX.dtype
    into_EYX = weight_EYX.grad if ready else torch.zeros_like(weight_EYX, dtype=x_RX.dtype)
    assert into_EYX is not None
    for dy_rY, x_rX, into_YX in _each(counts, dy_RY, x_RX, into_EYX):
        add_matmul(into_YX, dy_rY.T, x_rX)
    return None if ready else into_EYX


def _each(counts: list[int], *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """For every expert that has rows, its part of each tensor: of rows [R, ...] or of weights [E, ...]."""
    views = (t.unbind() if t.ndim == 3 else t.split(counts) for t in tensors)
    return (tuple(parts) for count, *parts in zip(counts, *views, strict=True) if count)
