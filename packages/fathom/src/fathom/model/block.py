"""One transformer block: attention and a feed-forward, each normalised before and added to the stream."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from fathom.config.model import ModelConfig
from fathom.model.attention import MLA
from fathom.model.cache import Cache
from fathom.model.experts import Dispatch, MoE
from fathom.model.router import Routing
from fathom.ops.kernels import Kernels
from fathom.ops.rope import Rotation


class Rows(NamedTuple):
    """What a block must know of the rows it runs, beside their activations."""

    turn: Rotation  # of every position
    real_BT: Tensor  # bool, False = padding: not counted in any load
    document_BT: Tensor | None = None  # given = attention stays inside a document
    cache: Cache | None = None  # the past, when decoding


class Block(nn.Module):
    """x + MLA(norm x), then + FFN(norm x), dense in the first layers (report sections 2.1 and 4.2)."""

    def __init__(self, config: ModelConfig, layer: int, kernels: Kernels, dispatch: Dispatch) -> None:
        super().__init__()
        self.layer = layer
        self.attn_norm = kernels.norm(config.hidden_size, config.norm_eps)
        self.attention = MLA(config, kernels)
        self.ffn_norm = kernels.norm(config.hidden_size, config.norm_eps)
        self.ffn: nn.Module
        if config.is_moe(layer):
            self.ffn = MoE(config, kernels, dispatch)
        else:
            self.ffn = kernels.swiglu(config.hidden_size, config.dense_size)

    def forward(
        self, x_BTD: Tensor, rows: Rows, expert_NK: Tensor | None = None
    ) -> tuple[Tensor, Routing | None]:
        """[B, T, D] -> [B, T, D], and the routing if this block has experts; `expert_NK` replays one."""
        h_BTD = self.attn_norm(x_BTD)
        x_BTD = x_BTD + self.attention(
            h_BTD, rows.turn, document_BT=rows.document_BT, cache=rows.cache, layer=self.layer
        )
        h_BTD = self.ffn_norm(x_BTD)
        if isinstance(self.ffn, MoE):
            y_BTD, routing = self.ffn(h_BTD, rows.real_BT, expert_NK)
            return x_BTD + y_BTD, routing
        return x_BTD + self.ffn(h_BTD), None
