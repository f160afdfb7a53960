"""The third claim: what becomes of the maxima under delayed excitation, noise and more neurons."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from hhdelay.analysis import Peak
from hhdelay.gates import Array
from hhdelay.plot.grid import Grid, peaks_of
from hhdelay.reproduce.finding import ABSTRACT, Evidence, Finding, listed, verdict
from hhdelay.reproduce.maxima import inner, rows_of

SHIFT_MS = 0.5          # a grid point: how far a measured shift may be from the delay of excitation
ALIKE = 0.25            # in ln R: rms difference of two curves that count as the same
MOVED_MS = {"noise": 2.0, "size": 3.0}      # how far a maximum may move and be called the same
FINEST_MS = 0.05        # of the shifts that are tried


class Kept(NamedTuple):
    """Maxima of one line beside those of another."""

    name: str
    peaks: list[Peak]
    wanted: int                 # maxima of the other line
    moved_ms: list[float]       # of those of them that are here too
    new_ms: list[float]         # where there are others


def delayed_excitation(evidence: Evidence) -> Finding:
    """EI: only the sum of the two delays counts."""
    grid = evidence.grids["delay-e"]
    assert grid.y is not None
    rows = rows_of(grid)
    first, delays_e = rows[0], grid.y.values - grid.y.values[0]
    shifts, apart = [0.0], [0.0]
    for row, delay_e in zip(rows[1:], delays_e[1:], strict=True):
        shift, _ = _best_shift(first, row, float(delays_e[-1]) + 4.0)
        shifts.append(shift)
        apart.append(_difference(first, row, float(delay_e)))
    counts = [len(inner(row)) for row in rows]
    off = [abs(s - d) for s, d in zip(shifts, delays_e, strict=True)]
    holds = min(counts) >= 2 and max(off) <= SHIFT_MS and max(apart) <= ALIKE
    by = listed([float(d) for d in delays_e[1:]], "g")
    return Finding(
        name="delayed-excitation", origin=ABSTRACT,
        claim="The maxima withstand a delay of the excitatory feedback.",
        criterion="Two or more maxima at each delay τₑ of excitation; the curve of R moves by -τₑ, within "
        f"{SHIFT_MS:g} ms, and at equal τ + τₑ ln R differs by {ALIKE:g} or less, as a root mean square.",
        verdict=verdict(holds),
        found=f"With τₑ longer by {by} ms the curve of R moves to shorter τ by "
        f"{listed(shifts[1:], '.2f')} ms. At equal τ + τₑ ln R differs by {listed(apart[1:], '.3f')} (root "
        f"mean square, the scatter of the runs included). Maxima inside the range: {listed(counts, 'd')}.",
        numbers={"delay_e_ms": grid.y.values.tolist(), "shift_ms": shifts, "rms_ln_R_at_equal_sum": apart,
                 "maxima": counts},
        figures=("delay-e",),
    )  # fmt: skip


def stronger_noise(evidence: Evidence) -> Finding:
    """EI and II over the intensity of the noise."""
    kept: list[Kept] = []
    numbers: dict[str, Any] = {}
    highest: dict[str, list[float]] = {}
    for kind in ("ei", "ii"):
        grid = evidence.grids[f"noise-{kind}"]
        rows = rows_of(grid)
        assert grid.y is not None
        names = [f"{kind.upper()} at D = {D:g}" for D in grid.y.values]
        middle = rows[int(np.argmin(np.abs(np.log(grid.y.values))))]    # D = 1, that of the recipes
        kept += _kept(names, rows, inner(middle), MOVED_MS["noise"])
        highest[kind] = [max((p.R for p in inner(row)), default=float("nan")) for row in rows]
        numbers |= {"D_uA2_ms_cm4": grid.y.values.tolist(), f"highest_R_{kind}": highest[kind]}
    falls = all(a > b for its in highest.values() for a, b in pairwise(its))
    found = (f"The highest maximum of R is {listed(highest['ei'], '.3g')} in EI and "
             f"{listed(highest['ii'], '.3g')} in II, with D from {numbers['D_uA2_ms_cm4'][0]:g} to "
             f"{numbers['D_uA2_ms_cm4'][-1]:g}: "
             f"{'noise only lowers it' if falls else 'it does not only fall'}. {_told(kept)}")  # fmt: skip
    return Finding(
        name="stronger-noise", origin=ABSTRACT,
        claim="The maxima withstand a change of the intensity of the noise.",
        criterion=_criterion("intensity", "at D = 1", MOVED_MS["noise"]),
        verdict=_verdict(kept), found=found, numbers=numbers | _numbers(kept), table=_table(kept),
        figures=("noise",),
    )  # fmt: skip


def more_neurons(evidence: Evidence) -> Finding:
    """Populations of 10 and 40 beside the pairs."""
    kept: list[Kept] = []
    for kind, sizes in (("ei", (10, 40)), ("ii", (10,))):
        pair = inner(evidence.grids[f"line-{kind}"])
        rows = [evidence.grids[f"size-{kind}-{N}"] for N in sizes]
        longest = min(float(row.x.values[-1]) for row in rows)
        pair = [p for p in pair if p.position_ms <= longest - MOVED_MS["size"]]
        kept.append(Kept(f"{kind.upper()} of 2", pair, len(pair), [0.0] * len(pair), []))
        kept += _kept([f"{kind.upper()} of {N}" for N in sizes], rows, pair, MOVED_MS["size"])
    return Finding(
        name="more-neurons", origin=ABSTRACT,
        claim="The maxima withstand a change of the number of neurons.",
        criterion=_criterion("size", "of the pair", MOVED_MS["size"]) + " Populations of half the "
        "neurons each feel the mean synapse of the other one.",
        verdict=_verdict(kept), found=_told(kept), numbers=_numbers(kept), table=_table(kept),
        figures=("size-ei", "size-ii"),
    )  # fmt: skip


def _kept(
    names: Sequence[str], rows: Sequence[Grid], beside: list[Peak], allowed_ms: float
) -> Iterator[Kept]:
    for name, row in zip(names, rows, strict=True):
        peaks = peaks_of(row)       # one at the edge may be one of the others, though not a new one
        apart = [[abs(p.position_ms - q.position_ms) for q in beside] for p in peaks]
        moved = [min(column) for column in zip(*apart, strict=True)]
        new = [p.position_ms for p, its in zip(peaks, apart, strict=True)
               if not p.edge and min(its, default=np.inf) > allowed_ms]  # fmt: skip
        yield Kept(name, inner(row), len(beside), [one for one in moved if one <= allowed_ms], new)


def _criterion(of: str, beside: str, moved_ms: float) -> str:
    return (f"At each {of} all maxima {beside} are found again within {moved_ms:g} ms; with a reservation "
            "where at each two or more are, but not all.")  # fmt: skip


def _verdict(kept: Sequence[Kept]) -> str:
    several = all(len(one.moved_ms) >= 2 for one in kept)
    return verdict(several, any(len(one.moved_ms) < one.wanted for one in kept))


def _told(kept: Sequence[Kept]) -> str:
    """How far the maxima move, where some are lost, and where there are others."""
    lost = [f"{one.wanted - len(one.moved_ms)} of {one.wanted} with {one.name}"
            for one in kept if len(one.moved_ms) < one.wanted]  # fmt: skip
    new = [f"{listed(one.new_ms)} ms with {one.name}" for one in kept if one.new_ms]
    moved = [m for one in kept for m in one.moved_ms]
    told = f"Those found again moved by {max(moved):.1f} ms at most. " if moved else ""
    told += f"Lost are {'; '.join(lost)}. " if lost else "None is lost. "
    return (told + (f"There are others at {'; '.join(new)}." if new else "")).strip()


def _table(kept: Sequence[Kept]) -> tuple[tuple[str, ...], ...]:
    """Where the maxima are, and how high."""
    rows = [(one.name, listed([p.position_ms for p in one.peaks]), listed([p.R for p in one.peaks], ".3g"))
            for one in kept]  # fmt: skip
    return ("", "maxima at τ (ms)", "R there"), *rows


def _numbers(kept: Sequence[Kept]) -> dict[str, Any]:
    return {
        "maxima_ms": {one.name: [p.position_ms for p in one.peaks] for one in kept},
        "R": {one.name: [p.R for p in one.peaks] for one in kept},
        "moved_ms": {one.name: one.moved_ms for one in kept},
        "lost": {one.name: one.wanted - len(one.moved_ms) for one in kept},
    }


def _best_shift(first: Grid, row: Grid, longest_ms: float) -> tuple[float, float]:
    """The shift to shorter delays, 0 to longest_ms, after which a curve is most like the first; and how like.

    longest_ms stays below a spacing: a comb of maxima is like itself after a whole one.
    """
    shifts = np.arange(0.0, longest_ms + FINEST_MS / 2, FINEST_MS)
    apart = [_difference(first, row, float(shift)) for shift in shifts]
    best = int(np.nanargmin(apart)) if np.isfinite(apart).any() else 0
    return float(shifts[best]), apart[best]


def _difference(first: Grid, row: Grid, shift_ms: float) -> float:
    """Root mean square of ln R(first) at tau + shift less ln R(row) at tau, where both are known."""
    x, (a, b) = first.x.values, (_logarithm(first), _logarithm(row))
    good_a, good_b = np.isfinite(a), np.isfinite(b)
    at = row.x.values[good_b] + shift_ms
    inside = (at >= x[0]) & (at <= x[-1])
    if good_a.sum() < 2 or inside.sum() < 2:
        return float("nan")
    apart = np.interp(at[inside], x[good_a], a[good_a]) - b[good_b][inside]
    return float(np.sqrt(np.mean(apart**2)))


def _logarithm(row: Grid) -> Array:
    R = row["R"]
    good = np.isfinite(R) & (R > 0)
    return np.where(good, np.log(np.where(good, R, 1.0)), np.nan)
