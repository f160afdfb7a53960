"""The axes of a sweep: which settings take which values, from text such as motif.delay_ms=0:70:141."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hhdelay.config.errors import ConfigError, need, plain, quoted
from hhdelay.config.load import parse_override
from hhdelay.config.recipe import Recipe
from hhdelay.config.schema import SET, leaves, unknown
from hhdelay.store.schema import VARIABLES

DIGITS = 12             # of evenly spaced values: 0.3, not 0.30000000000000004
LONGEST = 1_000_000     # values of an axis
HOW = "write first:last:count, log:first:last:count, or values between commas"
FIXED = ("simulation.replicas",)  # one dimension of the result


@dataclass(frozen=True, kw_only=True, slots=True)
class Axis:
    """One dimension of a sweep.

    name        of the dimension; its coordinate is `values`, or 0, 1, 2, ... where these are not numbers
    settings    the dotted names that move along it, normally one
    values      of one setting: its value at each point; of several: a tuple with a value for each
    raises      ConfigError for an unknown setting, for no values, and for values that repeat
    """

    name: str
    settings: tuple[str, ...]
    values: tuple[Any, ...]

    def __post_init__(self) -> None:
        need(len(self.settings) > 0, f"axis {plain(self.name)} names no setting", fix="name one or more")
        for setting in self.settings:
            _check_setting(setting)
        taken = {*VARIABLES, "replica", "bin", "done"}
        need(self.name not in taken, f"{plain(self.name)} is a variable of the result", fix="rename the axis")
        need(0 < len(self.values) <= LONGEST, f"axis {plain(self.name)} holds {len(self.values)} values",
             fix=f"give it 1 to {LONGEST}")  # fmt: skip
        exact = tuple(self._exact(one) for one in self.values)
        need(len(set(exact)) == len(exact), f"axis {plain(self.name)} holds a value twice",
             fix="give each value once")  # fmt: skip
        object.__setattr__(self, "values", exact)  # the instance is frozen for everyone else

    def __len__(self) -> int:
        return len(self.values)

    def given(self, place: int) -> dict[str, Any]:
        """The settings at one place of the axis."""
        value = self.values[place]
        return dict(zip(self.settings, value if len(self.settings) > 1 else (value,), strict=True))

    @property
    def numeric(self) -> bool:
        """Whether the coordinate is the setting itself."""
        return len(self.settings) == 1 and leaves()[self.settings[0]].kind in (int, float)

    def _exact(self, value: Any) -> Any:
        if len(self.settings) == 1:
            return _as_kind(self.settings[0], value)
        fits = isinstance(value, tuple | list) and len(value) == len(self.settings)
        need(fits, f"axis {plain(self.name)} holds {quoted(value)} for {len(self.settings)} settings",
             fix="give a tuple with a value for each")  # fmt: skip
        return tuple(_as_kind(name, one) for name, one in zip(self.settings, value, strict=True))


def parse_axis(text: str) -> Axis:
    """An axis of one setting, from the text after --over.

    motif.delay_ms=0:70:141                 141 values from 0 to 70, both included, evenly spaced
    noise.D_uA2_ms_cm4=log:0.5:96:16        each the same multiple of the one before
    motif.delay_ms=1,2,5                    these

    raises      ConfigError, with the fix
    """
    name, equals, values = (part.strip() for part in text.partition("="))
    need(equals == "=" and name != "" and values != "", f"{quoted(text)} is no axis",
         fix=f"{HOW}, as motif.delay_ms=0:70:141")  # fmt: skip
    _check_setting(name)
    kind = leaves()[name].kind
    need(kind in (int, float, str), f"{name} is a list, and an axis has one value at each point",
         fix="choose another setting")  # fmt: skip
    if ":" not in values:
        listed = [parse_override(f"{name}={one}")[1] for one in values.split(",")]
        return _axis(name, listed)
    need(kind is not str, f"{name} is text, which has no range", fix="give its values between commas")
    return _axis(name, _spaced(name, values))


def default_axes(recipe: Recipe) -> tuple[Axis, ...]:
    """Delay by strength where the motif has both, else the intensity of the noise."""
    if recipe.motif.kind == "links":
        return (parse_axis("noise.D_uA2_ms_cm4=log:0.5:96:16"),)
    return parse_axis("motif.delay_ms=0:70:141"), parse_axis("motif.g_mS_cm2=0.25:4:16")


def _axis(name: str, values: list[Any]) -> Axis:
    return Axis(name=name.partition(".")[2], settings=(name,), values=tuple(values))


def _check_setting(name: str) -> None:
    need(name != SET, f"{SET} cannot be an axis: it names constants", fix="make one sweep for each set")
    need(name not in FIXED, f"{name} cannot be an axis", fix="choose another setting")
    if name not in leaves():
        raise unknown(name, "of an axis")


def _spaced(name: str, text: str) -> list[float]:
    """first:last:count or log:first:last:count as numbers, for whole-number settings whole ones."""
    parts = text.removeprefix("log:").split(":")
    what = f"{name}={quoted(text)[1:-1]}"
    try:
        first, last, count = float(parts[0]), float(parts[1]), int(parts[2])
        usable = len(parts) == 3 and math.isfinite(first) and math.isfinite(last)
    except (ValueError, IndexError):
        usable = False
    if not usable:
        raise ConfigError(f"{what} is no range. Fix: {HOW}, as {name}=1:5:9")
    need(1 <= count <= LONGEST, f"{what} asks for {count} values", fix=f"ask for 1 to {LONGEST}")
    need((count == 1) == (first == last), f"{what} asks for {count} values from {first:g} to {last:g}",
         fix="ask for one value where both ends are the same, else for two or more")  # fmt: skip
    along: Callable[[float], float]
    if text.startswith("log:"):
        need(first > 0 and last > 0, f"{what} has an end that is not above 0",
             fix="choose ends above 0, or leave out log:")  # fmt: skip

        def along(part: float) -> float:
            return float(first * (last / first) ** part)
    else:

        def along(part: float) -> float:
            return first + (last - first) * part

    values = [float(f"{along(k / max(count - 1, 1)):.{DIGITS}g}") + 0.0 for k in range(count)]
    broken = [one for one in values if not one.is_integer()]
    need(leaves()[name].kind is not int or not broken,
         f"{what} holds {broken[0] if broken else 0:g}, and {name} is a whole number",
         fix=f"choose ends and count that make every value whole, or list them: {name}=2,4")  # fmt: skip
    return values


def _as_kind(name: str, value: Any) -> Any:
    """1 as 1.0 for a setting that is a number, 2.0 as 2 for a whole number; what fits neither stays."""
    kind = leaves()[name].kind
    if isinstance(value, list):
        return tuple(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    if kind is float and abs(value) <= 1e308:
        return float(value) + 0.0
    if kind is int and isinstance(value, float) and value.is_integer():
        return int(value)
    return value
