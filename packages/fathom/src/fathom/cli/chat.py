"""`fathom chat`: talk with a model in the terminal."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fathom.config.errors import FathomError, need

if TYPE_CHECKING:
    from fathom.cli.speak import Speaker

HELP = """\
/reset          forget the conversation      /temp NUMBER    0 = always the likeliest word
/system TEXT    set the system message       /regen          answer again
/help           this list                    /exit           leave (or Ctrl-D)"""
MINIMUM_ROOM = 16  # tokens an answer should have; older turns are dropped to make it


class Conversation:
    """The messages so far, and the commands that change them."""

    def __init__(self, speaker: Speaker, max_tokens: int, system: str) -> None:
        self.speaker, self.max_tokens, self.system = speaker, max_tokens, system
        self.turns: list[dict[str, str]] = []

    def answer(self) -> None:
        """Stream the reply to the last turn; Ctrl-C cuts it short."""
        pieces: list[str] = []
        try:
            prompt = self._prompt()
            for piece in self.speaker.speak(prompt, min(self.max_tokens, self.speaker.room(prompt))):
                pieces.append(piece)
                print(piece, end="", flush=True)
        except KeyboardInterrupt:
            pass
        print()
        self.turns.append({"role": "assistant", "content": "".join(pieces)})

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
        from fathom.model.generate import Sampling

        try:
            sampling = Sampling(temperature=float(text), top_p=self.speaker.sampling.top_p)
        except (ValueError, FathomError):
            print(f"fathom: /temp {text} is no temperature. Fix: give a number such as 0.7", file=sys.stderr)
            return
        self.speaker.sampling = sampling


def chat(
    model: Annotated[Path, typer.Option("--model", help="A fine-tuned run or checkpoint.")],
    message: Annotated[str, typer.Option("--message", help="Answer this one message and leave.")] = "",
    system: Annotated[str, typer.Option("--system", help="The system message.")] = "",
    max_tokens: Annotated[int, typer.Option("--max-tokens", help="Most tokens of an answer.")] = 256,
    temperature: Annotated[float, typer.Option("--temperature", help="0 = the likeliest token.")] = 0.7,
    top_p: Annotated[float, typer.Option("--top-p", help="Keep the likeliest tokens of this share.")] = 0.95,
    seed: Annotated[int, typer.Option("--seed", help="Of the draws.")] = 0,
) -> None:
    """Talk with a model; /help lists what can be typed.

    \b
      fathom chat --model runs/tiny-sft
      fathom chat --model runs/tiny-sft --message "Tell me a story about Mia and a kite."
    """
    need(max_tokens >= 1, f"--max-tokens {max_tokens} is below 1", fix="give 1 or more")
    from fathom.cli.speak import Speaker

    speaker = Speaker.load(model, temperature=temperature, top_p=top_p, seed=seed)
    talk = Conversation(speaker, max_tokens, system)
    if message:
        talk.turns.append({"role": "user", "content": message})
        talk.answer()
        return
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
