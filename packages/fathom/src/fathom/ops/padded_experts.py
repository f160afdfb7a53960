"""Experts over rows padded to a few sizes, with a backward pass that adds the weights' gradients in place.

A loop of products over contiguous slices. oneDNN, which multiplies bf16 on a CPU, compiles a kernel for every
count of rows it has not met; rows per expert change with every step, so filling them up to a multiple of 32
saves more than it costs. Gate and up are apart because SwiGLU over halves of one buffer is the slower way.

Axes:  R rows, sorted by expert   E experts   D model width   F inner width   r rows of one expert
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from fathom.ops.experts import Experts


class PaddedExperts(Experts):
    """`Experts` for rows in multiples of `row_multiple`; on a GPU the grouped form."""

    def forward(self, x_RD: Tensor, count_E: Tensor, weight_R: Tensor) -> Tensor:
        """Rows sorted by expert, `count_E` of each, times `weight_R`: [R, D] -> [R, D]."""
        if x_RD.is_cuda:
            return super().forward(x_RD, count_E, weight_R)
        y: Tensor = _Experts.apply(x_RD, self.gate, self.up, self.down, count_E, weight_R.to(x_RD.dtype))
        return y


class _Experts(torch.autograd.Function):
    """h = SiLU(g) u w with g = gate x, u = up x;  y = down h."""

    @staticmethod
    def forward(
        ctx: Any, x_RD: Tensor, gate: Tensor, up: Tensor, down: Tensor, count_E: Tensor, weight_R: Tensor
    ) -> Tensor:
        counts = count_E.tolist()
        gate_EFD, up_EFD, down_EDF = (w.to(x_RD.dtype) for w in (gate, up, down))
        g_RF = x_RD.new_empty(len(x_RD), gate.shape[1])
        u_RF, y_RD = torch.empty_like(g_RF), torch.empty_like(x_RD)
        for x_rD, gate_FD, up_FD, g_rF, u_rF in _each(counts, x_RD, gate_EFD, up_EFD, g_RF, u_RF):
            torch.mm(x_rD, gate_FD.T, out=g_rF)
            torch.mm(x_rD, up_FD.T, out=u_rF)
        h_RF = F.silu(g_RF).mul_(u_RF).mul_(weight_R[:, None])
        for h_rF, down_DF, y_rD in _each(counts, h_RF, down_EDF, y_RD):
            torch.mm(h_rF, down_DF.T, out=y_rD)
        ctx.save_for_backward(x_RD, weight_R, g_RF, u_RF)
        ctx.counts, ctx.weights = counts, (gate, up, down)
        return y_RD

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor | None, ...]:
        x_RD, weight_R, g_RF, u_RF = ctx.saved_tensors
        dy_RD, counts = grad[0].contiguous(), ctx.counts
        gate_EFD, up_EFD, down_EDF = (w.to(x_RD.dtype) for w in ctx.weights)
        wanted = ctx.needs_input_grad[1:4]
        into = [_place(w, x_RD.dtype, want) for w, want in zip(ctx.weights, wanted, strict=True)]
        s_RF = F.silu(g_RF)
        h_RF = s_RF * u_RF
        dh_RF, dx_RD = torch.empty_like(h_RF), torch.empty_like(x_RD)
        for dy_rD, down_DF, dh_rF in _each(counts, dy_RD, down_EDF, dh_RF):
            torch.mm(dy_rD, down_DF, out=dh_rF)
        dweight_R = torch.linalg.vecdot(dh_RF, h_RF)
        h_RF.mul_(weight_R[:, None])
        dh_RF.mul_(weight_R[:, None])
        for dy_rD, h_rF, into_DF in _each(counts, dy_RD, h_RF, into[2]):
            into_DF.addmm_(dy_rD.T, h_rF)
        du_RF = s_RF.mul_(dh_RF)
        dg_RF = torch.ops.aten.silu_backward(dh_RF.mul_(u_RF), g_RF)
        for dg_rF, gate_FD, x_rD, dx_rD, into_FD in _each(counts, dg_RF, gate_EFD, x_RD, dx_RD, into[0]):
            torch.mm(dg_rF, gate_FD, out=dx_rD)
            into_FD.addmm_(dg_rF.T, x_rD)
        for du_rF, up_FD, x_rD, dx_rD, into_FD in _each(counts, du_RF, up_EFD, x_RD, dx_RD, into[1]):
            dx_rD.addmm_(du_rF, up_FD)
            into_FD.addmm_(du_rF.T, x_rD)
        own = zip(ctx.weights, into, wanted, strict=True)
        made = (whole if want and whole is not w.grad else None for w, whole, want in own)
        return dx_RD, *made, None, dweight_R


def _place(weight: Tensor, dtype: torch.dtype, wanted: bool) -> Tensor:
    """Where the gradient of a stacked weight is added up: `weight.grad` if that fits, else a new tensor."""
    ready = wanted and weight.grad is not None and weight.grad.dtype == dtype
    return weight.grad if ready and weight.grad is not None else torch.zeros_like(weight, dtype=dtype)


def _each(counts: list[int], *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """For every expert that has rows, its part of each tensor: of rows [R, ...] or of weights [E, ...]."""
    views = (t.unbind() if t.ndim == 3 else t.split(counts) for t in tensors)
    return (tuple(parts) for count, *parts in zip(counts, *views, strict=True) if count)
