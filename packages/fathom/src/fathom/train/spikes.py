"""Steps that go wrong: which are left out, and when a run can no longer be helped by that.

A loss or a gradient norm that is no number, or far above the recent ones, costs one batch and not the run.
The report had no spike it could not recover from (section 1) and names no rule; leaving batches out is that
of PaLM (arXiv 2204.02311, section 5.1), measured here against the spread of the run itself.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from fathom.config.train import StabilityConfig

NOT_FINITE = "not finite"  # the kind of a step that is left out because of a NaN or an infinity
LEAST_DEVIATION = 0.01  # nats of loss, 1 % of norm: where nothing varies, the least change is no spike
SMALLEST_NORM = 1e-30  # its logarithm is finite


class Skip(NamedTuple):
    """Why a step is left out."""

    kind: str  # "spike" or "not finite", as in events.jsonl
    detail: str


class Level:
    """The recent values of one quantity, and how far above them a new one may lie."""

    def __init__(self, window: int) -> None:
        self.values: deque[float] = deque(maxlen=window)

    def threshold(self, deviations: float) -> float:
        """The largest value that is no spike; infinity until the window is full, or if `deviations` is 0."""
        if not deviations or len(self.values) < (self.values.maxlen or 0):
            return math.inf
        count = len(self.values)
        mean = math.fsum(self.values) / count
        spread = math.sqrt(math.fsum((value - mean) ** 2 for value in self.values) / count)
        return mean + deviations * max(spread, LEAST_DEVIATION)


class Watch:
    """Judges each step by its loss (nats) and the logarithm of its gradient norm, before the update.

    Norms are positive and skewed: in logarithms, a few large ones neither hide a spike nor feign one. A spike
    enters the history clipped at its threshold, so a lasting change of level is followed after a few steps.
    """

    def __init__(self, config: StabilityConfig) -> None:
        self.config = config
        self.loss, self.norm = Level(config.window), Level(config.window)
        self.recent: deque[int] = deque(maxlen=config.window)  # 1 = skipped
        self.counts = {"spike": 0, "not finite": 0, "rollback": 0}  # over the whole run
        self.last: Skip | None = None  # the latest that was skipped

    @property
    def skipped(self) -> int:
        """Steps left out so far."""
        return self.counts["spike"] + self.counts["not finite"]

    @property
    def exhausted(self) -> bool:
        """More steps were left out among the recent ones than the configuration allows."""
        return sum(self.recent) > self.config.limit

    def judge(self, loss: float, norm: float, where: Callable[[], str | None] = lambda: None) -> Skip | None:
        """Why this step must not change the weights; None = it may. Remembers the step either way.

        where   asked for the layer, if the loss or the norm is no number
        """
        skip = self._reason(loss, norm)
        found = where() if skip is not None and skip.kind == NOT_FINITE else None
        if skip is not None and found:
            skip = skip._replace(detail=f"{skip.detail}, first in {found}")
        self.recent.append(int(skip is not None))
        if skip is not None:
            self.counts[skip.kind] += 1
            self.last = skip
        return skip

    def _reason(self, loss: float, norm: float) -> Skip | None:
        if not (math.isfinite(loss) and math.isfinite(norm)):
            return Skip(NOT_FINITE, f"loss {loss:g}, gradient norm {norm:g}")
        above = []
        for level, value, what in (
            (self.loss, loss, f"loss {loss:.4g}"),
            (self.norm, math.log(max(norm, SMALLEST_NORM)), f"gradient norm {norm:.4g}"),
        ):
            threshold = level.threshold(self.config.spike)
            if value > threshold:
                shown = threshold if level is self.loss else math.exp(threshold)
                above.append(f"{what} is above {shown:.4g}")
            level.values.append(min(value, threshold))
        return Skip("spike", " and ".join(above)) if above else None

    def went_back(self) -> None:
        """The run took its weights back from a checkpoint: begin a new history, and count that."""
        self.counts["rollback"] += 1
        for history in (self.loss.values, self.norm.values, self.recent):
            history.clear()

    def summary(self, steps: int) -> str:
        """One line for the end of a run."""
        skipped = [f"{n} {kind}" for kind, n in self.counts.items() if n and kind != "rollback"]
        told = f"{self.skipped} skipped ({', '.join(skipped)})" if skipped else "no spikes"
        back = self.counts["rollback"]
        return f"{steps:,} steps, {told}, {f'{back} rollback' if back else 'no rollback'}{'s' * (back != 1)}"

    def state_dict(self) -> dict[str, Any]:
        """All that later verdicts depend on, as JSON, exact."""
        return {
            "loss": list(self.loss.values),
            "log_norm": list(self.norm.values),
            "recent": list(self.recent),
            "counts": dict(self.counts),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`; from an empty one (a checkpoint of before there was a watch), begin anew."""
        for history, name in (
            (self.loss.values, "loss"), (self.norm.values, "log_norm"), (self.recent, "recent")
        ):  # fmt: skip
            history.clear()
            history.extend(state.get(name, ()))
        self.counts |= state.get("counts", {})
