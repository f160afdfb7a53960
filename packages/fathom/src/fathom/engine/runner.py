"""Runs planned positions through the network and keeps the pages; drafts with the MTP module.

Axes:  R rows   D model width   V vocabulary
"""

from __future__ import annotations

from collections.abc import Sequence as Many
from typing import NamedTuple

import torch
from torch import Tensor

from fathom.engine.answer import Answer
from fathom.engine.forward import Pool, logits, mtp, mtp_input, mtp_logits, trunk
from fathom.engine.layout import fresh_pages, in_row_order, lay_out
from fathom.engine.sample import NoTokenError
from fathom.engine.scheduler import Work
from fathom.engine.sequence import Sequence
from fathom.engine.weights import Weights

BACKLOG = 32  # states a sequence keeps for the MTP module while it rests; then one pass sees all of them


class Pass(NamedTuple):
    """What the trunk made of a plan."""

    works: list[Work]  # in row order
    h_RD: Tensor  # before the final norm
    first: list[int]  # row of each work's first position


class Runner:
    """The network, its pool of pages, and the tokens it draws from."""

    def __init__(self, weights: Weights, pages: int, page_size: int, tokens: int) -> None:
        """`tokens` of the tokenizer: rows of the vocabulary at or above it are padding."""
        self.weights, self.page_size, self.tokens = weights, page_size, tokens
        self.pool = Pool(weights.config, pages, page_size, weights.embed_VD, draft=self.drafts)
        self._seen: dict[Sequence, _Seen] = {}

    @property
    def drafts(self) -> bool:
        """Whether there is an MTP module to draft with."""
        return self.weights.draft is not None

    def run(self, works: Many[Work]) -> Pass:
        """The trunk over these positions; their latents are in the pages afterwards."""
        ordered = in_row_order(works)
        self.pool.clear(fresh_pages(ordered, self.page_size))
        tokens = [t for w in ordered for t in w.sequence.tokens(w.start, w.start + w.count)]
        rows = lay_out(ordered, self.page_size, self.weights.turn)
        h_RD = trunk(self.weights, self._ids(tokens), rows, self.pool)
        first = [0]
        for work in ordered[:-1]:
            first.append(first[-1] + work.count)
        return Pass(ordered, h_RD, first)

    def logits(self, done: Pass, rows: Many[int]) -> tuple[Tensor, list[int]]:
        """fp32 logits [len(rows), V] of these rows of a pass, and the likeliest real token of each.

        -1 where the largest logit is no finite number.
        """
        logit_RV = logits(self.weights, done.h_RD.index_select(0, self._ids(rows)))
        best_R, likeliest_R = logit_RV[:, : self.tokens].max(-1)
        return logit_RV, likeliest_R.masked_fill(~best_R.isfinite(), -1).tolist()

    def follow(self, done: Pass, depth: int, answers: dict[Sequence, Answer]) -> None:
        """Let the MTP module see what the trunk saw, and draft `depth` tokens for the answers that may.

        `answers` are those that go on; the others' pages are no longer theirs.

        Drafts go to `sequence.drafts`. With depth 0 states of decoded positions are kept, until one sequence
        has BACKLOG of them; those of prompts are many and are seen now. Rejected positions are not seen.
        """
        state_RD = mtp_input(self.weights, done.h_RD)
        for work, first in zip(done.works, done.first, strict=True):
            if work.sequence in answers:
                count = min(work.count, work.sequence.length - 1 - work.start)
                seen = self._seen.setdefault(work.sequence, _Seen())
                seen.add(work.start, state_RD[first : first + count])
        going = [w for w in done.works if w.sequence in answers and self._seen[w.sequence].held]
        full = any(self._seen[w.sequence].held >= BACKLOG for w in going)
        works, parts = [], []
        for work in going:
            if depth or full or work.kind != "decode":
                begin, h_ND = self._seen[work.sequence].take()
                works.append(Work(work.sequence, begin, len(h_ND), work.kind))
                parts.append(h_ND)
            else:
                self._seen[work.sequence].keep()
        if works:
            self._draft(works, torch.cat(parts), depth, answers)

    def _draft(self, works: list[Work], h_RD: Tensor, depth: int, answers: dict[Sequence, Answer]) -> None:
        """One pass of the module over what it had not seen, then one for each further draft."""
        for j in range(1, max(depth, 1) + 1):
            next_ids = [t for w in works for t in w.sequence.tokens(w.start + 1, w.start + w.count + 1)]
            rows = lay_out(works, self.page_size, self.weights.turn)
            if j > 1:  # a page the trunk has not reached
                self.pool.clear(fresh_pages(works, self.page_size), draft_only=True)
            g_RD = mtp(self.weights, h_RD, self._ids(next_ids), rows, self.pool)
            ends = torch.tensor([w.count for w in works]).cumsum(0).sub(1).tolist()
            wanted = [(w, e) for w, e in zip(works, ends, strict=True) if self._may_draft(w, j, answers)]
            if not wanted or not depth:
                return
            h_RD = g_RD.index_select(0, self._ids([e for _, e in wanted]))
            logit_RV = mtp_logits(self.weights, h_RD)
            likeliest = logit_RV[:, : self.tokens].argmax(-1).tolist()
            works, kept = [], []
            for i, (work, _) in enumerate(wanted):
                s = work.sequence
                try:
                    answers[s].draft(logit_RV[i], likeliest[i])
                except NoTokenError:
                    continue
                position = work.start + work.count
                if position // self.page_size < len(s.pages):
                    works.append(Work(s, position, 1, "decode"))
                    kept.append(i)
            h_RD = h_RD[kept]
            if not works:
                return

    def _may_draft(self, work: Work, j: int, answers: dict[Sequence, Answer]) -> bool:
        """Whether a j-th draft for this sequence is wanted and can still be followed by a token."""
        s = work.sequence
        if not answers[s].may_draft or work.start + work.count != s.length + j - 2:
            return False
        if not s.output:  # a chunk ended one position before the prompt does: the next pass verifies nothing
            return False
        return s.length + j < s.most

    def forget(self, sequence: Sequence) -> None:
        """The sequence has ended."""
        self._seen.pop(sequence, None)

    def _ids(self, ids: Many[int]) -> Tensor:
        return torch.tensor(ids, dtype=torch.int64, device=self.weights.device)


class _Seen:
    """What of a sequence the MTP module has seen, and the trunk's states it has yet to see."""

    def __init__(self) -> None:
        self.upto = self.held = 0
        self._behind: list[Tensor] = []

    def add(self, start: int, h_ND: Tensor) -> None:
        """States of the positions from `start` on; a gap or a step back begins anew."""
        if start != self.upto + self.held:
            self.upto, self.held, self._behind = start, 0, []
        if len(h_ND):
            self._behind.append(h_ND)
            self.held += len(h_ND)

    def keep(self) -> None:
        """The last states stay for a while: a copy, for they are part of what a whole pass made."""
        self._behind[-1] = self._behind[-1].clone()

    def take(self) -> tuple[int, Tensor]:
        """All of them, and the position of the first."""
        begin, h_ND = self.upto, torch.cat(self._behind)
        self.upto, self.held, self._behind = begin + self.held, 0, []
        return begin, h_ND
