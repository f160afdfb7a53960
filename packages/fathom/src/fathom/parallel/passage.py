"""One micro-batch on its way through one block, forward and back, in four parts (report section 3.2.1).

    forward    attention | dispatch | MLP | combine
    backward   combine | MLP | dispatch | attention

Both are generators that stop wherever communication has been started and not yet waited for. Taking turns, a
forward and a backward pass of two micro-batches hide each other's communication in the order of figure 4:
dispatch(F) behind MLP(B), dispatch(B) behind MLP(W) and MLP(F), combine(F) behind attention(B, W), combine(B)
behind the next attention(F). Combine and dispatch are each other's transposes, so the gradient of one is the
other.

Axes:  B rows   T positions   D model width   N = B*T tokens   K experts per token   R rows of experts here
"""

from __future__ import annotations

from collections.abc import Callable, Generator

import torch
from torch import Tensor

from fathom.model.block import Block, Rows
from fathom.model.experts import MoE
from fathom.model.router import Routing
from fathom.ops.deferred import Left, WeightGradients, finish
from fathom.parallel.piece import Piece

Steps = Generator[None, None, Tensor]  # stops while something is under way; returns a result


class Passage:
    """Through one block."""

    def __init__(self, block: Block, rows: Rows, later: WeightGradients, *, recompute: bool) -> None:
        self._block, self._rows, self._later, self._recompute = block, rows, later, recompute
        self.routing: Routing | None = None  # after the forward pass, if the block has experts

    def forward(self, x_BTD: Tensor) -> Steps:
        """[B, T, D] -> [B, T, D]."""
        ffn = self._block.ffn
        self._first = self._piece(self._attend, x_BTD)
        x_BTD, h_BTD, *routed = self._first.take()
        if not isinstance(ffn, MoE):
            self._dense = self._piece(lambda h: (ffn(h),), h_BTD)
            return x_BTD + self._dense.take()[0]
        assert self.routing is not None, "a router has run"
        self._exchange = exchange = ffn.dispatch.plan(self.routing.expert_NK, ffn.num_experts)
        x_R, weight_R = exchange.spread(h_BTD.flatten(0, 1)), exchange.spread_weights(routed[0])
        yield  # dispatch is under way
        y_BTD = x_BTD
        if ffn.shared is not None:
            shared = ffn.shared
            self._shared = self._piece(lambda h: (shared(h),), h_BTD)
            y_BTD = y_BTD + self._shared.take()[0]
        count_E = exchange.count_E
        self._experts = self._piece(
            lambda x, weight: (ffn.experts(x, count_E, weight),), x_R.wait(), weight_R.wait()
        )
        y_N = exchange.collect(self._experts.take()[0])
        yield  # combine is under way
        return y_BTD + y_N.wait().view_as(y_BTD)

    def backward(self, dy_BTD: Tensor, sequence: float, left: Left, *, keep: bool) -> Steps:
        """Gradient of the output -> of the input.

        sequence   gradient of this layer's sequence-wise loss
        left       takes weight gradients, and is emptied again as they are made unless `keep`
        """
        ffn = self._block.ffn
        if not isinstance(ffn, MoE):
            (dh_BTD,) = self._back(self._dense, left, keep, dy_BTD)
            (dx_BTD,) = self._back(self._first, left, keep, dy_BTD, dh_BTD)
            return dx_BTD
        dy_R = self._exchange.spread(dy_BTD.flatten(0, 1))
        yield  # combine's gradient is under way
        dh_BTD = torch.zeros_like(dy_BTD)
        if ffn.shared is not None:
            (dh_BTD,) = self._back(self._shared, left, True, dy_BTD)
        dx_R, dweight_R = self._back(self._experts, left, True, dy_R.wait())
        dh_N, dweight_NK = self._exchange.collect(dx_R), self._exchange.collect_weights(dweight_R)
        del dy_R, dx_R, dweight_R  # a row for each expert of a token
        if not keep:
            finish(left)  # the MLP's weights, while dispatch's gradient is under way
        yield
        dh_BTD = dh_BTD + dh_N.wait().view_as(dy_BTD)
        assert self.routing is not None
        loss = torch.full_like(self.routing.sequence_loss, sequence)
        (dx_BTD,) = self._back(self._first, left, keep, dy_BTD, dh_BTD, dweight_NK.wait(), loss)
        return dx_BTD

    def _attend(self, x_BTD: Tensor) -> tuple[Tensor, ...]:
        block, rows = self._block, self._rows
        h_BTD = block.attn_norm(x_BTD)
        x_BTD = x_BTD + block.attention(h_BTD, rows.turn, document_BT=rows.document_BT, layer=block.layer)
        h_BTD = block.ffn_norm(x_BTD)
        if not isinstance(block.ffn, MoE):
            return x_BTD, h_BTD
        routing = block.ffn.router(h_BTD, rows.real_BT)
        self.routing = routing._replace(
            weight_NK=routing.weight_NK.detach(), sequence_loss=routing.sequence_loss.detach()
        )
        return x_BTD, h_BTD, routing.weight_NK, routing.sequence_loss

    def _piece(self, function: Callable[..., tuple[Tensor, ...]], *inputs: Tensor) -> Piece:
        return Piece(function, *inputs, recompute=self._recompute)

    def _back(self, piece: Piece, left: Left, keep: bool, *grads: Tensor) -> tuple[Tensor, ...]:
        with self._later.later(left):
            found = piece.backward(*grads)
        if not keep:
            finish(left)
        return found
