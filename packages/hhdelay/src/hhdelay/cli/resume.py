"""`hhdelay resume`: the tiles of a sweep that are missing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hhdelay.cli.sweep import AsJson, Scheduler, Workers, follow


def resume(
    store: Annotated[Path, typer.Argument(help="The folder that hhdelay sweep --out has made.")],
    workers: Workers = None,
    scheduler: Scheduler = None,
    as_json: AsJson = False,
) -> None:
    """Run what is missing of a sweep; the store ends as if it had never stopped, to the bit."""
    from hhdelay.sweep.run import resume as run

    follow(store, as_json, lambda tell: run(store, workers=workers, scheduler=scheduler, progress=tell))
