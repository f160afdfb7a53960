"""A conversation in the terminal: what was said, and the one table of commands behind parsing and /help."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Protocol

import typer

from fathom import __version__
from fathom.config.errors import DataError, FathomError, need, plain

TRY_AGAIN = 75  # EX_TEMPFAIL of sysexits.h: the answer was cut short by SIGTERM, so the conversation ends too
Turn = dict[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What was written of a reply, and is on the screen."""

    text: str
    dropped: int = 0  # so many of the oldest turns no longer fitted
    exit_code: int | None = None  # 130 or 75 where a signal cut it short
    error: FathomError | None = None  # what cut it short otherwise


class Voice(Protocol):
    """Whoever answers: a model here, or a server. Each answer draws with another seed."""

    def answer(self, system: str, turns: list[Turn]) -> Answer:
        """Print the reply to the last turn as it comes. FathomError: there is none."""
        ...

    def set_temperature(self, value: float) -> None:
        """From the next answer on. FathomError if it cannot be used."""
        ...

    def settings(self) -> dict[str, Any]:
        """What /save writes beside the messages."""
        ...

    def stats(self) -> str:
        """The last answer and all of them; "" before the first."""
        ...


class Stopped(FathomError):
    """A signal came before the first word."""

    def __init__(self, exit_code: int) -> None:
        super().__init__("stopped before the first word. Fix: /regen asks again, or say something else")
        self.exit_code = exit_code


class Conversation:
    """The messages so far, said to one voice."""

    def __init__(self, voice: Voice, system: str = "") -> None:
        self.voice, self.system = voice, system
        self.turns: list[Turn] = []
        self.first = 0  # of the turns that are still sent
        self.unanswered = ""  # what was taken back; /regen says it again

    def ask(self, text: str) -> Answer:
        """Say `text` and print the reply. FathomError: there was none, and `text` is taken back."""
        self.turns.append({"role": "user", "content": text})
        try:
            return self._reply()
        except BaseException:
            self.turns.pop()
            self.unanswered = text
            raise

    def ask_again(self) -> Answer:
        """Another reply to what was said last; the former one stays if there is none."""
        if self.unanswered:
            return self.ask(self.unanswered)
        need(bool(self.turns), "there is no answer yet", fix="say something first")
        former = self.turns.pop()
        try:
            return self._reply()
        except BaseException:
            self.turns.append(former)
            raise

    def _reply(self) -> Answer:
        answer = self.voice.answer(self.system, self.turns[self.first :])
        print()
        if not answer.text and answer.exit_code is not None:
            raise Stopped(answer.exit_code)
        if not answer.text and answer.error is not None:
            raise answer.error
        self.first += answer.dropped
        self.turns.append({"role": "assistant", "content": answer.text})
        self.unanswered = ""
        return answer

    def reset(self) -> None:
        """Forget what was said; the system message stays."""
        self.turns, self.first, self.unanswered = [], 0, ""

    def messages(self) -> list[Turn]:
        """All that was said, the system message first."""
        return with_system(self.system, self.turns)

    def say(self, line: str) -> bool:
        """Take one line of input; False when it asks to leave."""
        line = well_formed(line).strip()
        try:
            if line.startswith("/"):
                return obey(self, line)
            if line:
                told(self.ask(line))
        except FathomError as error:
            print(f"fathom: {error}", file=sys.stderr)
            if isinstance(error, Stopped) and error.exit_code == TRY_AGAIN:
                raise typer.Exit(TRY_AGAIN) from None
        return True


def with_system(system: str, turns: list[Turn]) -> list[Turn]:
    """`turns` behind the system message, if there is one."""
    return ([{"role": "system", "content": system}] if system else []) + turns


def told(answer: Answer) -> None:
    """Say what cut a reply short; leave if it was SIGTERM."""
    if answer.error is not None:
        print(f"fathom: {answer.error}", file=sys.stderr)
    if answer.exit_code == TRY_AGAIN:
        raise typer.Exit(TRY_AGAIN)


