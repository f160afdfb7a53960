"""Engines by name, as `--engine` takes them."""

from __future__ import annotations

from hhdelay.config.errors import choose_from, need, plain
from hhdelay.engines.protocol import Engine

ENGINES = ("simd", "numba", "reference")  # fastest first


def engine(name: str = ENGINES[0]) -> Engine:
    """The engine called `name`; ConfigError where there is none."""
    need(name in ENGINES, f"no engine {plain(name)}", fix=choose_from(name, ENGINES))
    if name == "reference":
        from hhdelay.engines.reference import ReferenceEngine

        return ReferenceEngine()
    if name == "numba":
        from hhdelay.engines.loops import LoopEngine

        return LoopEngine()
    from hhdelay.engines.simd import SimdEngine

    return SimdEngine()
