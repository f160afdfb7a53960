"""Copy tokens to the experts that chose them, and sum what comes back; each is the other's gradient.

Axes:  N tokens   K experts per token   R = N*K rows, sorted by expert   D width
`token_R` is the token of each sorted row, `row_NK` the sorted rows of each token.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def sort_by_expert(expert_NK: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The order that puts all rows of expert 0 first, then expert 1, tokens in order within an expert.

    returns   order_R (flat index n*K+k of each sorted row), token_R, row_NK
    """
    N, K = expert_NK.shape
    order_R = expert_NK.flatten().argsort(stable=True)
    row_NK = torch.empty_like(order_R)
    row_NK[order_R] = torch.arange(N * K, device=order_R.device)
    return order_R, order_R // K, row_NK.view(N, K)


class _Spread(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_ND: Tensor, token_R: Tensor, row_NK: Tensor) -> Tensor:
        ctx.save_for_backward(row_NK)
        return x_ND.index_select(0, token_R)

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor, None, None]:
        (row_NK,) = ctx.saved_tensors
        return _sum_rows(grad[0], row_NK), None, None


class _Collect(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, y_RD: Tensor, token_R: Tensor, row_NK: Tensor) -> Tensor:
        ctx.save_for_backward(token_R)
        return _sum_rows(y_RD, row_NK)

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor, None, None]:
        (token_R,) = ctx.saved_tensors
        return grad[0].index_select(0, token_R), None, None


def _sum_rows(y_RD: Tensor, row_NK: Tensor) -> Tensor:
    """Sum of each token's K rows in one pass over memory, in the order k = 0, 1, ...: deterministic."""
    return F.embedding_bag(row_NK, y_RD.contiguous(), mode="sum")


def spread(x_ND: Tensor, token_R: Tensor, row_NK: Tensor) -> Tensor:
    """Each token once per expert that chose it: [N, D] -> [R, D], sorted by expert."""
    y: Tensor = _Spread.apply(x_ND, token_R, row_NK)
    return y


def collect(y_RD: Tensor, token_R: Tensor, row_NK: Tensor) -> Tensor:
    """Sum the rows of each token: [R, D] -> [N, D]."""
    y: Tensor = _Collect.apply(y_RD, token_R, row_NK)
    return y
