"""`hhdelay sweep`: a recipe over one or two settings, into a store."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer

from hhdelay.cli.status import summary, text

if TYPE_CHECKING:
    from hhdelay.sweep.run import Progress, Told

Workers = Annotated[int | None, typer.Option(help="Processes; default: one a processor.")]
Scheduler = Annotated[str | None, typer.Option(help="Run on this dask scheduler, as tcp://10.0.0.1:8786.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object instead of text.")]


def sweep(
    recipe: Annotated[str, typer.Argument(help="A packaged recipe's name, or the path of a .toml file.")],
    out: Annotated[Path, typer.Option(help="The store to make; one of the same sweep goes on.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Settings on top, as motif.delay_ms=18.")
    ] = None,
    over: Annotated[
        list[str] | None,
        typer.Option(metavar="AXIS", help="SETTING=first:last:count, log:first:last:count or a,b,c; "
                     "once or twice. Default: delay by strength, or noise."),
    ] = None,
    workers: Workers = None,
    scheduler: Scheduler = None,
    tile: Annotated[int | None, typer.Option(help="Points that are run and stored as one.")] = None,
    engine: Annotated[str | None, typer.Option(help="As of simulate; default: the fastest.")] = None,
    persistence: Annotated[
        bool, typer.Option(help="After the measurement stop the noise: does firing go on?")
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Run a recipe over one or two settings into a store, tile by tile.

    Killed, it loses the tiles that were running and no other; hhdelay resume goes on.
    """
    from hhdelay.config.load import load_recipe
    from hhdelay.engines.choose import ENGINES
    from hhdelay.sweep.axes import default_axes, parse_axis
    from hhdelay.sweep.plan import Sweep
    from hhdelay.sweep.run import run_sweep

    loaded = load_recipe(recipe, overrides or ())
    axes = tuple(map(parse_axis, over)) if over else default_axes(loaded)
    plan = Sweep(recipe=loaded, axes=axes, engine=engine or ENGINES[0], persistence=persistence)
    follow(
        out, as_json,
        lambda tell: run_sweep(plan, out, workers=workers, scheduler=scheduler, tile=tile, progress=tell),
    )  # fmt: skip


def follow(store: Path, as_json: bool, run: Callable[[Progress], Told]) -> None:
    """Run with a bar, say how to go on where it is stopped, and print what was found."""
    from hhdelay.sweep.progress import progress_bar, rate

    last: list[Told] = []
    try:
        with progress_bar() as bar:

            def tell(told: Told) -> None:
                if not last and told.done:
                    print(f"{told.done} of {told.total} tiles are there already", file=sys.stderr)
                last.append(told)
                bar(told)

            told = run(tell)
    except KeyboardInterrupt:
        if last:
            how = f"go on with: hhdelay resume {quote(str(store))}"
            print(f"stopped; {last[-1].done} of {last[-1].total} tiles are kept; {how}", file=sys.stderr)
        raise
    found = summary(store)
    found |= {"seconds": told.seconds, "neuron_steps": told.neuron_steps}
    if as_json:
        typer.echo(json.dumps(found))
        return
    typer.echo(text(found))
    if told.seconds:
        typer.echo(f"took       {told.seconds:.3g} s, {rate(told)}")
    typer.echo(f"see        hhdelay plot {quote(str(store))} --out map.png")
