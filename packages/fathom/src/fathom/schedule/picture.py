"""A timeline as boxes on a page: one geometry for SVG and PNG. Lengths in CSS pixels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import floor, log10

from fathom.schedule.draw import label, upward
from fathom.schedule.op import Item
from fathom.schedule.place import Timeline

ROW, GAP = 30, 6  # height of a rank, and what lies between two
LEFT, RIGHT, TOP = 64, 24, 66
AXIS, LEGEND = 36, 26  # heights below the ranks: the axis, and a line of the legend
FORWARD = 28  # width of the shortest item, so that "F19" fits
WIDEST, NARROWEST = 3600, 720
TICK = 90  # two marks of the axis are about this far apart
LETTER, WORD = 6.1, 6.6  # a character of a label at 10 px, of the legend at 12 px
MEANING = {"F": "forward", "B": "backward", "I": "backward for inputs", "W": "backward for weights"}


@dataclass(frozen=True)
class Box:
    """A piece of an item: all of it, or one half of a pair."""

    x: float
    y: float
    width: float
    height: float
    shade: str  # the op's kind; "u" is added for micro-batches on their way to rank 0
    text: str  # empty where there is no room
    meaning: str


@dataclass(frozen=True)
class Picture:
    """Everything on the page but its colours."""

    title: str
    subtitle: str
    width: float
    height: float
    bottom: float  # where the ranks end
    tracks: tuple[tuple[float, str], ...]  # top and name of each rank
    boxes: tuple[Box, ...]
    ticks: tuple[tuple[float, str], ...]  # on the time axis
    legend: tuple[tuple[float, float, str, str], ...]  # x, y, shade or "", words


def lay_out(timeline: Timeline) -> Picture:
    """Where everything goes."""
    schedule, makespan = timeline.schedule, timeline.makespan
    items = [item for order in schedule.orders for item in order]
    shortest = min(time for item in items if (time := timeline.times.of(item)) > 0)
    inner = min(max(FORWARD * makespan / shortest, NARROWEST), WIDEST)
    scale = inner / makespan
    boxes = tuple(_boxes(timeline, scale))
    bottom = TOP + schedule.ranks * (ROW + GAP) - GAP
    legend = tuple(_legend({box.shade for box in boxes}, bottom + AXIS))
    lines = len({y for _, y, _, _ in legend})
    idle = f"{timeline.idle_share:.1%} idle, {max(timeline.bubbles):,.6g} on the rank that waits longest"
    return Picture(
        title=f"{schedule.name}: {schedule.ranks} ranks, {schedule.micros} micro-batches",
        subtitle=f"{makespan:,.6g} units of time; {idle}",
        width=LEFT + inner + RIGHT,
        height=bottom + AXIS + lines * LEGEND + GAP,
        bottom=bottom,
        tracks=tuple((TOP + rank * (ROW + GAP), f"rank {rank}") for rank in range(schedule.ranks)),
        boxes=boxes,
        ticks=tuple(_ticks(makespan, scale)),
        legend=legend,
    )


def _boxes(timeline: Timeline, scale: float) -> Iterator[Box]:
    schedule = timeline.schedule
    for rank, row in enumerate(timeline.rows):
        for start, end, item in row:
            height = ROW / len(item)
            for half, op in enumerate(item):
                width, text = (end - start) * scale, label(schedule, (op,))
                yield Box(
                    LEFT + start * scale, TOP + rank * (ROW + GAP) + half * height, width, height,
                    op.kind + "u" * upward(schedule, op), text if len(text) * LETTER + 2 <= width else "",
                    f"{MEANING[op.kind]} of micro-batch {op.micro} in stage {op.stage}: "
                    f"{start:,.6g} to {end:,.6g}{_with(item, op.kind)}",
                )  # fmt: skip


def _with(item: Item, kind: str) -> str:
    other = [op for op in item if op.kind != kind]
    return f", overlapped with {other[0].kind}{other[0].micro}" if other else ""


def _legend(shades: set[str], y: float) -> Iterator[tuple[float, float, str, str]]:
    """A line of kinds; of two directions a second one."""
    x = float(LEFT)
    for kind in MEANING:
        if shades & {kind, kind + "u"}:
            yield x, y, kind, f"{kind} {MEANING[kind]}"
            x += 20 + len(f"{kind} {MEANING[kind]}") * WORD + 14
    back = [kind + "u" for kind in MEANING if kind + "u" in shades]
    for n, shade in enumerate(back):
        yield LEFT + 18.0 * n, y + LEGEND, shade, ""
    if back:
        words = "small letters: micro-batches on their way to rank 0; one above the other: at the same time"
        yield LEFT + 18.0 * len(back) + 2, y + LEGEND, "", words


def _ticks(makespan: float, scale: float) -> Iterator[tuple[float, str]]:
    """Round numbers: 1, 2 or 5 times a power of ten."""
    rough = TICK / scale
    ten = 10.0 ** floor(log10(rough))
    step = next(m * ten for m in (1, 2, 5, 10) if m * ten >= rough)
    for n in range(floor(makespan / step) + 1):
        yield LEFT + n * step * scale, f"{n * step:,.6g}"
