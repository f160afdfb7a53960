"""DeepSeekMoE: shared experts for every token, and the few routed ones it chose (report 2.1.2, eq 12).

Axes:  B rows   T positions   N = B*T tokens   D model width   E experts   K experts per token
       R rows, N*K and what fills up
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from fathom.config.model import ModelConfig
from fathom.model.router import Router, Routing
from fathom.ops.kernels import Kernels
from fathom.ops.permute import Copies, Spread, collect, sort_by_expert, spread


class Sent(NamedTuple):
    """Rows as the experts of this device see them, and the way back."""

    x_RD: Tensor | Copies  # sorted by expert; what the kernels' experts take
    weight_R: Tensor
    count_E: Tensor  # rows of each expert held here
    way_back: Any  # the dispatch's own


class Arriving(Protocol):
    """A tensor under way."""

    def wait(self) -> Tensor:
        """It, as soon as it is there."""
        ...


class Exchange(Protocol):
    """The ways of one routing, for whoever runs the parts of a layer by hand. No gradient is recorded.

    `spread` and `collect` are each other's transposes: either is the other's backward pass. So are the two of
    weights. Each starts when it is called.
    """

    @property
    def count_E(self) -> Tensor:
        """int64, rows of each expert held here, filled up."""
        ...

    def spread(self, x_ND: Tensor) -> Arriving:
        """Every token to every expert it chose. -> [R, D], sorted by expert, zero rows fill up."""
        ...

    def collect(self, y_RD: Tensor) -> Arriving:
        """The sum of each token's rows. -> [N, D]."""
        ...

    def spread_weights(self, weight_NK: Tensor) -> Arriving:
        """The weight of each row, 0 where one fills up. -> [R]."""
        ...

    def collect_weights(self, weight_R: Tensor) -> Arriving:
        """Of each (token, k) the value in its row. -> [N, K]."""
        ...


class Dispatch(Protocol):
    """Where experts live. On one device rows are only sorted; across devices they travel.

    `send`, then `receive`, then `gather`: autograd goes through all three.
    """

    def local_experts(self, num_experts: int) -> range:
        """The experts whose weights are on this device."""
        ...

    def plan(self, expert_NK: Tensor, num_experts: int) -> Exchange:
        """The ways of one routing."""
        ...

    def send(self, x_ND: Tensor, expert_NK: Tensor, weight_NK: Tensor, num_experts: int) -> Any:
        """Start bringing every token to the experts it chose; -> what `receive` wants."""
        ...

    def receive(self, sending: Any) -> Sent:
        """The rows that the experts of this device get, once they are here."""
        ...

    def gather(self, y_RD: Tensor, sent: Sent) -> Tensor:
        """Bring the outputs back and sum them per token. -> [N, D]."""
        ...


class Here(NamedTuple):
    """A tensor that had no way to go."""

    value: Tensor

    def wait(self) -> Tensor:
        """It."""
        return self.value


class LocalExchange:
    """An `Exchange` on one device: rows are only sorted."""

    def __init__(self, expert_NK: Tensor, num_experts: int, row_multiple: int = 1) -> None:
        self._token_R, self._row_NK, self.count_E = sort_by_expert(expert_NK, num_experts, row_multiple)

    @torch.no_grad()
    def spread(self, x_ND: Tensor) -> Here:
        """As `Exchange`."""
        x_RD = spread(x_ND, self._token_R, self._row_NK)
        if len(x_RD) > self._row_NK.numel():
            fills_R = torch.ones_like(self._token_R, dtype=torch.bool)
            x_RD[fills_R.index_fill_(0, self._row_NK.flatten(), False)] = 0
        return Here(x_RD)

    @torch.no_grad()
    def collect(self, y_RD: Tensor) -> Here:
        """As `Exchange`."""
        return Here(collect(y_RD, self._token_R, self._row_NK))

    @torch.no_grad()
    def spread_weights(self, weight_NK: Tensor) -> Here:
        """As `Exchange`."""
        return Here(weight_of_rows(weight_NK, self._row_NK, len(self._token_R)))

    @torch.no_grad()
    def collect_weights(self, weight_R: Tensor) -> Here:
        """As `Exchange`."""
        return Here(weight_R[self._row_NK])


def weight_of_rows(weight_NK: Tensor, row_NK: Tensor, rows: int) -> Tensor:
    """The weight of each sorted row, 0 where one fills up. -> [R]."""
    return weight_NK.new_zeros(rows).index_copy(0, row_NK.flatten(), weight_NK.flatten())


class LocalDispatch:
    """All experts are on this device; nothing is sent and no token is dropped."""

    def __init__(self, row_multiple: int = 1, spread: Spread = spread) -> None:
        """Each expert gets a multiple of `row_multiple` rows: copies of token 0 whose weight is 0 fill up.

        spread   what copies them: the kernels' own way
        """
        self.row_multiple, self.spread = row_multiple, spread

    def local_experts(self, num_experts: int) -> range:
        """All."""
        return range(num_experts)

    def plan(self, expert_NK: Tensor, num_experts: int) -> LocalExchange:
        """One without ways."""
        return LocalExchange(expert_NK, num_experts, self.row_multiple)

    def send(self, x_ND: Tensor, expert_NK: Tensor, weight_NK: Tensor, num_experts: int) -> Sent:
        """Copy each token once per chosen expert, sorted by expert."""
        token_R, row_NK, count_E = sort_by_expert(expert_NK, num_experts, self.row_multiple)
        weight_R = weight_of_rows(weight_NK, row_NK, len(token_R))
        return Sent(self.spread(x_ND, token_R, row_NK), weight_R, count_E, (token_R, row_NK))

    def receive(self, sending: Sent) -> Sent:
        """They are here."""
        return sending

    def gather(self, y_RD: Tensor, sent: Sent) -> Tensor:
        """Sum the K outputs of each token."""
        token_R, row_NK = sent.way_back
        return collect(y_RD, token_R, row_NK)


class MoE(nn.Module):
    """Routed experts plus shared ones; the residual is added by the block.

    `router`, `shared`, `experts` and `dispatch.plan` are its parts, for whoever runs them one by one.
    """

    def __init__(self, config: ModelConfig, kernels: Kernels, dispatch: Dispatch) -> None:
        super().__init__()
        moe, D = config.moe, config.hidden_size
        self.dispatch, self.num_experts = dispatch, moe.num_experts
        self.router = Router(D, moe)
        self.experts = kernels.experts(len(dispatch.local_experts(moe.num_experts)), D, moe.expert_size)
        self.shared = kernels.swiglu(D, moe.num_shared * moe.expert_size) if moe.num_shared else None

    def forward(
        self, x_BTD: Tensor, real_BT: Tensor, expert_NK: Tensor | None = None
    ) -> tuple[Tensor, Routing]:
        """[B, T, D] -> [B, T, D] and the routing; `expert_NK` given = replay that choice."""
        routing = self.router(x_BTD, real_BT, expert_NK)
        x_ND = x_BTD.flatten(0, 1)
        sending = self.dispatch.send(x_ND, routing.expert_NK, routing.weight_NK, self.num_experts)
        shared_BTD = None if self.shared is None else self.shared(x_BTD)  # while the tokens travel
        sent = self.dispatch.receive(sending)
        y_RD = self.experts(sent.x_RD, sent.count_E, sent.weight_R)
        y_BTD = self.dispatch.gather(y_RD, sent).view_as(x_BTD)                   # eq 12: the routed sum
        if shared_BTD is not None:
            y_BTD = y_BTD + shared_BTD  # eq 12: the shared experts, as one wide network
        return y_BTD, routing
