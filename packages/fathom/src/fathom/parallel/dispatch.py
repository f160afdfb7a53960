"""Expert parallelism: the model's `Dispatch` over many ranks, with its backward pass (report section 3.2.2).

A message is under way between `send` and `receive`; the shared expert runs meanwhile. In the backward pass
the same holds the other way round: `receive` starts what `send` waits for.

Axes:  N tokens   K experts per token   D model width   R rows at this rank's experts
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fathom.model.experts import Sent
from fathom.parallel.exchange import PLAIN, Exchange, Nodes, held, plan, split_nodes
from fathom.parallel.group import Arrival, Group
from fathom.parallel.payload import Payload


class AllToAll:
    """Experts shared out over the ranks of a group, equal parts in order of ranks. No token is dropped."""

    def __init__(
        self,
        group: Group | Nodes,
        *,
        ranks_per_node: int | None = None,
        row_multiple: int = 1,
        dispatch: Payload = PLAIN,
        combine: Payload = PLAIN,
    ) -> None:
        """All ranks of the group build one. `Nodes` are a group that is split already.

        ranks_per_node  consecutive ranks that are near each other; None = all. If every group of experts
                        (`moe.num_groups`) lies within one node, a token reaches at most
                        `moe.groups_per_token` nodes
        row_multiple    each expert gets a multiple of this many rows; zero rows whose weight is 0 fill up
        dispatch        how tokens, and in the backward pass gradients of outputs, are written for the journey
        combine         how outputs and the gradients of tokens are
        """
        self._nodes = group if isinstance(group, Nodes) else split_nodes(group, ranks_per_node)
        self._row_multiple, self._dispatch, self._combine = row_multiple, dispatch, combine

    def local_experts(self, num_experts: int) -> range:
        """Those of this rank; ConfigError if they cannot be shared out equally."""
        return held(self._nodes.group, num_experts)

    def plan(self, expert_NK: Tensor, num_experts: int) -> Exchange:
        """The ways of one routing, without autograd."""
        return plan(
            self._nodes, expert_NK, num_experts,
            row_multiple=self._row_multiple, dispatch=self._dispatch, combine=self._combine,
        )  # fmt: skip

    def send(self, x_ND: Tensor, expert_NK: Tensor, weight_NK: Tensor, num_experts: int) -> Trip:
        """Start bringing tokens and weights to the experts."""
        trip = Trip(self.plan(expert_NK, num_experts))
        trip.ticket = _Send.apply(x_ND, weight_NK, trip)
        return trip

    def receive(self, sending: Trip) -> Sent:
        """The rows of this rank's experts, once they are here."""
        ticket, sending.ticket = sending.ticket, None
        x_RD, weight_R = _Receive.apply(ticket, sending)
        return Sent(x_RD, weight_R, sending.exchange.count_E, sending.exchange)

    def gather(self, y_RD: Tensor, sent: Sent) -> Tensor:
        """Bring outputs back and sum them per token."""
        y_ND: Tensor = _Gather.apply(y_RD, sent.way_back)
        return y_ND


class Trip:
    """Rows and weights between `send` and `receive`, in either pass."""

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.ticket: Tensor | None = None  # ties `receive` to `send` in the graph
        self._under_way: tuple[Arrival, Arrival] | None = None

    def spread(self, x_ND: Tensor, weight_NK: Tensor) -> None:
        """Start on the way to the experts."""
        self._under_way = self.exchange.spread(x_ND), self.exchange.spread_weights(weight_NK)

    def collect(self, x_RD: Tensor, weight_R: Tensor) -> None:
        """Start on the way back."""
        self._under_way = self.exchange.collect(x_RD), self.exchange.collect_weights(weight_R)

    def arrive(self) -> tuple[Tensor, Tensor]:
        """Wait for both, and forget them."""
        assert self._under_way is not None, "nothing is under way"
        rows, weights = self._under_way
        self._under_way = None
        return rows.wait(), weights.wait()


class _Send(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_ND: Tensor, weight_NK: Tensor, trip: Trip) -> Tensor:
        ctx.trip = trip
        trip.spread(x_ND, weight_NK)
        return x_ND.new_zeros(())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor, Tensor, None]:
        return *ctx.trip.arrive(), None


class _Receive(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, ticket: Tensor, trip: Trip) -> tuple[Tensor, Tensor]:
        ctx.trip = trip
        return trip.arrive()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor, None]:
        ctx.trip.collect(*grad)
        return grad[0].new_zeros(()), None


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, y_RD: Tensor, exchange: Exchange) -> Tensor:
        ctx.exchange = exchange
        return exchange.collect(y_RD).wait()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor, None]:
        return ctx.exchange.spread(grad[0]).wait(), None
