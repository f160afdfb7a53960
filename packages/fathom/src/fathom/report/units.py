"""Figures as people read them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from typing import Any

UNKNOWN = "–"  # a figure that a run does not record
THOUSANDS = ("", "K", "M", "B", "T")  # of tokens and parameters
METRIC = ("", "K", "M", "G", "T", "P", "E", "Z", "Y")  # of FLOP
BINARY = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
EXACT = 10_000  # whole numbers below it are written in full
MINUTE, HOUR, DAY = 60, 3600, 86400


def figure(value: float, digits: int = 3) -> str:
    """A number with `digits` decimals, or as 1.2e-05 where that would show none of it."""
    if value != value:
        return UNKNOWN
    small = value != 0.0 and abs(value) < 10.0**-digits
    return f"{value:.2g}" if small or abs(value) >= 1e9 else f"{value:,.{digits}f}"


def percent(value: float) -> str:
    """A share as a percentage."""
    return UNKNOWN if value != value else f"{100 * value:.1f}%"


def count(value: float) -> str:
    """A whole number: 8,120 in full, 3.06M, 14.8T."""
    return _scaled(value, THOUSANDS, 1000.0, "")


def flops(value: float) -> str:
    """A number of floating-point operations: 251 GFLOP."""
    return _scaled(value, METRIC, 1000.0, " ", exact=1000) + "FLOP" if value == value else UNKNOWN


def size(value: float) -> str:
    """Bytes in binary units."""
    return _scaled(value, BINARY, 1024.0, " ", exact=1024)


def _scaled(value: float, units: Sequence[str], base: float, gap: str, exact: int = EXACT) -> str:
    if value != value:
        return UNKNOWN
    if abs(value) < exact:
        return f"{value:,.0f}{gap}{units[0]}"
    power = min(int(math.log(abs(value), base) + 1e-9), len(units) - 1)
    scaled = value / base**power
    if round(scaled) >= base and power + 1 < len(units):
        scaled, power = scaled / base, power + 1
    return f"{scaled:,.{max(2 - len(str(int(abs(scaled)))) + 1, 0)}f}{gap}{units[power]}"


def duration(seconds: float) -> str:
    """Time in its two largest units."""
    if seconds != seconds:
        return UNKNOWN
    if seconds < MINUTE:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < HOUR:
        return f"{whole // MINUTE} min {whole % MINUTE} s"
    if whole < DAY:
        return f"{whole // HOUR} h {whole % HOUR // MINUTE} min"
    return f"{whole // DAY} d {whole % DAY // HOUR} h"


def moment(written: Any) -> str | None:
    """A date and time in ISO 8601, to the minute; other text as it is, None for what is no text."""
    if not isinstance(written, str):
        return None
    try:
        at = datetime.fromisoformat(written)
    except ValueError:
        return written
    return f"{at:%Y-%m-%d %H:%M}" + (f" {at.tzname()}" if at.tzinfo else "")


def plural(n: int, one: str, many: str = "") -> str:
    """`n` of something in words: no spikes, 1 spike, 3 spikes."""
    return f"{n or 'no':{',' if n else ''}} {one if n == 1 else many or one + 's'}"


def setting(value: Any) -> str:
    """A setting as TOML writes it, near enough to be recognised."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return f"{value:_}" if abs(value) >= EXACT else str(value)
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        return ", ".join(setting(v) for v in value) or "(none)"
    return str(value) if value != "" else "(empty)"
