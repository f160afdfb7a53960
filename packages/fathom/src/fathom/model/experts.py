"""DeepSeekMoE: shared experts for every token, and the few routed ones it chose (report 2.1.2, eq 12).

Axes:  B rows   T positions   N = B*T tokens   D model width   E experts   K experts per token
       R rows, N*K and what fills up
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from torch import Tensor, nn

from fathom.config.model import ModelConfig
from fathom.model.router import Router, Routing
from fathom.ops.experts import swiglu
from fathom.ops.kernels import Kernels
from fathom.ops.permute import collect, sort_by_expert, spread


class Sent(NamedTuple):
    """Rows as the experts of this device see them, and the way back."""

    x_RD: Tensor  # sorted by expert
    weight_R: Tensor
    count_E: Tensor  # rows of each expert held here
    way_back: tuple[Tensor, ...]


class Dispatch(Protocol):
    """Where experts live. On one device rows are only sorted; across devices they travel."""

    def send(self, x_ND: Tensor, expert_NK: Tensor, weight_NK: Tensor, num_experts: int) -> Sent:
        """Bring every token to the experts it chose."""
        ...

    def gather(self, y_RD: Tensor, sent: Sent) -> Tensor:
        """Bring the outputs back and sum them per token. -> [N, D]."""
        ...


class LocalDispatch:
    """All experts are on this device; nothing is sent and no token is dropped."""

    def __init__(self, row_multiple: int = 1) -> None:
        """Each expert gets a multiple of `row_multiple` rows: copies of token 0 whose weight is 0 fill up."""
        self.row_multiple = row_multiple

    def send(self, x_ND: Tensor, expert_NK: Tensor, weight_NK: Tensor, num_experts: int) -> Sent:
        """Copy each token once per chosen expert, sorted by expert."""
        token_R, row_NK, count_E = sort_by_expert(expert_NK, num_experts, self.row_multiple)
        weight_R = weight_NK.new_zeros(len(token_R)).index_copy(0, row_NK.flatten(), weight_NK.flatten())
        return Sent(spread(x_ND, token_R, row_NK), weight_R, count_E, (token_R, row_NK))

    def gather(self, y_RD: Tensor, sent: Sent) -> Tensor:
        """Sum the K outputs of each token."""
        token_R, row_NK = sent.way_back
        return collect(y_RD, token_R, row_NK)


class SwiGLU(nn.Module):
    """down(SiLU(gate x) * up x): the dense feed-forward, and the shared expert."""

    def __init__(self, width: int, inner: int, kernels: Kernels) -> None:
        super().__init__()
        self.gate = kernels.linear(width, inner)
        self.up = kernels.linear(width, inner)
        self.down = kernels.linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] -> [..., D]."""
        y: Tensor = self.down(swiglu(self.gate(x), self.up(x)))
        return y


class MoE(nn.Module):
    """Routed experts plus shared ones; the residual is added by the block."""

    def __init__(self, config: ModelConfig, kernels: Kernels, dispatch: Dispatch) -> None:
        super().__init__()
        moe, D = config.moe, config.hidden_size
        self.dispatch, self.num_experts = dispatch, moe.num_experts
        self.router = Router(D, moe)
        self.experts = kernels.experts(moe.num_experts, D, moe.expert_size)
        self.shared = SwiGLU(D, moe.num_shared * moe.expert_size, kernels) if moe.num_shared else None

    def forward(
        self, x_BTD: Tensor, real_BT: Tensor, expert_NK: Tensor | None = None
    ) -> tuple[Tensor, Routing]:
        """[B, T, D] -> [B, T, D] and the routing; `expert_NK` given = replay that choice."""
        routing = self.router(x_BTD, real_BT, expert_NK)
        sent = self.dispatch.send(x_BTD.flatten(0, 1), routing.expert_NK, routing.weight_NK, self.num_experts)
        y_RD = self.experts(sent.x_RD, sent.count_E, sent.weight_R)
        y_BTD = self.dispatch.gather(y_RD, sent).view_as(x_BTD)                   # eq 12: the routed sum
        if self.shared is not None:
            y_BTD = y_BTD + self.shared(x_BTD)  # eq 12: the shared experts, as one wide network
        return y_BTD, routing
