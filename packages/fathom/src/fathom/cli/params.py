"""`fathom params`: how large a model is, counted exactly and without building it."""

from __future__ import annotations

from json import dumps
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from fathom.config.model import ModelConfig

PresetArgument = Annotated[str, typer.Argument(help="A preset's name, or a recipe's name or path.")]


def params(
    preset: PresetArgument,
    json: Annotated[bool, typer.Option("--json", help="The four counts as one JSON line.")] = False,
) -> None:
    """Count parameters, active and of MTP, and cache elements per token."""
    from fathom.config.counts import count

    model = _model(preset)
    if json:
        typer.echo(dumps(count(model)._asdict()))
        return
    from rich.console import Console

    console = Console()
    console.print(_table(model))
    for line in _closing(model):
        console.print(line, soft_wrap=True)


def _model(name: str) -> ModelConfig:
    """The model of a preset, or else of a recipe. Where both have the name, their counts are the same."""
    from fathom.config.load import load_recipe
    from fathom.config.presets import PRESETS, load_preset

    return load_preset(name) if name in PRESETS else load_recipe(name).recipe.model


def _table(model: ModelConfig) -> Table:
    from rich.table import Table

    from fathom.config.counts import Part, count, mtp_parts, trunk_parts

    counts = count(model)
    table = Table(title=f"{model.name}: parameters")
    table.add_column("part")
    table.add_column("total", justify="right")
    table.add_column("a token meets", justify="right")

    def rows(parts: list[Part]) -> None:
        for part in parts:
            if part.total:
                table.add_row(part.name, f"{part.total:,}", f"{part.active:,}")

    rows(trunk_parts(model))
    table.add_section()
    table.add_row("model", f"{counts.total:,}", f"{counts.active:,}", style="bold")
    if counts.mtp:
        table.add_section()
        rows(mtp_parts(model))
        table.add_section()
        active = sum(part.active for part in mtp_parts(model))
        table.add_row("MTP, beside the shared tables", f"{counts.mtp:,}", f"{active:,}", style="bold")
    return table


def _closing(model: ModelConfig) -> list[str]:
    """Cache and arithmetic, a line each."""
    from fathom.config.counts import count, flops_per_token, mha_cache_elements

    cache, plain = count(model).cache_elements_per_token, mha_cache_elements(model)
    length = min(4096, model.max_positions)  # the report's pre-training length
    return [
        f"cache per token: {cache:,} elements; plain multi-head attention would hold {plain:,}",
        f"training: {flops_per_token(model, length):.3g} FLOP per token in rows of {length:,} tokens",
    ]
