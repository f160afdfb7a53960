"""Which rows go to which expert, as index arithmetic on the host: for a few rows that is the quick way.

Axes:  R rows   X experts chosen   K = X + shared ones   N = R*K rows sent   D width
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Sent:
    """Copies of rows, next to each other where they go to the same expert."""

    count_of: dict[int, int]  # copies of every expert that has some, in the order they lie
    token_N: Tensor | None  # the row that each is a copy of; None = there is one row
    row_RK: Tensor  # where the copies of each row are; the last are those of the shared experts

    @cached_property
    def counts(self) -> list[int]:
        """Copies of each expert."""
        return list(self.count_of.values())

    def spread(self, x_RD: Tensor) -> Sequence[Tensor]:
        """The rows of each expert."""
        if self.token_N is None:
            return [x_RD] * len(self.count_of)
        return x_RD.index_select(0, self.token_N).split_with_sizes(self.counts)


def dispatch(expert_RX: Tensor, routed: int, experts: int) -> Sent:
    """Send every row to the experts it chose, and to the shared ones: ids `routed` up to `experts`."""
    (R, X), K = expert_RX.shape, expert_RX.shape[1] + experts - routed
    if R == 1:
        chosen = [*expert_RX.tolist()[0], *range(routed, experts)]
        return Sent(dict.fromkeys(chosen, 1), None, torch.arange(K, device=expert_RX.device)[None])
    flat_RK = np.empty((R, K), dtype=np.int64)
    flat_RK[:, :X] = expert_RX.cpu().numpy()
    flat_RK[:, X:] = np.arange(routed, experts)
    order_N = flat_RK.ravel().argsort(kind="stable")
    count = np.bincount(flat_RK.ravel())
    row_N = np.empty_like(order_N)
    row_N[order_N] = np.arange(R * K)
    return Sent(
        {int(e): int(count[e]) for e in count.nonzero()[0]},
        torch.from_numpy(order_N // K).to(expert_RX.device),
        torch.from_numpy(row_N.reshape(R, K)).to(expert_RX.device),
    )
