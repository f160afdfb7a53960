"""What a run folder stores is the recipe, whole: as a dictionary and as TOML, back and forth."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fathom.config.dump import from_dict, to_dict, to_flat, to_toml
from fathom.config.errors import ConfigError
from fathom.config.load import RECIPES, load_recipe
from fathom.config.recipe import Recipe
from fathom.config.schema import Leaf, Schema

SCHEMA = Schema(root=Recipe)
TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12)


def values(leaf: Leaf) -> st.SearchStrategy[Any]:
    """Values that this setting allows by itself."""
    low, high, above, choices = (leaf.field.metadata[k] for k in ("low", "high", "above", "choices"))
    numbers = st.floats(
        low if above is None else above, high, exclude_min=above is not None, allow_infinity=False
    )
    if choices is not None:
        return st.sampled_from(choices)
    if leaf.kind == tuple[str, ...]:
        return st.lists(TEXT, min_size=1, max_size=3, unique=True)
    if leaf.kind == tuple[float, ...]:
        return st.lists(numbers, max_size=2)
    return {bool: st.booleans(), str: TEXT, int: st.integers(low, 2**63 - 1), float: numbers}[leaf.kind]


@st.composite
def recipes(draw: st.DrawFn) -> Recipe:
    names = draw(st.lists(st.sampled_from(sorted(SCHEMA.leaves)), max_size=5, unique=True))
    try:
        recipe: Recipe = SCHEMA.build({name: draw(values(SCHEMA.leaves[name])) for name in names})
    except ConfigError:  # allowed one by one, but not together
        assume(False)
        raise
    return recipe


@settings(deadline=None, derandomize=True, database=None, max_examples=100)
@given(recipe=recipes())
def test_any_recipe_comes_back_equal(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> None:
    assert from_dict(to_dict(recipe)) == recipe
    assert from_dict(json.loads(json.dumps(to_dict(recipe)))) == recipe
    text = to_toml(recipe)
    assert from_dict(tomllib.loads(text)) == recipe
    assert tomllib.loads(to_toml(recipe, dict.fromkeys(SCHEMA.leaves, "a # note"))) == tomllib.loads(text)


@pytest.mark.parametrize("name", RECIPES)
def test_a_stored_recipe_needs_no_preset(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name).recipe
    (tmp_path / "recipe.toml").write_text(to_toml(recipe), encoding="utf-8")
    again = load_recipe(str(tmp_path / "recipe.toml"))
    assert again.recipe == recipe
    assert set(again.origin.values()) == {str(tmp_path / "recipe.toml")}, "every setting is written out"


def test_flat_names_are_what_overrides_take() -> None:
    recipe = load_recipe("demo").recipe
    flat = to_flat(recipe)
    assert list(flat) == list(SCHEMA.leaves)
    arguments = [f"{k}={json.dumps(v)}" for k, v in flat.items() if k not in ("train.steps", "train.tokens")]
    assert load_recipe("v3", arguments).recipe == recipe


@pytest.mark.parametrize("stored", [{"model": {"hiden": 3}}, {"model": 3}, [], None, {"train": {"lr": "x"}}])
def test_a_damaged_store_is_answered_with_the_fix(stored: Any) -> None:
    with pytest.raises(ConfigError, match=r"Fix: "):
        from_dict(stored)
