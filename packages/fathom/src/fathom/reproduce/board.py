"""How far several runs are, for people: a bar each on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich import progress as bars
from rich.console import Console

from fathom.reproduce.records import is_finished, reached
from fathom.reproduce.side_by_side import Job
from fathom.train.budget import Budget

PLAIN_S = 60.0  # between plain lines


class Board:
    """Fed by the records that the runs write."""

    def __init__(self, jobs: Sequence[Job], *, quiet: bool = False) -> None:
        self._console = Console(stderr=True, quiet=quiet)
        self._bars = bars.Progress(
            bars.TextColumn("{task.description}"),
            bars.BarColumn(bar_width=24),
            bars.TextColumn("{task.percentage:>3.0f}%"),
            bars.TextColumn("{task.fields[line]}"),
            console=self._console,
            disable=not self._console.is_terminal or quiet,
        )
        self._left = {job.name: job for job in jobs}
        self._tasks = {job.name: self._bars.add_task(job.name, total=1.0, line="") for job in jobs}
        self._said = time.monotonic()

    def __enter__(self) -> Self:
        self._bars.start()
        self.update()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def update(self) -> None:
        """Look at all runs, and say what is new."""
        going = []
        for job in list(self._left.values()):
            last, train = reached(job.folder), job.loaded.recipe.train
            if last.at.step == 0:
                continue
            done, left = Budget(train).progress(last.at), Budget(train).eta_s(last.at)
            line = f"step {last.at.step}  loss {last.loss:.3f}"
            minutes, seconds = divmod(int(left), 60)
            self._bars.update(
                self._tasks[job.name], completed=done,
                line=line if done >= 1.0 else f"{line}  {minutes}:{seconds:02d} left",
            )  # fmt: skip
            if is_finished(job.folder, train):
                del self._left[job.name]
                self._plain(f"{job.name} done  {line}")
            else:
                going.append(f"{job.name} {100 * done:.0f} %  loss {last.loss:.3f}")
        if going and time.monotonic() - self._said >= PLAIN_S:
            self._said = time.monotonic()
            self._plain("   ".join(going))

    def _plain(self, text: str) -> None:
        if self._bars.disable:
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)
