"""The numbers at which a claim tips over: just below it is not found, just above it is."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from hhdelay.analysis.laws import Spacing
from hhdelay.plot.grid import Grid
from hhdelay.reproduce.coupling import denser_in_inhibition, several_maxima
from hhdelay.reproduce.finding import FOUND, NOT_FOUND, RESERVED, Evidence
from hhdelay.reproduce.maxima import Comb, inner, lowest_between, persisting

Make = Callable[..., Grid]
DELAYS = np.arange(0.0, 70.5, 0.5)
STRENGTHS = np.arange(0.25, 4.25, 0.75)     # six


def plane(make: Make, kind: str, **fields: Any) -> Grid:
    return make(kind, {"motif.delay_ms": DELAYS, "motif.g_mS_cm2": STRENGTHS}, **fields)


def test_the_lowest_R_is_sought_between_the_maxima_only(make: Make) -> None:
    row = make("ei", {"motif.delay_ms": DELAYS})
    peaks = inner(row)
    values = row["R"].copy()
    values[0] = values[-1] = 0.01       # outside
    first, second = (int(np.argmin(np.abs(DELAYS - one.position_ms))) for one in peaks[:2])
    values[(first + second) // 2] = 0.7
    row = make("ei", {"motif.delay_ms": DELAYS}, R=values)
    assert lowest_between(row, peaks) == 0.7
    assert np.isnan(lowest_between(row, peaks[:1]))


@pytest.mark.parametrize(("share", "verdict"), [(0.49, FOUND), (0.5, RESERVED)])
def test_half_of_the_replicas_fire_on(share: float, verdict: str, make: Make) -> None:
    def steep(delay_ms: Any, g_mS_cm2: Any) -> Any:
        return 1.2 * np.clip(g_mS_cm2 - 0.5, 0.0, 1.0)

    line = make("ei", {"motif.delay_ms": DELAYS}, persists=share)
    grids = {"line-ei": line, "map-ei": plane(make, "ei", height=steep)}
    found = several_maxima(Evidence(grids=grids, known=[]))
    assert found.verdict == verdict
    assert persisting(line, inner(line)) == (len(inner(line)) if share == 0.5 else 0)


@pytest.mark.parametrize(("rows", "tongues"), [(2, 0), (3, 4)])
def test_a_tongue_runs_through_three_strengths(rows: int, tongues: int, make: Make) -> None:
    def top(delay_ms: Any, g_mS_cm2: Any) -> Any:
        return 1.2 * (g_mS_cm2 >= STRENGTHS[-rows])

    grids = {"line-ei": make("ei", {"motif.delay_ms": DELAYS}), "map-ei": plane(make, "ei", height=top)}
    found = several_maxima(Evidence(grids=grids, known=[]))
    assert len(found.numbers["tongues_ms"]) == tongues
    assert found.numbers["several_from"] == STRENGTHS[-rows]


ERRORS_APART = {    # of the spacing, of the share of T: in standard errors of the difference
    "both clear": (2.1, 2.1, RESERVED),
    "no other relation": (2.1, 1.9, NOT_FOUND),
    "no denser": (1.9, 2.1, NOT_FOUND),
}


@pytest.mark.parametrize("case", ERRORS_APART)
def test_two_standard_errors_part_inhibition_from_excitation(
    case: str, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Errors of 0.3 and 0.4 ms make 0.5 ms of a difference, those of the shares 0.05."""
    spacing, share, verdict = ERRORS_APART[case]
    ei = Spacing(16.0, 0.3, 17.0, 1.0, 0.03, 4)
    ii = Spacing(16.0 - 0.5 * spacing, 0.4, 17.0, 1.0 - 0.05 * share, 0.04, 8)

    def comb(row: SimpleNamespace) -> Comb:
        made = Comb(make(row.kind, {"motif.delay_ms": DELAYS}))
        made.spacing = {"ei": ei, "ii": ii}[row.kind]
        return made

    monkeypatch.setattr("hhdelay.reproduce.coupling.Comb", comb)
    lines: Any = {f"line-{kind}": SimpleNamespace(kind=kind) for kind in ("ei", "ii")}
    found = denser_in_inhibition(Evidence(grids={**lines, "map-ii": plane(make, "ii")}, known=[]))
    assert found.verdict == verdict


def test_how_many_times_as_dense(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """16 over 8 ms, whose relative errors of 3 and 4 percent make 5."""
    its = {"ei": Spacing(16.0, 0.48, 16.0, 1.0, 0.03, 4), "ii": Spacing(8.0, 0.32, 16.0, 0.5, 0.02, 8)}

    def comb(row: SimpleNamespace) -> Comb:
        made = Comb(make(row.kind, {"motif.delay_ms": DELAYS}))
        made.spacing = its[row.kind]
        return made

    monkeypatch.setattr("hhdelay.reproduce.coupling.Comb", comb)
    lines: Any = {f"line-{kind}": SimpleNamespace(kind=kind) for kind in ("ei", "ii")}
    found = denser_in_inhibition(Evidence(grids={**lines, "map-ii": plane(make, "ii")}, known=[]))
    assert "the maxima lie 2.00 ± 0.10 times as dense" in found.found
