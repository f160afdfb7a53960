"""`hhdelay reproduce`: the claims of the abstract as figures and sentences on one page."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer

from hhdelay.cli.sweep import AsJson, Workers

if TYPE_CHECKING:
    from hhdelay.sweep.run import Progress


def reproduce(
    out: Annotated[Path, typer.Option(help="Folder of the gallery; one that is there goes on.")],
    quick: Annotated[bool, typer.Option("--quick", help="Coarse and short: figures, no verdicts.")] = False,
    search: Annotated[
        Path | None, typer.Option(help="Folder of hhdelay search, to add what it found; default: one beside.")
    ] = None,
    workers: Workers = None,
    as_json: AsJson = False,
) -> None:
    """Make every figure, and say for each claim of the abstract what was found.

    Writes index.html, figures/, findings.json, took.json and data/. Some minutes on two processors.
    """
    from hhdelay.reproduce import full, report
    from hhdelay.reproduce import quick as small
    from hhdelay.reproduce import reproduce as run

    plan = small() if quick else full()
    if quick and workers is None:
        workers = 1     # starting processes takes longer than these sweeps
    try:
        made = run(out, plan, _bar, workers=workers, search=search)
    except KeyboardInterrupt:
        print(f"stopped; the same command goes on with {quote(str(out))}", file=sys.stderr)
        raise
    if as_json:
        typer.echo(json.dumps(report(made.findings)))
        return
    for one in made.findings:
        typer.echo(f"{one.verdict:26}{one.name.replace('-', ' ')}\n{'':26}{one.found}")
    typer.echo(f"took {made.seconds:.3g} s; see {out / 'index.html'}")


@contextmanager
def _bar(title: str) -> Iterator[Progress]:
    from hhdelay.sweep.progress import progress_bar

    print(title, file=sys.stderr, flush=True)
    with progress_bar() as tell:
        yield tell
