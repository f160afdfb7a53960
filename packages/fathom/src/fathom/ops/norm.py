"""RMSNorm, and the precision in which statistics are taken."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def wide(x: Tensor) -> Tensor:
    """`x` in the precision that sums are taken in: fp32, or float64 if it is float64 already."""
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


class RMSNorm(nn.Module):
    """y = weight * x / sqrt(mean(x^2) + eps) over the last axis, with fp32 statistics (arXiv 1910.07467)."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(size))

    def forward(self, x: Tensor) -> Tensor:
        """[..., size] -> [..., size], same dtype."""
        y = wide(x)
        y = y * torch.rsqrt(y.square().mean(-1, keepdim=True) + self.eps)
        return y.to(x.dtype) * self.weight.to(x.dtype)


class FastRMSNorm(RMSNorm):
    """The same in fewer passes over memory, forward and backward."""

    def forward(self, x: Tensor) -> Tensor:
        """[..., size] -> [..., size], same dtype."""
        y: Tensor = _RMSNorm.apply(x, self.weight, self.eps)
        return y


class _RMSNorm(torch.autograd.Function):
    """r = 1 / sqrt(mean(x^2) + eps), n = x r, y = g n;  dx = r (g dy - n mean(g dy n)), dg = sum(dy n)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        dtype = torch.promote_types(x.dtype, torch.float32)
        r = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=dtype)
        r = r.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        n = torch.mul(x, r, out=torch.empty(x.shape, dtype=x.dtype, device=x.device))
        ctx.save_for_backward(n, r, weight)
        return n * weight.to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor, Tensor, None]:
        n, r, weight = ctx.saved_tensors
        dy = grad[0]
        dweight = (dy * n).flatten(0, -2).sum(0, dtype=r.dtype)
        dx = dy * weight.to(dy.dtype)
        mean = torch.linalg.vecdot(dx, n).unsqueeze_(-1).div_(-n.shape[-1])
        dx.addcmul_(n, mean)
        return torch.mul(dx, r, out=dx), dweight.to(weight.dtype), None
