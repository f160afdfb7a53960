"""One side of `train_step.py`, in a process of its own: reads "N" from stdin, makes N steps, says how long;
reads "where" and says where the milliseconds of one step went.

    cd benchmarks; python -m step.worker ours|ours_plain|peer|peer_tuned SHAPE bf16|fp32

A step is forward, backward, clipping to 1.0 and AdamW with fp32 masters, on fresh random tokens: with fixed
tokens the rows per expert would hardly change, and kernels compiled per row count would always be found.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from functools import partial

import torch
from step.shapes import SHAPES, Shape

from fathom.config.counts import flops_per_token
from fathom.config.train import OptimConfig
from fathom.data.batch import Batch
from fathom.model.transformer import Transformer
from fathom.ops.allocator import keep_memory
from fathom.ops.kernels import choose_kernels
from fathom.train.machine import matmul_rate
from fathom.train.optimizer import Optimizer
from fathom.train.step import Weights, backward

LR = 1e-4
KINDS = {   # of operations, by their names in torch
    "matrix products": ("mm", "addmm", "addmm_", "bmm", "baddbmm", "baddbmm_", "_grouped_mm"),
    "softmax and cross-entropy": (
        "_softmax", "_softmax_backward_data", "_log_softmax", "_log_softmax_backward_data", "exp_",
        "nll_loss_forward", "nll_loss_backward", "_scaled_dot_product_flash_attention_for_cpu",
        "_scaled_dot_product_flash_attention_for_cpu_backward",
    ),
    "copies, casts, joins": ("copy_", "cat", "clone", "fill_", "zero_", "masked_fill_", "stack"),
    "gathers and sums of rows": (
        "index", "index_select", "index_put_", "_index_put_impl_", "index_add_", "_embedding_bag",
        "embedding_dense_backward", "index_copy_", "_embedding_bag_forward_only", "sort", "topk",
    ),
    "SwiGLU, norms, other arithmetic": (
        "silu", "silu_", "silu_backward", "mul", "mul_", "add", "add_", "sub", "sub_", "div", "div_", "sum",
        "mean", "pow", "rsqrt", "neg", "linalg_vector_norm", "addcmul_", "sigmoid", "sigmoid_backward",
    ),
    "AdamW and clipping": ("_fused_adamw_", "_foreach_norm", "_foreach_mul_", "lerp_"),
}
ELSE = "everything else, Python included"
Step = Callable[[torch.Tensor], float]


def ours(shape: Shape, dtype: torch.dtype, ops: str) -> Step:
    """What `fathom train` does in a step, without its logs."""
    model = Transformer(shape.model(), kernels=choose_kernels(ops, dtype), seed=0)
    optimizer = Optimizer(model, OptimConfig(beta2=0.999, weight_decay=0.01), dtype)

    def step(ids_BT: torch.Tensor) -> float:
        token_BT1 = torch.cat((ids_BT, ids_BT[:, :1]), dim=1)
        batch = Batch(token_BT1, torch.zeros_like(token_BT1))
        losses = backward(model, batch, Weights(0.0, 1e-4), dtype=dtype, accumulate=optimizer.accumulate)
        optimizer.clip()
        optimizer.step(LR)
        return losses.main

    return step


def peer(shape: Shape, dtype: torch.dtype, attention: str) -> Step:
    """transformers' DeepseekV3 with its grouped experts, as its users train it."""
    model = shape.transformers(attention)
    model.config.use_cache = False  # as transformers' own Trainer sets it
    adamw = torch.optim.AdamW(model.parameters(), lr=LR, betas=(0.9, 0.999), weight_decay=0.01, fused=True)

    def step(ids_BT: torch.Tensor) -> float:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            loss = model(input_ids=ids_BT, labels=ids_BT).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adamw.step()
        adamw.zero_grad()
        return float(loss)

    return step


def where(step: Callable[[], object]) -> dict[str, float]:
    """Milliseconds of one step by kind of operation; torch's profiler, which counts, slows it down."""
    with torch.profiler.profile() as profile:
        step()
    spent = dict.fromkeys(KINDS, 0.0) | {ELSE: 0.0}
    for row in profile.key_averages():
        kind = next((kind for kind, names in KINDS.items() if row.key.removeprefix("aten::") in names), ELSE)
        spent[kind] += row.self_cpu_time_total / 1e3
    return {kind: round(ms, 1) for kind, ms in spent.items()}


def main(who: str, name: str, precision: str) -> None:
    """Serve steps until stdin ends."""
    if who in ("ours", "peer_tuned"):
        keep_memory()
    shape, dtype = SHAPES[name], {"bf16": torch.bfloat16, "fp32": torch.float32}[precision]
    rate = matmul_rate(torch.device("cpu"), dtype)
    if who.startswith("ours"):
        step = ours(shape, dtype, "plain" if who == "ours_plain" else "fast")
    else:
        step = peer(shape, dtype, "eager" if who == "peer_tuned" else "sdpa")
    generator = torch.Generator().manual_seed(0)
    flops = flops_per_token(shape.model(), shape.length) * shape.tokens
    for line in sys.stdin:
        if line.strip() == "where":
            ids_BT = torch.randint(0, shape.vocab, (shape.rows, shape.length), generator=generator)
            print(json.dumps(where(partial(step, ids_BT))), flush=True)
            continue
        wall, cpu, loss = [], [], 0.0
        for _ in range(int(line)):
            ids_BT = torch.randint(0, shape.vocab, (shape.rows, shape.length), generator=generator)
            start, used = time.perf_counter(), time.process_time()
            loss = step(ids_BT)
            wall.append(time.perf_counter() - start)
            cpu.append(time.process_time() - used)
        rate = max(rate, matmul_rate(torch.device("cpu"), dtype))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        done = {"wall": wall, "cpu": cpu, "loss": loss, "peak": peak, "rate": rate, "flops": flops}
        print(json.dumps(done), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
