"""What a run will ask of a machine, estimated before anything is built: steps, memory, disk.

Everything is for one process that holds the whole model. Sizes:  D model width   V vocabulary   H heads
K query and key channels of a head   N of those without position   W value channels   Q query latent
C kv latent   T tokens in a row   k experts per token   F inner width of an expert
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from fathom.config.counts import Part, mtp_parts, trunk_parts
from fathom.config.model import ModelConfig
from fathom.config.train import TrainConfig

FP32, BF16 = 4, 2  # bytes of a number
FP8, E5M6 = 1 + 4 / 128, 1.5 + 4 / 128  # with their share of a scale
CHUNK = 1024  # positions whose logits are held at a time: fathom.ops.loss
BLOCK = {BF16: 256, FP32: 128}  # queries of a block: fathom.ops.blocked_attention
KEEP_BYTES = 64 << 20  # of scores, up to which a call of it keeps its probabilities
FINE = 100_000  # steps of a growing batch that are summed one by one; more are summed in equal stretches


class Share(NamedTuple):
    """One part of the memory: what it is, its size and how that was reckoned."""

    name: str
    bytes: int
    formula: str


class Plan(NamedTuple):
    """The length of a run; steps and tokens are None where it ends by the clock.

    Rows are reckoned full; padding makes the tokens of a step a little fewer.
    """

    first_tokens: int  # of the first step
    full_tokens: int  # of a step once the batch is full
    steps: int | None
    tokens: int | None


def trainable(model: ModelConfig) -> int:
    """Numbers that gradients move: all parameters with MTP's, without the routing biases."""
    return sum(p.total for p in _parts(model) if p.name != "routing bias")


def narrow(model: ModelConfig) -> int:
    """Those that have a bf16 copy: every matrix of a product and the embedding, not routers and norms."""
    parts = (p for p in _parts(model) if p.multiplies or p.name == "embedding")
    return sum(p.total for p in parts if p.name != "routers")


def routing_biases(model: ModelConfig) -> int:
    """One number for each expert of each layer, MTP's too."""
    return model.moe.num_experts * (model.num_layers - model.dense_layers + model.mtp.depth)


def _parts(model: ModelConfig) -> list[Part]:
    return [*trunk_parts(model), *mtp_parts(model)]


def in_fp8(model: ModelConfig) -> int:
    """Those of `narrow` that an FP8 run has in FP8 instead: not the two tables, nor MTP's projection."""
    wide = ("embedding", "head", "projection")
    return narrow(model) - sum(p.total for p in _parts(model) if p.name in wide)


def moment_bytes(train: TrainConfig) -> int:
    """Of one moment of one parameter: `fathom.train.precision.moments_of`."""
    chosen = "bf16" if train.precision == "fp8" and train.optim.bears_bf16 else "fp32"
    narrow = (chosen if train.optim.moments == "auto" else train.optim.moments) == "bf16"
    return BF16 if narrow else FP32


def memory(model: ModelConfig, train: TrainConfig, *, precision: str, fused: bool) -> list[Share]:
    """What one process holds at the height of a step, with `train.ops = "fast"`.

    precision   "fp32"; "bf16": copies of weights beside the fp32 masters, activations half as wide; "fp8":
                most copies, and what the backward passes of products read, are bytes
    fused       attention is a GPU's fused kernel, which keeps no probabilities
    Left out: the program and its libraries, the batch, gradients of activations on their way back, space that
    an allocator cannot reuse, norms' statistics, routing. `train.ops = "plain"` stores up to twice as much.
    """
    P, n = trainable(model), narrow(model)
    fp8, wide, each = precision == "fp8", FP32 if precision == "fp32" else BF16, moment_bytes(train)
    rows = train.micro_batch or train.batch_size
    shares = [
        Share("fp32 masters", FP32 * P, "4 bytes a parameter"),
        Share("fp32 gradients", FP32 * P, "4 bytes a parameter"),
        Share("moments of AdamW", 2 * each * P, f"2 x {each} bytes a parameter"),
    ]
    if train.optim.ema:
        shares.append(Share("moving average", FP32 * P, "4 bytes a parameter"))
    if fp8:
        q = in_fp8(model)
        shares.insert(1, Share("FP8 copy", q, "1 byte for each number of a product in FP8"))
        n -= q
    if wide == BF16:
        said = f"2 x 2 bytes for each number of {'the others' if fp8 else 'a product'} or the embedding"
        shares.insert(1, Share("bf16 copy and its gradients", 2 * BF16 * n, said))
    recompute = train.recompute
    held = activation_bytes(
        model, rows, train.seq_len, wide=wide, fused=fused, recompute=recompute, fp8=fp8
    )
    again = ", one block's and every block's input" if train.recompute else ""
    shares.append(Share("activations", held, f"of {rows} x {train.seq_len:,} tokens{again}"))
    logits = logit_bytes(model, rows * train.seq_len, wide=wide)
    return [*shares, Share("logits", logits, f"of at most {CHUNK:,} positions, and the head's gradients")]


