"""`hhdelay plot`: a sweep, a run or the rate curve of one neuron as a picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

    Drawn = tuple[str, Figure, dict[str, Any]]

RATE = "f-I"
OF_SWEEP = {1: ("lines", "phase", "panels"), 2: ("map", "lines", "panels")}  # by its axes; the default first
OF_RUN = ("voltage", "gates", "spikes", "raster", "histogram")
ALL = tuple(dict.fromkeys((*OF_SWEEP[2], *OF_SWEEP[1], *OF_RUN, RATE)))


def plot(
    source: Annotated[
        list[str], typer.Argument(help="Folder of a sweep (several: side by side), .npz of a run, or f-I.")
    ],
    out: Annotated[Path, typer.Option(help="The picture: .png, .svg or .pdf.")],
    what: Annotated[str | None, typer.Option(help=f"One of {', '.join(ALL)}; default: what suits.")] = None,
    width_in: Annotated[float, typer.Option(min=2, max=20, help="3.4 for a column, 7 for a page.")] = 7.0,
    log: Annotated[bool, typer.Option("--log", help="Count intervals on a logarithmic axis.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of text.")] = False,
) -> None:
    """Draw the map of a sweep, R over its axis, spikes and intervals of a run, or rate against current."""
    from hhdelay.config.errors import choose_from, need, plain
    from hhdelay.plot.save import check_out, save

    check_out(out)
    if what is not None:
        need(what in ALL, f"--what {plain(what)} is not known", fix=choose_from(what, ALL))
    chosen, figure, found = _draw(source, what, width_in, log)
    save(figure, out)
    if as_json:
        typer.echo(json.dumps({"out": str(out), "what": chosen, **found}))
        return
    typer.echo(f"{chosen:22}{out}")
    for name, value in found.items():
        typer.echo(f"{name.replace('_', ' '):22}{_words(value)}")


def _words(value: Any) -> str:
    return " ".join(_words(one) for one in value) or "-" if isinstance(value, list) else f"{value:.4g}"


def _draw(source: list[str], what: str | None, width_in: float, log: bool) -> Drawn:
    """What was drawn, the figure, and the numbers that go with it."""
    from hhdelay.config.errors import need

    runs = [one for one in source if one.endswith(".npz")]
    if source == [RATE]:
        from hhdelay.plot.firing import rate_curve, rate_figure

        need(what in (None, RATE), f"--what {what} cannot be drawn of {RATE}", fix="leave --what out")
        return RATE, rate_figure(rate_curve(), width_in=width_in), {}
    if runs:
        need(len(source) == 1, f"{len(source)} sources are given, and a run is drawn alone",
             fix="give one .npz")  # fmt: skip
        return _draw_run(Path(source[0]), what, width_in, log)
    return _draw_sweeps(source, what, width_in)


def _draw_run(path: Path, what: str | None, width_in: float, log: bool) -> Drawn:
    from hhdelay.plot import run as draw
    from hhdelay.plot.saved import read_run

    held = read_run(path)
    chosen = what or ("voltage" if held.trace else "spikes")
    _check_fits(chosen, OF_RUN, "a run")
    if chosen in ("voltage", "gates"):
        return chosen, draw.voltage(held, gates=chosen == "gates", width_in=width_in), {}
    if chosen == "raster":
        return chosen, draw.raster(held, width_in=width_in), {}
    of_intervals = draw.histogram if chosen == "histogram" else draw.raster_and_histogram
    return chosen, of_intervals(held, log=log, width_in=width_in), {}


def _draw_sweeps(paths: list[str], what: str | None, width_in: float) -> Drawn:
    from hhdelay.config.errors import need
    from hhdelay.plot import lines
    from hhdelay.plot.map import coherence_map
    from hhdelay.store.read import open_sweep

    sweeps = [open_sweep(path) for path in paths]
    dims = sweeps[0]["R"].ndim
    chosen = what or (OF_SWEEP[dims][0] if len(sweeps) == 1 else "panels")
    if chosen == "panels":
        return chosen, lines.panels(sweeps, width_in=width_in), {}
    need(len(sweeps) == 1, f"--what {chosen} is drawn of one sweep, not {len(sweeps)}",
         fix="use --what panels")  # fmt: skip
    _check_fits(chosen, OF_SWEEP[dims], f"a sweep over {'one axis' if dims == 1 else 'two axes'}")
    draw = {"map": coherence_map, "lines": lines.coherence_lines, "phase": lines.phase_lines}[chosen]
    return chosen, draw(sweeps[0], width_in=width_in), _maxima(sweeps[0])


def _check_fits(what: str, fitting: tuple[str, ...], source: str) -> None:
    from hhdelay.config.errors import need

    need(what in fitting, f"--what {what} cannot be drawn of {source}",
         fix=f"use one of {', '.join(fitting)}")  # fmt: skip


def _maxima(sweep: xr.Dataset) -> dict[str, Any]:
    """Of a sweep of the delay, the maxima of R and their spacing in mean intervals; of a map, its tongues."""
    from hhdelay.analysis import spacing, tongues
    from hhdelay.plot.grid import DELAY, grid_of, peaks_of

    grid = grid_of(sweep)
    if grid.x.setting != DELAY:
        return {}
    if grid.y is not None:
        rows = [peaks_of(grid.row(k)) for k in range(len(grid.y.values))]
        grown = tongues(grid.y.values, rows)
        return {"tongues_ms": [round(one.peaks[-1].position_ms, 3) for one in grown],
                "tips": [one.tip for one in grown]}  # fmt: skip
    peaks = peaks_of(grid)
    found: dict[str, Any] = {"maxima_ms": [round(one.position_ms, 3) for one in peaks]}
    if sum(not one.edge for one in peaks) >= 2:
        found["spacing_in_intervals"] = round(spacing(peaks).ratio, 4)
    return found
