"""`hhdelay bench`: how fast, beside Brian2 and beside what the processor allows."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer


def bench(
    quick: Annotated[bool, typer.Option("--quick", help="A small map, one turn, no large map.")] = False,
    turns: Annotated[int | None, typer.Option(min=1, help="Of each side; 3, with --quick 1.")] = None,
    brian2: Annotated[
        str | None, typer.Option(metavar="PYTHON", help="One that has Brian2; that of .venv-brian2 if here.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of text.")] = False,
) -> None:
    """Make the same map by the fastest engine and by Brian2 in turn, and print rates, times and ratios.

    Brian2 runs the whole grid as one group, cpp_standalone, with OpenMP and with one thread; the ratio is to
    the faster of these. Both sides have two cores and Gaussian noise. Building Brian2's program is a row
    apart. `make bench` makes the environment that it needs. Use a machine without other work.
    """
    from hhdelay.bench import find, full, run, text
    from hhdelay.bench import quick as small

    python = find(brian2, Path.cwd())
    chosen = small if quick else full
    plan = chosen() if turns is None else chosen(turns)

    def tell(stage: str) -> None:
        print(f"bench: {stage}", file=sys.stderr, flush=True)

    rows = run(plan, brian2=python, environment=dict(os.environ), tell=tell)
    typer.echo(json.dumps(rows) if as_json else text(rows))
    if "note" in rows and as_json:
        print(f"bench: {rows['note']}", file=sys.stderr)
