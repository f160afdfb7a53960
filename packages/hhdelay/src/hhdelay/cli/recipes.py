"""`hhdelay recipes`: the recipes that ship, and every setting of one of them."""

from __future__ import annotations

import json
from typing import Annotated

import typer


def recipes(
    recipe: Annotated[str | None, typer.Argument(help="A packaged name, or the path of a .toml.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Settings on top, as motif.delay_ms=18.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of text.")] = False,
) -> None:
    """List the recipes that ship, or print one: all its settings and their meaning, itself a recipe."""
    from hhdelay.config.load import RECIPES, load_recipe, recipe_text, to_toml
    from hhdelay.config.schema import leaves

    if recipe is None:
        about = {name: recipe_text(name).partition("\n")[0].lstrip("# ") for name in RECIPES}
        lines = [f"{name:12}{sentence}" for name, sentence in about.items()]
        typer.echo(json.dumps(about) if as_json else "\n".join(lines))
        return
    loaded = load_recipe(recipe, overrides or ())
    helps = {name: str(leaf.field.metadata["help"]) for name, leaf in leaves().items()}
    if not as_json:
        typer.echo(to_toml(loaded, helps), nl=False)
        return
    found = {}
    for name, meaning in helps.items():
        table, _, key = name.partition(".")
        found[name] = {"value": getattr(getattr(loaded, table), key), "help": meaning}
    typer.echo(json.dumps(found))
