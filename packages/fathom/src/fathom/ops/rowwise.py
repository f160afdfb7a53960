"""Row by row operations whose bits do not depend on how many rows there are, or where in memory one lies.

PyTorch's sigmoid and SiLU on a CPU take one polynomial for whole vectors and another for the few elements at
the end, which may differ in the last bit; its exponential is the same everywhere. So both are built from it.

Axes:  R rows   D width   K terms of a sum   N rows they are taken from
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from fathom.ops.norm import wide

SUM, MAX = 0, 2  # modes of an embedding bag
ONE = torch.tensor(1.0)  # a Python number is made a tensor at every call, which takes longer than adding it


def sigmoid(x: Tensor) -> Tensor:
    """1 / (1 + exp(-x)), elementwise."""
    return x.neg().exp_().add_(ONE).reciprocal_()


def gated(gate_up: Tensor) -> Tensor:
    """SiLU(gate) * up, both halves of the last axis. [R, 2F] -> [R, F], in the same dtype."""
    gate, up = wide(gate_up).chunk(2, dim=-1)
    below = gate.neg().exp_().add_(ONE)
    return torch.div(gate, below, out=below).mul_(up).to(gate_up.dtype)


class RowNorm:
    """RMSNorm in fp32 (arXiv 1910.07467) as w sqrt(D) x / sqrt(sum x^2 + D eps), the constants at hand."""

    def __init__(self, weight_D: Tensor, eps: float) -> None:
        weight, D = wide(weight_D), len(weight_D)
        self.weight_D = weight * weight.new_tensor(D).sqrt()
        self._floor = weight.new_tensor(D * eps)

    def __call__(self, x_RD: Tensor) -> Tensor:
        """[R, D] -> [R, D], same dtype."""
        x = wide(x_RD)
        y = x * x
        scale = y.sum(-1, True).add_(self._floor).rsqrt_()
        y = torch.mul(x, scale, out=y).mul_(self.weight_D)
        return y if x is x_RD else y.to(x_RD.dtype)


def weighted_sum(y_ND: Tensor, row_RK: Tensor, weight_RK: Tensor) -> Tensor:
    """sum_k weight_rk y[row_rk], in the order k = 0, 1, ...  [N, D] -> [R, D], in the dtype of `y_ND`."""
    R, K = row_RK.shape
    start_R = _every(R, K, y_ND.device)
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
    rows = _every(len(x_N), 1, x_N.device)
    reduced: Tensor = torch.embedding_bag(x_N.flatten(1), rows, start_R, False, mode)[0]
    return reduced.view(len(start_R), *x_N.shape[1:])


@lru_cache(maxsize=64)
def _every(count: int, step: int, device: torch.device) -> Tensor:
    """0, step, 2 step, ...; made once, to be read only."""
    return torch.arange(0, count * step, step, device=device)
