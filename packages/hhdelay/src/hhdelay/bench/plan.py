"""What the bench runs: which map, how often, and how long each rate is measured."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hhdelay.config.load import load_recipe
from hhdelay.config.recipe import Recipe
from hhdelay.membrane import rest


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A map of R over delay and strength of the pair of recipe `ei`, one replica a cell."""

    delays_ms: tuple[float, ...]
    strengths_mS_cm2: tuple[float, ...]
    duration_ms: float
    warmup_ms: float = 500.0
    law: str = "gaussian"

    @property
    def cells(self) -> int:
        """Points of the map."""
        return len(self.delays_ms) * len(self.strengths_mS_cm2)

    def recipes(self) -> list[Recipe]:
        """Of every cell, delay by delay."""
        given: dict[str, Any] = {
            "noise.law": self.law, "simulation.duration_ms": self.duration_ms,
            "simulation.warmup_ms": self.warmup_ms, "simulation.replicas": 1,
        }  # fmt: skip
        base = load_recipe("ei", [f"{name}={value}" for name, value in given.items()])
        start_mV = float(rest(base.neuron, base.neuron.I_uA_cm2)[0])    # looked for once, not in every cell
        base = replace(base, simulation=replace(base.simulation, start_V_mV=(start_mV,)))
        return [
            replace(base, motif=replace(base.motif, delay_ms=delay_ms, g_mS_cm2=g))
            for delay_ms in self.delays_ms
            for g in self.strengths_mS_cm2
        ]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One bench."""

    grid: Grid                  # made by ours and by Brian2 in turn
    large: Grid | None          # made by ours alone
    turns: int
    rate_s: float               # about as long is each single rate measured
    workers: int = 2            # threads of ours; OpenMP threads of Brian2, which also runs with one


def full(turns: int = 3) -> Plan:
    """20 x 20 cells of 10 s beside Brian2, and 141 x 16 of 12 s alone."""
    grid = Grid(
        delays_ms=tuple(float(d) for d in range(1, 21)),
        strengths_mS_cm2=tuple(round(0.2 * k, 1) for k in range(1, 21)),
        duration_ms=10_000.0,
    )
    large = Grid(
        delays_ms=tuple(float(d) for d in np.arange(141) * 0.5),
        strengths_mS_cm2=tuple(0.25 * k for k in range(1, 17)),
        duration_ms=12_000.0,
    )
    return Plan(grid=grid, large=large, turns=turns, rate_s=2.0)


def quick(turns: int = 1) -> Plan:
    """12 x 4 cells of 2 s: does it all work? No figure of so small a map is a claim."""
    grid = Grid(
        delays_ms=tuple(2.0 * d for d in range(1, 13)),
        strengths_mS_cm2=(0.5, 1.0, 2.0, 3.0),
        duration_ms=2_000.0,
        warmup_ms=200.0,
    )
    return Plan(grid=grid, large=None, turns=turns, rate_s=0.3)
