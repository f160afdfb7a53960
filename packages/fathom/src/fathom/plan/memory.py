"""What the fullest device holds at the height of a step."""

from __future__ import annotations

from typing import NamedTuple

from fathom.config.counts import Part, mtp_parts, trunk_parts
from fathom.config.footprint import BF16, E5M6, FP8, FP32, logit_bytes, moment_bytes
from fathom.config.model import ModelConfig
from fathom.config.recipe import Recipe
from fathom.plan.stages import Stage
from fathom.plan.work import Recompute

SCALED = 1 + 4 / 128**2     # an FP8 weight with its share of a block's scale


class Share(NamedTuple):
    """One part: its bytes, and how they were reckoned."""

    name: str
    bytes: float
    formula: str


class Held(NamedTuple):
    """Parameters of a device: routed experts, other matrices that may be FP8, everything else."""

    routed: float
    narrow: float
    wide: float


def held(model: ModelConfig, stages: list[Stage], ep: int) -> Held:
    """Parameters of the stages of one rank."""
    parts = {p.name: p.total for p in trunk_parts(model)}
    moe_layers, D, V = model.num_layers - model.dense_layers, model.hidden_size, model.vocab_size
    per_moe = {k: parts[k] / max(moe_layers, 1) for k in ("routed experts", "shared experts", "routers")}
    attention, dense_ff = parts["attention"] / model.num_layers, parts["dense feed-forward"]
    routed = narrow = wide = 0.0
    for one in stages:
        layers = one.dense + one.moe
        routed += one.moe * per_moe["routed experts"] / ep
        narrow += layers * attention + one.moe * per_moe["shared experts"]
        narrow += one.dense * dense_ff / max(model.dense_layers, 1)
        wide += one.moe * per_moe["routers"] + one.first * V * D
        if one.last:
            elsewhere = not any(stage.first for stage in stages)
            table = V * D if model.mtp.depth and elsewhere else 0       # MTP embeds tokens too
            wide += V * D + table + _of(mtp_parts(model), "projection")
            routed += _of(mtp_parts(model), "routed experts") / ep
            narrow += _of(mtp_parts(model), "attention", "shared experts")
    return Held(routed, narrow, wide)


def _of(parts: list[Part], *names: str) -> float:
    return float(sum(p.total for p in parts if p.name in names))


def memory(recipe: Recipe, stages: list[Stage], activations: float) -> list[Share]:
    """Of one pipeline rank's device.

    activations    bytes of them at the height of a step

    Masters and moments are shared out among the replicas (ZeRO-1, report 3.1), not also with the rank that
    mirrors this one in DualPipe; the moving average is in the host's memory (report 3.2.3). Left out: the
    libraries' own buffers and what an allocator cannot reuse.
    """
    model, train, mesh = recipe.model, recipe.train, recipe.parallel
    fp8 = train.precision == "fp8"
    here = held(model, stages, mesh.ep)
    total, quantised = sum(here), here.routed + here.narrow
    moment = moment_bytes(train)
    weights = SCALED * quantised + BF16 * here.wide if fp8 else BF16 * total
    owned = here.routed / mesh.dp + (here.narrow + here.wide) / mesh.token_ranks
    tokens = train.micro_batch * train.seq_len
    D, K = model.hidden_size, model.moe.experts_per_token
    shares = [
        Share("weights", weights, "1 byte in FP8, 2 in bf16" if fp8 else "2 bytes in bf16"),
        Share("gradients", FP32 * total, "4 bytes, summed in fp32"),
        Share("masters, moments", (FP32 + 2 * moment) * owned, f"4 + 2 x {moment} bytes, shared out"),
        Share("activations", activations, "of the micro-batches under way, at the height of a step"),
        Share("rows for experts", BF16 * 2 * tokens * K * D, f"2 x {K} copies of {tokens:,} tokens"),
    ]
    if any(one.last for one in stages):
        logits = logit_bytes(model, tokens, wide=BF16) - BF16 * model.vocab_size * D * (1 + model.mtp.depth)
        shares.append(Share("logits", logits, "a chunk of positions at a time"))
    return shares


def stored(model: ModelConfig, stage: Stage, recompute: Recompute, *, fp8: bool) -> float:
    """Bytes of a token that the backward of a stage finds.

    Of each block its two inputs, in bf16. Unless whole blocks are done again: what products read, in bytes
    where they are in FP8; the latents; attention's output, in FP8 training as E5M6; each expert's copy of the
    row, and what goes into SwiGLU. Without any recomputation also the results of norms, queries, keys and
    values, and SwiGLU's output.
    """
    a, m, D = model.attention, model.moe, model.hidden_size
    layers = stage.dense + stage.moe + (model.mtp.depth if stage.last else 0)
    moe = layers - stage.dense
    inputs = 2 * BF16 * D
    if recompute == "blocks":
        return layers * inputs
    read, out = (FP8, E5M6) if fp8 else (BF16, BF16)
    latents = BF16 * (a.q_rank + a.cache_elements)
    attention = read * D + latents + out * a.num_heads * a.value_head
    dense = read * (D + 2 * model.dense_size)
    inner = read * m.expert_size * (m.num_shared + m.experts_per_token)
    experts = read * D * (1 + m.experts_per_token) + 2 * inner
    if recompute == "none":
        heads = a.num_heads * (2 * a.qk_head + a.value_head)
        attention += BF16 * (D + heads)
        dense += BF16 * D + read * model.dense_size
        experts += BF16 * D + inner
    return layers * (inputs + attention) + stage.dense * dense + moe * experts
