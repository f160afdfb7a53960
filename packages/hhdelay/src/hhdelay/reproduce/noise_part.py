"""Checks of ours on what the noise does: does it make the firing regular, does it sustain it?"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from hhdelay.plot.grid import Grid
from hhdelay.reproduce.finding import OURS, Evidence, Finding, verdict
from hhdelay.reproduce.maxima import FIRES_ON, inner, rows_of


def one_neuron(evidence: Evidence) -> Finding:
    """Coherence resonance as Pikovsky and Kurths 1997 have it."""
    row = evidence.grids["best-single"]
    best = _optimum(row)
    return Finding(
        name="one-neuron", origin=OURS,
        claim="A single excitable neuron fires most regularly at a certain intensity of the noise: the "
        "classic coherence resonance (Pikovsky and Kurths 1997, doi 10.1103/PhysRevLett.78.775).",
        criterion="The 95 % interval of the highest R, inside the range of D, lies above those at both ends.",
        verdict=verdict(best["interior"]), found=_told("R", best), numbers=best, figures=("best",),
    )  # fmt: skip


def best_noise(evidence: Evidence) -> Finding:
    """At the first maximum of both pairs, over the noise."""
    bests = {kind: _optimum(evidence.grids[f"best-{kind}"]) for kind in ("ei", "ii")}
    interior = [best["interior"] for best in bests.values()]
    told = " ".join(
        _told(f"{kind.upper()}, τ = {_delay(evidence.grids[f'best-{kind}']):g} ms: R", best)
        for kind, best in bests.items()
    )
    return Finding(
        name="best-noise", origin=OURS,
        claim="At a tuned delay there is a best intensity of the noise, as in coherence resonance in the "
        "strict sense.",
        criterion="As of one neuron, at a maximum of EI and one of II; with a reservation where only one has "
        "it.",
        verdict=verdict(any(interior), not all(interior)), found=told, numbers=bests, figures=("best",),
    )  # fmt: skip


def sustained_by_noise(evidence: Evidence) -> Finding:
    """Whether any strength has several maxima and no delay at which firing goes on by itself."""
    told, quiet, several = [], 0, 0
    numbers: dict[str, Any] = {}
    for kind in ("ei", "ii"):
        grid = evidence.grids[f"map-{kind}"]
        assert grid.y is not None
        rows = [(row, inner(row)) for row in rows_of(grid)]
        many = [(row, peaks) for row, peaks in rows if len(peaks) >= 2]
        silent = [row for row, _ in many if not (row["persists"] > 0).any()]
        shares = [float(np.nanmean(row["persists"] >= FIRES_ON)) for row, _ in many]
        share = float(np.nanmean(grid["persists"] >= FIRES_ON))
        quiet, several = quiet + len(silent), several + len(many)
        numbers |= {f"{kind}_strengths_with_several": len(many), f"{kind}_of_them_silent": len(silent),
                    f"{kind}_share_of_map_firing_on": share}  # fmt: skip
        ends = list(dict.fromkeys(f"{one:.0%}" for one in (min(shares), max(shares)))) if shares else []
        range_ = f" (with half the replicas or more at {' to '.join(ends)} of the delays)" if shares else ""
        told.append(f"{kind.upper()}: {len(many)} strengths have two or more maxima, and at "
                    f"{len(many) - len(silent)} of them firing goes on at some delay{range_}; in the whole "
                    f"map it does at {share:.0%} of the points.")  # fmt: skip
    return Finding(
        name="sustained-by-noise", origin=OURS,
        claim="The firing at the maxima is sustained by noise: without noise it ends.",
        criterion="Some strength has two or more maxima and no delay at which a single replica fires between "
        "0.9 and 1 s after the noise has stopped; with a reservation where others have such delays.",
        verdict=verdict(quiet > 0, quiet < several), found=" ".join(told), numbers=numbers,
        figures=("map-ei", "map-ii"),
    )  # fmt: skip


def searched(evidence: Evidence) -> Finding | None:
    """What a scan of other settings gave, where one was made."""
    scan = evidence.search
    if scan is None:
        return None
    refined, confirmed = len(scan["refined"]), int(scan["confirmed"])
    return Finding(
        name="searched", origin=OURS,
        claim="Elsewhere, with other bias, noise, strength and synapses, there are several maxima that noise "
        "alone sustains.",
        criterion="A setting of the scan has two or more maxima and no delay at which firing goes on without "
        "noise, and still has when it is run again, longer and with other noise.",
        verdict=verdict(confirmed > 0),
        found=f"Of {scan['settings']} settings {scan['candidates']} looked so in the rough scan; "
        f"{refined} were run again and {confirmed} stood.",
        numbers={name: scan[name] for name in ("settings", "candidates", "confirmed")} | {"refined": refined},
        figures=("search",),
    )  # fmt: skip


def _optimum(row: Grid) -> dict[str, Any]:
    """Where R is highest over the noise, and whether that is inside the range beyond doubt."""
    R = np.where(np.isfinite(row["R"]), row["R"], np.nan)
    known = np.flatnonzero(np.isfinite(R))
    if not len(known):
        return {"interior": False, "falls": False}
    first, last, k = int(known[0]), int(known[-1]), int(np.nanargmax(R))
    low, high, D = row["R_low"], row["R_high"], row.x.values
    interior = bool(first < k < last and low[k] > high[first] and low[k] > high[last])
    return {
        "interior": interior, "falls": all(low[b] < high[a] for a, b in pairwise(known)) and k == first,
        "D": D[known].tolist(), "R": R[known].tolist(), "best_D": float(D[k]), "best_R": float(R[k]),
        "best_R_low": float(low[k]), "best_R_high": float(high[k]),
    }  # fmt: skip


def _told(what: str, best: dict[str, Any]) -> str:
    if "D" not in best:
        return f"{what} is nowhere known."
    D, R = best["D"], best["R"]
    ends = f"{R[0]:.3g} at D = {D[0]:.3g} and {R[-1]:.3g} at D = {D[-1]:.3g}"
    if best["interior"]:
        at = f"{best['best_R']:.3g} ({best['best_R_low']:.3g} to {best['best_R_high']:.3g})"
        return f"{what} is highest, {at}, at D = {best['best_D']:.3g}; at the ends it is {ends}."
    if best["falls"]:
        return f"{what} falls with the noise all the way, from {ends.replace(' and ', ' to ')}: no optimum."
    return f"{what} has no optimum beyond doubt inside the range; at its ends it is {ends}."


def _delay(row: Grid) -> float:
    return row.recipe.motif.delay_ms
