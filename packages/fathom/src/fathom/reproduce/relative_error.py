"""How far two training curves are apart, as the report measures it (section 3.3, appendix B.1).

Both losses are smoothed by an exponential moving average with coefficient 0.9, which begins at the first
loss; the error of a step is |a - b| / b of the smoothed losses, b being the reference.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

DECAY = 0.9  # report, appendix B.1


@dataclass(frozen=True, slots=True)
class Difference:
    """One run against its reference; shares, not percents. Infinite where the run has no finite loss."""

    error: Sequence[float]  # of every step
    mean: float  # over the last half of the steps, as all that follow
    largest: float
    signed: float  # mean of (a - b) / b: what is left of it when noise of both signs cancels


def smoothed(losses: Sequence[float]) -> list[float]:
    """s_1 = x_1, s_t = 0.9 s_(t-1) + 0.1 x_t. A loss that is no number leaves none after it."""
    values: list[float] = []
    for loss in losses:
        values.append(DECAY * values[-1] + (1.0 - DECAY) * loss if values else loss)
    return values


def compare(losses: Sequence[float], reference: Sequence[float]) -> Difference:
    """A run against its reference, step by step; steps that the run did not reach count as infinitely far."""
    assert reference, "a reference without steps"
    a, b = smoothed(losses), smoothed(reference)
    a += [math.inf] * (len(b) - len(a))
    signed = [_share(x, y) for x, y in zip(a, b, strict=False)]
    error = [abs(share) for share in signed]
    late = last_half(error)
    return Difference(error, math.fsum(late) / len(late), max(late), _mean(last_half(signed)))


def last_half(values: Sequence[float]) -> Sequence[float]:
    """The later half of the steps, with the middle one of an odd number."""
    return values[len(values) // 2 :]


def _share(value: float, reference: float) -> float:
    share = (value - reference) / reference
    return share if math.isfinite(share) else math.inf


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
