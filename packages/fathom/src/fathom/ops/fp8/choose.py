"""Which backend multiplies FP8 on this machine."""

from __future__ import annotations

import torch

from fathom.ops.fp8.backend import Backend
from fathom.ops.fp8.cpu import Cpu
from fathom.ops.fp8.reference import Reference


def choose_backend(ops: str = "fast", device: str = "cpu") -> Backend:
    """The reference for `ops` "plain"; else the fastest that works on this kind of device.

    A GPU without E4M3 in its tensor cores multiplies what FP8 stands for, in bf16.
    """
    if ops == "plain":
        return Reference()
    if device == "cuda":
        from fathom.ops.fp8.hopper import Hopper, available  # imports triton

        return Hopper() if available() else Cpu(torch.bfloat16)
    return Cpu()
