"""One setting of a configuration: its default, what it means, and which values it may take.

A config class is a frozen dataclass whose fields are made by `setting` and whose `__post_init__` calls
`check(self, "section")`. The text and the bounds are data, so `--help`, `fathom config show` and the
nonsense tests all read the same table.
"""

from __future__ import annotations

import math
from dataclasses import MISSING, Field, field, fields, is_dataclass
from functools import cache
from typing import Any, get_type_hints

from fathom.config.errors import need, quoted

LARGEST = 2**63 - 1  # what a TOML integer, an int64 tensor and a random seed can hold

WORDS: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "one line of text",
    tuple[str, ...]: "a list of texts",
    tuple[float, ...]: "a list of numbers",
}
EXAMPLES: dict[Any, str] = {str: '"name"', tuple[str, ...]: '["a.txt"]', tuple[float, ...]: "[0.9, 0.1]"}


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


def share(default: float, help: str) -> Any:
    """A setting between 0 and 1."""
    return setting(default, help, low=0.0, high=1.0)


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
        fix = f"set it to {WORDS[kind]} such as {_example(f, kind)}"
        need(exact is not None, f"{name}={quoted(value)} is not {WORDS[kind]}", fix=fix)
        for member in exact if isinstance(exact, tuple) else (exact,):
            holds = f" holds {quoted(member)}, which" if isinstance(exact, tuple) else ""
            _check_range(f"{name}={quoted(exact)}{holds}", member, f, kind)
        object.__setattr__(config, f.name, exact)  # the instance is frozen for everyone else


def _exact(value: Any, kind: Any) -> Any:
    """`value` as exactly `kind`, or None where it is not one."""
    if kind in (tuple[str, ...], tuple[float, ...]):
        if not isinstance(value, list | tuple):
            return None
        members = tuple(_exact(v, str if kind == tuple[str, ...] else float) for v in value)
        return None if any(m is None for m in members) else members
    if kind is bool:
        return value if isinstance(value, bool) else None
    if kind is str:
        return str(value) if isinstance(value, str) and _writable(value) else None
    assert kind in (int, float), f"a setting cannot be {kind}; teach fathom.config.setting first"
    if isinstance(value, bool) or not isinstance(value, int if kind is int else int | float):
        return None
    return int(value) if kind is int else _finite(value)


def _finite(value: float) -> float | None:
    try:
        number = float(value) + 0.0  # -0.0 becomes 0.0
    except OverflowError:  # a whole number beyond the largest float
        return None
    return number if math.isfinite(number) else None


def _writable(text: str) -> bool:
    """Whether TOML, a terminal and a file name can hold `text`: no control characters, no half surrogates."""
    return all(" " <= c != "\x7f" and not "\ud800" <= c <= "\udfff" for c in text)


def _check_range(what: str, value: Any, f: Field[Any], kind: Any) -> None:
    low, high, above, choices = (f.metadata[k] for k in ("low", "high", "above", "choices"))
    if kind is int and high is None:
        high = LARGEST
    if choices is not None:
        need(value in choices, f"{what} is not known", fix=f"set it to one of {', '.join(choices)}")
    if low is not None:
        need(value >= low, f"{what} is below {_figure(low)}", fix=f"set it to {_figure(low)} or more")
    if above is not None:
        fix = f"set it to more than {_figure(above)}, such as {_example(f, kind)}"
        need(value > above, f"{what} is not above {_figure(above)}", fix=fix)
    if high is not None:
        need(value <= high, f"{what} is above {_figure(high)}", fix=f"set it to {_figure(high)} or less")


def _figure(number: float) -> str:
    return f"{number:g}" if isinstance(number, float) else str(number)


def _example(f: Field[Any], kind: Any) -> str:
    """A value that would do, as TOML writes it: the default, unless that is empty."""
    if f.default is MISSING or f.default in ("", ()) or kind in (tuple[str, ...], tuple[float, ...]):
        return EXAMPLES[kind]
    if kind is bool:
        return "true" if f.default else "false"
    return f'"{f.default}"' if kind is str else _figure(f.default or (1 if kind is int else 0.5))
