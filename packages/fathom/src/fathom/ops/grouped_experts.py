"""Experts as grouped matrix products with a backward pass that hands over the weights' gradients.

The form for a GPU: one product for all experts. PyTorch's own backward pass of it cannot leave the weights
for later.

Axes:  R rows, sorted by expert   E experts   D model width   F inner width
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from fathom.ops.deferred import WeightGradients, make_or_leave


def grouped_experts(
    x_RD: Tensor,
    weights: tuple[Tensor, Tensor, Tensor],
    weight_R: Tensor,
    count_E: Tensor,
    wait: WeightGradients,
) -> Tensor:
    """`experts_grouped` with gate, up and down of any float dtype; their gradients wait if `wait` says so."""
    y: Tensor = _Grouped.apply(x_RD, *weights, weight_R.to(x_RD.dtype), (count_E, wait))
    return y


class _Grouped(torch.autograd.Function):
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
        end_E = how[0].cumsum(0).to(torch.int32)
        gate_EFD, up_EFD, down_EDF = (w.to(x_RD.dtype) for w in (gate, up, down))
        g_RF = F.grouped_mm(x_RD, gate_EFD.transpose(-1, -2), offs=end_E)
        u_RF = F.grouped_mm(x_RD, up_EFD.transpose(-1, -2), offs=end_E)
        h_RF = F.silu(g_RF) * u_RF * weight_R[:, None]
        ctx.save_for_backward(x_RD, weight_R, g_RF, u_RF, end_E)
        ctx.weights, ctx.wait = (gate, up, down), how[1]
        return F.grouped_mm(h_RF, down_EDF.transpose(-1, -2), offs=end_E)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor | None, ...]:
        x_RD, weight_R, g_RF, u_RF, end_E = ctx.saved_tensors
        dy_RD = grad[0].contiguous()
        gate_EFD, up_EFD, down_EDF = (w.to(x_RD.dtype) for w in ctx.weights)
        s_RF = F.silu(g_RF)
        h_RF = s_RF * u_RF
        dh_RF = F.grouped_mm(dy_RD, down_EDF, offs=end_E)
        dweight_R = torch.linalg.vecdot(dh_RF, h_RF)
        h_RF = h_RF * weight_R[:, None]
        dh_RF = dh_RF * weight_R[:, None]
        du_RF = s_RF * dh_RF
        dg_RF = torch.ops.aten.silu_backward(dh_RF * u_RF, g_RF)
        dx_RD = F.grouped_mm(dg_RF, gate_EFD, offs=end_E) + F.grouped_mm(du_RF, up_EFD, offs=end_E)
        rows = ((dg_RF, x_RD), (du_RF, x_RD), (dy_RD, h_RF))
        outer = partial(_outer, end_E)
        made = make_or_leave(ctx.wait, ctx.weights, rows, ctx.needs_input_grad[1:4], outer)
        return dx_RD, *made, dweight_R, None


def _outer(end_E: Tensor, weight_EYX: Tensor, dy_RY: Tensor, x_RX: Tensor) -> Tensor:
    """Each expert's dy^T x, in the weight's dtype. -> [E, Y, X]."""
    return F.grouped_mm(dy_RY.transpose(0, 1), x_RX, offs=end_E).to(weight_EYX.dtype)
