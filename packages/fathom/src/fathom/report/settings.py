"""The settings of runs with where they came from, and those in which runs differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from fathom.config.load import SCHEMA
from fathom.report import units
from fathom.report.markup import fold, rows, tag, text
from fathom.report.run import DEFAULT, Run

PRESET = "preset "  # how the origin of a preset's settings begins
FIND = (  # of use only to a script, which shows it
    '<label class="control" hidden>Find a setting '
    '<input type="search" class="find" autocomplete="off"></label>'
)


class Row(NamedTuple):
    """One setting of one run; `origin` is empty where the run does not record it."""

    name: str
    value: str
    origin: str
    changed: bool  # somebody set it: it did not just keep its default


def setting_rows(run: Run) -> list[Row]:
    """Every setting, in the order of the recipe."""
    origin = run.origin
    found = []
    for name, value in run.settings.items():
        source = origin.get(name, "")
        changed = source != DEFAULT if source else value != default_of(name)
        found.append(Row(name, units.setting(value), source, changed))
    return found


def default_of(name: str) -> Any:
    """The default of a setting as JSON has it; None for one that this version does not know."""
    leaf = SCHEMA.leaves.get(name)
    default = None if leaf is None else leaf.field.default
    return list(default) if isinstance(default, tuple) else default


def meaning(name: str) -> str:
    """What a setting is for; empty for one that this version does not know."""
    leaf = SCHEMA.leaves.get(name)
    return "" if leaf is None else str(leaf.field.metadata["help"])


def settings_html(run: Run) -> str:
    """What somebody set, open; the preset's shape and the defaults, folded. Empty without a recipe."""
    every = setting_rows(run)
    if not every:
        return ""
    preset = next((r.origin for r in every if r.origin.startswith(PRESET)), "")
    groups: dict[str, list[Row]] = {"given": [], "preset": [], "default": []}
    for row in every:
        kind = "default" if not row.changed else "preset" if row.origin == preset != "" else "given"
        groups[kind].append(row)
    parts = [FIND, _grouped(groups["given"])]
    for kind, words in (("preset", f"from {preset}"), ("default", "as by default")):
        if groups[kind]:
            title = f"{units.plural(len(groups[kind]), 'setting')} {words}"
            parts.append(fold(text(title), _grouped(groups[kind])))
    return tag("div", "".join(parts), kind="settings")


def _grouped(listed: Sequence[Row]) -> str:
    tables: dict[str, list[Row]] = {}
    for row in listed:
        tables.setdefault(row.name.rpartition(".")[0], []).append(row)
    return "".join(_table(table, held) for table, held in tables.items())


def _table(title: str, held: Sequence[Row]) -> str:
    lines = [
        (
            text(row.name.rpartition(".")[2]),
            tag("code", text(row.value)),
            text(row.origin or ("not recorded" if row.changed else "default")),
            text(meaning(row.name)),
        )
        for row in held
    ]
    caption = tag("h3", tag("code", f"[{text(title)}]"))
    return tag("div", caption + rows(lines, kind="set"), kind="group")


def differences_html(runs: Sequence[Run]) -> str:
    """Only the settings that are not the same in all runs, each with its origin; empty for one run."""
    with_settings = [run for run in runs if run.settings]
    if len(with_settings) < 2:
        return ""
    names = list(dict.fromkeys(name for run in with_settings for name in run.settings))
    listed = [{row.name: row for row in setting_rows(run)} for run in runs]
    lines = []
    for name in names:
        cells = [found.get(name) if found else None for found in listed]
        recorded = [cell for cell, found in zip(cells, listed, strict=True) if found]
        if len({cell and cell.value for cell in recorded}) > 1:
            lines.append((tag("code", text(name)), *(_cell(cell) for cell in cells)))
    if not lines:
        return tag("p", "The runs have the same settings.")
    return rows(lines, head=("setting", *(text(run.name) for run in runs)), kind="differ")


def _cell(row: Row | None) -> str:
    if row is None:
        return units.UNKNOWN
    return tag("code", text(row.value)) + (tag("small", text(row.origin)) if row.origin else "")
