"""One answer in the making: its tokens and where their latents are."""

from __future__ import annotations

from dataclasses import dataclass, field

from fathom.engine.request import SamplingParams


@dataclass(eq=False, slots=True)
class Sequence:
    """The n answers to a request are n of these. The scheduler owns `pages`, `computed` and `cached`."""

    request_id: int
    index: int  # which of the n answers
    key: str  # whose request
    prompt: tuple[int, ...]
    params: SamplingParams
    most: int  # positions prompt and answer may fill together
    output: list[int] = field(default_factory=list)
    drafts: list[int] = field(default_factory=list)  # guesses of what follows, for the next pass to verify
    pages: list[int] = field(default_factory=list)  # page p holds page_size positions from p * page_size
    computed: int = 0  # positions whose latents are in the pages, and final
    cached: int = 0  # of these, found in the prefix tree when last admitted

    @property
    def length(self) -> int:
        """Tokens so far, prompt and answer."""
        return len(self.prompt) + len(self.output)

    def tokens(self, start: int, stop: int) -> list[int]:
        """Tokens at positions [start, stop), drafts included."""
        P, N = len(self.prompt), self.length
        written = self.output[max(start - P, 0) : max(stop - P, 0)]
        return [*self.prompt[start:stop], *written, *self.drafts[max(start - N, 0) : max(stop - N, 0)]]
