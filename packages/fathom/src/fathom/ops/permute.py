"""Copy tokens to the experts that chose them, and sum what comes back; each is the other's gradient.

Axes:  N tokens   K experts per token   R rows, sorted by expert   D width
`token_R` is the token of each sorted row, `row_NK` the sorted rows of each token.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Copies(NamedTuple):
    """Rows sorted by expert that have not been copied yet: experts may do that in a narrower form."""

    x_ND: Tensor
    token_R: Tensor
    row_NK: Tensor


Spread = Callable[[Tensor, Tensor, Tensor], Tensor | Copies]  # of x_ND, token_R and row_NK


def sort_by_expert(
    expert_NK: Tensor, num_experts: int, multiple: int = 1
) -> tuple[Tensor, Tensor, Tensor]:
    """The order that puts all rows of expert 0 first, then expert 1, tokens in order within an expert.

    multiple   every expert's rows are filled up to a multiple of this; the rows that fill are token 0
    returns    token_R, row_NK, and the rows of each expert, filled up, count_E
    """
    N, K = expert_NK.shape
    order_NK = expert_NK.flatten().argsort(stable=True)
    count_E = expert_NK.flatten().bincount(minlength=num_experts)
    filled_E = (count_E + multiple - 1) // multiple * multiple
    moved_E = (filled_E - count_E).cumsum(0) - (filled_E - count_E)  # rows that fill before each expert
    place = torch.arange(N * K, device=order_NK.device)
    if multiple > 1:
        place = place + moved_E.index_select(0, expert_NK.flatten().index_select(0, order_NK))
    row_NK = torch.empty_like(order_NK).index_copy_(0, order_NK, place).view(N, K)
    rows = int(filled_E.sum()) if multiple > 1 else N * K
    token_R = order_NK.new_zeros(rows).index_copy_(0, place, order_NK // K)
    return token_R, row_NK, filled_E


class _Spread(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_ND: Tensor, token_R: Tensor, row_NK: Tensor) -> Tensor:
        ctx.save_for_backward(row_NK)
        return x_ND.index_select(0, token_R)

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor, None, None]:
        (row_NK,) = ctx.saved_tensors
        return sum_rows(grad[0], row_NK), None, None


class _Collect(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, y_RD: Tensor, token_R: Tensor, row_NK: Tensor) -> Tensor:
        ctx.save_for_backward(token_R)
        return sum_rows(y_RD, row_NK)

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor, None, None]:
        (token_R,) = ctx.saved_tensors
        return grad[0].index_select(0, token_R), None, None


def sum_rows(y_RD: Tensor, row_NK: Tensor) -> Tensor:
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
