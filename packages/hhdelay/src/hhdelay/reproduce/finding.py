"""What was found of one claim: sentences and a verdict that are made from the data, never beforehand."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hhdelay.check import Row
from hhdelay.plot.grid import Grid

FOUND, RESERVED, NOT_FOUND = "found", "found with a reservation", "not found"
TOO_SHORT = "too short to judge"
ABSTRACT, OURS = "abstract", "ours"


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """All that claims are judged by."""

    grids: Mapping[str, Grid]           # the sweeps by name
    known: Sequence[Row] = ()           # of `hhdelay.check`
    search: Mapping[str, Any] | None = None     # search.json of `hhdelay search`


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One claim and what became of it."""

    name: str
    origin: str             # ABSTRACT or OURS: who claims it
    claim: str
    criterion: str          # when it counts as found
    verdict: str            # FOUND, RESERVED, NOT_FOUND, or TOO_SHORT
    found: str              # a few sentences with numbers
    numbers: Mapping[str, Any] = field(default_factory=dict)
    table: tuple[tuple[str, ...], ...] = ()     # for the page; the first row is its head
    figures: tuple[str, ...] = ()

    def plain(self) -> dict[str, Any]:
        """Ready for JSON: numbers to six digits, null where there is none."""
        names = ("name", "origin", "claim", "criterion", "verdict", "found", "numbers", "figures")
        return {name: _plain(getattr(self, name)) for name in names}


def verdict(holds: bool, reservation: bool = False) -> str:
    """FOUND where the criterion holds, RESERVED where something has to be said against it."""
    return NOT_FOUND if not holds else RESERVED if reservation else FOUND


def listed(values: Sequence[float], form: str = ".1f") -> str:
    """Numbers in a sentence: "9.0, 25.5 and 43.0", "none" for no number."""
    texts = [number(one, form) for one in values]
    return " and ".join([*filter(None, [", ".join(texts[:-1])]), *texts[-1:]]) or "none"


def number(value: float, form: str) -> str:
    """A number in a sentence, "-" where it is unknown."""
    return format(value, form) if math.isfinite(value) else "-"


def give_or_take(value: float, error: float, form: str = ".2f") -> str:
    """A value with its standard error, which is left out where it is unknown."""
    return f"{value:{form}} ± {error:{form}}" if math.isfinite(error) else f"{value:{form}}"


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, bool) or value is None or isinstance(value, str | int):
        return value
    number = float(value)
    return float(f"{number:.6g}") if math.isfinite(number) else None
