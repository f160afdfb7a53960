"""Sweeps to judge, made up, and a gallery that takes seconds."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from hhdelay.config.load import load_recipe, to_toml
from hhdelay.plot.grid import Grid, grid_of
from hhdelay.reproduce import Gallery, reproduce
from hhdelay.reproduce.plan import DT, Plan, Shot, Source

T = {"ei": 17.0, "ii": 8.5}
OFFSET = {"ei": 7.7, "ii": 7.05}
Make = Callable[..., Grid]


def made(kind: str, axes: dict[str, Any], *given: str, height: Any = 1.0, **fields: Any) -> Grid:
    """ln R is a comb over delay_ms (plus delay_e_ms) of `height`; fields replace what else is stored.

    height and fields are numbers, or functions of the axes by their short names.
    """
    recipe = load_recipe(kind, ["simulation.replicas=8", *given])
    names = [name.partition(".")[2] for name in axes]
    at = dict(zip(names, np.meshgrid(*axes.values(), indexing="ij"), strict=True))
    shape = [len(values) for values in axes.values()]

    def value(of: Any) -> np.ndarray:
        return np.broadcast_to(of(**at) if callable(of) else of, shape).astype(float)

    tau = at.get("delay_ms", np.zeros(shape)) + at.get("delay_e_ms", np.zeros(shape))
    turns = 2 * np.pi * (tau + OFFSET.get(kind, 0.0)) / T.get(kind, 17.0)
    R = value(fields.pop("R", 4.0 * np.exp(value(height) * (np.cos(turns) if "delay_ms" in at else 1.0))))
    stored = {"R": R, "R_low": R / 1.05, "R_high": R * 1.05, "mean_ms": 17.0, "rate_Hz": 58.8,
              "phase": np.round(turns / (2 * np.pi)) % 2 / 2, "locking": 0.9,
              "persists": 1.0} | fields  # fmt: skip
    variables = {name: (names, value(of)) for name, of in stored.items()}
    coordinates = {short: (short, np.asarray(values, dtype=float), {"setting": name})
                   for short, (name, values) in zip(names, axes.items(), strict=True)}  # fmt: skip
    return grid_of(xr.Dataset(variables, coordinates, {"recipe": to_toml(recipe)}))


@pytest.fixture
def make() -> Make:
    """made(...)."""
    return made


@pytest.fixture(scope="session")
def tiny() -> Plan:
    """Every sweep that the claims read, a second of work."""
    its = (DT, "simulation.duration_ms=120", "simulation.warmup_ms=20", "simulation.replicas=2")
    delays, strengths = "motif.delay_ms=4:22:3", "motif.g_mS_cm2=1,3"
    noise = "noise.D_uA2_ms_cm4=1,8"
    sweeps = [Source(f"map-{kind}", "map", kind, its, (delays, strengths), 6, False) for kind in ("ei", "ii")]
    sweeps += [Source(f"line-{kind}", "line", kind, its, (delays,), 3) for kind in ("ei", "ii")]
    sweeps += [Source("delay-e", "delay e", "ei", its, ("motif.delay_e_ms=0,4", delays), 6, False)]
    sweeps += [Source(f"noise-{kind}", "noise", kind, its, (noise, delays), 6, False)
               for kind in ("ei", "ii")]  # fmt: skip
    sweeps += [Source(f"size-{kind}-{N}", "size", kind, (*its, f"motif.neurons={N}"), (delays,), 3, False)
               for kind, N in (("ei", 10), ("ii", 10), ("ei", 40))]  # fmt: skip
    sweeps += [Source(f"best-{kind}", "best", kind, its, (noise,), 2, False)
               for kind in ("single", "ei", "ii")]  # fmt: skip
    sweeps += [Source("step", "step", "ei", its[1:],
                      ("motif.delay_ms=9,18", "simulation.dt_ms=0.01,0.02"), 4, False)]  # fmt: skip
    short = ("simulation.duration_ms=300", "simulation.warmup_ms=20", "simulation.replicas=2")
    shots = (Shot("run-peak", "ei", short, 20.0), Shot("run-between", "ei", short),
             Shot("run-antiphase", "ii", short))  # fmt: skip
    return Plan(judged=False, sweeps=tuple(sweeps), shots=shots)


@pytest.fixture(scope="session")
def silent() -> Callable[[str], Any]:
    """No bar."""
    return lambda _: nullcontext(lambda _: None)


@pytest.fixture(scope="session")
def gallery(
    tiny: Plan, silent: Callable[[str], Any], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Gallery]:
    """A whole gallery, and its folder."""
    out = tmp_path_factory.mktemp("gallery") / "tiny"
    return out, reproduce(out, tiny, silent, workers=1)
