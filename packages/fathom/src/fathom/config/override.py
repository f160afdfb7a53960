"""Settings given on the command line: `train.lr=3e-4 data.sources=a.txt,b.txt`."""

from __future__ import annotations

import tomllib
from typing import Any

from fathom.config.errors import need, plain, quoted
from fathom.config.schema import Schema


def parse_override(text: str, schema: Schema) -> tuple[str, Any]:
    """A `key=value` argument as a dotted name and a raw value, which the config class checks when built.

    The value is TOML. Where a shell has eaten the quotes it need not be: text is taken as it stands, and a
    list as its members between commas. Raises ConfigError for an unknown key, a table, or no "=".
    """
    name, equals, value = (part.strip() for part in text.partition("="))
    need(
        equals == "=" and name != "",
        f"{quoted(text)} on the command line is not a setting",
        fix="write key=value, such as train.lr=3e-4",
    )
    if name in schema.also:
        return name, _text(name, value)
    leaf = schema.leaves.get(name)
    if leaf is None:
        inside = [known for known in schema.leaves if known.startswith(f"{name}.")]
        fix = f"set one of its settings, such as {inside[0]}=..." if inside else ""
        need(not inside, f"{name} on the command line is a table of settings", fix=fix)
        raise schema.unknown(name, "on the command line")
    if leaf.kind is str:
        return name, _text(name, value)
    if leaf.kind in (tuple[str, ...], tuple[float, ...]):
        return name, _list(name, value, float if leaf.kind == tuple[float, ...] else str)
    return name, _number(value) if leaf.kind is float else _toml(value, value)


def _toml(value: str, otherwise: Any) -> Any:
    """`value` as TOML reads it, or `otherwise` where it is not one TOML value."""
    try:
        table = tomllib.loads(f"value = {value}")
    except (ValueError, RecursionError):  # also numbers of more than 4300 digits, and brackets without end
        return otherwise
    return table["value"] if len(table) == 1 else otherwise


def _text(name: str, value: str) -> str:
    read = _toml(value, value)
    wrong = isinstance(read, str) and read == value and value[:1] in ("'", '"')
    need(not wrong, f"{name}={plain(value)} has no closing quote", fix=f"write {name}=VALUE without quotes")
    return read if isinstance(read, str) else value


def _number(value: str) -> Any:
    read = _toml(value, value)
    try:
        return float(value) if isinstance(read, str) else read  # .5 and 5. are numbers, though not in TOML
    except ValueError:
        return read


def _list(name: str, value: str, member: type) -> list[Any]:
    read = _toml(value, value)
    if isinstance(read, list):
        return read
    inside = value[1:-1] if value.startswith("[") and value.endswith("]") else value
    if isinstance(read, str) and read != value:  # one text in quotes, commas and all
        return [read]
    parts = [part.strip() for part in inside.split(",")] if inside.strip() else []
    return [_text(name, part) if member is str else _number(part) for part in parts]
