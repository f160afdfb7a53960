"""`fathom config`: what a recipe holds and where each value came from; the presets and recipes that ship."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Recipes and presets: show, list, copy.")

RecipeArgument = Annotated[str, typer.Argument(help="A packaged recipe's name, or the path of a .toml file.")]
OverridesArgument = Annotated[
    list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Settings on top, such as train.lr=3e-4.")
]


@app.command()
def show(
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of TOML.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say what each setting means.")] = False,
) -> None:
    """Print every setting and where it came from. The output is itself a recipe."""
    from fathom.config.dump import to_flat, to_toml
    from fathom.config.load import SCHEMA, load_recipe

    loaded = load_recipe(recipe, overrides or ())
    helps = {name: str(leaf.field.metadata["help"]) for name, leaf in SCHEMA.leaves.items()}
    if as_json:
        values = to_flat(loaded.recipe)
        rows = {k: {"value": v, "from": loaded.origin[k], "help": helps[k]} for k, v in values.items()}
        typer.echo(json.dumps(rows, ensure_ascii=False))
        return
    notes = dict(loaded.origin)
    if verbose:
        width = max(map(len, notes.values()))
        notes = {name: f"{source:{width}}  {helps[name]}" for name, source in notes.items()}
    typer.echo(to_toml(loaded.recipe, notes), nl=False)


@app.command()
def presets(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of a table.")] = False,
) -> None:
    """List the models that ship, with their sizes."""
    from fathom.config.counts import count, mha_cache_elements
    from fathom.config.presets import PRESETS, load_preset

    models = {name: load_preset(name) for name in PRESETS}
    if as_json:
        typer.echo(json.dumps({name: count(model)._asdict() for name, model in models.items()}))
        return
    typer.echo(
        f"{'preset':12}{'parameters':>18}{'active':>16}{'MTP':>16}{'cache per token':>18}{'of MHA':>9}"
    )
    for name, model in models.items():
        total, active, mtp, cache = count(model)
        share = cache / mha_cache_elements(model)
        typer.echo(f"{name:12}{total:18,}{active:16,}{mtp:16,}{cache:18,}{share:9.1%}")


@app.command()
def recipes(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of a table.")] = False,
) -> None:
    """List the recipes that ship with the package."""
    from fathom.config.load import RECIPES, recipe_text

    about = {name: recipe_text(name).partition("\n")[0].lstrip("# ") for name in RECIPES}
    if as_json:
        typer.echo(json.dumps(about))
        return
    for name, sentence in about.items():
        typer.echo(f"{name:12}{sentence}")


@app.command()
def copy(
    name: Annotated[str, typer.Argument(help="A packaged recipe's name.")],
    file: Annotated[Path, typer.Argument(help="The new file; it must not exist yet.")],
) -> None:
    """Write a packaged recipe to a file of your own, to edit it."""
    from fathom.config.errors import ConfigError
    from fathom.config.load import recipe_text

    text = recipe_text(name)
    try:
        with file.open("x", encoding="utf-8") as out:
            out.write(text)
    except FileExistsError:
        raise ConfigError(f"{file} exists already. Fix: give the name of a new file") from None
    except OSError as error:
        why = error.strerror or str(error)
        raise ConfigError(
            f"cannot write {file} ({why}). Fix: give a file in a folder you may write to"
        ) from None
    typer.echo(f"{file}")
