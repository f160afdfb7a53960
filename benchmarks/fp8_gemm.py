"""The three FP8 products of DeepSeek-V3's linear maps against bf16's, on a GPU (report section 3.3).

    python benchmarks/fp8_gemm.py [--quick] [--tokens 4096] [--turns 30] [--no-scaled-mm]

Fprop, Dgrad and Wgrad of every shape of the report's maps, and of the two maps of routed experts as a GPU of
the report's training has them: 64-way expert parallelism leaves it 4 experts, and of 4,096 tokens on each of
64 GPUs, 8 copies a token, every expert gets 8,192 rows, `--tokens` times 2.

FP8 is `fathom.ops.fp8.hopper.Hopper` on operands that are quantised already, Wgrad added to fp32. bf16 is
`torch.matmul` three times, Wgrad not added to anything, and for experts one after the other. `quantize_ms` is
x and dy as tiles and, of those, as columns. W is not in it: it is quantised, and transposed, once a step.

Both take turns in one run, timed by CUDA events, with the L2 cache overwritten before each; figures are
medians. `ratio` is bf16's time over FP8's, products alone, and `ratio_with_quantize` has `quantize_ms` in it.
`share_of_peak` is FP8's rate over twice `bf16_peak_tflops`, the best rate of a square bf16 product in this
very run. Without a CUDA device that multiplies E4M3 it says so, and that is all.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fathom.ops.fp8.hopper import Hopper, available, why_not

SHAPES = {  # Y x X of W: what the report's maps have without tensor parallelism
    "q_a and kv_a": (2112, 7168),
    "q_b": (24576, 1536),
    "kv_b": (32768, 512),
    "o": (7168, 16384),
    "gate and up of an expert": (4096, 7168),
    "down of an expert": (7168, 2048),
}
GROUPED = ("gate and up of an expert", "down of an expert")
EXPERTS = 4  # of a GPU, 256 on 64 (report section 3.2)
ROWS = 2  # of an expert, for every token of a micro-batch
SQUARE = 8192
WARM_UP = 5
L2_BYTES = 256 << 20  # more than any L2 cache here holds


def milliseconds(run: Callable[[], object], flush: Tensor) -> float:
    """Of one call, on the device."""
    flush.zero_()
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    run()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end)


def medians(sides: dict[str, Callable[[], object]], turns: int, flush: Tensor) -> dict[str, float]:
    """Of each side's times, the sides taking turns."""
    for run in sides.values():
        for _ in range(WARM_UP):
            run()
    times = [{name: milliseconds(run, flush) for name, run in sides.items()} for _ in range(turns)]
    return {name: statistics.median(turn[name] for turn in times) for name in sides}


