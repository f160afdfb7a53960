"""Causal attention of whole rows, block by block, with its own backward pass.

Keys behind the last query of a block are never touched, scores of a block stay near the processor, and the
backward pass makes no tensor but the three gradients.

Axes:  B batch   H heads   T positions   K query and key channels   V value channels
       X heads of a few rows, one batch of products   Q queries of a block   S keys up to its last query
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fathom.ops.matmul import slow

# Queries at a time. Blocks of half a row do 3/4 of the work of whole rows, of a quarter 5/8, but products get
# smaller; bf16 products want to be larger than fp32 ones.
BLOCK = {torch.bfloat16: 256}
BLOCK_ELSE = 128
TILE_BYTES = 4 << 20  # of the scores of a block: as many rows as fit are one batch of products, at least one
KEEP_BYTES = 64 << 20  # up to this size a call keeps its probabilities for the backward pass


class _Blocked(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, q_BHTK: Tensor, k_BHTK: Tensor, v_BHTV: Tensor, scale: float, document_BT: Tensor | None
    ) -> Tensor:
        B, H, T, V = v_BHTV.shape
        o_BHTV = v_BHTV.new_empty(B, T, H, V).transpose(1, 2)
        keep = B * H * T * T * v_BHTV.element_size() <= KEEP_BYTES
        probs = []
        for rows in _few_rows(v_BHTV):
            q_XTK, k_XTK, v_XTV = (_fast(t[rows].flatten(0, 1)) for t in (q_BHTK, k_BHTK, v_BHTV))
            document_bT = None if document_BT is None else document_BT[rows]
            for block in _blocks(v_BHTV):
                prob_XQS = _probabilities(q_XTK, k_XTK, scale, document_bT, block)
                o_XQV = torch.bmm(prob_XQS, v_XTV[:, : block.stop])
                o_BHTV[rows, :, block] = o_XQV.unflatten(0, (-1, H))
                if keep:
                    probs.append(prob_XQS.to(v_BHTV.dtype))
        ctx.save_for_backward(q_BHTK, k_BHTK, v_BHTV, o_BHTV, *probs)
        ctx.scale, ctx.document_BT = scale, document_BT
        return o_BHTV

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        q_BHTK, k_BHTK, v_BHTV, o_BHTV, *probs = ctx.saved_tensors
        (do_BHTV,) = grad
        dq, dk, dv = (t.new_empty(t.shape) for t in (q_BHTK, k_BHTK, v_BHTV))
        delta_BHT1 = torch.linalg.vecdot(do_BHTV, o_BHTV)[..., None]
        for rows in reversed(list(_few_rows(v_BHTV))):
            q_XTK, k_XTK, v_XTV, do_XTV, delta_XT1 = (
                _fast(t[rows].flatten(0, 1)) for t in (q_BHTK, k_BHTK, v_BHTV, do_BHTV, delta_BHT1)
            )
            made = [t[rows].flatten(0, 1) for t in (dq, dk, dv)]
            dq_XTK, dk_XTK, dv_XTV = (_fast(t) for t in made)
            document_bT = None if ctx.document_BT is None else ctx.document_BT[rows]
            for block in reversed(list(_blocks(v_BHTV))):  # a row's last block reaches all its keys
                if probs:
                    prob_XQS = _fast(probs.pop())
                else:
                    prob_XQS = _probabilities(q_XTK, k_XTK, ctx.scale, document_bT, block)
                ds_XQS = torch.bmm(do_XTV[:, block], v_XTV[:, : block.stop].transpose(1, 2))
                ds_XQS.sub_(delta_XT1[:, block]).mul_(prob_XQS)  # of the softmax: p (dp - sum p dp)
                dq_XTK[:, block] = torch.bmm(ds_XQS, k_XTK[:, : block.stop])
                _add_product(dv_XTV, prob_XQS, do_XTV[:, block])
                _add_product(dk_XTK, ds_XQS, q_XTK[:, block])
            for into, wide in zip(made, (dq_XTK, dk_XTK, dv_XTV), strict=True):
                if into is not wide:
                    into.copy_(wide)
        return dq.mul_(ctx.scale), dk.mul_(ctx.scale), dv, None, None


def _fast(x: Tensor) -> Tensor:
    """What products are made of: the tensor itself, or its numbers in fp32."""
    return x.float() if slow(x) else x


def _add_product(into_XTY: Tensor, left_XQS: Tensor, right_XQY: Tensor) -> None:
    """Rows 0..S-1 of `into` take left^T right: the first product, of all rows, is set, later ones are added.

    In one batch into contiguous memory: into a part of the rows it would be a product for every head.
    """
    whole = left_XQS.shape[-1] == into_XTY.shape[1]
    product_XSY = torch.bmm(left_XQS.transpose(1, 2), right_XQY, **({"out": into_XTY} if whole else {}))
    if not whole:
        into_XTY[:, : product_XSY.shape[1]] += product_XSY


def _few_rows(v_BHTV: Tensor) -> Iterator[slice]:
    """Rows of the batch whose heads are one batch of products."""
    B, H, T, _ = v_BHTV.shape
    tile = H * min(_queries(v_BHTV), T) * T * v_BHTV.element_size()
    step = max(1, TILE_BYTES // max(1, tile))
    return (slice(b, min(b + step, B)) for b in range(0, B, step))


def _blocks(v_BHTV: Tensor) -> Iterator[slice]:
    """Queries first..last-1, which look at keys 0..last-1."""
    T, step = v_BHTV.shape[2], _queries(v_BHTV)
    return (slice(first, min(first + step, T)) for first in range(0, T, step))


def _queries(v_BHTV: Tensor) -> int:
    return BLOCK.get(v_BHTV.dtype, BLOCK_ELSE)


def _probabilities(
    q_XTK: Tensor, k_XTK: Tensor, scale: float, document_bT: Tensor | None, block: slice
) -> Tensor:
    """softmax(scale q k^T) of one block's queries over the keys before them. -> [X, Q, S]."""
    mask = q_XTK.new_full((block.stop - block.start, block.stop), -torch.inf).triu(block.start + 1)
    if document_bT is not None:
        other_bQS = document_bT[:, block, None] != document_bT[:, None, : block.stop]
        mask = mask.expand_as(other_bQS).masked_fill(other_bQS, -torch.inf)
        mask = mask.repeat_interleave(len(q_XTK) // len(mask), dim=0)  # the same for every head of a row
    q_XQK, k_XKS = q_XTK[:, block], k_XTK[:, : block.stop].transpose(1, 2)
    return torch.baddbmm(mask.expand(len(q_XQK), -1, -1), q_XQK, k_XKS, alpha=scale).softmax(-1)


def blocked_attention(
    q_BHTK: Tensor, k_BHTK: Tensor, v_BHTV: Tensor, scale: float, document_BT: Tensor | None = None
) -> Tensor:
    """`plain_attention` of whole rows, causal, inside documents if those are given. -> [B, H, T, V].

    bf16 scores are rounded once, before the softmax, which sums in fp32 inside. Where bf16 products are slow,
    a few rows at a time are multiplied in fp32, and what is kept is bf16 all the same.
    """
    y: Tensor = _Blocked.apply(q_BHTK, k_BHTK, v_BHTV, scale, document_BT)
    return y
