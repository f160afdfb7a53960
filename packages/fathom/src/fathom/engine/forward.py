"""One pass of the network over rows of many sequences: decoded rows first, then chunks of prompts.

Axes:  R rows   D model width   H heads   N no-position head   P rope head   K = N+P   C kv latent   E = C+P
       V vocabulary   L layers of the pool   G pages   S positions of a page   X experts chosen
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fathom.config.model import ModelConfig
from fathom.engine.attention import Chunk, Pairs, absorb, decode_attention, prefill_attention, release
from fathom.engine.dispatch import dispatch
from fathom.engine.weights import Attention, Draft, Experts, Layer, Swiglu, Weights
from fathom.model.router import choose, combine_weights
from fathom.ops.norm import wide
from fathom.ops.products import WIDTH, fill
from fathom.ops.rope import Rotation, rotate_rows
from fathom.ops.rowwise import gated, sigmoid, weighted_sum


class Rows(NamedTuple):
    """Where the rows of a pass stand. Their tokens come apart: the MTP module reads those one further."""

    position_R: Tensor
    slot_R: Tensor  # page * page_size + place in it
    turn: Rotation  # [R, 1, P], of every channel, as `rotate_rows` takes it: alike for all heads
    decoded: int  # rows that take the absorbed form; they come first
    pairs: Pairs | None  # of the decoded rows
    chunks: list[Chunk]


class Pool:
    """The latents of all layers, the MTP module's last: (C + P) elements a position and layer, 576 for V3."""

    def __init__(self, config: ModelConfig, pages: int, page_size: int, like: Tensor, *, draft: bool) -> None:
        layers = config.num_layers + draft
        elements = config.attention.cache_elements
        shape = (layers, pages, page_size, elements + -elements % WIDTH)
        self.data_LGSE = torch.zeros(shape, dtype=like.dtype, device=like.device)

    def clear(self, pages: list[int], *, draft_only: bool = False) -> None:
        """Forget what earlier requests left: no latent, and no NaN, of one reaches another."""
        if pages:
            self.data_LGSE[-1 if draft_only else slice(None), pages] = 0

    @property
    def nbytes(self) -> int:
        """Memory held."""
        return self.data_LGSE.nbytes


def trunk(
    weights: Weights, token_R: Tensor, rows: Rows, pool: Pool, chosen: list[Tensor] | None = None
) -> Tensor:
    """States before the final norm, every layer's latents written. -> [R, D].

    `chosen` gets the experts of each MoE layer, highest weight first: int64 [R, K] a layer.
    """
    x_RD = F.embedding(token_R, weights.embed_VD)
    for index, layer in enumerate(weights.layers):
        x_RD = _block(weights.config, layer, x_RD, rows, pool.data_LGSE[index], chosen=chosen)
    return x_RD


def mtp(weights: Weights, h_RD: Tensor, next_R: Tensor, rows: Rows, pool: Pool) -> Tensor:
    """The MTP module over states and the tokens after them (report eq 21, 22). -> its states, [R, D].

    `h_RD` is what `trunk` gave, or what this gave for the position before when it drafts a further token.
    """
    draft = _draft(weights)
    token_RD = draft.token_norm(F.embedding(next_R, weights.embed_VD))
    joined = torch.cat((token_RD, draft.hidden_norm(h_RD)), dim=-1)
    return _block(weights.config, draft.layer, draft.project(joined), rows, pool.data_LGSE[-1])


def logits(weights: Weights, h_RD: Tensor) -> Tensor:
    """Of the next token. [R, D] -> fp32 [R, V]."""
    return wide(weights.head(weights.norm(h_RD)))


def mtp_logits(weights: Weights, h_RD: Tensor) -> Tensor:
    """Of the token after the next (report eq 23). [R, D] -> fp32 [R, V]."""
    return wide(weights.head(_draft(weights).norm(h_RD)))


def mtp_input(weights: Weights, h_RD: Tensor) -> Tensor:
    """The trunk's states as this network's MTP module was trained on them: before or after the final norm."""
    if weights.config.mtp.trunk == "pre_norm":
        return h_RD
    return weights.norm(h_RD)


