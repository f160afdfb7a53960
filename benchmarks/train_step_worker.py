"""One side of `train_step.py`, in a process of its own: reads "N" from stdin, makes N steps, says how long.

    python train_step_worker.py ours|ours_plain|peer|peer_tuned SHAPE bf16|fp32

A step is forward, backward, clipping to 1.0 and AdamW with fp32 masters, on fresh random tokens: with fixed
tokens the rows per expert would hardly change, and kernels compiled per row count would always be found.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable

import torch
from train_step_shapes import SHAPES, Shape

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
