"""Every tensor of the network: its name here and in the official checkpoint, its shape (report section 2).

Axes:  V vocabulary   D model width   Q query latent   C kv latent   H heads   K key channels of a head
       N no-position head   R rope head   U value head   E experts   F inner width of an expert
The official layout keeps one tensor per expert and calls MTP module k (0-based) layer `num_layers + k`; here
the experts of a layer are stacked. The order of rows inside a matrix is the same on both sides.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from fathom.config.model import ModelConfig

ROUTING_BIAS = "router.bias"  # stays float32 in every file: bf16 folds hundreds of its values into a handful


class Row(NamedTuple):
    """One tensor of our state."""

    ours: str
    official: str  # with {} where the expert's number goes
    shape: tuple[int, ...]  # of ours: [E, ...] where experts are stacked

    @property
    def stacked(self) -> bool:
        """Whether the official layout splits this tensor into one per expert."""
        return "{}" in self.official


class Place(NamedTuple):
    """Where an official tensor lives in our state."""

    ours: str
    expert: int | None  # index into the stacked tensor
    shape: tuple[int, ...]  # of the official tensor


def rows(config: ModelConfig) -> Iterator[Row]:
    """All tensors of the network, in the order of the official checkpoint; each once."""
    V, D, L = config.vocab_size, config.hidden_size, config.num_layers
    yield Row("embed.weight", "model.embed_tokens.weight", (V, D))
    for i in range(L):
        yield from _block(config, i, f"layers.{i}", f"model.layers.{i}")
    yield Row("norm.weight", "model.norm.weight", (D,))
    yield Row("head.weight", "lm_head.weight", (V, D))
    for k in range(config.mtp.depth):
        ours, theirs = f"mtp.{k}", f"model.layers.{L + k}"
        yield Row(f"{ours}.token_norm.weight", f"{theirs}.enorm.weight", (D,))
        yield Row(f"{ours}.hidden_norm.weight", f"{theirs}.hnorm.weight", (D,))
        yield Row(f"{ours}.project.weight", f"{theirs}.eh_proj.weight", (D, 2 * D))
        yield from _block(config, L + k, f"{ours}.block", theirs)
        yield Row(f"{ours}.norm.weight", f"{theirs}.shared_head.norm.weight", (D,))


def shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Our name of every tensor -> its shape."""
    return {row.ours: row.shape for row in rows(config)}


def official(config: ModelConfig, *, mtp_copies: bool = False) -> dict[str, Place]:
    """Official name of every tensor -> its place in our state.

    mtp_copies   with the copies of embedding and head that the official checkpoint stores in every MTP layer
    """
    places: dict[str, Place] = {}
    for row in rows(config):
        if row.stacked:
            for e in range(row.shape[0]):
                places[row.official.format(e)] = Place(row.ours, e, row.shape[1:])
        else:
            places[row.official] = Place(row.ours, None, row.shape)
    return {**places, **copies(config)} if mtp_copies else places


def copies(config: ModelConfig) -> dict[str, Place]:
    """The tensors of MTP layers that repeat the trunk's embedding and head (shared in report section 2.2)."""
    V, D, L = config.vocab_size, config.hidden_size, config.num_layers
    places = {}
    for k in range(config.mtp.depth):
        places[f"model.layers.{L + k}.embed_tokens.weight"] = Place("embed.weight", None, (V, D))
        places[f"model.layers.{L + k}.shared_head.head.weight"] = Place("head.weight", None, (V, D))
    return places


def _block(config: ModelConfig, layer: int, ours: str, theirs: str) -> Iterator[Row]:
    D = config.hidden_size
    yield Row(f"{ours}.attn_norm.weight", f"{theirs}.input_layernorm.weight", (D,))
    yield from _attention(config, f"{ours}.attention", f"{theirs}.self_attn")
    yield Row(f"{ours}.ffn_norm.weight", f"{theirs}.post_attention_layernorm.weight", (D,))
    if config.is_moe(layer):
        yield from _experts(config, f"{ours}.ffn", f"{theirs}.mlp")
    else:
        yield from _swiglu(D, config.dense_size, f"{ours}.ffn", f"{theirs}.mlp")


def _attention(config: ModelConfig, ours: str, theirs: str) -> Iterator[Row]:
    a, D = config.attention, config.hidden_size
    H, Q, C, K, N, R, U = a.num_heads, a.q_rank, a.kv_rank, a.qk_head, a.nope_head, a.rope_head, a.value_head
    if Q:
        yield Row(f"{ours}.q_a.weight", f"{theirs}.q_a_proj.weight", (Q, D))
        yield Row(f"{ours}.q_norm.weight", f"{theirs}.q_a_layernorm.weight", (Q,))
        yield Row(f"{ours}.q_b.weight", f"{theirs}.q_b_proj.weight", (H * K, Q))
    else:
        yield Row(f"{ours}.q.weight", f"{theirs}.q_proj.weight", (H * K, D))
    yield Row(f"{ours}.kv_a.weight", f"{theirs}.kv_a_proj_with_mqa.weight", (C + R, D))
    yield Row(f"{ours}.kv_norm.weight", f"{theirs}.kv_a_layernorm.weight", (C,))
    yield Row(f"{ours}.kv_b.weight", f"{theirs}.kv_b_proj.weight", (H * (N + U), C))
    yield Row(f"{ours}.out.weight", f"{theirs}.o_proj.weight", (D, H * U))


def _experts(config: ModelConfig, ours: str, theirs: str) -> Iterator[Row]:
    D, E, F = config.hidden_size, config.moe.num_experts, config.moe.expert_size
    yield Row(f"{ours}.router.weight", f"{theirs}.gate.weight", (E, D))
    yield Row(f"{ours}.{ROUTING_BIAS}", f"{theirs}.gate.e_score_correction_bias", (E,))
    yield Row(f"{ours}.experts.gate", f"{theirs}.experts.{{}}.gate_proj.weight", (E, F, D))
    yield Row(f"{ours}.experts.up", f"{theirs}.experts.{{}}.up_proj.weight", (E, F, D))
    yield Row(f"{ours}.experts.down", f"{theirs}.experts.{{}}.down_proj.weight", (E, D, F))
    if config.moe.num_shared:
        yield from _swiglu(D, config.moe.num_shared * F, f"{ours}.shared", f"{theirs}.shared_experts")


def _swiglu(D: int, inner: int, ours: str, theirs: str) -> Iterator[Row]:
    yield Row(f"{ours}.gate.weight", f"{theirs}.gate_proj.weight", (inner, D))
    yield Row(f"{ours}.up.weight", f"{theirs}.up_proj.weight", (inner, D))
    yield Row(f"{ours}.down.weight", f"{theirs}.down_proj.weight", (D, inner))
