"""Parameters, cache and arithmetic of a model, exactly and without building it.

Sizes:  D model width   V vocabulary   H heads   Q query latent   C kv latent   E routed experts
        K experts per token.   Equations are those of the report, section 2.1.
"""

from __future__ import annotations

from typing import NamedTuple

from fathom.config.model import ModelConfig


class Counts(NamedTuple):
    """Sizes of one model.

    total    parameters of the trunk with both tables, without MTP; the routing bias counts as one per expert
    active   those that one token meets: with the head, without the embedding table, which multiplies nothing
    mtp      parameters that only the MTP modules have; they share both tables with the trunk
    cache_elements_per_token   numbers the latent cache holds per token, over all layers of the trunk
    """

    total: int
    active: int
    mtp: int
    cache_elements_per_token: int


class Part(NamedTuple):
    """One kind of parameter, summed over the layers that have it; `active` are those that one token meets."""

    name: str
    total: int
    active: int
    multiplies: bool = True  # a matrix that each token is multiplied by; not norms, biases and look-ups


def count(config: ModelConfig) -> Counts:
    """The four figures of `fathom params`; for v3 671B, 37B active, 11.6B for MTP, and 576 x 61 cached."""
    trunk = trunk_parts(config)
    return Counts(
        total=sum(p.total for p in trunk),
        active=sum(p.active for p in trunk),
        mtp=sum(p.total for p in mtp_parts(config)),
        cache_elements_per_token=config.attention.cache_elements * config.num_layers,
    )


def trunk_parts(config: ModelConfig) -> list[Part]:
    """The trunk's parameters by kind, both tables included."""
    D, V = config.hidden_size, config.vocab_size
    return [
        Part("embedding", V * D, 0, multiplies=False),
        *_blocks(config, dense=config.dense_layers, moe=config.num_layers - config.dense_layers),
        Part("final norm", D, D, multiplies=False),
        Part("head", V * D, V * D),
    ]


def mtp_parts(config: ModelConfig) -> list[Part]:
    """What the MTP modules add by kind, without the two tables they share with the trunk."""
    D, depth = config.hidden_size, config.mtp.depth
    if depth == 0:
        return []
    return [
        Part("projection", 2 * D * D * depth, 2 * D * D * depth),
        *_blocks(config, dense=0, moe=depth),  # they follow the trunk's last block, so all have experts
        Part("module norms", 3 * D * depth, 3 * D * depth, multiplies=False),  # token, trunk state, output
    ]


def _blocks(config: ModelConfig, *, dense: int, moe: int) -> list[Part]:
    """The parameters of `dense` blocks with a dense feed-forward and `moe` blocks with experts."""
    a, m, D = config.attention, config.moe, config.hidden_size
    H, Q, C, E, K = a.num_heads, a.q_rank, a.kv_rank, m.num_experts, m.experts_per_token
    query = D * Q + Q * H * a.qk_head if Q else D * H * a.qk_head  # eq 6-9
    keyed = D * a.cache_elements + C * H * (a.nope_head + a.value_head)  # eq 1-5
    attention = query + keyed + H * a.value_head * D  # eq 11
    expert = 3 * D * m.expert_size  # SwiGLU: gate, up, down
    bias = E if m.score == "sigmoid" else 0  # V2's softmax routing is balanced by losses alone
    norms = 2 * D + Q + C
    same = [
        ("attention", (dense + moe) * attention, True),
        ("dense feed-forward", dense * 3 * D * config.dense_size, True),
        ("shared experts", moe * m.num_shared * expert, True),
        ("routers", moe * E * D, True),
        ("routing bias", moe * bias, False),
        ("block norms", (dense + moe) * norms, False),
    ]
    blocks = [Part(name, size, size, multiplies=matrix) for name, size, matrix in same]
    return [*blocks[:2], Part("routed experts", moe * E * expert, moe * K * expert), *blocks[2:]]


def mha_cache_elements(config: ModelConfig) -> int:
    """What plain multi-head attention with as many heads and layers would cache per token.

    Values, and keys as wide as their part without position, for every head: 2 n_h d_h per layer, the row
    "MHA" of table 1 in arXiv 2405.04434. For v3 1,998,848, which is 56.9 times its latent cache. A rotated
    part per head would come on top; the comparison leaves it out, in MHA's favour.
    """
    a = config.attention
    return a.num_heads * (a.nope_head + a.value_head) * config.num_layers


def flops_per_token(config: ModelConfig, seq_len: int) -> int:
    """Arithmetic of one training step per token: forward and backward, without any recomputation.

    6 for each active parameter that multiplies (2 forward, 4 backward), and for attention in each block
    6 x H x (query width + value width) x the mean number of keys, (seq_len + 1) / 2 under the causal mask.
    MTP counts with its blocks, its projection and one more pass of the head per module, at every position,
    although the last `depth` of a row have none. Norms, softmax, RoPE and the optimizer are left out.
    """
    a, depth = config.attention, config.mtp.depth
    heads = (1 + depth) * config.vocab_size * config.hidden_size
    matrices = [p for p in trunk_parts(config) + mtp_parts(config) if p.multiplies and p.name != "head"]
    attention = 3 * a.num_heads * (a.qk_head + a.value_head) * (seq_len + 1)
    return 6 * (heads + sum(p.active for p in matrices)) + attention * (config.num_layers + depth)
