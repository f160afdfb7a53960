"""How the next token is chosen from a row of logits.

The row passes, in this order: logit_bias; the grammar's mask; repetition penalty, over prompt and answer
(CTRL, arXiv 1909.05858, section 4.1); presence and frequency penalty, over the answer (as OpenAI's interface
defines them); temperature; top_k; top_p of what is left; min_p. What is chosen depends on that row, the
parameters, the tokens so far, the seed and the position, and on nothing else. Of equals the lowest ids stay.

Sums run in float64, exponentials in float32: logits know no more, and it takes a quarter of the time.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from fathom.config.errors import FathomError, need
from fathom.engine.draws import Dice, Distribution
from fathom.engine.request import Logprob, RequestError, SamplingParams

SMALLEST = float(np.finfo(np.float32).smallest_subnormal)  # weights below it are 0
LARGEST = 1e300  # a logit after a division by a tiny penalty; differences stay finite


class NoTokenError(FathomError):
    """No token can follow: everything is excluded, or the logits are no numbers."""


class Chooser:
    """Chooses the tokens of one answer; it knows what was written so far."""

    def __init__(
        self, params: SamplingParams, prompt: Sequence[int], seed: int, index: int, tokens: int
    ) -> None:
        """`index` of the n answers; `tokens` of the tokenizer: rows of the vocabulary above it are padding.

        RequestError if logit_bias names a token that does not exist.
        """
        self._params, self._tokens = params, tokens
        self._dice = Dice(seed, index)
        wrong = [token for token in params.logit_bias if not 0 <= token < tokens]
        fix = f"use ids from 0 to {tokens - 1}"
        need(not wrong, f"logit_bias names token {wrong[:1]}", fix=fix, error=RequestError)
        self._biased = np.array(list(params.logit_bias), dtype=np.int64)
        self._bias = np.array(list(params.logit_bias.values()), dtype=np.float64)
        self._repeats = params.repetition_penalty != 1.0
        self._counts = params.presence_penalty != 0.0 or params.frequency_penalty != 0.0
        self._seen_V = np.zeros(tokens if self._repeats else 0, dtype=bool)  # in prompt or answer
        self._count_V = np.zeros(tokens if self._counts else 0, dtype=np.int32)  # in the answer
        if self._repeats:
            self._seen_V[[token for token in prompt if 0 <= token < tokens]] = True

    @property
    def plain(self) -> bool:
        """Whether all that is asked is the argmax over [:tokens], as far as no grammar forbids it."""
        adjusted = self._repeats or self._counts or len(self._biased) > 0
        return self._params.temperature == 0 and self._params.logprobs is None and not adjusted

    def note(self, token: int) -> None:
        """Count `token` as written."""
        if self._repeats:
            self._seen_V[token] = True
        if self._counts:
            self._count_V[token] += 1

    def distribution(
        self, logit_V: Tensor, allowed: np.ndarray | None = None, extra: Sequence[int] = ()
    ) -> Distribution:
        """What the next token is drawn from; logits [V], V >= tokens; `allowed` bool [tokens].

        `extra` are tokens to count as written behind those that were noted: drafts. NoTokenError if no token
        is left, or the logits are not finite.
        """
        p = self._params
        x_V = self._adjusted(_row(logit_V, self._tokens), allowed, extra)
        first = int(x_V.argmax())
        what = "logit_bias and the grammar together allow no token"
        need(x_V[first] > -np.inf, what, fix="take one of them out", error=NoTokenError)
        if p.temperature == 0:
            return Distribution(np.array([first]), np.ones(1))
        ids, x = _above(_every(len(x_V)), x_V, -np.finfo(np.float64).max)
        if 0 < p.top_k < len(ids):
            keep = _likeliest(x, p.top_k)
            ids, x = ids[keep], x[keep]
        with np.errstate(over="ignore"):  # a tiny temperature: -inf is as good
            x = (x - x_V[first]) / p.temperature
        ids, weight = _above(ids, _exp(x), SMALLEST)
        if p.top_p < 1:
            keep = _nucleus(weight, p.top_p)
            ids, weight = ids[keep], weight[keep]
        ids, weight = _above(ids, weight, p.min_p)  # the likeliest has weight 1
        return Distribution(ids, weight / weight.sum())

    def draw(self, distribution: Distribution, position: int) -> int:
        """A token with the noise of `position`: the same whatever else is drawn, and when."""
        return self._dice.draw(distribution, position)

    def accept(self, draft: int, q: Distribution, p: Distribution, position: int) -> tuple[bool, int]:
        """Whether `draft`, drawn from q, stands, and the token it leads to: see `Dice.accept`."""
        return self._dice.accept(draft, q, p, position)

    def logprob(self, logit_V: Tensor, token: int) -> Logprob:
        """Log probability of `token` and of the likeliest, before everything that `distribution` does."""
        x_V = _row(logit_V, self._tokens)
        best = x_V.max()
        logprob_V = x_V - (best + np.log(_exp(x_V - best).sum()))
        most = min(self._params.logprobs or 0, self._tokens)
        top = _likeliest(x_V, most) if most else _every(0)
        top = top[np.argsort(-x_V[top], kind="stable")]
        return Logprob(token, float(logprob_V[token]), tuple((int(i), float(logprob_V[i])) for i in top))

    def _adjusted(self, x_V: np.ndarray, allowed: np.ndarray | None, extra: Sequence[int]) -> np.ndarray:
        """Logits after bias, mask and penalties; may write into x_V. Excluded tokens are -inf."""
        p = self._params
        if len(self._biased):
            forced = self._biased[self._bias == np.inf]  # nothing else, and among them as the model says
            x_V[self._biased] += np.where(self._bias == np.inf, 0.0, self._bias)
            x_V = _only(x_V, forced) if len(forced) else x_V
        if allowed is not None:
            assert allowed.shape == x_V.shape, f"a mask of {allowed.shape} for {x_V.shape} tokens"
            x_V = np.where(allowed, x_V, -np.inf)
        if self._repeats:
            at = np.flatnonzero(self._seen_V)
            at = np.union1d(at, np.array(extra, dtype=np.int64)) if len(extra) else at
            x = x_V[at]
            with np.errstate(over="ignore"):
                scaled = np.where(x > 0, x / p.repetition_penalty, x * p.repetition_penalty)
            x_V[at] = np.minimum(scaled, LARGEST)
        if self._counts:
            count_V = self._count_V
            if len(extra):
                count_V = count_V.copy()
                np.add.at(count_V, np.array(extra, dtype=np.int64), 1)
            at = np.flatnonzero(count_V)
            x_V[at] -= p.presence_penalty + p.frequency_penalty * count_V[at]
        return x_V


def _row(logit_V: Tensor, tokens: int) -> np.ndarray:
    """A copy of the logits of real tokens, float64 [tokens]; NoTokenError if they cannot be compared."""
    x_V: np.ndarray = logit_V.detach()[:tokens].to("cpu", torch.float64, copy=True).numpy()
    assert x_V.shape == (tokens,), f"logits of {tuple(logit_V.shape)} for {tokens} tokens"
    what = "the model's logits are not finite"
    need(bool(np.isfinite(x_V.max())), what, fix="check the weights, or compute in fp32", error=NoTokenError)
    return x_V


def _only(x_V: np.ndarray, ids: np.ndarray) -> np.ndarray:
    alone = np.full_like(x_V, -np.inf)
    alone[ids] = x_V[ids]
    return alone


@lru_cache(maxsize=8)
def _every(count: int) -> np.ndarray:
    ids = np.arange(count)
    ids.setflags(write=False)  # one array for all
    return ids


def _exp(x: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore", under="ignore"):  # far below 0, also for float32: 0
        return np.exp(x.astype(np.float32)).astype(np.float64)


def _above(ids: np.ndarray, x: np.ndarray, lowest: float) -> tuple[np.ndarray, np.ndarray]:
    """The ids with x >= lowest, and their x."""
    if x.min() >= lowest:
        return ids, x
    keep = np.flatnonzero(x >= lowest)
    return ids[keep], x[keep]


def _likeliest(x: np.ndarray, count: int) -> np.ndarray:
    """Places of the `count` largest, 0 < count <= len(x), ascending; of equal ones the first."""
    return _from_border(x, np.partition(x, len(x) - count)[len(x) - count], count)


def _from_border(x: np.ndarray, border: float, count: int) -> np.ndarray:
    """The same, where the smallest of them is known."""
    places = np.flatnonzero(x >= border)
    surplus = len(places) - count
    if surplus:
        equal = np.flatnonzero(x[places] == border)
        places = np.delete(places, equal[-surplus:])
    return places


def _nucleus(weight: np.ndarray, share: float) -> np.ndarray:
    """Places of the fewest largest that hold `share` of the sum, ascending; of equal ones the first."""
    total = weight.sum()
    least = (1 - share) * total / len(weight)  # all that is below holds less than 1 - share together
    largest = np.sort(weight[weight >= least])[::-1]  # sorting values is cheap, sorting places is not
    held = np.cumsum(largest)
    count = min(int(np.searchsorted(held, share * total)) + 1, len(held))
    return _from_border(weight, largest[count - 1], count)
