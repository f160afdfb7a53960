"""The figures of every step: read as columns, smoothed, and thinned to what a picture can show."""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate, repeat
from pathlib import Path

from fathom.report import columns
from fathom.report.jsonl import Lines, number

METRICS = "metrics.jsonl"
SHARE = 0.02  # of a run: over how much of it the smoothed curves and the final figures are taken


class Curves:
    """One column per figure and one row per step, steps ascending; NaN where a line says nothing."""

    def __init__(self) -> None:
        self.steps = array("q")
        self.damaged = 0  # lines left out
        self._columns: dict[str, array[float]] = {}  # those seen, filled up when asked for

    def __len__(self) -> int:
        return len(self.steps)

    def __getitem__(self, name: str) -> array[float]:
        column = self._columns.setdefault(name, array("d"))
        column.extend(repeat(math.nan, len(self) - len(column)))
        return column

    def add(self, step: int, values: dict[str, float]) -> None:
        """A line of `step`. One of the same step adds to it; an earlier one begins a second attempt there."""
        if self.steps and step < self.steps[-1]:
            kept = bisect_left(self.steps, step)
            del self.steps[kept:]
            for column in self._columns.values():
                del column[kept:]
        if not self.steps or step > self.steps[-1]:
            self.steps.append(step)
        for name, value in values.items():
            self[name][-1] = value

    def last(self, name: str) -> float:
        """The newest value that is a number; NaN if there is none."""
        column = self._columns.get(name, ())
        return next((value for value in reversed(column) if value == value), math.nan)

    @property
    def width(self) -> int:
        """Steps over which curves are smoothed and final figures taken: a fiftieth of the run."""
        return max(math.ceil(SHARE * len(self)), 1)

    def taken(self, name: str) -> array[float]:
        """The column without the steps that the run skipped, which changed no weight: NaN there."""
        column = array("d", self[name])
        before = 0.0
        for i, count in enumerate(self[columns.SKIPPED]):
            if count == count:
                if count > before:
                    column[i] = math.nan
                before = count
        return column

    def final(self, name: str) -> float:
        """Mean of a figure over the last `width` steps that were taken."""
        values = [value for value in self.taken(name)[-self.width :] if value == value]
        return sum(values) / len(values) if values else self.last(name)


def read_curves(run: Path) -> Curves:
    """RUN/metrics.jsonl."""
    curves, lines = Curves(), Lines(run / METRICS)
    for step, line in lines:
        curves.add(step, {name: number(value) for name, value in line.items() if name in columns.ALL})
    curves.damaged = lines.damaged
    return curves


def smooth(values: Sequence[float], width: int) -> array[float]:
    """Mean over the `width // 2` values before and after each; unlike a mean of the past, it does not lag.

    Near the start, where losses fall fast, the window narrows on both sides alike; at the end it is cut.
    NaN counts as no value: it stays NaN and the mean passes over it.
    """
    half, n = width // 2, len(values)
    total = array("d", accumulate((v if v == v else 0.0 for v in values), initial=0.0))
    known = array("q", accumulate((int(v == v) for v in values), initial=0))
    smoothed = array("d")
    for i, value in enumerate(values):
        first, end = i - min(half, i), min(i + min(half, i), n - 1) + 1
        inside = known[end] - known[first]
        smoothed.append((total[end] - total[first]) / inside if value == value else math.nan)
    return smoothed


def thin(values: Sequence[float], most: int) -> list[int]:
    """Places of at most `most` values that draw the same picture, ascending; NaN has no place.

    All if they fit; else the first, the last, and the smallest and the largest of equal stretches, so that
    no spike is lost.
    """
    assert most >= 4, f"{most} places cannot hold both ends and an extreme pair"
    there = [i for i, value in enumerate(values) if value == value]
    if len(there) <= most:
        return there
    stretches = (most - 2) // 2
    kept = {there[0], there[-1]}
    for k in range(stretches):
        part = there[k * len(there) // stretches : (k + 1) * len(there) // stretches]
        kept |= {min(part, key=values.__getitem__), max(part, key=values.__getitem__)}
    return sorted(kept)
