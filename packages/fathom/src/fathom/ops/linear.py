"""Linear maps without bias, and the factory the model is handed.

Weights are fp32 masters; a map computes in the dtype of its input, so bf16 activations mean bf16 products.
Another factory (FP8, say) replaces every map of the model without a change to the model's page.
"""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fathom.ops.experts import run_experts


class Linear(nn.Module):
    """y = x W^T with W [width_out, width_in]."""

    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width_out, width_in))

    def forward(self, x: Tensor) -> Tensor:
        """[..., width_in] -> [..., width_out], in the dtype of `x`."""
        return F.linear(x, self.weight.to(x.dtype))


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


class LinearFactory(Protocol):
    """What makes the model's matrix products."""

    def linear(self, width_in: int, width_out: int) -> nn.Module:
        """A map with a `weight` [width_out, width_in] whose forward takes [..., width_in]."""
        ...

    def experts(self, num_experts: int, width: int, inner: int) -> nn.Module:
        """Stacked SwiGLU networks called as `Experts`."""
        ...


class PlainLinear:
    """The factory of plain maps: fp32 or bf16, as the activations are."""

    def linear(self, width_in: int, width_out: int) -> nn.Module:
        """A `Linear`."""
        return Linear(width_in, width_out)

    def experts(self, num_experts: int, width: int, inner: int) -> nn.Module:
        """An `Experts`."""
        return Experts(num_experts, width, inner)