def peak_of_bf16(turns: int, flush: Tensor) -> float:
    """TFLOP/s of a square product, the best of all turns."""
    a, b = (torch.randn(SQUARE, SQUARE, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    for _ in range(WARM_UP):
        a @ b
    return max(2e-9 * SQUARE**3 / milliseconds(lambda: a @ b, flush) for _ in range(turns))


def dense(backend: Hopper, m: int, n: int, k: int) -> dict[str, Callable[[], object]]:
    """The sides of one map: x [m, k], W [n, k], dy [m, n]."""
    x, w, dy = (torch.randn(shape, device="cuda", dtype=torch.bfloat16) for shape in ((m, k), (n, k), (m, n)))
    x_q, dy_q, w_q = backend.tiles(x), backend.tiles(dy), backend.blocks(w)
    x_columns, dy_columns = backend.columns(x), backend.columns(dy)
    into = torch.zeros(n, k, device="cuda")

    def fp8() -> None:
        backend.forward(x_q, w_q, torch.bfloat16)
        backend.backward(dy_q, w_q, torch.bfloat16)
        backend.add_outer(into, dy_columns, x_columns)

    def bf16() -> None:
        torch.matmul(x, w.T)
        torch.matmul(dy, w)
        torch.matmul(dy.T, x)

    return {"fp8": fp8, "bf16": bf16, "quantize": lambda: quantize(backend, x, dy)}


def grouped(backend: Hopper, m: int, n: int, k: int) -> dict[str, Callable[[], object]]:
    """The sides of `EXPERTS` such maps, of m rows each."""
    rows = EXPERTS * m
    x, dy = (torch.randn(rows, width, device="cuda", dtype=torch.bfloat16) for width in (k, n))
    w = torch.randn(EXPERTS, n, k, device="cuda", dtype=torch.bfloat16)
    count = torch.full((EXPERTS,), m, device="cuda")
    x_q, dy_q, w_q = backend.tiles(x), backend.tiles(dy), backend.blocks(w)
    x_columns, dy_columns = backend.columns(x), backend.columns(dy)
    into = torch.zeros(EXPERTS, n, k, device="cuda")

    def fp8() -> None:
        backend.grouped_forward(x_q, w_q, count, torch.bfloat16)
        backend.grouped_backward(dy_q, w_q, count, torch.bfloat16)
        backend.add_grouped_outer(into, dy_columns, x_columns, count)

    def bf16() -> None:
        for x_e, dy_e, w_e in zip(x.split(m), dy.split(m), w, strict=True):
            torch.matmul(x_e, w_e.T)
            torch.matmul(dy_e, w_e)
            torch.matmul(dy_e.T, x_e)

    return {"fp8": fp8, "bf16": bf16, "quantize": lambda: quantize(backend, x, dy)}


def quantize(backend: Hopper, x: Tensor, dy: Tensor) -> None:
    """What a step quantises of one map besides its weight."""
    for part in (x, dy):
        backend.tiles_to_columns(backend.tiles(part))


def line(name: str, sizes: tuple[int, int, int], ms: dict[str, float], peak: float) -> dict[str, Any]:
    """The figures of one shape; `sizes` are m of all rows, n, k."""
    m, n, k = sizes
    teraflop = 3 * 2e-12 * m * n * k
    fp8, bf16 = (teraflop / (ms[side] * 1e-3) for side in ("fp8", "bf16"))
    return {
        "name": name,
        "m": m,
        "n": n,
        "k": k,
        "fp8_tflops": round(fp8, 1),
        "bf16_tflops": round(bf16, 1),
        "ratio": round(ms["bf16"] / ms["fp8"], 3),
        "share_of_peak": round(fp8 / (2 * peak), 3),
        "bf16_peak_tflops": round(peak, 1),
        "quantize_ms": round(ms["quantize"], 3),
        "ratio_with_quantize": round(ms["bf16"] / (ms["fp8"] + ms["quantize"]), 3),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="3 turns of 512 tokens")
    parser.add_argument("--tokens", type=int, default=4096, help="rows of x; of an expert twice as many")
    parser.add_argument("--turns", type=int, default=30)
    parser.add_argument("--no-scaled-mm", action="store_true", help="Triton's kernels for dense maps too")
    asked = parser.parse_args()
    if not available():
        print(json.dumps({"name": "fp8_gemm", "skipped": why_not()}))
        return
    turns, m = (3, 512) if asked.quick else (asked.turns, asked.tokens)
    backend = Hopper(scaled_mm=False if asked.no_scaled_mm else None)
    print(f"{torch.cuda.get_device_name()}, {backend.name}", file=sys.stderr)
    flush = torch.empty(L2_BYTES, dtype=torch.uint8, device="cuda")
    peak = peak_of_bf16(turns, flush)
    for name, (n, k) in SHAPES.items():
        ms = medians(dense(backend, m, n, k), turns, flush)
        print(json.dumps(line(name, (m, n, k), ms, peak)), flush=True)
    m *= ROWS
    for name in GROUPED:
        n, k = SHAPES[name]
        ms = medians(grouped(backend, m, n, k), turns, flush)
        print(json.dumps(line(f"{name}, {EXPERTS} grouped", (EXPERTS * m, n, k), ms, peak)), flush=True)


if __name__ == "__main__":
    main()