def activation_bytes(
    model: ModelConfig, rows: int, seq_len: int, *, wide: int, fused: bool, recompute: bool, fp8: bool = False
) -> int:
    """What the backward pass of one micro-batch finds stored, `wide` bytes for each number.

    For each token, a norm of width X stores 2 X (its result, and that times the gain). A block stores
        attention   2 (D + Q + C) in norms, 2 H K queries and keys, H (N + W) values, H W outputs, H S scores
        dense       2 D in its norm and 4 F inside
        experts     2 D in its norm, D in fp32 for the router, 4 F in the shared and k (D + 2 F) in the routed
    where S is the mean number of keys that a block of queries sees, and 0 on a GPU and where all scores would
    exceed 64 MiB; the embedding and the sums of the residual stream store nothing. An MTP module adds 5 D
    before and after its block. Recomputation stores every block's input, and all of one block at a time.
    In FP8 what products read is bytes: the gained half of each norm, for experts in two cuts, and 2 F inside
    each SwiGLU, while the routed experts' D is stored once a token; attention's H W outputs are there in E5M6
    as well.
    """
    if fp8:
        return _fp8_activation_bytes(model, rows, seq_len, fused=fused, recompute=recompute)

    D = model.hidden_size
    dropped = fused or rows * model.attention.num_heads * seq_len**2 * wide > KEEP_BYTES
    attention = _attention(model, 0.0 if dropped else _mean_keys(seq_len, BLOCK[wide]))
    dense = wide * (attention + 2 * D + 4 * model.dense_size)
    experts = wide * (attention + 2 * D + _experts(model)) + (FP32 * D if wide != FP32 else 0)
    return round(rows * seq_len * _stored(model, dense, experts, wide, recompute))


def _fp8_activation_bytes(
    model: ModelConfig, rows: int, seq_len: int, *, fused: bool, recompute: bool
) -> int:
    a, m, D = model.attention, model.moe, model.hidden_size
    dropped = fused or rows * a.num_heads * seq_len**2 * BF16 > KEEP_BYTES
    keys = 0.0 if dropped else _mean_keys(seq_len, BLOCK[BF16])
    head = BF16 * (2 * a.qk_head + a.nope_head + 2 * a.value_head + keys) + E5M6 * a.value_head
    attention = (BF16 + FP8) * (D + a.q_rank + a.kv_rank) + a.num_heads * head
    dense = attention + (BF16 + FP8) * D + 2 * FP8 * model.dense_size
    inner = 2 * FP8 * m.expert_size * (m.num_shared + m.experts_per_token)
    experts = attention + (BF16 + 2 * FP8 + FP32) * D + inner
    return round(rows * seq_len * _stored(model, dense, experts, BF16, recompute))


def _stored(model: ModelConfig, dense: float, experts: float, wide: int, recompute: bool) -> float:
    """Bytes of a token, of those of a dense block and of one with experts."""
    D, depth = model.hidden_size, model.mtp.depth
    moe_layers = model.num_layers - model.dense_layers
    if recompute:
        largest = max(dense if model.dense_layers else 0.0, experts if moe_layers + depth else 0.0)
        stored = wide * D * (model.num_layers + 2 * depth) + largest
    else:
        stored = dense * model.dense_layers + experts * (moe_layers + depth)
    return stored + wide * D * (1 + 5 * depth)


def _attention(model: ModelConfig, keys: float) -> float:
    a, D = model.attention, model.hidden_size
    heads = 2 * a.qk_head + (a.nope_head + a.value_head) + a.value_head + keys
    return 2 * (D + a.q_rank + a.kv_rank) + a.num_heads * heads


def _experts(model: ModelConfig) -> int:
    m, D = model.moe, model.hidden_size
    return 4 * m.num_shared * m.expert_size + m.experts_per_token * (D + 2 * m.expert_size)


def _mean_keys(seq_len: int, block: int) -> float:
    """Mean number of keys that a query of blocked causal attention sees: those up to the end of its block."""
    ends = (min(first + block, seq_len) for first in range(0, seq_len, block))
    return sum(((end - 1) % block + 1) * end for end in ends) / seq_len


def logit_bytes(model: ModelConfig, tokens: int, *, wide: int) -> int:
    """Logits of a chunk, which turn into their gradient, and the head's gradient of every prediction made."""
    V, D = model.vocab_size, model.hidden_size
    return wide * V * (min(CHUNK, tokens) + D * (1 + model.mtp.depth))


def checkpoints_at_once(train: TrainConfig, steps: int | None) -> int:
    """Most checkpoints on the disk at one time: those kept, and the newest before the oldest goes.

    steps   of the run; None where they are not known
    """
    if not train.save.every:
        return 1  # at the end
    written = train.save.keep + 1 if steps is None else math.ceil(steps / train.save.every)
    return min(train.save.keep + 1, max(written, 1))


def checkpoint_bytes(model: ModelConfig, train: TrainConfig) -> int:
    """One checkpoint on disk: fp32 weights with routing biases, both moments, the average if there is one.

    Headers, JSON and the tokenizer come on top: well below 1 MB for a model of ours.
    """
    weights = trainable(model) + routing_biases(model)
    return FP32 * weights * (2 if train.optim.ema else 1) + 2 * moment_bytes(train) * trainable(model)


def plan(train: TrainConfig, rows_at: Callable[[float], int]) -> Plan:
    """How long a run will be.

    rows_at   rows of a step at a share of the budget: `fathom.train.schedule.batch_rows`
    """
    first, full = rows_at(0.0) * train.seq_len, rows_at(1.0) * train.seq_len
    grown = train.schedule.batch_full if first != full else 0.0
    if train.steps:
        growing = min(math.ceil(grown * train.steps), train.steps)
        stride = max(growing // FINE, 1)
        tokens = sum(
            rows_at(at / train.steps) * train.seq_len * min(stride, growing - at)
            for at in range(0, growing, stride)
        )
        return Plan(first, full, train.steps, tokens + (train.steps - growing) * full)
    if not train.tokens:
        return Plan(first, full, None, None)
    steps, tokens, until = 0, 0, grown * train.tokens
    stride = max(int(until / first) // FINE, 1)
    while tokens < until:
        steps, tokens = steps + stride, tokens + stride * rows_at(tokens / train.tokens) * train.seq_len
    left = max(math.ceil((train.tokens - tokens) / full), 0)
    return Plan(first, full, steps + left, tokens + left * full)
