"""The gated feed-forward network: SwiGLU (arXiv 2002.05202)."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """SiLU(gate) * up."""
    return F.silu(gate) * up


class SwiGLU(nn.Module):
    """down(SiLU(gate x) * up x): the dense feed-forward, and the shared expert."""

    def __init__(self, width: int, inner: int, linear: Callable[[int, int], nn.Module]) -> None:
        super().__init__()
        self.gate = linear(width, inner)
        self.up = linear(width, inner)
        self.down = linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] -> [..., D]."""
        y: Tensor = self.down(swiglu(self.gate(x), self.up(x)))
        return y
