"""How many tokens to draft: whatever has been measured to be fastest, measured again from time to time.

Verifying a draft is not free in a mixture of experts: two tokens choose nearly twice the experts of one, and
decoding is bound by reading them. So whether drafts pay depends on the machine, the batch and the text.
"""

from __future__ import annotations

from dataclasses import dataclass, field

TRIAL = 4  # steps at a depth before it is judged, or judged again
REST = 256  # steps at the best depth between trials of the others
MEMORY = 0.9  # share of what was measured that the next step keeps


@dataclass(slots=True)
class Rate:
    """Tokens per second, with a fading memory."""

    tokens: float = 0.0
    seconds: float = 0.0
    steps: int = 0

    def add(self, tokens: float, seconds: float) -> None:
        """One step."""
        self.tokens = MEMORY * self.tokens + tokens
        self.seconds = MEMORY * self.seconds + seconds
        self.steps += 1

    @property
    def value(self) -> float:
        """Tokens per second; 0 before the first step."""
        return self.tokens / self.seconds if self.seconds else 0.0


@dataclass(slots=True)
class _Lane:
    """Steps of about one number of sequences."""

    rates: list[Rate]
    trial: int = 0  # the depth on trial; past the last = none is
    left: int = TRIAL
    rest: int = 0


@dataclass(slots=True)
class Pace:
    """Chooses among the depths 0 (no draft) to `most`, apart for each doubling of the number of sequences."""

    most: int
    adaptive: bool = True
    _lanes: dict[int, _Lane] = field(default_factory=dict)

    def depth(self, sequences: int) -> int:
        """Tokens to draft for each of so many sequences."""
        if not self.adaptive or not self.most:
            return self.most
        lane = self._lane(sequences)
        return lane.trial if lane.trial <= self.most else self._best(lane)

    def saw(self, depth: int, sequences: int, *, tokens: float, seconds: float) -> None:
        """A step that verified and drafted `depth` tokens gave so many, each sequence, in so long."""
        if not self.adaptive or depth > self.most:
            return
        lane = self._lane(sequences)
        lane.rates[depth].add(tokens, seconds)
        if lane.trial <= self.most:
            if depth == lane.trial:
                lane.left -= 1
            if lane.left <= 0:
                lane.trial, lane.left = self._next_trial(lane), TRIAL
        else:
            lane.rest += 1
            if lane.rest >= REST:
                lane.rest, lane.trial = 0, -1
                lane.trial = self._next_trial(lane)

    def _next_trial(self, lane: _Lane) -> int:
        """The next depth but the best; it is measured all the time."""
        best = self._best(lane) if all(rate.steps for rate in lane.rates) else -1
        return next((d for d in range(lane.trial + 1, self.most + 1) if d != best), self.most + 1)

    def _best(self, lane: _Lane) -> int:
        return max(range(self.most + 1), key=lambda depth: lane.rates[depth].value)

    def _lane(self, sequences: int) -> _Lane:
        return self._lanes.setdefault(
            sequences.bit_length(), _Lane([Rate() for _ in range(self.most + 1)])
        )
