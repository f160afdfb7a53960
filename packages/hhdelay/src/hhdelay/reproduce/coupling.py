"""The two claims about coupling, and the phases behind the second."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from hhdelay.analysis import tongues
from hhdelay.analysis.tongues import Tongue
from hhdelay.plot.grid import Grid
from hhdelay.reproduce.finding import ABSTRACT, OURS, Evidence, Finding, give_or_take, number, verdict
from hhdelay.reproduce.maxima import Comb, heights, inner, lowest_between, nearest, rows_of

ROWS_OF_A_TONGUE = 3    # strengths at which a maximum has to be seen to be called one
ERRORS = 2.0            # standard errors by which two numbers have to differ
LOCKED = 0.8            # |z| from which on a phase is spoken of
PHASE_NEAR = 0.1        # of an interval, about 0 and about 1/2


def several_maxima(evidence: Evidence) -> Finding:
    """EI: tongues in the plane of delay and strength."""
    comb, map_ = Comb(evidence.grids["line-ei"]), evidence.grids["map-ei"]
    counts, since = _growth(map_)
    long = _tongues(map_)
    assert map_.y is not None
    weakest = float(map_.y.values[0])
    found = (f"At g = 2 R has {len(comb.peaks)} maxima, at {comb.where()}: R = "
             f"{heights(comb.row, comb.peaks) or '-'}; between them it falls to "
             f"{number(lowest_between(comb.row, comb.peaks), '.3g')}. {comb.distance()}")  # fmt: skip
    found += f"At the weakest coupling, g = {weakest:g}, there are {counts[0]}; "
    found += (f"from g = {since:g} on every strength has two or more. " if since is not None
              else "there is no strength from which on all have two or more. ")  # fmt: skip
    found += f"{len(long)} tongues run through {ROWS_OF_A_TONGUE} strengths or more. "
    found += _reservation(comb)
    holds = comb.several and since is not None and counts[0] < 2
    return Finding(
        name="several-maxima", origin=ABSTRACT,
        claim="With excitation and inhibition, tuning the delay of the inhibitory feedback gives several "
        "maxima of firing coherence once the coupling is strong enough: tongues in the plane of delay and "
        "strength.",
        criterion="Two or more maxima at g = 2, each beyond its scatter and inside the range; fewer than two "
        "at the weakest coupling; two or more at every strength from some strength on. With a reservation "
        "where firing goes on without noise at some of these maxima.",
        verdict=verdict(holds, comb.on > 0), found=found.strip(),
        numbers=comb.numbers() | {
            "strengths": map_.y.values.tolist(), "maxima_at_each_strength": counts, "several_from": since,
            "tips": [t.tip for t in long], "tongues_ms": [t.peaks[-1].position_ms for t in long]},
        table=_table(long),
        figures=("map-ei", "line-ei", "run-peak", "run-peak-spikes", "run-between"),
    )  # fmt: skip


def denser_in_inhibition(evidence: Evidence) -> Finding:
    """II: another relation to the interval, and a denser pattern."""
    ii, ei = Comb(evidence.grids["line-ii"]), Comb(evidence.grids["line-ei"])
    counts, since = _growth(evidence.grids["map-ii"])
    differ = denser = False
    found = f"At g = 2 R has {len(ii.peaks)} maxima, at {ii.where()}. {ii.distance()}"
    if ii.spacing is not None and ei.spacing is not None:
        a, b = ii.spacing, ei.spacing
        differ = abs(a.ratio - b.ratio) > ERRORS * float(np.hypot(a.ratio_error, b.ratio_error))
        denser = b.spacing_ms - a.spacing_ms > ERRORS * float(np.hypot(a.error_ms, b.error_ms))
        ratio = b.spacing_ms / a.spacing_ms
        error = ratio * float(np.hypot(a.error_ms / a.spacing_ms, b.error_ms / b.spacing_ms))
        found += (f"In EI that share is {give_or_take(b.ratio, b.ratio_error, '.3f')}: with two delayed "
                  f"links the maxima lie {give_or_take(ratio, error)} times as dense. ")  # fmt: skip
    else:
        found += "Both pairs need two maxima for a comparison. "
    found += (f"From g = {since:g} on every strength has two or more. " if since is not None
              else "There is no strength from which on all have two or more. ")  # fmt: skip
    found += _reservation(ii)
    return Finding(
        name="denser-in-inhibition", origin=ABSTRACT,
        claim="With inhibition only there are also several maxima, but successive optimal delays follow "
        "another relation to the intrinsic time scale of the neurons, and lie denser.",
        criterion=f"Two or more maxima at g = 2; spacing over mean interval, and the spacing itself, differ "
        f"from those of EI by more than {ERRORS:g} standard errors, the spacing being smaller. With a "
        "reservation where firing goes on without noise at some of these maxima.",
        verdict=verdict(ii.several and differ and denser, ii.on > 0), found=found.strip(),
        numbers=ii.numbers() | {"maxima_at_each_strength": counts, "several_from": since},
        table=_table(_tongues(evidence.grids["map-ii"])),
        figures=("map-ii", "line-ii"),
    )  # fmt: skip


def alternating_phases(evidence: Evidence) -> Finding:
    """II: in phase and in antiphase by turns."""
    row = evidence.grids["line-ii"]
    peaks = inner(row)
    kinds, phases = [], []
    for one in peaks:
        k = nearest(row, one.position_ms)
        phase, locking = float(row["phase"][k]), float(row["locking"][k])
        off = abs((phase + 0.5) % 1.0 - 0.5)      # from 0, around the circle
        near = "in phase" if off <= PHASE_NEAR else "antiphase" if 0.5 - off <= PHASE_NEAR else "between"
        kinds.append(near)
        phases.append((phase, locking))
    turns = all({a, b} == {"in phase", "antiphase"} for a, b in pairwise(kinds))
    each = "; ".join(f"{p.position_ms:.1f} ms: {phase:.2f}, |z| {z:.2f}, {kind}"
                     for p, (phase, z), kind in zip(peaks, phases, kinds, strict=True))  # fmt: skip
    return Finding(
        name="alternating-phases", origin=OURS,
        claim="At successive maxima of the inhibitory pair the two neurons fire in antiphase and in phase by "
        "turns.",
        criterion=f"At least two maxima; at each the mean phase is within {PHASE_NEAR:g} intervals of 0 or "
        f"1/2, and neighbours differ. With a reservation where some are not firmly locked, |z| below "
        f"{LOCKED:g}.",
        verdict=verdict(len(peaks) >= 2 and turns, any(z < LOCKED for _, z in phases)),
        found=f"Phase of neuron 1 behind neuron 0 at the maxima, in intervals: {each or 'no maximum'}.",
        numbers={"maxima_ms": [p.position_ms for p in peaks], "phase": [p for p, _ in phases],
                 "locking": [z for _, z in phases], "kind": kinds},
        figures=("phases", "run-antiphase"),
    )  # fmt: skip


def _growth(map_: Grid) -> tuple[list[int], float | None]:
    """Maxima at each strength; the least strength from which on every one has two or more."""
    assert map_.y is not None
    counts = [len(inner(row)) for row in rows_of(map_)]
    since = None
    for strength, count in zip(map_.y.values[::-1], counts[::-1], strict=True):
        if count < 2:
            break
        since = float(strength)
    return counts, since


def _tongues(map_: Grid) -> list[Tongue]:
    """Maxima that can be followed over ROWS_OF_A_TONGUE strengths or more."""
    assert map_.y is not None
    grown = tongues(map_.y.values, [inner(row) for row in rows_of(map_)])
    return [one for one in grown if len(one.peaks) >= ROWS_OF_A_TONGUE]


def _table(long: Sequence[Tongue]) -> tuple[tuple[str, ...], ...]:
    head = ("tongue at τ (ms)", "of g =", "tip at g =", "highest R on the map")
    rows = [(f"{one.peaks[-1].position_ms:.1f}", f"{one.strengths[-1]:g}", f"{one.tip:g}",
             f"{max(p.R for p in one.peaks):.3g}") for one in long]  # fmt: skip
    return (head, *rows) if rows else ()


def _reservation(comb: Comb) -> str:
    if not comb.on:
        return "At none of these maxima does firing go on when the noise stops."
    return (f"At {comb.on} of these {len(comb.peaks)} maxima firing goes on when the noise stops: there "
            "it is not noise that sustains it.")  # fmt: skip
