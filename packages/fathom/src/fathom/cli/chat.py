"""`fathom chat`: talk in the terminal, with a model on this machine or with a server."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fathom.cli.chat_commands import Conversation, Voice
from fathom.cli.speak import Seed, drawn_seed
from fathom.config.errors import ConfigError, DataError, need, plain

if TYPE_CHECKING:
    from fathom.cli.chat_http import Server

# None = not given: here the default that help names, with --url the server's own.
Model = Annotated[
    Path | None, typer.Option("--model", help="A fine-tuned run or checkpoint; with --url its name there.")
]
MaxTokens = Annotated[
    int | None, typer.Option("--max-tokens", help="Most tokens of an answer.", show_default="256")
]
Warmth = Annotated[
    float | None, typer.Option("--temperature", help="0 = the likeliest token.", show_default="0.7")
]
Share = Annotated[
    float | None,
    typer.Option("--top-p", help="Keep the likeliest tokens of this share.", show_default="0.95"),
]
Drafts = Annotated[
    str | None,
    typer.Option("--speculate", help="Draft with MTP: auto = while it pays, on, off.", show_default="auto"),
]
Url = Annotated[str | None, typer.Option("--url", help="An OpenAI-compatible server to talk with instead.")]
Key = Annotated[
    str | None, typer.Option("--api-key", help="Its key; else FATHOM_API_KEY or OPENAI_API_KEY.")
]
Silence = Annotated[
    float | None, typer.Option("--timeout", help="Seconds a server may be silent.", show_default="120")
]
KEYS = ("FATHOM_API_KEY", "OPENAI_API_KEY")  # of the environment; the first that is set


def chat(
    model: Model = None,
    url: Url = None,
    api_key: Key = None,
    message: Annotated[str, typer.Option("--message", help="Answer this one message and leave.")] = "",
    system: Annotated[str, typer.Option("--system", help="The system message.")] = "",
    max_tokens: MaxTokens = None,
    temperature: Warmth = None,
    top_p: Share = None,
    seed: Seed = None,
    speculate: Drafts = None,
    timeout: Silence = None,
) -> None:
    """Talk with a model; /help lists what can be typed.

    \b
      fathom chat --model runs/tiny-sft
      fathom chat --model runs/tiny-sft --message "Tell me a story about Mia and a kite."
      fathom chat --url http://localhost:8000

    With --url, sampling options are sent only where they are given.
    """
    given = {"temperature": temperature, "top_p": top_p, "max_tokens": max_tokens}
    sampling = {name: value for name, value in given.items() if value is not None}
    voice: Voice
    if url is None:
        for option, value in (("--api-key", api_key), ("--timeout", timeout)):
            need(value is None, f"{option} is for a server", fix="give --url, or leave it out")
        voice, who = here(model, sampling, seed, speculate or "auto")
    else:
        need(speculate is None, "--speculate is for a model that runs here", fix="leave it or --url out")
        server = connected(url, api_key, timeout)
        voice, who = there(server, model, sampling, seed)
    talk = Conversation(voice, system)
    if message:
        answer = talk.ask(message)
        if answer.error is not None:
            raise answer.error
        if answer.exit_code is not None:
            raise typer.Exit(answer.exit_code)
        return
    print(f"{who}. /help lists commands, Ctrl-D leaves.", file=sys.stderr)
    converse(talk)


def here(
    model: Path | None, sampling: dict[str, float], seed: int | None, speculate: str
) -> tuple[Voice, str]:
    """A model on this machine, and how it introduces itself."""
    if model is None:
        raise ConfigError("there is nobody to talk with. Fix: give --model DIR, or --url of a server")
    from fathom.cli.chat_local import LocalVoice
    from fathom.engine import SamplingParams

    drawn = SamplingParams(
        temperature=sampling.get("temperature", 0.7),
        top_p=sampling.get("top_p", 0.95),
        max_tokens=int(sampling.get("max_tokens", 256)),
        seed=drawn_seed() if seed is None else seed,
    )
    voice = LocalVoice(model, drawn, speculate=speculate)
    return voice, f"{voice.speaker.engine.line}\nTalking with {model}"


def connected(url: str, api_key: str | None, timeout: float | None) -> Server:
    """The server, with the key that was given or is set; nothing is sent yet."""
    from fathom.cli.chat_http import Server

    key = api_key or next((os.environ[name] for name in KEYS if os.environ.get(name)), "")
    server = Server(url, key=key, timeout=timeout)
    if server.tells_the_key:
        print(f"fathom: the key goes to {server.origin} unencrypted; use https if you can", file=sys.stderr)
    return server


def there(
    server: Server, model: Path | None, sampling: dict[str, float], seed: int | None
) -> tuple[Voice, str]:
    """A server's model, its first if none is named. Loads no torch."""
    from fathom.cli.chat_remote import RemoteVoice, check

    check(sampling, seed)
    name = server.first_model() if model is None else str(model)
    voice = RemoteVoice(server, name, sampling=sampling, seed=seed)
    return voice, f"Talking with {plain(name)} at {server.base}"


def converse(talk: Conversation) -> None:
    """Read lines until the end of input."""
    while True:
        try:
            line = input("> ")
        except (EOFError, KeyboardInterrupt):
            print(file=sys.stderr)
            return
        except UnicodeDecodeError:
            raise DataError("stdin is not UTF-8. Fix: give text in UTF-8") from None
        if not talk.say(line):
            return
