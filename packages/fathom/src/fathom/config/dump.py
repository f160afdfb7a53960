"""A recipe as plain data and as TOML, and back: what a run folder stores and `fathom config show` prints."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from fathom.config.recipe import Recipe
from fathom.config.schema import Schema

SCHEMA = Schema(root=Recipe)
WIDEST = 40  # columns a value may take before the notes of other lines stop following it


def to_dict(recipe: Recipe) -> dict[str, Any]:
    """Every setting, nested as in TOML, in types that JSON has (lists for tuples)."""
    plain: dict[str, Any] = json.loads(json.dumps(asdict(recipe)))
    return plain


def from_dict(raw: Mapping[str, Any]) -> Recipe:
    """The inverse of `to_dict`; a missing setting takes its default. Raises ConfigError."""
    recipe: Recipe = SCHEMA.build(SCHEMA.flatten(raw, "in the stored recipe"))
    return recipe


def to_flat(recipe: Recipe) -> dict[str, Any]:
    """Every setting by its dotted name, in the order of the source; values as in `to_dict`."""
    return SCHEMA.flatten(to_dict(recipe), "in the recipe")


def to_toml(recipe: Recipe, notes: Mapping[str, str] | None = None) -> str:
    """A TOML file with every setting, which `load_recipe` reads back to an equal recipe.

    notes   dotted name -> a comment for the end of its line
    """
    tables: dict[str, list[tuple[str, str, str]]] = {}
    for name, value in to_flat(recipe).items():
        table, _, key = name.rpartition(".")
        tables.setdefault(table, []).append((key, _value(value), (notes or {}).get(name, "")))
    rows = [row for table in tables.values() for row in table]
    wide = max(len(key) for key, _, _ in rows)
    far = min(WIDEST, max(len(value) for _, value, _ in rows))
    parts = []
    for table, settings in tables.items():
        lines = [
            f"{key:{wide}} = {value:{far}}  {note and '# ' + note}".rstrip() for key, value, note in settings
        ]
        parts.append("\n".join([f"[{table}]", *lines]))
    return "\n\n".join(parts) + "\n"


def _value(value: Any) -> str:
    """One TOML value. JSON's escapes are TOML's, and no setting holds a character that only JSON has bare."""
    return repr(value) if isinstance(value, float) else json.dumps(value, ensure_ascii=False)
