"""`hhdelay search`: are there regimes with several maxima in the delay that noise alone sustains?"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer

from hhdelay.cli.sweep import AsJson, Scheduler, Workers

if TYPE_CHECKING:
    from hhdelay.sweep.run import Progress


def search(
    out: Annotated[Path, typer.Option(help="Folder of the scan; one that is there goes on.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Of every run, as neuron.rate_factor=2.")
    ] = None,
    settings: Annotated[int, typer.Option(help="How many settings are run.")] = 2400,
    workers: Workers = None,
    scheduler: Scheduler = None,
    as_json: AsJson = False,
) -> None:
    """Scan bias, noise, strength and the speed of synapses for several maxima of R without persistence.

    Each setting is run at 24 delays; then the noise stops. Sought are settings with two or more maxima and no
    delay at which firing goes on. The most pronounced of them are run again, longer and with other noise.
    Writes scan-N.zarr, fine-N.zarr, search.json and search.png.
    """
    from hhdelay.search import search as run
    from hhdelay.search import text

    try:
        found = run(out, settings, _bar, overrides=overrides or (), workers=workers, scheduler=scheduler)
    except KeyboardInterrupt:
        print(f"stopped; the same command goes on with {quote(str(out))}", file=sys.stderr)
        raise
    typer.echo(json.dumps(found) if as_json else text(found))


@contextmanager
def _bar(title: str) -> Iterator[Progress]:
    from hhdelay.sweep.progress import progress_bar

    print(title, file=sys.stderr)
    with progress_bar() as tell:
        yield tell
