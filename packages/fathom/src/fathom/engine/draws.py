"""Draws that depend on a seed and a place, never on what else was drawn or in which order.

The generator is counter-based (Philox4x64-10; Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2,
3"): the noise of (seed, answer, position, stream, token) is a function of these five. numpy keeps the streams
of its bit generators as they are, so a seed means the same noise with every numpy.

A token is drawn by a race: token i arrives after E_i / p_i, where E_i = -log(1 - u_i) is exponential, and the
first to arrive has been drawn from p. This is the Gumbel-max trick with one logarithm less; and as
E_i >= u_i, the first 32 bits of u rule out all but one or two tokens, and only these need a logarithm and the
other 64 bits. Two distributions that are alike are likely to be won by the same token: a draft may be right.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

DRAW, ACCEPT, REDRAW = range(3)  # streams: each has its own noise at every position
SLACK = 1 + 1e-9  # of a bound, above the rounding of the two sides it compares


class Distribution(NamedTuple):
    """Probabilities of the tokens that may come next."""

    ids: np.ndarray  # int64 [K], ascending
    prob: np.ndarray  # float64 [K], above 0, sum 1

    def of(self, token: int) -> float:
        """Probability of one token; 0 where it is not among them."""
        at = int(np.searchsorted(self.ids, token))
        return float(self.prob[at]) if at < len(self.ids) and self.ids[at] == token else 0.0


class Dice:
    """The noise of one answer: of a request's `seed` (below 2**64) and the answer's `index` in it."""

    def __init__(self, seed: int, index: int) -> None:
        self._generator = np.random.Philox(key=np.array([seed, index], dtype=np.uint64))
        self._state: Any = self._generator.state  # with nothing buffered; a place is set before every use

    def draw(self, distribution: Distribution, position: int, stream: int = DRAW) -> int:
        """A token drawn from `distribution` with the noise of `position`; O(largest id) time."""
        ids, prob = distribution
        if len(ids) == 1:
            return int(ids[0])
        top = int(ids[-1]) + 1
        coarse = self._bits((0, position, stream, 0), (top + 1) // 2).view(np.uint32)[:top]
        coarse = coarse if len(coarse) == len(ids) else coarse[ids]
        early = coarse / prob  # at most 2**32 times the time of arrival
        first = early.argmin()
        late = _exponential(int(coarse[first]) + 1) / prob[first] * 2.0**32
        near = np.flatnonzero(early <= late * SLACK)
        if len(near) == 1:
            return int(ids[first])
        fine = [self._uniform((int(i), position, stream, 1)) for i in ids[near]]
        time = [_exponential(int(coarse[n]) + f) / prob[n] for n, f in zip(near, fine, strict=True)]
        return int(ids[near[np.argmin(time)]])

    def accept(self, draft: int, q: Distribution, p: Distribution, position: int) -> tuple[bool, int]:
        """Whether a `draft` drawn from q stands, and the token it leads to: distributed as p, whatever q is.

        It stands with probability min(1, p / q); otherwise the token is drawn anew from max(p - q, 0), scaled
        to sum 1 (arXiv 2211.17192, section 2.3; arXiv 2302.01318, algorithm 2). The noise is of other streams
        than that of `draw`, so the draft may have been drawn with the same seed at the same position.
        """
        likely = q.of(draft)
        assert likely > 0, f"draft {draft} was not drawn from its distribution"
        if self._uniform((0, position, ACCEPT, 0)) * likely < p.of(draft):
            return True, draft
        return False, self.draw(_rest(p, q), position, REDRAW)

    def _uniform(self, place: tuple[int, int, int, int]) -> float:
        return float(self._bits(place, 1)[0] >> np.uint64(11)) * 2.0**-53  # below 1

    def _bits(self, place: tuple[int, int, int, int], count: int) -> np.ndarray:
        """uint64 [count]; `place` is the generator's counter, and its first word counts blocks of four."""
        self._state["state"]["counter"][:] = place
        self._generator.state = self._state
        bits: np.ndarray = self._generator.random_raw(count)
        return bits


def _exponential(noise: float) -> float:
    """An exponential variate of `noise`, uniform from 0 to 2**32."""
    return -math.log1p(-noise * 2.0**-32) if noise < 2.0**32 else math.inf


def _rest(p: Distribution, q: Distribution) -> Distribution:
    """max(p - q, 0), scaled to sum 1."""
    q_V = np.zeros(int(max(p.ids[-1], q.ids[-1])) + 1)
    q_V[q.ids] = q.prob
    more = p.prob - q_V[p.ids]
    keep = np.flatnonzero(more > 0)
    if not len(keep):  # p = q but for rounding
        return p
    return Distribution(p.ids[keep], more[keep] / more[keep].sum())
