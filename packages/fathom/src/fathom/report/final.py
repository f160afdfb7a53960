"""The figures a run ends with, or has come to so far."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fathom.report import columns
from fathom.report.curves import Curves
from fathom.report.jsonl import number
from fathom.report.run import Run

ENDINGS = ("diverged", "stopped")  # events after which no step comes
BUDGETS = {"train.steps": "steps", "train.tokens": "tokens", "train.minutes": "minutes"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Final:
    """NaN and None = not recorded."""

    steps: int
    width: int  # last steps that loss, MTP's loss and MaxVio are means of
    loss: float  # nats per token
    mtp: float  # nats per token
    bits_per_byte: float  # on held-out text, the newest measure
    tokens: float
    seconds: float  # inside steps
    rate: float  # tokens per second, over the whole time
    mfu: float  # mean over the time
    violation: float  # MaxVio
    spikes: int | None  # skipped steps
    rollbacks: int | None
    progress: float  # share of the budget
    state: str  # finished, stopped, diverged, or unfinished


def final_figures(run: Run) -> Final:
    """All of them. `rate` falls back to the mean of what the steps say where tokens or time are missing."""
    curves = run.curves
    tokens, seconds = curves.last(columns.TOKENS), curves.last(columns.SECONDS)
    rate = tokens / seconds if seconds > 0.0 else math.nan
    progress = _progress(run, tokens, seconds)
    return Final(
        steps=curves.steps[-1],
        width=curves.width,
        loss=curves.final(columns.LOSS),
        mtp=curves.final(columns.MTP),
        bits_per_byte=curves.last(columns.BPB),
        tokens=tokens,
        seconds=seconds,
        rate=rate if rate == rate else time_mean(curves, columns.RATE),
        mfu=time_mean(curves, columns.MFU),
        violation=curves.final(columns.VIOLATION),
        spikes=_counted(run, columns.SKIPPED, "spike", "not finite"),
        rollbacks=_counted(run, columns.ROLLBACKS, "rollback"),
        progress=progress,
        state=_state(run, progress),
    )


def time_mean(curves: Curves, name: str) -> float:
    """Mean of a figure weighted by the time of each step; the plain mean where times are not recorded."""
    total, weight, before = 0.0, 0.0, 0.0
    for value, at in zip(curves[name], curves[columns.SECONDS], strict=True):
        if at == at:
            spent, before = max(at - before, 0.0), at
            if value == value:
                total, weight = total + value * spent, weight + spent
    if weight:
        return total / weight
    values = [value for value in curves[name] if value == value]
    return sum(values) / len(values) if values else math.nan


def _counted(run: Run, column: str, *kinds: str) -> int | None:
    """How often something happened: the larger of the metrics' count and the events, which may be cut."""
    count = run.curves.last(column)
    if count != count and not run.events:
        return None
    return max(int(count) if count == count else 0, run.count(*kinds))


def _progress(run: Run, tokens: float, seconds: float) -> float:
    behind = {"steps": float(run.curves.steps[-1]), "tokens": tokens, "minutes": seconds / 60.0}
    for name, unit in BUDGETS.items():
        budget = number(run.settings.get(name))
        if budget > 0.0:
            return min(behind[unit] / budget, 1.0) if behind[unit] == behind[unit] else math.nan
    return math.nan


def _state(run: Run, progress: float) -> str:
    last = next((event for event in reversed(run.events) if event.kind != "saved"), None)
    if last is not None and last.kind in ENDINGS and last.step >= run.curves.steps[-1]:
        return last.kind
    return "finished" if progress >= 1.0 else "unfinished"
