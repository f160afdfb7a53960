"""One setting of a model: its default, what it means, and which values it may take.

A config class is a frozen dataclass whose fields are made by `setting` and whose `__post_init__` calls
`check(self, "section")`. Text and bounds are data, so the help and the tests read the same table.
"""

from __future__ import annotations

import math
from dataclasses import Field, field, fields, is_dataclass
from functools import cache
from typing import Any, get_type_hints

from hhdelay.config.errors import ConfigError, need, quoted

LARGEST = 2**63 - 1  # what a TOML integer holds
MEMBER: dict[Any, type] = {tuple[int, ...]: int, tuple[float, ...]: float}
WORDS: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    str: "one line of text",
    tuple[int, ...]: "a list of whole numbers",
    tuple[float, ...]: "a list of numbers",
}


def setting(
    default: Any,
    help: str,
    *,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    choices: tuple[str, ...] | None = None,
) -> Any:
    """A dataclass field with its meaning and its bounds (`low` and `high` inclusive, `above` exclusive).

    The bounds of a list hold for each of its members.
    """
    rules = {"help": help, "low": low, "high": high, "above": above, "choices": choices}
    if callable(default):
        return field(default_factory=default, metadata=rules)
    return field(default=default, metadata=rules)


@cache
def settings_of(kind: Any) -> tuple[tuple[Field[Any], Any], ...]:
    """Each field of a config class with its type; the type is a config class where the field is a table."""
    hints = get_type_hints(kind)
    return tuple((f, hints[f.name]) for f in fields(kind))


def is_table(kind: Any) -> bool:
    """Whether a field of this type is a table of settings, that is, another config class."""
    return isinstance(kind, type) and is_dataclass(kind)


def check(config: Any, section: str) -> None:
    """Raise ConfigError for the first field of `config` whose type or value its setting does not allow.

    Afterwards every value has exactly its declared type: where those are meant, 1 is 1.0 and a list a tuple.
    """
    for f, kind in settings_of(config.__class__):
        value, name = getattr(config, f.name), f"{section}.{f.name}" if section else f.name
        if is_table(kind):
            table = isinstance(value, kind)
            need(table, f"{name}={quoted(value)} is not a table", fix=f"write it as [{name}] in TOML")
            continue
        exact = _exact(value, kind)
        if exact is None:
            raise ConfigError(f"{name}={quoted(value)} is not {WORDS[kind]}. Fix: set it to {WORDS[kind]}")
        for member in exact if isinstance(exact, tuple) else (exact,):
            if not _in_range(member, f.metadata):   # texts are made where they are needed: sweeps check often
                holds = f" holds {quoted(member)}, which" if isinstance(exact, tuple) else ""
                _check_range(f"{name}={quoted(exact)}{holds}", member, f.metadata)
        object.__setattr__(config, f.name, exact)  # the instance is frozen for everyone else


def _exact(value: Any, kind: Any) -> Any:
    """`value` as exactly `kind`, or None where it is not one."""
    if kind in MEMBER:
        if not isinstance(value, list | tuple):
            return None
        members = tuple(_exact(v, MEMBER[kind]) for v in value)
        return None if any(m is None for m in members) else members
    if kind is str:
        return value if isinstance(value, str) and value.isprintable() else None
    assert kind in (int, float), f"a setting cannot be {kind}; teach hhdelay.config.setting first"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if kind is int:
        whole = isinstance(value, int) or (value.is_integer() and abs(value) <= 2**53)
        return int(value) if whole and abs(value) <= LARGEST else None
    try:
        number = float(value) + 0.0  # -0.0 becomes 0.0
    except OverflowError:  # a whole number beyond the largest float
        return None
    return number if math.isfinite(number) else None


def _in_range(value: Any, rules: Any) -> bool:
    low, high, above, choices = (rules[k] for k in ("low", "high", "above", "choices"))
    return (
        (choices is None or value in choices)
        and (low is None or value >= low)
        and (above is None or value > above)
        and (high is None or value <= high)
    )


def _check_range(what: str, value: Any, rules: Any) -> None:
    low, high, above, choices = (rules[k] for k in ("low", "high", "above", "choices"))
    if choices is not None:
        need(value in choices, f"{what} is not known", fix=f"set it to one of {', '.join(choices)}")
    if low is not None:
        need(value >= low, f"{what} is below {low:g}", fix=f"set it to {low:g} or more")
    if above is not None:
        need(value > above, f"{what} is not above {above:g}", fix=f"set it to more than {above:g}")
    if high is not None:
        need(value <= high, f"{what} is above {high:g}", fix=f"set it to {high:g} or less")
