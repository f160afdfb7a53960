"""How far a sweep is, on stderr: a bar where it is a terminal, else a line now and then."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

from hhdelay.sweep.run import Progress, Told

LINE_S = 10.0   # between two lines


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """What `run_sweep` may tell."""
    if not sys.stderr.isatty():
        yield _lines()
        return
    from rich import progress
    from rich.console import Console

    columns = (
        progress.TextColumn("tiles"), progress.MofNCompleteColumn(), progress.BarColumn(),
        progress.TextColumn("{task.fields[rate]}"), progress.TimeElapsedColumn(),
        progress.TextColumn("ETA"), progress.TimeRemainingColumn(),
    )  # fmt: skip
    with progress.Progress(*columns, console=Console(stderr=True), speed_estimate_period=120.0) as bar:
        task = bar.add_task("tiles", total=None, rate="")

        def tell(told: Told) -> None:
            bar.update(task, total=told.total, completed=told.done, rate=rate(told))

        yield tell


def rate(told: Told) -> str:
    """Neuron-steps a second, or nothing before the first tile."""
    return f"{told.neuron_steps / told.seconds / 1e6:.3g} M neuron-steps/s" if told.seconds else ""


def _lines() -> Progress:
    last, first = perf_counter(), [-1]

    def tell(told: Told) -> None:
        nonlocal last
        if first[0] < 0:
            first[0] = told.done
        if perf_counter() - last < LINE_S or told.done == first[0]:
            return
        last = perf_counter()
        left_s = told.seconds / (told.done - first[0]) * (told.total - told.done)
        parts = (f"{told.done} of {told.total} tiles", rate(told), f"{left_s:.0f} s left")
        print(", ".join(part for part in parts if part), file=sys.stderr, flush=True)

    return tell
