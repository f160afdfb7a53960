"""Sweeps and runs to draw: made up, so that nothing is simulated."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from hhdelay.cli.main import main
from hhdelay.config.load import load_recipe, to_toml
from hhdelay.plot.saved import SavedRun, read_run
from hhdelay.store.schema import VARIABLES

DELAYS = np.arange(1.0, 50.0, 1.5)
STRENGTHS = np.array([0.4, 1.0, 2.0, 3.5])


def made_sweep(kind: str, axes: dict[str, np.ndarray], *given: str) -> xr.Dataset:
    """R with the maxima of the law over motif.delay_ms, a plain slope over anything else."""
    recipe = load_recipe(kind, ["simulation.replicas=4", *given])
    dims = [name.partition(".")[2] for name in axes]
    grid = dict(zip(dims, np.meshgrid(*axes.values(), indexing="ij"), strict=True))
    delay = grid.get("delay_ms", np.zeros([len(v) for v in axes.values()]))
    strength = grid.get("g_mS_cm2", np.full_like(delay, 2.0))
    period, offset = (17.0, 7.7) if kind == "ei" else (8.5, 7.05)
    height = 1.6 * np.clip(strength - 0.6, 0.0, 1.0)
    R = 3.0 * np.exp(height * np.cos(2 * np.pi * (delay + offset) / period))
    if "D_uA2_ms_cm4" in grid:
        R = R * (1 + np.log(grid["D_uA2_ms_cm4"] + 1))
    data = {"R": R, "R_low": R / 1.1, "R_high": R * 1.1, "mean_ms": np.full_like(R, 17.0),
            "rate_Hz": np.full_like(R, 58.8), "phase": np.round((delay + offset) / period) % 2 / 2,
            "locking": np.full_like(R, 0.9), "persists": (strength > 0.8).astype(float)}  # fmt: skip
    variables = {name: (dims, data[name], {"units": VARIABLES[name].units}) for name in data}
    coordinates = {name.partition(".")[2]: (name.partition(".")[2], values, {"setting": name})
                   for name, values in axes.items()}  # fmt: skip
    return xr.Dataset(variables, coordinates, {"recipe": to_toml(recipe)})


@pytest.fixture
def ei_map() -> xr.Dataset:
    """Delay by strength, in the order of `hhdelay sweep`."""
    return made_sweep("ei", {"motif.delay_ms": DELAYS, "motif.g_mS_cm2": STRENGTHS})


@pytest.fixture
def ii_line() -> xr.Dataset:
    """II over the delay."""
    return made_sweep("ii", {"motif.delay_ms": DELAYS})


@pytest.fixture
def noise_line() -> xr.Dataset:
    """One neuron over the intensity of the noise."""
    return made_sweep("single", {"noise.D_uA2_ms_cm4": np.geomspace(0.5, 64.0, 9)})


@pytest.fixture(scope="session")
def run_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `hhdelay simulate --out` writes."""
    out = tmp_path_factory.mktemp("run") / "run.npz"
    short = ["simulation.duration_ms=600", "simulation.warmup_ms=100", "simulation.replicas=2"]
    assert main(["simulate", "ei", *short, "--out", str(out), "--trace-ms", "60"]) == 0
    return out


@pytest.fixture
def run(run_file: Path) -> SavedRun:
    """The same, read back."""
    return read_run(run_file)
