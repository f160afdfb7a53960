"""Checks of ours on what everything else stands on: the neuron and the time step."""

from __future__ import annotations

from typing import Any

import numpy as np

from hhdelay.reproduce.finding import OURS, Evidence, Finding, verdict

STEP_PERCENT = 0.5      # by which the mean interval may change from 0.005 ms to the step of the gallery
STEP_MS = 0.02


def textbook_neuron(evidence: Evidence) -> Finding:
    """Rest, bifurcations and f-I curve of one neuron."""
    known = evidence.known
    failed = [row.name for row in known if not row.passes]
    named = {row.name: row for row in known}
    shown = [f"{name}: {row.found:.5g}, known {row.expected:.5g}"
             for name, row in named.items()
             if name in ("fold of limit cycles, I", "lower Hopf point, I", "period at I=10, ms")]  # fmt: skip
    found = f"{len(known) - len(failed)} of {len(known)} known values are found again" + (
        f"; not: {', '.join(failed)}. " if failed else ". ")  # fmt: skip
    found += f"Among them {'; '.join(shown)}. " if shown else ""
    return Finding(
        name="textbook-neuron", origin=OURS,
        claim="The neuron is that of the textbooks: Hodgkin and Huxley 1952, at rest below a fold of limit "
        "cycles, firing beyond a Hopf point, both between the two.",
        criterion="Every value of hhdelay check that concerns the neuron lies within its tolerance.",
        verdict=verdict(bool(known) and not failed), found=found.strip(),
        numbers={row.name: {"found": row.found, "known": row.expected} for row in known},
        figures=("rate",),
    )  # fmt: skip


def time_step(evidence: Evidence) -> Finding:
    """The mean interval and R at the step of the gallery and at a quarter of it."""
    grid = evidence.grids["step"]
    assert grid.y is not None
    steps = grid.y.values
    fine, used = int(np.argmin(steps)), int(np.argmin(np.abs(steps - STEP_MS)))
    percent, told, numbers = [], [], dict[str, Any]()
    for k, delay in enumerate(grid.x.values):
        T, R, low, high = (grid[name][:, k] for name in ("mean_ms", "R", "R_low", "R_high"))
        percent.append(100 * float(T[used] / T[fine] - 1))
        both = [f"{R[j]:.3g} ({low[j]:.3g} to {high[j]:.3g})" for j in (used, fine)]
        told.append(f"at τ = {delay:g} ms by {percent[-1]:+.2f} %, where R is {both[0]} and {both[1]}")
        numbers[f"{delay:g} ms"] = {"dt_ms": steps.tolist(), "mean_ms": T.tolist(), "R": R.tolist()}
    return Finding(
        name="time-step", origin=OURS,
        claim=f"The step of the gallery, {STEP_MS:g} ms, is short enough.",
        criterion="At a maximum of EI and between two the mean interval is within "
        f"{STEP_PERCENT:g} % of that at {steps[fine]:g} ms.",
        verdict=verdict(all(abs(one) <= STEP_PERCENT for one in percent)),
        found=f"From {steps[fine]:g} to {STEP_MS:g} ms the mean interval changes {'; '.join(told)}.",
        numbers=numbers,
    )  # fmt: skip
