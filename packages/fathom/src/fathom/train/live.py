"""Where a run is, for people: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Self

from rich import progress as bars
from rich.console import Console


class LiveLine:
    """Where the run is: a bar on a terminal, a plain line every `every` steps elsewhere."""

    def __init__(self, title: str, *, every: int, quiet: bool = False) -> None:
        self._console = Console(stderr=True, quiet=quiet)
        self._every = every
        self._bars = bars.Progress(
            bars.TextColumn("{task.description}"),
            bars.BarColumn(bar_width=24),
            bars.TextColumn("{task.percentage:>3.0f}%"),
            bars.TextColumn("{task.fields[line]}"),
            console=self._console,
            disable=not self._console.is_terminal or quiet,
        )
        self._task = self._bars.add_task(title, total=1.0, line="")
        self._title = title

    def show(self, step: int, progress: float, line: str) -> None:
        """The state after `step`; `line` is made by `describe`."""
        self._bars.update(self._task, completed=min(progress, 1.0), line=line)
        if self._bars.disable and step % self._every == 0:
            self.say(f"{self._title} {100 * progress:3.0f} %  {line}")

    def say(self, text: str) -> None:
        """A line that stays."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()


def describe(step: int, values: Mapping[str, float], eta_s: float) -> str:
    """step, loss, tokens/s, MFU, MaxVio, steps left out if any were, ETA: what the live line shows."""
    minutes, seconds = divmod(int(max(eta_s, 0.0)), 60)
    skipped = int(values.get("stability/skipped", 0))
    return (
        f"step {step}  loss {values['train/loss']:.3f}  {values['perf/tokens_per_sec']:,.0f} tok/s  "
        f"MFU {100 * values['perf/mfu']:.0f}%  MaxVio {values['moe/max_violation']:.2f}  "
        f"{f'skipped {skipped}  ' if skipped else ''}"
        f"ETA {minutes}:{seconds:02d}"
    )
