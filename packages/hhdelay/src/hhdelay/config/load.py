"""Recipes: TOML files of five tables, with `key=value` settings from the command line on top.

Each setting comes from the last of these that names it: the default in the source, the synapse set that
`synapse.set` names, the recipe, the command line.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from hhdelay.config.errors import ConfigError, choose_from, need, plain, quoted
from hhdelay.config.recipe import Recipe
from hhdelay.config.schema import SET, build, flatten, leaves, unknown
from hhdelay.config.setting import settings_of

RECIPES = ("ee", "ei", "ei-ftm", "ei-slow", "ii", "ii-slow", "population", "single")  # config/recipes/*.toml


def load_recipe(path_or_name: str, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe in a TOML file, or one that ships with the package, with `key=value` overrides on top.

    A name in RECIPES is the packaged recipe; write ./ei for a file of that name. Raises ConfigError.
    """
    label, text = _read(path_or_name)
    written = dict(flatten(_parse(text, label), f"in {label}"))
    return build(written | dict(parse_override(one) for one in overrides))


def parse_override(text: str) -> tuple[str, Any]:
    """A `key=value` argument as a dotted name and a raw value, which the config class checks when built."""
    name, equals, value = (part.strip() for part in text.partition("="))
    need(equals == "=" and name != "", f"{quoted(text)} on the command line is not a setting",
         fix="write key=value, such as motif.delay_ms=18")  # fmt: skip
    leaf = leaves().get(name)
    if leaf is None and name != SET:
        raise unknown(name, "on the command line")
    if leaf is not None and leaf.kind not in (int, float, str) and not value.startswith("["):
        value = f"[{value}]"  # a list as its members between commas
    try:
        table = tomllib.loads(f"value = {value}")
    except (ValueError, RecursionError):  # a text whose quotes the shell has eaten, or .5
        table = {"value": _number(value)}
    return name, table["value"] if len(table) == 1 else value


def _number(text: str) -> float | str:
    """.5 and 5. are numbers, though not in TOML."""
    try:
        return float(text)
    except ValueError:
        return text


def recipe_text(name: str) -> str:
    """The TOML of a recipe that ships with the package; ConfigError with the known names otherwise."""
    need(name in RECIPES, f"no recipe {plain(name)} ships with hhdelay", fix=choose_from(name, RECIPES))
    return files("hhdelay.config").joinpath("recipes", f"{name}.toml").read_text("utf-8")


def to_toml(recipe: Recipe, notes: Mapping[str, str] | None = None) -> str:
    """Every setting of `recipe` as TOML that builds the same recipe again; notes become comments."""
    lines = []
    for table, kind in settings_of(Recipe):
        lines.append(f"[{table.name}]")
        for f, _ in settings_of(kind):
            line = f"{f.name} = {_toml_value(getattr(getattr(recipe, table.name), f.name))}"
            note = (notes or {}).get(f"{table.name}.{f.name}")
            lines.append(f"{line:32}# {note}" if note else line)
        lines.append("")
    return "\n".join(lines)


def _toml_value(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml_value, value))}]"
    return f'"{value}"' if isinstance(value, str) else repr(value)


def _read(path_or_name: str) -> tuple[str, str]:
    """What to call the recipe in messages, and its text."""
    if path_or_name in RECIPES:
        return f"recipe {path_or_name}", recipe_text(path_or_name)
    label = plain(path_or_name)
    fix = f"Fix: give the path of a .toml file, or {choose_from(Path(path_or_name).stem, RECIPES)}"
    try:
        return label, Path(path_or_name).read_text("utf-8-sig")  # -sig: some editors put a mark in front
    except FileNotFoundError:
        raise ConfigError(f"no recipe {label}. {fix}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{label} is not UTF-8 text. {fix}") from None
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        why = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"cannot read {label} ({why}). {fix}") from None


def _parse(text: str, label: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{label} is not TOML: {error}. Fix: correct that line") from None
    except (ValueError, RecursionError) as error:  # numbers of more than 4300 digits; brackets without end
        why = "it nests too deeply" if isinstance(error, RecursionError) else "a number in it is too long"
        raise ConfigError(f"{label} cannot be read: {why}. Fix: shorten it") from None
