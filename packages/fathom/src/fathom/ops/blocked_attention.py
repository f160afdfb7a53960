"""Causal attention of whole rows, block by block, with its own backward pass.

Keys behind the last query of a block are never touched, scores of one row's block stay near the processor,
and the backward pass makes no tensor but the three gradients.

Axes:  B batch   H heads   T positions   K query and key channels   V value channels
       Q queries of a block   S keys up to its last query
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

# Queries at a time. Blocks of half a row do 3/4 of the work of whole rows, of a quarter 5/8, but products get
# smaller; bf16 products want to be larger than fp32 ones.
BLOCK = {torch.bfloat16: 256}
BLOCK_ELSE = 128
KEEP_BYTES = 64 << 20  # up to this size a call keeps its probabilities for the backward pass


class _Block(NamedTuple):
    """Queries first..last-1 of row b, which look at keys 0..last-1."""

    b: int
    first: int
    last: int


class _Blocked(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, q_BHTK: Tensor, k_BHTK: Tensor, v_BHTV: Tensor, scale: float, document_BT: Tensor | None
    ) -> Tensor:
        B, H, T, V = v_BHTV.shape
        o_BHTV = v_BHTV.new_empty(B, T, H, V).transpose(1, 2)
        keep = B * H * T * T * v_BHTV.element_size() <= KEEP_BYTES
        probs = []
        for block in _blocks(v_BHTV):
            prob_HQS = _probabilities(q_BHTK, k_BHTK, scale, document_BT, block)
            o_BHTV[block.b, :, block.first : block.last] = torch.bmm(prob_HQS, v_BHTV[block.b, :, : block.last])
            if keep:
                probs.append(prob_HQS)
        ctx.save_for_backward(q_BHTK, k_BHTK, v_BHTV, o_BHTV, *probs)
        ctx.scale, ctx.document_BT = scale, document_BT
        return o_BHTV

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        q_BHTK, k_BHTK, v_BHTV, o_BHTV, *probs = ctx.saved_tensors
        (do_BHTV,) = grad
        dq, dk, dv = torch.empty_like(q_BHTK), torch.empty_like(k_BHTK), torch.empty_like(v_BHTV)
        delta_BHT1 = torch.linalg.vecdot(do_BHTV, o_BHTV)[..., None]
        for i, block in reversed(list(enumerate(_blocks(v_BHTV)))):  # a row's last block reaches all its keys
            b, first, last = block
            if probs:
                prob_HQS = probs[i]
            else:
                prob_HQS = _probabilities(q_BHTK, k_BHTK, ctx.scale, ctx.document_BT, block)
            do_HQV = do_BHTV[b, :, first:last]
            ds_HQS = torch.bmm(do_HQV, v_BHTV[b, :, :last].transpose(1, 2))
            ds_HQS.sub_(delta_BHT1[b, :, first:last]).mul_(prob_HQS)  # of the softmax: p (dp - sum p dp)
            dq[b, :, first:last] = torch.bmm(ds_HQS, k_BHTK[b, :, :last])
            _add_product(dv[b], prob_HQS, do_HQV)
            _add_product(dk[b], ds_HQS, q_BHTK[b, :, first:last])
        return dq.mul_(ctx.scale), dk.mul_(ctx.scale), dv, None, None


def _add_product(into_HTX: Tensor, left_HQS: Tensor, right_HQX: Tensor) -> None:
    """Rows 0..S-1 of `into` take left^T right: the first product of all rows is set, later ones are added.

    In one batch into contiguous memory: into a part of the rows it would be a product for every head.
    """
    whole = left_HQS.shape[-1] == into_HTX.shape[1]
    product_HSX = torch.bmm(left_HQS.transpose(1, 2), right_HQX, **({"out": into_HTX} if whole else {}))
    if not whole:
        into_HTX[:, : product_HSX.shape[1]] += product_HSX


def _blocks(v_BHTV: Tensor) -> Iterator[_Block]:
    B, _, T, _ = v_BHTV.shape
    queries = BLOCK.get(v_BHTV.dtype, BLOCK_ELSE)
    for b in range(B):
        for first in range(0, T, queries):
            yield _Block(b, first, min(first + queries, T))


def _probabilities(
    q_BHTK: Tensor, k_BHTK: Tensor, scale: float, document_BT: Tensor | None, block: _Block
) -> Tensor:
    """softmax(scale q k^T) of one block's queries over the keys before them. -> [H, Q, last]."""
    b, first, last = block
    mask_QS = _mask(document_BT, block, q_BHTK)
    q_HQK, k_HKS = q_BHTK[b, :, first:last], k_BHTK[b, :, :last].transpose(1, 2)
    return torch.baddbmm(mask_QS.expand(len(q_HQK), -1, -1), q_HQK, k_HKS, alpha=scale).softmax(-1)


def _mask(document_BT: Tensor | None, block: _Block, like: Tensor) -> Tensor:
    """0 where a query may look, -inf elsewhere. -> [Q, last]."""
    b, first, last = block
    mask_QS = like.new_full((last - first, last), -torch.inf).triu(first + 1)
    if document_BT is not None:
        other_QS = document_BT[b, first:last, None] != document_BT[b, None, :last]
        mask_QS.masked_fill_(other_QS, -torch.inf)
    return mask_QS


def blocked_attention(
    q_BHTK: Tensor, k_BHTK: Tensor, v_BHTV: Tensor, scale: float, document_BT: Tensor | None = None
) -> Tensor:
    """`plain_attention` of whole rows, causal, inside documents if those are given. -> [B, H, T, V].

    bf16 scores are rounded once, before the softmax, which sums in fp32 inside.
    """
    y: Tensor = _Blocked.apply(q_BHTK, k_BHTK, v_BHTV, scale, document_BT)
    return y
