"""What a run says of itself: JSON lines always, TensorBoard when it is installed, a live line for people."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich import progress as bars
from rich.console import Console

from fathom.checkpoint.folder import disk_errors

METRICS = "metrics.jsonl"


class Metrics:
    """RUN/metrics.jsonl, one object per step, and the same scalars in RUN/tensorboard."""

    def __init__(self, run: Path, *, step: int) -> None:
        """Continue after `step` steps: lines of later ones, left by a run that died, are dropped."""
        self.path = run / METRICS
        with disk_errors(self.path):
            run.mkdir(parents=True, exist_ok=True)
            kept = [line for line in self._lines() if line["step"] <= step]
            whole = self.path.with_suffix(".tmp")
            whole.write_text("".join(json.dumps(line) + "\n" for line in kept))
            whole.replace(self.path)
            self._file = self.path.open("a")
        self._board = _tensorboard(run / "tensorboard", step)

    def _lines(self) -> list[dict[str, Any]]:
        if not self.path.exists():
            return []
        lines = []
        for text in self.path.read_text().splitlines():
            try:
                line = json.loads(text)
            except json.JSONDecodeError:
                break  # the line a killed process was writing
            if not isinstance(line, dict) or not isinstance(line.get("step"), int):
                break
            lines.append(line)
        return lines

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """One line; values that are not finite become null, which JSON knows."""
        row = {"step": step} | {k: v if math.isfinite(v) else None for k, v in values.items()}
        with disk_errors(self.path):
            self._file.write(json.dumps(row) + "\n")
            self._file.flush()
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush and release the files."""
        self._file.close()
        if self._board is not None:
            self._board.close()


def _tensorboard(folder: Path, step: int) -> Any:
    """A writer if tensorboard is installed, else None."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=step + 1)


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
    """step, loss, tokens/s, MFU, MaxVio, ETA: what the live line shows."""
    minutes, seconds = divmod(int(max(eta_s, 0.0)), 60)
    return (
        f"step {step}  loss {values['train/loss']:.3f}  {values['perf/tokens_per_sec']:,.0f} tok/s  "
        f"MFU {100 * values['perf/mfu']:.0f}%  MaxVio {values['moe/max_violation']:.2f}  "
        f"ETA {minutes}:{seconds:02d}"
    )