def well_formed(text: str) -> str:
    """`text` as UTF-8 can hold it: halves of characters are joined, single ones replaced."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _system(talk: Conversation, text: str) -> None:
    if text:
        talk.system = "" if text == '""' else text
        print("the system message holds from the next answer on; /reset forgets what was said before")
    print(f"system   {talk.system or 'none'}")


def _temperature(talk: Conversation, text: str) -> None:
    if text:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        what = f"/temp {plain(text)} is no temperature"
        need(0 <= value < math.inf, what, fix="give a number such as 0.7")
        talk.voice.set_temperature(value)
    print(f"temperature {talk.voice.settings().get('temperature', 'as the server has it')}")


def _save(talk: Conversation, name: str, *, replace: bool = False) -> None:
    from fathom.config.folder import disk_errors, write_file

    need(name.isprintable() and bool(name), "/save needs a file's name", fix="type /save talk.json, say")
    need(bool(talk.turns), "nothing was said yet", fix="/save after the first answer")
    path = Path(name).expanduser()
    with disk_errors(path):
        there = path.exists() or path.is_symlink()
        folder = path.parent.is_dir()
    what, fix = f"{plain(name)} exists already", "choose another name, or type /save! to replace it"
    need(replace or not there, what, fix=fix, error=DataError)
    need(folder, f"there is no folder {plain(str(path.parent))}", fix="make it first", error=DataError)
    kept = {"fathom": __version__, "settings": talk.voice.settings(), "messages": talk.messages()}
    write_file(path, json.dumps(kept, ensure_ascii=False, indent=1) + "\n")
    print(f"saved    {len(talk.turns)} messages in {plain(name)}")


def _save_over(talk: Conversation, name: str) -> None:
    _save(talk, name, replace=True)


def _stats(talk: Conversation, _: str) -> None:
    print(talk.voice.stats() or "no answer yet")


@dataclass(frozen=True, slots=True)
class Command:
    """A line of /help, and what it does."""

    name: str
    argument: str
    help: str
    run: Callable[[Conversation, str], object] | None  # None leaves


COMMANDS = (
    Command("/help", "", "this list", lambda talk, _: print(help_text())),
    Command("/system", "[TEXT]", 'set (from now on) or show the system message; "" removes it', _system),
    Command("/temp", "[NUMBER]", "set or show the temperature; 0 = always the likeliest word", _temperature),
    Command("/regen", "", "answer again, with another seed", lambda talk, _: told(talk.ask_again())),
    Command("/save", "FILE", "write messages and settings as JSON, unless the file exists", _save),
    Command("/save!", "FILE", "the same, in place of an older file", _save_over),
    Command("/stats", "", "speed, and drafts kept where the model is here", _stats),
    Command("/reset", "", "forget the conversation", lambda talk, _: talk.reset()),
    Command("/exit", "", "leave; /quit and Ctrl-D too", None),
)
ALIASES = {"/quit": "/exit"}


def help_text() -> str:
    """The table, a line for each command."""
    return "\n".join(f"{f'{c.name} {c.argument}':<17}{c.help}" for c in COMMANDS)


def obey(talk: Conversation, line: str) -> bool:
    """Run the command that `line` begins with; False if it is to leave. FathomError names the nearest."""
    name, *rest = line.split(maxsplit=1)
    name = ALIASES.get(name, name)
    for command in COMMANDS:
        if command.name == name:
            if command.run is not None:
                command.run(talk, rest[0] if rest else "")
            return command.run is not None
    near = get_close_matches(name, [command.name for command in COMMANDS], n=1)
    if not near:
        print(help_text())
    fix = f"type {near[0]}, the nearest; /help lists all" if near else "type one of the list"
    raise FathomError(f"{plain(name)} is no command. Fix: {fix}")
