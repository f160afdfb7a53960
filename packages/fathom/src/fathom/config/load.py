"""Recipes: TOML files of four tables, [model], [data], [train] and [parallel], on top of a preset, below
overrides.

Each setting comes from the last of these that names it: the default in the source, the preset, the recipe,
the command line. A budget (train.steps, train.tokens or train.minutes) replaces the one below it.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from fathom.config.errors import ConfigError, choose_from, need, plain
from fathom.config.override import parse_override
from fathom.config.presets import preset_values
from fathom.config.recipe import Recipe
from fathom.config.schema import Schema

RECIPES = ("demo", "fp8", "own-text", "sft", "small", "tiny", "v3", "v3-2048xh800")  # config/recipes/*.toml
PRESET = "model.preset"  # names a preset; not a setting itself, since a stored recipe holds the shape in full
BUDGETS = ("train.steps", "train.tokens", "train.minutes")

SCHEMA = Schema(root=Recipe, also=(PRESET,))


@dataclass(frozen=True, kw_only=True, slots=True)
class Loaded:
    """A recipe, and where each of its settings came from.

    origin   dotted name -> "default", "preset tiny", "recipe demo" (one that ships with the package), the
             path of a recipe file, or "command line"
    """

    recipe: Recipe
    origin: Mapping[str, str]


def load_recipe(path_or_name: str, overrides: Sequence[str] = ()) -> Loaded:
    """The recipe in a TOML file, or one that ships with the package, with `key=value` overrides on top.

    A name in RECIPES is the packaged recipe; write ./demo for a file of that name. Paths inside a recipe are
    relative to the working folder, as on the command line. Raises ConfigError.
    """
    label, text = _read(path_or_name)
    written = SCHEMA.flatten(_parse(text, label), f"in {label}")
    typed = dict(parse_override(o, SCHEMA) for o in overrides)
    chosen = typed.get(PRESET, written.get(PRESET))
    shape: Mapping[str, Any] = {} if chosen is None else preset_values(chosen)

    values: dict[str, Any] = {}
    origin = dict.fromkeys(SCHEMA.leaves, "default")
    for source, layer in ((f"preset {chosen}", shape), (label, written), ("command line", typed)):
        if any(layer.get(budget) for budget in BUDGETS):
            for budget in BUDGETS:
                values.pop(budget, None)
                origin[budget] = "default"
        given = {name: value for name, value in layer.items() if name != PRESET}
        values |= given
        origin |= dict.fromkeys(given, source)
    return Loaded(recipe=SCHEMA.build(values), origin=origin)


def recipe_text(name: str) -> str:
    """The TOML of a recipe that ships with the package; ConfigError with the known names otherwise."""
    need(name in RECIPES, f"no recipe {plain(name)} ships with fathom", fix=choose_from(name, RECIPES))
    return files("fathom.config").joinpath("recipes", f"{name}.toml").read_text("utf-8")


def _read(path_or_name: str) -> tuple[str, str]:
    """What to call the recipe in messages and origins, and its text."""
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
