"""Products of bf16 matrices on a CPU that has no instructions for them: multiplied in fp32, rounded to bf16.

That is what such instructions do (products exact, sums in fp32), at the speed of fp32 instead of a tenth.
"""

from __future__ import annotations

import platform
from functools import cache

import torch
from torch import Tensor

X86 = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")  # questions that torch.cpu answers


@cache
def multiplies_bf16() -> bool:
    """Whether this machine's CPU has instructions for bf16 and this build of torch uses them.

    oneDNN says yes for AVX-512 alone too, where it emulates them.
    """
    try:
        supported = bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    except (AttributeError, RuntimeError):
        return False
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return supported
    return supported and any(getattr(torch.cpu, name, bool)() for name in X86)


def slow(x: Tensor) -> bool:
    """Whether products of `x` are better made in fp32."""
    return x.dtype == torch.bfloat16 and x.device.type == "cpu" and not multiplies_bf16()


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """a @ b in the dtype of `a`, summed in fp32 at least."""
    return (a.float() @ b.float()).to(a.dtype) if slow(a) else a @ b


def matmul_into(out: Tensor, a: Tensor, b: Tensor) -> None:
    """`out` = a @ b, all of one dtype."""
    if slow(out):
        out.copy_(a.float() @ b.float())
    else:
        torch.mm(a, b, out=out)


def add_matmul(into: Tensor, a: Tensor, b: Tensor) -> None:
    """Add a @ b to `into`, all of one dtype."""
    if slow(into):
        into.copy_(torch.addmm(into.float(), a.float(), b.float()))
    else:
        into.addmm_(a, b)
