"""A plain forward of one text, a chunk at a time, beside what the engine serves.

Its latents are in pages of its own, so neither the cache nor the prefix tree knows of it.

Axes:  R rows, the positions of one chunk   D model width   K experts chosen
"""

from __future__ import annotations

import torch
from torch import Tensor

from fathom.engine.forward import Pool, trunk
from fathom.engine.layout import lay_out
from fathom.engine.request import SamplingParams
from fathom.engine.scheduler import Work
from fathom.engine.sequence import Sequence
from fathom.engine.weights import Weights


class Apart:
    """One text on its way through the trunk."""

    def __init__(self, weights: Weights, tokens: list[int], page_size: int, chunk: int) -> None:
        """`tokens` are known to be tokens, and fit the context; `chunk` is rounded up to whole pages."""
        pages = -(-len(tokens) // page_size)
        self.weights, self.tokens, self.at = weights, tokens, 0
        self._page_size, self._chunk = page_size, -(-chunk // page_size) * page_size
        self._pool = Pool(weights.config, pages, page_size, weights.embed_VD, draft=False)
        self._sequence = Sequence(-1, 0, "", tuple(tokens), SamplingParams(), len(tokens))
        self._sequence.pages = list(range(pages))

    @property
    def done(self) -> bool:
        """Whether every position was computed."""
        return self.at == len(self.tokens)

    def advance(self, chosen: list[Tensor] | None = None) -> Tensor:
        """States of the next chunk, [R, D]; `chosen` gets the experts of each MoE layer, [R, K] each."""
        count = min(self._chunk, len(self.tokens) - self.at)
        work = Work(self._sequence, self.at, count, "prefill")
        rows = lay_out([work], self._page_size, self.weights.turn)
        token_R = torch.tensor(self.tokens[self.at : self.at + count], device=self.weights.device)
        self.at += count
        return trunk(self.weights, token_R, rows, self._pool, chosen)
