"""How much of a run is behind: by steps, by tokens or by the clock."""

from __future__ import annotations

from dataclasses import dataclass

from fathom.config.errors import need
from fathom.config.train import TrainConfig


@dataclass(slots=True)
class Position:
    """Where a run stands."""

    step: int = 0  # optimizer steps done
    tokens: int = 0  # positions trained on
    elapsed_s: float = 0.0  # time spent in steps, over all processes the run had


class Budget:
    """The end of a run, in the one unit that its configuration names."""

    def __init__(self, config: TrainConfig) -> None:
        """Raises ConfigError when no budget is set."""
        self._steps, self._tokens, self._seconds = config.steps, config.tokens, config.minutes * 60.0
        need(
            bool(self._steps or self._tokens or self._seconds),
            "the run has no budget: train.steps, train.tokens and train.minutes are all 0",
            fix="set one of them, such as train.steps=1000",
        )

    def progress(self, at: Position) -> float:
        """The share of the budget that is behind, 1 at the end."""
        if self._steps:
            return min(at.step / self._steps, 1.0)
        if self._tokens:
            return min(at.tokens / self._tokens, 1.0)
        return min(at.elapsed_s / self._seconds, 1.0)

    def eta_s(self, at: Position) -> float:
        """Seconds to the end at the mean pace so far."""
        done = self.progress(at)
        return at.elapsed_s * (1.0 - done) / done if done else 0.0
