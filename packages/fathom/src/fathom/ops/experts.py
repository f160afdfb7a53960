"""Many small SwiGLU networks over rows sorted by expert: one grouped matrix product each, and the plain loop.

Axes:  R rows, sorted by expert   E experts   D model width   F inner width of an expert
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fathom.ops.swiglu import swiglu

GROUPED_DTYPES = (torch.bfloat16, torch.float32)
ALIGNMENT = 16  # bytes: grouped_mm wants every row to start at a multiple of this


def can_group(x_RD: Tensor, w_EDF: Tensor) -> bool:
    """Whether `torch.nn.functional.grouped_mm` takes these rows and weights on this device."""
    aligned = all(width * x_RD.element_size() % ALIGNMENT == 0 for width in w_EDF.shape[1:])
    return aligned and x_RD.dtype in GROUPED_DTYPES and x_RD.shape[0] > 0 and hasattr(F, "grouped_mm")


def experts_loop(
    x_RD: Tensor, gate_EFD: Tensor, up_EFD: Tensor, down_EDF: Tensor, count_E: Tensor, weight_R: Tensor
) -> Tensor:
    """y_r = weight_r * down_e SwiGLU(gate_e x_r, up_e x_r), e the expert of row r. The oracle. -> [R, D]."""
    parts = []
    for e, (x_rD, weight_r) in enumerate(
        zip(x_RD.split(count_E.tolist()), weight_R.split(count_E.tolist()), strict=True)
    ):
        h_rF = swiglu(F.linear(x_rD, gate_EFD[e]), F.linear(x_rD, up_EFD[e]))
        parts.append(F.linear(h_rF * weight_r[:, None], down_EDF[e]))
    return torch.cat(parts)


def experts_grouped(
    x_RD: Tensor, gate_EFD: Tensor, up_EFD: Tensor, down_EDF: Tensor, count_E: Tensor, weight_R: Tensor
) -> Tensor:
    """The same as `experts_loop` with three grouped matrix products."""
    end_E = count_E.cumsum(0).to(torch.int32)
    gate_RF = F.grouped_mm(x_RD, gate_EFD.transpose(-1, -2), offs=end_E)
    up_RF = F.grouped_mm(x_RD, up_EFD.transpose(-1, -2), offs=end_E)
    h_RF = swiglu(gate_RF, up_RF) * weight_R[:, None]
    return F.grouped_mm(h_RF, down_EDF.transpose(-1, -2), offs=end_E)


def run_experts(
    x_RD: Tensor, gate_EFD: Tensor, up_EFD: Tensor, down_EDF: Tensor, count_E: Tensor, weight_R: Tensor
) -> Tensor:
    """The grouped form where it applies, else the loop. `weight_R` in any float dtype. -> [R, D]."""
    grouped = can_group(x_RD, gate_EFD) and can_group(x_RD, down_EDF)
    form = experts_grouped if grouped else experts_loop
    dtype = x_RD.dtype
    return form(
        x_RD, gate_EFD.to(dtype), up_EFD.to(dtype), down_EDF.to(dtype), count_E, weight_R.to(dtype)
    )


class Experts(nn.Module):
    """E SwiGLU networks as three stacked weights (report eq 12, the routed part)."""

    def __init__(self, num_experts: int, width: int, inner: int) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.empty(num_experts, inner, width))
        self.up = nn.Parameter(torch.empty(num_experts, inner, width))
        self.down = nn.Parameter(torch.empty(num_experts, width, inner))

    def forward(self, x_RD: Tensor, count_E: Tensor, weight_R: Tensor) -> Tensor:
        """Rows sorted by expert, `count_E` of each, times `weight_R`: [R, D] -> [R, D]."""
        return run_experts(x_RD, self.gate, self.up, self.down, count_E, weight_R)
