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
        gate_EFD, up_EFD, down_EDF = (w.to(x_RD.dtype) for w in (gate, up, down))
        g_RF = x_RD.new_empty(len(x_RD), gate.shape[1])
        u_RF, y_RD = torch.empty_like(g_RF), torch.empty_like(x_RD)
        for e, part in _parts(count_E):
            torch.mm(x_RD[part], gate_EFD[e].T, out=g_RF[part])
            torch.mm(x_RD[part], up_EFD[e].T, out=u_RF[part])
        h_RF = F.silu(g_RF).mul_(u_RF).mul_(weight_R[:, None])
        for e, part in _parts(count_E):
            torch.mm(h_RF[part], down_EDF[e].T, out=y_RD[part])
        ctx.save_for_backward(x_RD, count_E, weight_R, g_RF, u_RF)
        ctx.weights = gate, up, down
        return y_RD

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor | None, ...]:
        x_RD, count_E, weight_R, g_RF, u_RF = ctx.saved_tensors
        (dy_RD,) = grad
        gate_EFD, up_EFD, down_EDF = (w.to(x_RD.dtype) for w in ctx.weights)
        into = [_Gradient(w, x_RD.dtype) for w in ctx.weights]
        s_RF = F.silu(g_RF)
        h_RF = s_RF * u_RF
        dh_RF, dx_RD = torch.empty_like(h_RF), torch.empty_like(x_RD)
        for e, part in _parts(count_E):
            torch.mm(dy_RD[part], down_EDF[e], out=dh_RF[part])
        dweight_R = torch.linalg.vecdot(dh_RF, h_RF)
        h_RF.mul_(weight_R[:, None])
        dh_RF.mul_(weight_R[:, None])
        for e, part in _parts(count_E):
            into[2].add(e, dy_RD[part], h_RF[part])
        du_RF = s_RF.mul_(dh_RF)
        dg_RF = torch.ops.aten.silu_backward(dh_RF.mul_(u_RF), g_RF)
        for e, part in _parts(count_E):
            torch.mm(dg_RF[part], gate_EFD[e], out=dx_RD[part])
            dx_RD[part].addmm_(du_RF[part], up_EFD[e])
            into[0].add(e, dg_RF[part], x_RD[part])
            into[1].add(e, du_RF[part], x_RD[part])
        return dx_RD, *(held.result for held in into), None, dweight_R


class _Gradient:
    """Where the gradient of a stacked weight goes: into `weight.grad` if that fits, else a new tensor."""

    def __init__(self, weight: Tensor, dtype: torch.dtype) -> None:
        ready = weight.grad is not None and weight.grad.dtype == dtype
        self._whole = weight.grad if ready else torch.zeros_like(weight, dtype=dtype)
        self.result = None if ready else self._whole

    def add(self, e: int, dy_rY: Tensor, x_rX: Tensor) -> None:
        """Add dy^T x to the gradient of expert `e`."""
        assert self._whole is not None
        self._whole[e].addmm_(dy_rY.T, x_rX)


def _parts(count_E: Tensor) -> Iterator[tuple[int, slice]]:
    """The rows of every expert that has any."""
    start = 0
    for e, count in enumerate(count_E.tolist()):
        if count:
            yield e, slice(start, start + count)
        start += count
