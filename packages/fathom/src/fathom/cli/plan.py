"""`fathom plan`: what a run would take, before it is one."""

from __future__ import annotations

import sys
from dataclasses import asdict
from json import dumps
from pathlib import Path
from shutil import get_terminal_size
from typing import TYPE_CHECKING, Annotated

import typer

from fathom.cli.plan_balance import balance
from fathom.cli.plan_train import train
from fathom.cli.written import write_whole

if TYPE_CHECKING:
    from fathom.schedule import Schedule, Timeline, Times
    from fathom.schedule.figures import Figures

app = typer.Typer(no_args_is_help=True, help="What a run takes, pipeline schedules, experts on devices.")

ScheduleOption = Annotated[
    str, typer.Option("--schedule", help="gpipe, 1f1b, zb1p, dualpipe, dualpipev; all compares them.")
]


@app.callback()
def plan() -> None:
    """What a run takes, pipeline schedules, experts on devices."""


app.command()(train)
app.command()(balance)


@app.command()
def pipeline(
    schedule: ScheduleOption = "dualpipe",
    ranks: Annotated[int, typer.Option(help="Pipeline ranks.")] = 8,
    micro_batches: Annotated[int, typer.Option(help="Micro-batches per step.")] = 20,
    forward: Annotated[float, typer.Option(help="Time of a forward, any unit.")] = 100,
    backward: Annotated[float, typer.Option(help="Time of a whole backward.")] = 200,
    weight: Annotated[float, typer.Option(help="The part of it for weights.")] = 100,
    pair: Annotated[float, typer.Option(help="Time of a forward and a backward that overlap.")] = 240,
    transfer: Annotated[float, typer.Option(help="Time from one rank to the next.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="The figures as one JSON line.")] = False,
    svg: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a picture; light or dark as its reader.")
    ] = None,
    png: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a picture; needs Pillow.")] = None,
) -> None:
    """Draw a pipeline schedule and say what it costs.

    \b
      fathom plan pipeline --schedule dualpipe --ranks 8 --micro-batches 20
      fathom plan pipeline --schedule all --ranks 16 --micro-batches 120

    Times are those of one rank's share of the network. A stage of dualpipev is half of that, and so
    are its times.
    """
    from fathom.config.errors import need
    from fathom.schedule import SCHEDULES, Times, build

    times = Times(forward, backward, weight, pair, transfer)
    if schedule == "all":
        need(not (svg or png), "there is no picture of all schedules", fix="name one with --schedule")
        _compare({name: _figures(name, ranks, micro_batches, times) for name in SCHEDULES}, json)
        return
    timeline = _place(build(schedule, ranks, micro_batches), times)
    if svg:
        from fathom.schedule.svg import draw_svg

        write_whole(svg, draw_svg(timeline).encode())
        typer.echo(svg)
    if png:
        from fathom.schedule.png import draw_png

        write_whole(png, draw_png(timeline))
        typer.echo(png)
    if json:
        from fathom.schedule.figures import figures

        typer.echo(dumps(asdict(figures(timeline))))
    elif not (svg or png):
        _show(timeline)


def _place(schedule: Schedule, times: Times) -> Timeline:
    """With the times of one of its stages, given those of a rank's share of the network."""
    from fathom.schedule import place

    return place(schedule, times.scaled(schedule.ranks / schedule.stages))


def _figures(name: str, ranks: int, micros: int, times: Times) -> Figures | str:
    """Or why there are none."""
    from fathom.config.errors import ConfigError
    from fathom.schedule import build
    from fathom.schedule.figures import figures

    if min(ranks, micros) < 1:
        build(name, ranks, micros)
    try:
        return figures(_place(build(name, ranks, micros), times))
    except ConfigError as error:
        return str(error)


def _show(timeline: Timeline) -> None:
    from fathom.schedule.draw import draw
    from fathom.schedule.figures import figures

    names = [f"rank {rank}  " for rank in range(timeline.schedule.ranks)]
    room = max(map(len, names))
    # a file or a pipe has no edge
    width = get_terminal_size().columns - room if _is_terminal() else None
    lines = draw(timeline, width=width).splitlines()
    for name, line in zip(names, lines, strict=True):
        typer.echo(f"{name:{room}}{line}")
    found = figures(timeline)
    typer.echo(
        f"{found.schedule}: {found.makespan:,.6g} long, {found.idle_share:.1%} idle, bubble "
        f"{max(found.bubbles):,.6g}; at most {_most(found)} activations on a rank; {_copies(found)}"
    )
    if any(line.endswith("…") for line in lines):
        typer.echo("cut at the terminal's edge; --svg FILE draws all of it")


def _is_terminal() -> bool:
    return sys.stdout.isatty()


def _compare(all_: dict[str, Figures | str], json: bool) -> None:
    if json:
        rows = {name: {"error": one} if isinstance(one, str) else asdict(one) for name, one in all_.items()}
        typer.echo(dumps(rows))
        return
    typer.echo(
        f"{'schedule':10}{'makespan':>12}{'idle':>8}{'bubble':>10}{'formula':>10}{'activations':>13}"
        f"{'copies of weights':>19}"
    )
    for name, one in all_.items():
        if isinstance(one, str):
            typer.echo(f"{name:10}  {one}")
            continue
        typer.echo(
            f"{name:10}{one.makespan:>12,.6g}{one.idle_share:>8.1%}{max(one.bubbles):>10,.6g}"
            f"{one.bubble_by_formula:>10,.6g}{_most(one):>13}{one.weight_copies:>19}"
        )
    typer.echo("activations: the most on a rank, in micro-batches times a rank's share of the network")


def _most(found: Figures) -> str:
    """Activations of micro-batches on the fullest rank, in its share of the network."""
    return f"{max(found.peak_activations) * found.ranks / found.stages:g}"


def _copies(found: Figures) -> str:
    return "weights once" if found.weight_copies == 1 else f"weights {found.weight_copies} times"
