"""What this machine can do: device, the precision it is fast in, its matmul rate."""

from __future__ import annotations

import time
from typing import NamedTuple

import torch

from fathom.config.errors import ConfigError, need
from fathom.ops.matmul import matmul, multiplies_bf16

PROBE = {"cpu": 512, "cuda": 8192}  # side of the probe's matrices: where the rate is reached, in milliseconds
REPEATS = 5


class Machine(NamedTuple):
    """Where and how a run computes."""

    device: torch.device
    dtype: torch.dtype  # of activations and matmuls
    peak_flops: float  # measured matmul rate in that dtype, FLOP/s: what MFU is a share of
    fp8: bool = False  # linear maps multiply FP8; `dtype` is that of everything else
    products: str = ""  # what multiplies FP8, once it is chosen

    @property
    def precision(self) -> str:
        """As the configuration spells it."""
        if self.fp8:
            return "fp8"
        return "bf16" if self.dtype == torch.bfloat16 else "fp32"

    def describe(self) -> str:
        """One phrase for the log."""
        threads = f", {torch.get_num_threads()} threads" if self.device.type == "cpu" else ""
        rate = f"{self.peak_flops / 1e9:,.0f} GFLOP/s matmul"
        products = f", {self.products}" if self.products else ""
        return f"{self.device.type} in {self.precision} ({rate}{threads}{products})"


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
    if precision == "auto" and place.type == "cpu" and not multiplies_bf16():
        precision = "fp32"  # bf16 would be fp32 with conversions, and a tie for the measurement
    elif precision == "auto":
        precision = max(rates, key=rates.__getitem__)
    if precision == "fp8":  # the rate is that of bf16, so MFU in FP8 says how much better FP8 is
        return Machine(place, torch.bfloat16, rates["bf16"], fp8=True)
    return Machine(place, torch.bfloat16 if precision == "bf16" else torch.float32, rates[precision])


def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of a square matrix product, the best of a few after the first."""
    side = PROBE[device.type]
    a, b = (torch.ones(side, side, device=device, dtype=dtype) for _ in range(2))
    best = _seconds(a, b)
    for _ in range(REPEATS):
        best = min(best, _seconds(a, b))
    return 2 * side**3 / best


def _seconds(a: torch.Tensor, b: torch.Tensor) -> float:
    start = time.perf_counter()
    matmul(a, b)
    if a.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start
