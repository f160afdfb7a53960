"""What this machine can do: device, the precision it is fast in, its matmul rate."""

from __future__ import annotations

import time
from typing import NamedTuple

import torch

from fathom.config.errors import ConfigError, need

PROBE = 512  # side of the probe's matrices: large enough to reach the rate, small enough to take milliseconds
REPEATS = 5


class Machine(NamedTuple):
    """Where and how a run computes."""

    device: torch.device
    dtype: torch.dtype  # of activations and matmuls
    peak_flops: float  # measured matmul rate in that dtype, FLOP/s: what MFU is a share of

    def describe(self) -> str:
        """One phrase for the log."""
        name = "bf16" if self.dtype == torch.bfloat16 else "fp32"
        threads = f", {torch.get_num_threads()} threads" if self.device.type == "cpu" else ""
        return f"{self.device.type} in {name} ({self.peak_flops / 1e9:,.0f} GFLOP/s matmul{threads})"


def survey(device: str = "auto", precision: str = "auto") -> Machine:
    """Resolve "auto": a GPU where there is one, bf16 where it is measured to be faster than fp32.

    raises   ConfigError when a GPU is asked for and there is none
    """
    cuda = torch.cuda.is_available()
    need(
        device != "cuda" or cuda,
        "train.device='cuda', but torch sees no GPU",
        fix="set train.device=auto, or install a CUDA build of torch",
        error=ConfigError,
    )
    place = torch.device("cuda" if device == "cuda" or (device == "auto" and cuda) else "cpu")
    rates = {"fp32": matmul_rate(place, torch.float32), "bf16": matmul_rate(place, torch.bfloat16)}
    if precision == "auto":
        precision = max(rates, key=rates.__getitem__)
    return Machine(place, torch.bfloat16 if precision == "bf16" else torch.float32, rates[precision])


def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of a square matrix product, the best of a few."""
    a, b = (torch.ones(PROBE, PROBE, device=device, dtype=dtype) for _ in range(2))
    best = float("inf")
    for _ in range(REPEATS):
        start = time.perf_counter()
        a @ b
        if device.type == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
        if best > 0.05:  # a CPU without bf16 instructions: one product says enough
            break
    return 2 * PROBE**3 / best
