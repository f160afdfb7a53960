"""`fathom report`: what a run did, or how several compare, as one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of runs, also going ones.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="The page; default RUN/report.html for one run.")
    ] = None,
) -> None:
    """Write a page about a run, or about several side by side.

    \b
      fathom report runs/tiny
      fathom report runs/a runs/b --out compare.html

    Curves, expert loads over time, samples, every setting with where it came from; of several
    runs also what differs. One HTML file that asks no host for anything. Prints its path.
    """
    from fathom.report.write import write_report

    print(write_report(runs, out))
