"""A server's model as `fathom chat` talks with it. What it was not told, it decides."""

from __future__ import annotations

import math
import time
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from fathom.cli.chat_commands import Answer, Turn, well_formed, with_system
from fathom.cli.chat_errors import ServerError, nonsense
from fathom.cli.chat_http import Server
from fathom.cli.speak import seed_of_answer
from fathom.config.errors import need, quoted

SEEDS = 2**63  # servers hold seeds in 64 bits, with a sign
LONGEST_TEXT = 16 << 20  # characters of one answer
FURTHER_SEEDS = 2**53  # those of later answers are ours to choose: whole numbers in every reader of JSON


def check(sampling: dict[str, float], seed: int | None) -> None:
    """ConfigError for what no server can take; narrower bounds are the server's."""
    warmth, share = sampling.get("temperature", 1.0), sampling.get("top_p", 1.0)
    need(0 <= warmth < math.inf, f"--temperature {warmth:g} is out of bounds", fix="give 0.7, say")
    need(0 < share <= 1, f"--top-p {share:g} is out of bounds", fix="give a share above 0, at most 1")
    most = sampling.get("max_tokens", 1)
    need(most >= 1, f"--max-tokens {most} is out of bounds", fix="give 1 or more")
    fits = seed is None or 0 <= seed < SEEDS
    need(fits, f"--seed {seed} is out of bounds", fix="give a whole number from 0 to 2**63 - 1")


@dataclass(kw_only=True, slots=True)
class Heard:
    """An answer as it comes in."""

    began: float
    text: str = ""
    pieces: int = 0
    first_seconds: float = 0.0
    seconds: float = 0.0
    finish: str = ""
    usage: dict[str, Any] | None = None  # where the server counts tokens

    def lines(self) -> str:
        """For /stats."""
        tokens = (self.usage or {}).get("completion_tokens")
        count, unit = (tokens, "tokens") if isinstance(tokens, int) else (self.pieces, "pieces")
        rest = self.seconds - self.first_seconds
        speed = f", {max(count - 1, 0) / rest:,.0f} a second" if rest > 0 else ""
        said = f"answer   {count:,} {unit}{speed}, the first after {self.first_seconds:.2f} s"
        prompt = (self.usage or {}).get("prompt_tokens")
        return said + (f"\nprompt   {prompt:,} tokens" if isinstance(prompt, int) else "")


class RemoteVoice:
    """One model of a server, streamed; Ctrl-C hangs up and keeps what was written."""

    def __init__(self, server: Server, model: str, *, sampling: dict[str, float], seed: int | None) -> None:
        """`sampling` holds what was given, under the names of OpenAI's interface."""
        self.server, self.model, self.sampling, self.seed = server, model, dict(sampling), seed
        self.answers = 0
        self.heard: Heard | None = None  # the last one

    def answer(self, system: str, turns: list[Turn]) -> Answer:
        """Print the reply to the last turn as it comes."""
        messages = with_system(system, turns)
        heard = Heard(began=time.perf_counter())
        error, exit_code = None, None
        try:
            try:
                self._listen(messages, heard)
            except ServerError as refused:
                if not self._can_rename(refused):
                    raise
                self.sampling["max_completion_tokens"] = self.sampling.pop("max_tokens")
                self._listen(messages, heard)
        except KeyboardInterrupt:
            exit_code = 130
        except ServerError as broken:
            if not heard.text:
                raise
            error = broken
        heard.seconds = time.perf_counter() - heard.began
        if not heard.text and exit_code is None:
            why = f" (finish_reason {quoted(heard.finish)})" if heard.finish else ""
            raise ServerError(f"the answer has no text{why}", fix="/regen asks again; try more --max-tokens")
        self.answers += 1
        self.heard = heard
        return Answer(text=well_formed(heard.text), exit_code=exit_code, error=error)

    def _can_rename(self, refused: ServerError) -> bool:
        """Whether the server wants the newer name of max_tokens, as OpenAI's own does for newer models."""
        named = refused.status in (400, 422) and "max_completion_tokens" in str(refused)
        return named and "max_tokens" in self.sampling

    def body(self, messages: list[Turn]) -> dict[str, Any]:
        """The next request: what was given, and nothing that a strict server need not know."""
        body: dict[str, Any] = {"model": self.model, "messages": messages, "stream": True} | self.sampling
        if self.seed is not None:
            later = seed_of_answer(self.seed, self.answers) % FURTHER_SEEDS
            body["seed"] = later if self.answers else self.seed
        return body

    def _listen(self, messages: list[Turn], heard: Heard) -> None:
        with closing(self.server.chat(self.body(messages))) as events:
            for event in events:
                piece = self._piece(event, heard)
                if not piece:
                    continue
                heard.first_seconds = heard.first_seconds or time.perf_counter() - heard.began
                heard.pieces += 1
                heard.text += piece
                if len(heard.text) > LONGEST_TEXT:
                    raise nonsense(self.server.base, f"an answer of over {LONGEST_TEXT:,} characters")
                print(shown(piece), end="", flush=True)

    def _piece(self, event: dict[str, Any], heard: Heard) -> str:
        """The text an event adds; "" if it only tells something else. ServerError if it is no chat's."""
        usage, choices = event.get("usage"), event.get("choices")
        if isinstance(usage, dict):
            heard.usage = usage
        if choices is None or choices == []:
            return ""
        choice = choices[0] if isinstance(choices, list) else None
        said = choice.get("delta", choice.get("message")) if isinstance(choice, dict) else None
        content = said.get("content") if isinstance(said, dict) else said
        if isinstance(content, list):  # parts, of which some are no text for people
            parts = [part.get("text") for part in content if isinstance(part, dict)]
            content = "".join(part for part in parts if isinstance(part, str))
        if not isinstance(choice, dict) or not isinstance(content, str | None):
            raise nonsense(self.server.base, f"{quoted(event)}, which is no chat's")
        if isinstance(choice.get("finish_reason"), str):
            heard.finish = choice["finish_reason"]
        return content or ""

    def set_temperature(self, value: float) -> None:
        """From the next answer on; the server may have bounds."""
        self.sampling["temperature"] = value

    def settings(self) -> dict[str, Any]:
        """The address, the name and what was given; never the key."""
        seed = {} if self.seed is None else {"seed": self.seed}
        return {"url": self.server.base, "model": self.model, **self.sampling, **seed}

    def stats(self) -> str:
        """The last answer and all of them."""
        if self.heard is None:
            return ""
        return f"{self.heard.lines()}\nso far   {self.answers} answered by {self.model}"


def shown(text: str) -> str:
    """What a terminal may be given of a stranger's text: no control character but ends of lines and tabs."""
    printed = well_formed(text).replace("\r\n", "\n")
    return "".join(c if c in "\n\t" or not (c < " " or "\x7f" <= c <= "\x9f") else "\ufffd" for c in printed)
