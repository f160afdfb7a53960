"""What the page's script draws, as one JSON value: rows, curves by row, events, loads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from fathom.report import columns
from fathom.report.curves import Curves, smooth, thin
from fathom.report.loads import layer_labels
from fathom.report.run import Run

POINTS = 1500  # of a curve: about one for each pixel of a wide screen
FEWEST = 300  # of a curve when many runs share the page
SMOOTH_POINTS = 400  # of a smoothed curve
SHARED = 3  # runs with all their points; more share what three have
TICKS = 400  # events marked on a curve, the newest
DETAIL = 200  # characters of an event's detail at a tick
DIGITS = 6  # significant, of a value in the page


class Chart(NamedTuple):
    """One picture of the page."""

    key: str  # of metrics.jsonl
    title: str
    about: str
    smooth: bool = False  # with a mean over the past
    log: bool = False  # begins with a logarithmic scale
    zero: bool = False  # the scale begins at 0
    percent: bool = False
    wide: bool = False
    events: bool = False  # spikes, rollbacks and resumptions are marked


CHARTS = (
    Chart(columns.LOSS, "Training loss", "nats per token", smooth=True, wide=True, events=True),
    Chart(columns.BPB, "Held-out text", "bits per byte"),
    Chart(columns.MTP, "Multi-token prediction", "loss, nats per token", smooth=True),
    Chart(columns.LR, "Learning rate", "of the schedule", zero=True),
    Chart(columns.NORM, "Gradient norm", "before clipping", smooth=True, log=True, events=True),
    Chart(columns.VIOLATION, "Balance of experts", "MaxVio: 0 = even loads", smooth=True, zero=True),
    Chart(columns.RATE, "Throughput", "tokens per second", smooth=True, zero=True),
    Chart(columns.MFU, "Model FLOPs utilisation", "share of the measured matmul rate", smooth=True, zero=True,
          percent=True),
)  # fmt: skip


def payload(runs: Sequence[Run]) -> dict[str, Any]:
    """Charts that have something to show, and every run's share of them."""
    most = POINTS if len(runs) <= SHARED else max(POINTS * SHARED // len(runs), FEWEST)
    drawn = [chart for chart in CHARTS if any(has(run.curves, chart.key) for run in runs)]
    return {
        "charts": [chart._asdict() for chart in drawn],
        "runs": [_run(run, drawn, most) for run in runs],
    }


def has(curves: Curves, key: str) -> bool:
    """Whether a column holds a number at all."""
    return curves.last(key) == curves.last(key)


def _run(run: Run, charts: Sequence[Chart], most: int) -> dict[str, Any]:
    curves = run.curves
    places: dict[tuple[str, str], list[int]] = {}
    values: dict[tuple[str, str], Sequence[float]] = {}
    for chart in charts:
        values[chart.key, "raw"] = curves[chart.key]
        places[chart.key, "raw"] = thin(curves[chart.key], most)
        if chart.smooth and curves.width > 1:
            values[chart.key, "smooth"] = smoothed = smooth(curves.taken(chart.key), curves.width)
            places[chart.key, "smooth"] = thin(smoothed, min(SMOOTH_POINTS, most))
    rows = sorted({place for kept in places.values() for place in kept})
    row = {place: i for i, place in enumerate(rows)}
    drawn: dict[str, dict[str, Any]] = {}
    for (key, kind), kept in places.items():
        if kept:
            at = None if len(kept) == len(rows) else [row[i] for i in kept]  # None = every row
            points = {"at": at, "y": [rounded(values[key, kind][i]) for i in kept]}
            drawn.setdefault(key, {})[kind] = points
    return {
        "name": run.name,
        "width": curves.width,
        "rows": {
            "step": [curves.steps[i] for i in rows],
            "tokens": _column(curves, columns.TOKENS, rows),
            "seconds": _column(curves, columns.SECONDS, rows),
        },
        "curves": drawn,
        "events": _ticks(run),
        "loads": _loads(run),
    }


def _column(curves: Curves, name: str, rows: Sequence[int]) -> list[float] | None:
    """Where each row stands on another axis; None unless every row says so."""
    values = [curves[name][i] for i in rows]
    return [rounded(round(v, 2), 15) for v in values] if all(v == v for v in values) else None


def _ticks(run: Run) -> list[dict[str, Any]]:
    marked = [event for event in run.events if event.kind != "saved"][-TICKS:]
    return [{"step": e.step, "kind": e.kind, "detail": e.detail[:DETAIL]} for e in marked]


def _loads(run: Run) -> dict[str, Any] | None:
    if run.loads is None:
        return None
    dense, trunk = run.whole("model.dense_layers"), run.whole("model.num_layers")
    return run.loads.packed(layer_labels(run.loads.shape[0], dense, trunk))


def rounded(value: float, digits: int = DIGITS) -> float:
    """`value` with `digits` significant digits, whole where it is a whole number."""
    short = float(f"{value:.{digits}g}")
    return int(short) if short.is_integer() and abs(short) < 1e15 else short
