"""A sweep that takes a fraction of a second, and how two stores are compared."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from hhdelay.config.load import load_recipe
from hhdelay.sweep.axes import parse_axis
from hhdelay.sweep.plan import Sweep

QUICK = ("simulation.dt_ms=0.05", "simulation.duration_ms=150", "simulation.warmup_ms=20",
         "simulation.replicas=2", "noise.D_uA2_ms_cm4=8")  # fmt: skip

Make = Callable[..., Sweep]
Files = Callable[[Path], dict[str, bytes]]


@pytest.fixture
def quick() -> Make:
    """quick("ii", "motif.delay_ms=1,2", settings=[...], persistence=False)."""

    def make(
        recipe: str = "ei", *axes: str, settings: tuple[str, ...] = (), persistence: bool = True
    ) -> Sweep:
        over = axes or ("motif.delay_ms=0:8:3", "motif.g_mS_cm2=0.5:2:4")
        loaded = load_recipe(recipe, [*QUICK, *settings])
        chosen = tuple(map(parse_axis, over))
        return Sweep(recipe=loaded, axes=chosen, engine="numba", persistence=persistence)

    return make


@pytest.fixture
def files() -> Files:
    """Every file of a folder, by its relative path."""

    def read(folder: Path) -> dict[str, bytes]:
        found = sorted(path for path in folder.rglob("*") if path.is_file())
        return {str(path.relative_to(folder)): path.read_bytes() for path in found}

    return read
