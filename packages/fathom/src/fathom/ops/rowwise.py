"""Row by row operations whose bits do not depend on how many rows there are, or where in memory one lies.

PyTorch's sigmoid and SiLU on a CPU take one polynomial for whole vectors and another for the few elements at
the end, which may differ in the last bit; its exponential is the same everywhere. So both are built from it.

Axes:  R rows   D width   K terms of a sum   N rows they are taken from
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fathom.ops.norm import wide

SUM, MAX = 0, 2  # modes of an embedding bag


def sigmoid(x: Tensor) -> Tensor:
    """1 / (1 + exp(-x)), elementwise."""
    return 1.0 / (1.0 + torch.exp(-x))


def gated(gate_up: Tensor) -> Tensor:
    """SiLU(gate) * up, both halves of the last axis. [R, 2F] -> [R, F], in the same dtype."""
    gate, up = wide(gate_up).chunk(2, dim=-1)
    below = gate.neg().exp_().add_(1.0)
    return torch.div(gate, below, out=below).mul_(up).to(gate_up.dtype)


def rms_norm(x_RD: Tensor, weight_D: Tensor, eps: float) -> Tensor:
    """RMSNorm with fp32 statistics (arXiv 1910.07467). [R, D] -> [R, D], same dtype."""
    if x_RD.dtype == weight_D.dtype == torch.float32:
        return F.rms_norm(x_RD, weight_D.shape, weight_D, eps)
    y = wide(x_RD)
    y = y * torch.rsqrt(y.square().mean(-1, keepdim=True) + eps)
    return y.to(x_RD.dtype) * weight_D


def weighted_sum(y_ND: Tensor, row_RK: Tensor, weight_RK: Tensor) -> Tensor:
    """sum_k weight_rk y[row_rk], in the order k = 0, 1, ...  [N, D] -> [R, D], in the dtype of `y_ND`."""
    R, K = row_RK.shape
    start_R = torch.arange(0, R * K, K, device=y_ND.device)
    weight = wide(weight_RK).flatten()
    summed = torch.embedding_bag(wide(y_ND), row_RK.flatten(), start_R, False, SUM, False, weight)[0]
    return summed.to(y_ND.dtype)


def sum_runs(x_N: Tensor, start_R: Tensor) -> Tensor:
    """Sum of each run of neighbours, one after the other in their order. [N, ...] -> [R, ...].

    Run r is entries start_R[r] up to the next run's start; none is empty.
    """
    return _runs(x_N, start_R, SUM)


def max_runs(x_N: Tensor, start_R: Tensor) -> Tensor:
    """The largest of each run of neighbours, entry by entry. [N, ...] -> [R, ...]; runs as in `sum_runs`."""
    return _runs(x_N, start_R, MAX)


def _runs(x_N: Tensor, start_R: Tensor, mode: int) -> Tensor:
    if len(x_N) == len(start_R):
        return x_N
    rows = torch.arange(len(x_N), device=x_N.device)
    reduced: Tensor = torch.embedding_bag(x_N.flatten(1), rows, start_R, False, mode)[0]
    return reduced.view(len(start_R), *x_N.shape[1:])
