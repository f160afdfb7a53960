"""A scan in numbers: how many settings are of which class, and which of them were sought."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from hhdelay.search.classes import Verdict
from hhdelay.search.space import KINDS

MOST_REFINED = 16       # settings that are run again with care


def chosen(found: Sequence[Verdict]) -> list[Verdict]:
    """Those sought, the strongest contrast of R first, at most MOST_REFINED."""
    return sorted((v for v in found if v.sought), key=lambda v: -v.contrast)[:MOST_REFINED]


def report(rough: Sequence[Verdict], fine: Sequence[Verdict]) -> dict[str, Any]:
    """Plain numbers, ready for JSON.

    classes     of the rough scan, of each kind of pair: settings by number of maxima (0, 1, 2 or more) and
                by persistence (nowhere, at some delays, at all)
    candidates  settings of the rough scan that were sought, all of them
    nearest     of the settings with two or more maxima the one that fires on at the fewest delays, or None
    refined     what became of those that were run again; `confirmed` of them are still sought
    """
    return {
        "settings": len(rough),
        "classes": {kind: _table([v for v in rough if _kind(v) == kind]) for kind in KINDS},
        "candidates": sum(v.sought for v in rough),
        "nearest": _nearest(rough),
        "refined": [_plain(v) for v in fine],
        "confirmed": sum(v.sought for v in fine),
    }


def text(found: dict[str, Any]) -> str:
    """The report for people."""
    lines = [f"{found['settings']} settings"]
    for kind, table in found["classes"].items():
        lines += ["", f"{kind}, firing goes on without noise at" + "".join(f"{where:>14}" for where in WHERE)]
        for maxima in MAXIMA:
            lines.append(f"{maxima:35}" + "".join(f"{table[maxima][where]:14d}" for where in WHERE))
    lines += ["", f"sought, two or more maxima and no delay at which it goes on: {found['candidates']}"]
    nearest = found["nearest"]
    if nearest:
        least = f"{nearest['persists']:.0%} of delays"
        lines += [f"of the others with two or more maxima the least goes on at {least}", _given(nearest)]
    if found["refined"]:
        lines += [f"run again with care: {len(found['refined'])}; still sought: {found['confirmed']}"]
    for one in found["refined"]:
        at = " ".join(f"{ms:.1f}" for ms in one["maxima_ms"]) or "none"
        verdict = "sought" if one["sought"] else "not sought"
        lines += [f"  {verdict}: maxima at {at} ms, highest R {one['highest_R']:.3g}, firing goes on at "
                  f"{one['persists']:.0%} of delays", _given(one)]  # fmt: skip
    return "\n".join(lines)


MAXIMA = ("no maximum", "1 maximum", "2 or more")
WHERE = ("no delay", "some delays", "all delays")     # at which firing goes on without noise


def _table(found: Sequence[Verdict]) -> dict[str, dict[str, int]]:
    table = {maxima: dict.fromkeys(WHERE, 0) for maxima in MAXIMA}
    for v in found:
        where = WHERE[0] if v.persists == 0.0 else WHERE[2] if v.persists == 1.0 else WHERE[1]
        table[MAXIMA[min(len(v.maxima_ms), 2)]][where] += 1
    return table


def _nearest(found: Sequence[Verdict]) -> dict[str, Any] | None:
    several = [v for v in found if len(v.maxima_ms) >= 2 and v.persists > 0.0]
    return _plain(min(several, key=lambda v: (v.persists, -v.contrast))) if several else None


def _given(one: dict[str, Any]) -> str:
    return "    " + " ".join(f"{name}={value}" for name, value in one["setting"].items())


def _kind(v: Verdict) -> str:
    return str(v.setting["motif.kind"])


def _plain(v: Verdict) -> dict[str, Any]:
    highest = v.highest_R if math.isfinite(v.highest_R) else None
    return v._asdict() | {"sought": v.sought, "highest_R": highest, "maxima_ms": list(v.maxima_ms)}
