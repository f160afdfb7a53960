"""A model on this machine as `fathom chat` talks with it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fathom.cli.chat_commands import Answer, Turn, with_system
from fathom.cli.speak import Speaker, Spoken, drafts, seed_of_answer
from fathom.config.errors import FathomError, need

if TYPE_CHECKING:
    from fathom.engine import Delta, SamplingParams

MINIMUM_ROOM = 16  # tokens an answer should have; older turns are dropped to make it


class LocalVoice:
    """An engine that answers one person; the oldest turns go when the model's positions run out."""

    def __init__(self, model: Path, sampling: SamplingParams, *, speculate: str) -> None:
        """`sampling` has a seed, that of the first answer, and max_tokens; a full context may give fewer."""
        assert sampling.seed is not None and sampling.max_tokens is not None, sampling
        self.seed, self.max_tokens = sampling.seed, sampling.max_tokens
        self.model, self.sampling, self.speculate = model, sampling, speculate
        self.speaker = Speaker.load(model, speculate=speculate)
        self.answers = 0
        self.spoken: Spoken | None = None  # the last one

    def answer(self, system: str, turns: list[Turn]) -> Answer:
        """Stream the reply to the last turn; Ctrl-C cuts it short after the step at work."""
        from fathom.engine import Request

        prompt, dropped = self._prompt(system, turns)
        most = min(self.max_tokens, self.speaker.room(prompt))
        seed = seed_of_answer(self.seed, self.answers)
        request = Request(tokens=prompt, sampling=replace(self.sampling, max_tokens=most, seed=seed))
        self.spoken = self.speaker.speak(request, _show)
        self.answers += 1
        reply = self.spoken.result.completions[0]
        error = FathomError(reply.error) if reply.finish_reason == "error" else None
        return Answer(text=reply.text, dropped=dropped, exit_code=self.spoken.exit_code, error=error)

    def _prompt(self, system: str, turns: list[Turn]) -> tuple[list[int], int]:
        """Ids of the conversation, and how many of the oldest turns had to go so that an answer fits."""
        from fathom.data.chat import encode_chat

        dropped = 0
        while True:
            messages = with_system(system, turns[dropped:])
            ids, _ = encode_chat(self.speaker.tokenizer, messages, generation_prompt=True)
            if self.speaker.room(ids) >= MINIMUM_ROOM or len(turns) - dropped == 1:
                break
            dropped += 2
        room = self.speaker.room(ids)
        need(room >= 1, f"the message is {1 - room} tokens too long for the model", fix="use fewer words")
        return ids, dropped

    def set_temperature(self, value: float) -> None:
        """From the next answer on; RequestError where the engine has no such temperature."""
        self.sampling = replace(self.sampling, temperature=value)

    def settings(self) -> dict[str, Any]:
        """As they were given, or stand by default."""
        return {
            "model": str(self.model),
            "temperature": self.sampling.temperature,
            "top_p": self.sampling.top_p,
            "max_tokens": self.max_tokens,
            "seed": self.seed,
            "speculate": self.speculate,
        }

    def stats(self) -> str:
        """The last answer and all of them."""
        if self.spoken is None:
            return ""
        whole = drafts(self.speaker.engine.stats)
        so_far = f"{self.answers} answered under --seed {self.seed}; drafts {whole}"
        return f"{self.spoken.lines()}\nso far   {so_far}"


def _show(delta: Delta) -> None:
    print(delta.text, end="", flush=True)
