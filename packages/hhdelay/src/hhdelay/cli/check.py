"""`hhdelay check`: the values of the textbook neuron, found again."""

from __future__ import annotations

import json
from typing import Annotated

import typer


def check(
    as_json: Annotated[bool, typer.Option("--json", help="A JSON list of rows instead of a table.")] = False,
) -> None:
    """Find every known value of the neuron and of the scheme again; exit status 1 if one fails."""
    from hhdelay.check import rows

    found = []
    for row in rows():
        found.append(row)
        if not as_json:
            verdict = "pass" if row.passes else "FAIL"
            expected = f"{row.expected:.7g} +- {row.tolerance:g}"
            typer.echo(f"{verdict}  {row.name:50}{row.found:14.7g}  expected {expected}")
    failed = [row for row in found if not row.passes]
    if as_json:
        typer.echo(json.dumps([{**row._asdict(), "pass": row.passes} for row in found]))
    else:
        typer.echo(f"{len(found) - len(failed)} of {len(found)} pass")
    if failed:
        raise typer.Exit(1)
