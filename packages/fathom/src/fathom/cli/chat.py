"""`fathom chat`: talk with a model in the terminal."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fathom.cli.speak import (
    Seed,
    Speaker,
    Speculate,
    Spoken,
    Temperature,
    TopP,
    drafts,
    drawn_seed,
    seed_of_answer,
)
from fathom.config.errors import FathomError, need

if TYPE_CHECKING:
    from fathom.engine import Delta, SamplingParams

HELP = """\
/reset          forget the conversation      /temp NUMBER    0 = always the likeliest word
/system TEXT    set the system message       /regen          answer again
/stats          speed, and drafts kept       /exit           leave (or Ctrl-D)
/help           this list"""
MINIMUM_ROOM = 16  # tokens an answer should have; older turns are dropped to make it


class Conversation:
    """The messages so far, and the commands that change them."""

    def __init__(self, speaker: Speaker, sampling: SamplingParams, system: str) -> None:
        """`sampling` has a seed, that of the first answer, and max_tokens; a full context may give fewer."""
        assert sampling.seed is not None and sampling.max_tokens is not None
        self.seed, self.max_tokens = sampling.seed, sampling.max_tokens
        self.speaker, self.sampling, self.system = speaker, sampling, system
        self.turns: list[dict[str, str]] = []
        self.answers = 0
        self.spoken: Spoken | None = None  # the last one

    def answer(self) -> None:
        """Stream the reply to the last turn; Ctrl-C cuts it short."""
        from fathom.engine import Request
        from fathom.train.stop import TRY_AGAIN

        prompt = self._prompt()
        most = min(self.max_tokens, self.speaker.room(prompt))
        seed = seed_of_answer(self.seed, self.answers)
        request = Request(tokens=prompt, sampling=replace(self.sampling, max_tokens=most, seed=seed))
        self.spoken = self.speaker.speak(request, _show)
        self.answers += 1
        print()
        reply = self.spoken.result.completions[0]
        if reply.finish_reason == "error":
            raise FathomError(reply.error)
        self.turns.append({"role": "assistant", "content": reply.text})
        if self.spoken.exit_code == TRY_AGAIN:
            raise typer.Exit(TRY_AGAIN)

    def _prompt(self) -> list[int]:
        """Ids of the conversation, oldest turns dropped until an answer fits."""
        from fathom.data.chat import encode_chat

        head = [{"role": "system", "content": self.system}] if self.system else []
        while True:
            ids, _ = encode_chat(self.speaker.tokenizer, head + self.turns, generation_prompt=True)
            if self.speaker.room(ids) >= MINIMUM_ROOM or len(self.turns) == 1:
                break
            self.turns = self.turns[2:]
        room = self.speaker.room(ids)
        need(room >= 1, f"the message is {1 - room} tokens too long for the model", fix="use fewer words")
        return ids

    def say(self, line: str) -> bool:
        """Take one line of input; False when it asks to leave."""
        command, _, rest = line.partition(" ")
        if command in ("/exit", "/quit"):
            return False
        if command == "/reset":
            self.turns = []
        elif command == "/system":
            self.system = rest.strip()
        elif command == "/temp":
            self._set_temperature(rest)
        elif command == "/regen":
            self._again()
        elif command == "/stats":
            print(self.stats())
        elif command.startswith("/"):
            print(HELP)
        elif line.strip():
            self.turns.append({"role": "user", "content": line.strip()})
            self._answer_or_take_back()
        return True

    def _again(self) -> None:
        if self.turns and self.turns[-1]["role"] == "assistant":
            self.turns.pop()
            self._answer_or_take_back()

    def _answer_or_take_back(self) -> None:
        try:
            self.answer()
        except FathomError as error:
            self.turns.pop()
            print(f"fathom: {error}", file=sys.stderr)

    def _set_temperature(self, text: str) -> None:
        try:
            self.sampling = replace(self.sampling, temperature=float(text))
        except (ValueError, FathomError):
            print(f"fathom: /temp {text} is no temperature. Fix: give a number such as 0.7", file=sys.stderr)

    def stats(self) -> str:
        """The last answer and all of them."""
        if self.spoken is None:
            return "no answer yet"
        whole = drafts(self.speaker.engine.stats)
        so_far = f"{self.answers} answered under --seed {self.seed}; drafts {whole}"
        return f"{self.spoken.lines()}\nso far   {so_far}"


def _show(delta: Delta) -> None:
    print(delta.text, end="", flush=True)


def chat(
    model: Annotated[Path, typer.Option("--model", help="A fine-tuned run or checkpoint.")],
    message: Annotated[str, typer.Option("--message", help="Answer this one message and leave.")] = "",
    system: Annotated[str, typer.Option("--system", help="The system message.")] = "",
    max_tokens: Annotated[int, typer.Option("--max-tokens", help="Most tokens of an answer.")] = 256,
    temperature: Temperature = 0.7,
    top_p: TopP = 0.95,
    seed: Seed = None,
    speculate: Speculate = "auto",
) -> None:
    """Talk with a model; /help lists what can be typed.

    \b
      fathom chat --model runs/tiny-sft
      fathom chat --model runs/tiny-sft --message "Tell me a story about Mia and a kite."
    """
    from fathom.engine import SamplingParams

    if seed is None:
        seed = drawn_seed()
    sampling = SamplingParams(max_tokens=max_tokens, temperature=temperature, top_p=top_p, seed=seed)
    speaker = Speaker.load(model, speculate=speculate)
    talk = Conversation(speaker, sampling, system)
    if message:
        talk.turns.append({"role": "user", "content": message})
        talk.answer()
        if talk.spoken is not None and talk.spoken.exit_code is not None:
            raise typer.Exit(talk.spoken.exit_code)
        return
    print(speaker.engine.line, file=sys.stderr)
    print(f"Talking with {model}. /help lists commands, Ctrl-D leaves.", file=sys.stderr)
    converse(talk)


def converse(talk: Conversation) -> None:
    """Read lines until the end of input."""
    while True:
        try:
            line = input("> ")
        except (EOFError, KeyboardInterrupt):
            print(file=sys.stderr)
            return
        if not talk.say(line):
            return
