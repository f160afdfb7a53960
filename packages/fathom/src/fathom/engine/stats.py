"""What the engine counts."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(slots=True)
class Stats:
    """Since the engine was made; every counter only grows."""

    steps: int = 0
    step_seconds: float = 0.0
    decode_steps: int = 0  # steps of nothing but decoding
    decode_seconds: float = 0.0
    trunk_passes: int = 0  # of a decoding sequence through the trunk: without drafts each writes one token
    tokens: int = 0  # they gave, end tokens among them
    drafted: int = 0
    accepted: int = 0
    prompt_tokens: int = 0  # of answers that began
    prefix_hit_tokens: int = 0  # of these, found in the prefix tree

    def began(self, prompt: int, cached: int) -> None:
        """One sequence has its first token."""
        self.prompt_tokens += prompt
        self.prefix_hit_tokens += cached

    def decoded(self, decode: bool, drafts: int, stood: int, tokens: int) -> None:
        """One sequence in one step."""
        if decode:
            self.trunk_passes += 1
            self.tokens += tokens
            self.drafted += drafts
            self.accepted += stood

    def step(self, pure: bool, seconds: float) -> None:
        """One step; `pure` = of nothing but decoding."""
        self.steps += 1
        self.step_seconds += seconds
        if pure:
            self.decode_steps += 1
            self.decode_seconds += seconds

    def since(self, before: Stats) -> Stats:
        """What was added to `before`, which is an earlier copy."""
        return Stats(**{f.name: getattr(self, f.name) - getattr(before, f.name) for f in fields(self)})

    @property
    def acceptance(self) -> float:
        """Share of drafts that stood; 0 before the first."""
        return self.accepted / self.drafted if self.drafted else 0.0

    @property
    def tokens_per_pass(self) -> float:
        """Tokens a sequence gains by one pass of the trunk; 1 without drafts."""
        return self.tokens / self.trunk_passes if self.trunk_passes else 0.0
