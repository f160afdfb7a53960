"""Multi-token prediction: DeepSeek-V3 report, section 2.2, equations 21-25.

Axes:  B rows   T positions   D model width
Module k (1-based) joins the state of position i with the embedding of token i+k and predicts token i+k+1.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fathom.config.model import ModelConfig
from fathom.model.block import Block, Rows
from fathom.model.experts import Dispatch
from fathom.model.router import Routing
from fathom.ops.kernels import Kernels


def shift(token_BT: Tensor, by: int, segment_BT: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Token i+`by` at position i, and whether there is one: not past the row, nor in another document.

    returns   shifted [B, T] (0 where there is none), exists [B, T]; without `segment_BT` borders are crossed
    """
    exists_BT = torch.zeros_like(token_BT, dtype=torch.bool)
    shifted_BT = torch.zeros_like(token_BT)
    T = token_BT.shape[1]
    if by < T:
        shifted_BT[:, : T - by] = token_BT[:, by:]
        exists_BT[:, : T - by] = True if segment_BT is None else segment_BT[:, by:] == segment_BT[:, : T - by]
    return shifted_BT.masked_fill(~exists_BT, 0), exists_BT


class MTPModule(nn.Module):
    """One more block that sees one token further; embedding and head are the trunk's own."""

    def __init__(self, config: ModelConfig, depth: int, kernels: Kernels, dispatch: Dispatch) -> None:
        super().__init__()
        D = config.hidden_size
        self.token_norm = kernels.norm(D, config.norm_eps)
        self.hidden_norm = kernels.norm(D, config.norm_eps)
        self.project = kernels.linear(2 * D, D, "full")
        self.block = Block(config, config.num_layers + depth, kernels, dispatch)
        self.norm = kernels.norm(D, config.norm_eps)

    def forward(
        self, h_BTD: Tensor, embedded_BTD: Tensor, rows: Rows, expert_NK: Tensor | None = None
    ) -> tuple[Tensor, Routing | None]:
        """State of the module before and the next token's embedding -> this module's state, before its norm.

        The embedding is joined first, as in the released weights; equation 21 prints it second.
        """
        joined = torch.cat((self.token_norm(embedded_BTD), self.hidden_norm(h_BTD)), dim=-1)
        result: tuple[Tensor, Routing | None] = self.block(self.project(joined), rows, expert_NK)  # eq 21, 22
        return result
