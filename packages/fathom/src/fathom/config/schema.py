"""The settings as one flat table, "train.optim.beta1" -> its type and rules, and back to config classes.

Recipes, presets, overrides and stored runs all pass through a Schema, so an unknown key is found, and named
in the same words, wherever it was written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import Field, dataclass
from difflib import get_close_matches
from functools import cache
from typing import Any, NamedTuple

from fathom.config.errors import LONGEST_QUOTE, ConfigError, need, plain, quoted
from fathom.config.setting import is_table, settings_of

EXACT_FLOAT = 2**53  # above it a float no longer tells neighbouring whole numbers apart


class Leaf(NamedTuple):
    """One setting: its type, and the field that holds its default, help and bounds."""

    kind: Any
    field: Field[Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Schema:
    """The dotted names below one config class, and how they are read.

    root     the config class
    prefix   what its names begin with, such as "model." for a preset
    also     names that are read though they are no setting: "model.preset" in a recipe
    """

    root: Any
    prefix: str = ""
    also: tuple[str, ...] = ()

    @property
    def leaves(self) -> dict[str, Leaf]:
        """Every setting by its dotted name, in the order of the source."""
        return _leaves(self.root, self.prefix)

    def flatten(self, raw: Mapping[str, Any], where: str) -> dict[str, Any]:
        """Nested tables as dotted names and raw values.

        raw      what TOML or JSON holds, values not yet checked
        where    it was written, for the message: "in demo.toml"
        raises   ConfigError for a key or a table that does not exist
        """
        need(isinstance(raw, Mapping), f"{quoted(raw)} {where} is not a table", fix="give it named settings")
        return dict(self._walk(raw, self.root, self.prefix, where))

    def _walk(self, raw: Mapping[str, Any], kind: Any, prefix: str, where: str) -> Iterator[tuple[str, Any]]:
        known = {f.name: inner for f, inner in settings_of(kind)}
        for key, value in raw.items():
            name = f"{prefix}{key}"
            if name in self.also or (key in known and not is_table(known[key])):
                yield name, value
                continue
            if key not in known:
                raise self.unknown(name, where)
            need(
                isinstance(value, Mapping),
                f"{name}={quoted(value)} {where} is not a table",
                fix=f"write [{name}] on its own line, and its settings below",
            )
            yield from self._walk(value, known[key], f"{name}.", where)

    def unknown(self, name: str, where: str) -> ConfigError:
        """The error for a `name` that is no setting: the nearest that is, and all that its table knows."""
        table, kind = self._innermost(name)
        known = [f.name for f, _ in settings_of(kind)]
        known += [extra.removeprefix(table) for extra in self.also if table and extra.startswith(table)]
        near = self.nearest(name)
        inside = f"[{table.rstrip('.')}] holds" if table else "the tables are"
        hint = f"did you mean {near}? {inside}" if near else f"use what there is; {inside}"
        return ConfigError(f"unknown setting {plain(name)} {where}. Fix: {hint} {', '.join(known)}")

    def _innermost(self, name: str) -> tuple[str, Any]:
        table, kind = self.prefix, self.root
        for part in name.removeprefix(self.prefix).split(".")[:-1]:
            inner = {f.name: k for f, k in settings_of(kind)}.get(part)
            if not is_table(inner):
                break
            table, kind = f"{table}{part}.", inner
        return table, kind

    def nearest(self, name: str) -> str | None:
        """The setting somebody who wrote `name` most likely meant; None when nothing is near."""
        name = name[: 4 * LONGEST_QUOTE]
        known = [*self.leaves, *self.also]
        last = {k.rpartition(".")[2]: k for k in reversed(known)}  # where two end alike, the first one stays
        near = get_close_matches(name, known, n=1, cutoff=0.75)
        if near:
            return near[0]
        near = get_close_matches(name.rpartition(".")[2], list(last), n=1, cutoff=0.75)
        return last[near[0]] if near else None

    def build(self, flat: Mapping[str, Any]) -> Any:
        """An instance of the config class from dotted names; what is missing takes its default.

        A float without a fraction may stand for a whole number (`tokens = 14.8e12`): TOML has no other way to
        write one with an exponent.
        """
        return _build(flat, self.root, self.prefix)


@cache
def _leaves(kind: Any, prefix: str) -> dict[str, Leaf]:
    found: dict[str, Leaf] = {}
    for f, inner in settings_of(kind):
        name = prefix + f.name
        found |= _leaves(inner, f"{name}.") if is_table(inner) else {name: Leaf(inner, f)}
    return found


def _build(flat: Mapping[str, Any], kind: Any, prefix: str) -> Any:
    given: dict[str, Any] = {}
    for f, inner in settings_of(kind):
        name = prefix + f.name
        if is_table(inner):
            given[f.name] = _build(flat, inner, f"{name}.")
        elif name in flat:
            given[f.name] = _whole(flat[name]) if inner is int else flat[name]
    return kind(**given)


def _whole(value: Any) -> Any:
    exact = isinstance(value, float) and value.is_integer() and abs(value) <= EXACT_FLOAT
    return int(value) if exact else value
