"""Whether the executor takes the time that a schedule's table says, on stages that sleep.

    python benchmarks/pipeline.py [--quick] [--json] [--turns 3] [--schedule dualpipe] [--picture FILE.svg]

8 ranks as threads, 20 micro-batches; a forward pass of a stage takes 100 ms, a backward pass 200, half of it
for weights. A fifth of either is communication, which nothing hides while a pass runs alone: a forward and a
backward pass that take turns hide it all, so that a pair takes 240 and not 300. DualPipeV cuts the network
into twice as many stages of half the time. `benchmarks/pipelines/sleeping.py` says how sleeping is timed.

`table_ms` is fathom.schedule's makespan, `ratio` the measured one over it. `idle_share` is the time in which
ranks do no item, over all ranks' time; `idle_of_1f1b` is over that of 1F1B in the same run. With `--turns`
every figure is that of the turn whose makespan is the median. `--picture` draws DualPipe: the table above,
what was measured below.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

from pipelines.picture import write
from pipelines.sleeping import Measured, run

from fathom.schedule import SCHEDULES, Timeline, Times, build, place

BASE = "1f1b"
DRAWN = "dualpipe"


def planned(name: str, *, quick: bool) -> Timeline:
    """By the table, in ms."""
    times = Times().scaled(0.1 if quick else 1.0)
    if name == "dualpipev":
        times = times.scaled(0.5)
    return place(build(name, *((4, 8) if quick else (8, 20))), times)


def measure(table: Timeline, turns: int) -> list[Measured]:
    """So many steps, the shortest first."""
    found = []
    for turn in range(turns):
        found.append(run(table.schedule, table.times))
        what = f"{table.schedule.name} turn {turn + 1}: {found[-1].makespan:.0f} ms"
        print(f"{what}, {table.makespan:.0f} by the table", file=sys.stderr)
    return sorted(found, key=lambda one: one.makespan)


def figures(table: Timeline, found: list[Measured], base_idle: float | None) -> dict[str, Any]:
    """The line of one schedule."""
    middle, schedule = found[len(found) // 2], table.schedule
    pairs = [p.end - p.start for one in found for row in one.rows for p in row if len(p.item) == 2]
    return {
        "name": schedule.name,
        "table_ms": round(table.makespan, 1),
        "measured_ms": round(middle.makespan, 1),
        "ratio": round(middle.makespan / table.makespan, 4),
        "idle_share": round(middle.idle_share, 4),
        "table_idle_share": round(table.idle_share, 4),
        "idle_of_1f1b": round(middle.idle_share / base_idle, 3) if base_idle else None,
        "pair_ms": round(statistics.median(pairs), 1) if pairs else None,
        "table_pair_ms": table.times.pair if pairs else None,
        "ratios": [round(one.makespan / table.makespan, 4) for one in found],
        "ranks": schedule.ranks,
        "micro_batches": schedule.micros,
        "stages": schedule.stages,
    }


def main() -> None:
    """Measure, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="4 ranks, 8 micro-batches, a tenth of the times")
    parser.add_argument("--json", action="store_true", help="one JSON line a schedule")
    parser.add_argument("--turns", type=int, default=1, help="steps of every schedule")
    parser.add_argument("--schedule", choices=tuple(SCHEDULES), action="append", help="only this one")
    parser.add_argument("--picture", type=Path, help="SVG or PNG file for time lines")
    asked = parser.parse_args()
    idle = None
    for name in sorted(asked.schedule or SCHEDULES, key=lambda name: name != BASE):
        table = planned(name, quick=asked.quick)
        found = measure(table, asked.turns)
        line = figures(table, found, idle)
        idle = line["idle_share"] if name == BASE else idle
        lines = "".join(f"{key:>18}  {value}\n" for key, value in line.items())
        print(json.dumps(line) if asked.json else lines, flush=True)
        if asked.picture and name == (DRAWN if not asked.schedule else asked.schedule[0]):
            write(asked.picture, table, found[len(found) // 2])


if __name__ == "__main__":
    main()
