"""One answer while it is written: how its tokens are chosen, and what of its text is certain.

Axes:  T positions verified in one pass   V vocabulary   D model width
"""

from __future__ import annotations

from collections.abc import Sequence as Many

import numpy as np
from torch import Tensor

from fathom.data.tokenizer import TextStream, Tokenizer
from fathom.engine.draws import Distribution
from fathom.engine.grammar import Matcher
from fathom.engine.request import Delta, Logprob
from fathom.engine.sample import Chooser
from fathom.engine.sequence import Sequence
from fathom.engine.stop import StopFinder


class Answer:
    """Everything about a sequence but its place in the cache."""

    def __init__(
        self, sequence: Sequence, chooser: Chooser, matcher: Matcher | None, tokenizer: Tokenizer
    ) -> None:
        self.sequence, self.chooser, self.matcher = sequence, chooser, matcher
        self.finish_reason: str | None = None
        self.may_draft = False  # the engine decides
        self.plain = chooser.plain and matcher is None  # every token is the likeliest one
        self._eos = tokenizer.eos
        self._drawn_from: list[Distribution] = []  # of each draft
        self._ahead: Matcher | None = None  # stands behind `_ahead_of` tokens of the output
        self._ahead_of = 0
        self._text, self._stops = TextStream(tokenizer), StopFinder(sequence.params.stops)
        self._new_text, self._new_tokens, self._new_logprobs = "", list[int](), list[Logprob]()
        self._stood, self._fell = 0, list[int]()  # drafts among the new tokens, and those behind them

    def choose(self, logit_TV: Tensor, likeliest_T: Many[int]) -> tuple[int, int]:
        """Verify the drafts in order, write what stands and the token behind it; the drafts are gone then.

        logit_TV      behind the output, and behind each draft
        likeliest_T   their argmax: a plain answer needs no more
        returns       rows that were used, and drafts that stood
        errors        NoTokenError where no token can follow; what was written before stays
        """
        drafts, self.sequence.drafts = self.sequence.drafts, []
        for t in range(len(drafts) + 1):
            draft = drafts[t] if t < len(drafts) else None
            token = likeliest_T[t] if self.plain else self._choose(logit_TV[t], draft, t)
            if token != draft:
                self._fell = drafts[t:]
            if token == self._eos and not self.sequence.params.ignore_eos:
                self.finish("stop")
                return t + 1, t + (token == draft)
            if self.sequence.params.logprobs is not None:
                self._new_logprobs.append(self.chooser.logprob(logit_TV[t], token))
            self._stood += token == draft
            self._write(token)
            if token != draft or self.finish_reason is not None:
                return t + 1, t + (token == draft)
        raise AssertionError("behind the last draft there is none to stand")

    def _choose(self, logit_V: Tensor, draft: int | None, t: int) -> int:
        """Under a seed a draft stands if it is what plain drawing gives; otherwise by the rejection rule."""
        p = self.chooser.distribution(logit_V, self._allowed())
        position = self.sequence.length
        if draft is None or self.sequence.params.seed is not None:
            return self.chooser.draw(p, position)
        return self.chooser.accept(draft, self._drawn_from[t], p, position)[1]

    def _write(self, token: int) -> None:
        self.chooser.note(token)
        self.sequence.output.append(token)
        self._new_tokens.append(token)
        certain, stopped = self._stops.push(self._text.push(token))
        self._new_text += certain
        if stopped:
            self.finish_reason = "stop"
        elif self.sequence.length >= self.sequence.most:
            self.finish("length")
        elif self.matcher is not None:
            self.matcher.advance(token)  # last: it may raise, and the token stands all the same

    def draft(self, logit_V: Tensor, likeliest: int) -> None:
        """Guess what follows the output and the drafts so far; NoTokenError where nothing can."""
        drafts = self.sequence.drafts
        if self.plain:
            drafts.append(likeliest)
            return
        if not drafts:
            self._drawn_from = []
        allowed = None if self.matcher is None else self._allowed_behind(self.matcher, drafts)
        q = self.chooser.distribution(logit_V, allowed, drafts)
        drafts.append(self.chooser.draw(q, self.sequence.length + len(drafts)))
        self._drawn_from.append(q)

    def finish(self, reason: str) -> None:
        """No more tokens will come: text that was held back is certain now."""
        self.finish_reason = reason
        certain, stopped = self._stops.push(self._text.end())
        self._new_text += certain
        if stopped:
            self.finish_reason = "stop"
        else:
            self._new_text += self._stops.end()

    def news(self, error: str = "") -> Delta:
        """What was written since the last call, and what became of the drafts for it.

        Drafts that nobody judged, for the answer ended before them, are not told; nor is a draft of the
        end-of-text token that stood: it is no token of the answer.
        """
        delta = Delta(
            request_id=self.sequence.request_id,
            index=self.sequence.index,
            text=self._new_text,
            tokens=tuple(self._new_tokens),
            logprobs=tuple(self._new_logprobs),
            finish_reason=self.finish_reason,
            prompt_tokens=len(self.sequence.prompt),
            cached_tokens=self.sequence.cached,
            accepted=self._stood,
            rejected=tuple(self._fell),
            error=error,
        )
        self._new_text, self._new_tokens, self._new_logprobs = "", [], []
        self._stood, self._fell = 0, []
        return delta

    def _allowed(self) -> np.ndarray | None:
        return None if self.matcher is None else self.matcher.allowed()

    def _allowed_behind(self, matcher: Matcher, drafts: Many[int]) -> np.ndarray:
        """What may follow the drafts, by a matcher of their own: errors last, and a guess ends no answer."""
        ahead = self._ahead = self._ahead or matcher.anew()
        for token in self.sequence.output[self._ahead_of :]:
            ahead.advance(token)
            self._ahead_of += 1
        taken = 0
        try:
            for token in drafts:
                ahead.advance(token)
                taken += 1
            return ahead.allowed()
        finally:
            ahead.rollback(taken)
