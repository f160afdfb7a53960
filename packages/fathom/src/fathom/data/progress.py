"""How far a long piece of work is: a bar where stderr is a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich import progress as bars
from rich.console import Console

LINE_S = 10.0  # seconds between plain lines
BAR_S = 0.1  # seconds between two positions of the bar


class Progress:
    """One stage after the other, counted in characters."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        columns = (
            bars.TextColumn("{task.description}", markup=False),
            bars.BarColumn(),
            bars.TaskProgressColumn(),
            bars.TimeElapsedColumn(),
        )
        self._bars = bars.Progress(*columns, console=self._console, disable=not self._console.is_terminal)
        self._task: bars.TaskID | None = None
        self._stage, self._total, self._done, self._said_s = "", 0, 0, time.monotonic()

    def start(self, stage: str, total: int = 0) -> None:
        """Begin a stage; `total` characters, 0 when nobody knows."""
        self._complete()
        self._stage, self._total, self._done = stage, total, 0
        self._task = self._bars.add_task(stage, total=total or None)

    def advance(self, characters: int) -> None:
        """So much more is done."""
        self._done += characters
        now_s = time.monotonic()
        if now_s - self._said_s < (LINE_S if self._bars.disable else BAR_S):
            return
        self._said_s = now_s
        if self._task is not None:
            self._bars.update(self._task, completed=self._done)
        if self._bars.disable:
            share = f" of {self._total / 1e6:.1f}" if self._total else ""
            self._console.print(
                f"{self._stage}: {self._done / 1e6:.1f}{share} MB", markup=False, highlight=False
            )

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._complete()
        self._bars.stop()

    def _complete(self) -> None:
        """The current stage is done, whatever its total was thought to be."""
        if self._task is not None:
            self._bars.update(self._task, total=self._done or 1, completed=self._done or 1)
