"""A timeline as text: a line a rank, a column a stretch of time."""

from __future__ import annotations

from fathom.schedule.op import Item, Op, Schedule
from fathom.schedule.place import Timeline

CUT = "…"


def draw(timeline: Timeline, *, width: int | None = None) -> str:
    """`F3` is the forward of micro-batch 3, `B`, `I`, `W` as in `Op`, `F5&B2` a pair, `.` waiting.

    Small letters travel towards rank 0: the second route of DualPipe, the way back of DualPipeV. Columns are
    as short as the longest labels allow; what takes longer is drawn out with `-`. `width` cuts the lines.
    """
    schedule, times = timeline.schedule, timeline.times
    # one column after each label keeps neighbours apart
    single = len(f"F{schedule.micros - 1}") + 1
    pairs = any(len(item) == 2 for order in schedule.orders for item in order)
    shortest = [(times.of((Op(kind, 0, 0),)), single) for kind in _kinds(schedule)]
    shortest += [(times.pair, 2 * single)] * pairs
    per_column = min(time / columns for time, columns in shortest if time > 0)
    cell = max(single, round(times.forward / per_column))
    return "\n".join(_line(timeline, rank, per_column, cell, width) for rank in range(schedule.ranks))


def label(schedule: Schedule, item: Item) -> str:
    """What an item is called in a drawing."""
    kinds = [op.kind.lower() if upward(schedule, op) else op.kind for op in item]
    return "&".join(f"{kind}{op.micro}" for kind, op in zip(kinds, item, strict=True))


def upward(schedule: Schedule, op: Op) -> bool:
    """Whether an op's micro-batch is on its way from the last rank to rank 0 there."""
    return schedule.route_of[op.micro] == 1 or op.stage >= schedule.ranks


def _kinds(schedule: Schedule) -> set[str]:
    return {op.kind for order in schedule.orders for item in order for op in item if len(item) == 1}


def _line(timeline: Timeline, rank: int, per_column: float, cell: int, width: int | None) -> str:
    line = ""
    for start, end, item in timeline.rows[rank]:
        first, last = round(start / per_column), round(end / per_column)
        line += "".join("." if at % cell == 0 else " " for at in range(first - len(line)))
        room = max(last - first - 1, 0)
        line += label(timeline.schedule, item).ljust(room, "-")[:room] + " " * (last > first)
    line = line.rstrip()
    return line if width is None or len(line) <= width else line[: max(width - 1, 0)] + CUT