def _draft(weights: Weights) -> Draft:
    assert weights.draft is not None, "no MTP module was packed"
    return weights.draft


def _block(
    config: ModelConfig, layer: Layer, x_RD: Tensor, rows: Rows, pool_GSE: Tensor,
    *, chosen: list[Tensor] | None = None,
) -> Tensor:  # fmt: skip
    x_RD = x_RD + _attend(config, layer.attention, x_RD, rows, pool_GSE)
    h_RD = layer.norm(x_RD)
    if isinstance(layer.ffn, Experts):
        return x_RD + _moe(config, layer.ffn, h_RD, chosen)
    return x_RD + _swiglu(layer.ffn, h_RD)


def _attend(config: ModelConfig, w: Attention, x_RD: Tensor, rows: Rows, pool_GSE: Tensor) -> Tensor:
    a, R = config.attention, len(x_RD)
    H, N, P, C = a.num_heads, a.nope_head, a.rope_head, a.kv_rank
    down = w.down(w.norm(x_RD))
    q, c_RC, k_RP = down.split_with_sizes((down.shape[1] - C - P, C, P), dim=-1)
    if w.q_up is not None and w.q_norm is not None:
        q = w.q_up(w.q_norm(q))
    q_RHN, q_RHP = q.reshape(R, H, N + P).split_with_sizes((N, P), dim=-1)
    turned = rotate_rows(torch.cat((q_RHP, k_RP[:, None]), dim=1), rows.turn)  # queries and the one key
    q_RHP = turned[:, :H]
    entry_RE = torch.cat((w.kv_norm(c_RC), turned[:, H]), dim=-1)
    pool_GSE.flatten(0, 1).index_copy_(0, rows.slot_R, fill(entry_RE))
    parts = []
    if rows.pairs is not None:
        own = slice(0, rows.decoded)
        q_RHE = torch.cat((absorb(q_RHN[own], w.up_k_HNC)[..., :C], q_RHP[own]), dim=-1)
        z_RHC = decode_attention(fill(q_RHE), pool_GSE, rows.pairs, config.softmax_scale, C)
        parts.append(release(z_RHC, w.up_v_HCV)[..., : a.value_head])
    if rows.chunks:
        q_RHK = torch.cat((q_RHN, q_RHP), dim=-1)
        parts += [prefill_attention(q_RHK, pool_GSE, c, w, a, config.softmax_scale) for c in rows.chunks]
    o_RHV = parts[0] if len(parts) == 1 else torch.cat(parts)
    return w.out(o_RHV.reshape(R, H * a.value_head))


def _swiglu(ffn: Swiglu, x_RD: Tensor) -> Tensor:
    return ffn.down(gated(ffn.gate_up(x_RD)))


def _moe(config: ModelConfig, ffn: Experts, x_RD: Tensor, chosen: list[Tensor] | None) -> Tensor:
    """The experts, one after the other over the rows that go to each, and their sum (eq 12)."""
    moe = config.moe
    logit_RX = ffn.router(wide(x_RD))
    score_RX = sigmoid(logit_RX) if moe.score == "sigmoid" else logit_RX.softmax(-1)
    expert_RX = choose(score_RX, ffn.bias_E, moe)
    weight_RX = combine_weights(score_RX, expert_RX, moe)
    if chosen is not None:
        chosen.append(expert_RX.gather(-1, weight_RX.argsort(dim=-1, descending=True, stable=True)))
    sent = dispatch(expert_RX, moe.num_experts, len(ffn.each))
    each = [ffn.each[e] for e in sent.count_of]
    gate_up = [own.gate_up(x) for own, x in zip(each, sent.spread(x_RD), strict=True)]
    inner = gated(torch.cat(gate_up)).split_with_sizes(sent.counts)
    outer_ND = torch.cat([own.down(h) for own, h in zip(each, inner, strict=True)])
    shared = sent.row_RK.shape[1] - moe.experts_per_token
    return weighted_sum(outer_ND, sent.row_RK, F.pad(weight_RX, (0, shared), value=1.0))
