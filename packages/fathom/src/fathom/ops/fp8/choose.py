"""Which backend multiplies FP8 on this machine."""

from __future__ import annotations

from fathom.ops.fp8.backend import Backend
from fathom.ops.fp8.cpu import Cpu
from fathom.ops.fp8.reference import Reference


def choose_backend(ops: str = "fast", device: str = "cpu") -> Backend:
    """The reference for `ops` "plain"; else the fastest that works on this kind of device."""
    if ops == "plain":
        return Reference()
    return Cpu()
