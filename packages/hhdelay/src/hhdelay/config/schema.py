"""The settings as one flat table, "noise.law" -> its type and rules, and back to config classes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import Field
from difflib import get_close_matches
from functools import cache
from typing import Any, NamedTuple

from hhdelay.config.errors import ConfigError, need, plain, quoted
from hhdelay.config.recipe import Recipe
from hhdelay.config.setting import is_table, settings_of
from hhdelay.config.synapse import SYNAPSES

SET = "synapse.set"  # names one of SYNAPSES; not a setting itself, since a stored recipe holds the constants


class Leaf(NamedTuple):
    """One setting: its type, and the field that holds its default, help and bounds."""

    kind: Any
    field: Field[Any]


@cache
def leaves() -> dict[str, Leaf]:
    """Every setting by its dotted name, in the order of the source."""
    return {
        f"{table.name}.{f.name}": Leaf(kind, f)
        for table, section in settings_of(Recipe)
        for f, kind in settings_of(section)
    }


def flatten(raw: Mapping[str, Any], where: str) -> Iterator[tuple[str, Any]]:
    """Nested tables as dotted names and raw values; ConfigError for what is no table and no setting."""
    known = {f.name for f, kind in settings_of(Recipe) if is_table(kind)}
    for table, settings in raw.items():
        need(table in known, f"unknown table [{plain(table)}] {where}", fix=f"use {', '.join(sorted(known))}")
        need(isinstance(settings, Mapping), f"{table}={quoted(settings)} {where} is not a table",
             fix=f"write [{table}] on its own line, and its settings below")  # fmt: skip
        for key, value in settings.items():
            name = f"{table}.{key}"
            if name != SET and name not in leaves():
                raise unknown(name, where)
            yield name, value


def build(flat: Mapping[str, Any]) -> Recipe:
    """A Recipe from dotted names; what is missing takes its default."""
    chosen = flat.get(SET)
    need(chosen is None or chosen in SYNAPSES, f"{SET}={quoted(chosen)} is not known",
         fix=f"set it to one of {', '.join(SYNAPSES)}")  # fmt: skip
    tables: dict[str, dict[str, Any]] = {f.name: {} for f, _ in settings_of(Recipe)}
    tables["synapse"] |= SYNAPSES[chosen] if chosen else {}
    for name, value in flat.items():
        table, _, key = name.partition(".")
        if name != SET:
            tables[table][key] = value
    return Recipe(**{f.name: kind(**tables[f.name]) for f, kind in settings_of(Recipe)})


def unknown(name: str, where: str) -> ConfigError:
    """The error for a `name` that is no setting: the one whose unit was left out or the nearest, and all
    that its table knows.
    """
    table, known = name.partition(".")[0], [*leaves(), SET]
    inside = [one.partition(".")[2] for one in known if one.startswith(f"{table}.")]
    ends = {one.partition(".")[2].partition("_")[0]: one for one in reversed(known)}
    end = name.rpartition(".")[2]
    near = [ends[end]] if end in ends else get_close_matches(name[:200], known, n=1, cutoff=0.75)
    tables = [f.name for f, _ in settings_of(Recipe)]
    holds = f"[{table}] holds {', '.join(inside)}" if inside else f"the tables are {', '.join(tables)}"
    hint = f"did you mean {near[0]}? {holds}" if near else f"use what there is; {holds}"
    return ConfigError(f"unknown setting {plain(name)} {where}. Fix: {hint}")
