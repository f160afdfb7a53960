"""`fathom generate`: continue a text."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from fathom.config.errors import DataError, need


def read_stdin() -> str:
    """All of stdin; DataError at the first byte that is not UTF-8."""
    try:
        return sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"stdin is not UTF-8 at byte {error.start}. Fix: give text in UTF-8") from None


def generate(
    model: Annotated[Path, typer.Option("--model", help="A run, a checkpoint, or any official folder.")],
    prompt: Annotated[str, typer.Option("--prompt", help="The text to continue; - reads it from stdin.")],
    max_tokens: Annotated[int, typer.Option("--max-tokens", help="Most tokens to write.")] = 128,
    temperature: Annotated[float, typer.Option("--temperature", help="0 = the likeliest token.")] = 0.7,
    top_p: Annotated[float, typer.Option("--top-p", help="Keep the likeliest tokens of this share.")] = 0.95,
    seed: Annotated[int, typer.Option("--seed", help="Of the draws.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help='Print {"tokens", "text"}.')] = False,
) -> None:
    """Continue a text, streamed as it is written.

    \b
      fathom generate --model runs/tiny --prompt "Once upon a time"
      fathom generate --model runs/tiny --prompt "Mia had" --temperature 0 --json

    The prompt is plain text after a begin-of-text token; control tokens in it are not special.
    """
    need(max_tokens >= 1, f"--max-tokens {max_tokens} is below 1", fix="give 1 or more")
    from fathom.cli.speak import Speaker

    speaker = Speaker.load(model, temperature=temperature, top_p=top_p, seed=seed)
    text = read_stdin() if prompt == "-" else prompt
    ids = [speaker.tokenizer.bos, *speaker.tokenizer.encode(text)]
    pieces = []
    for piece in speaker.speak(ids, max_tokens):
        pieces.append(piece)
        if not as_json:
            print(piece, end="", flush=True)
    result = {"tokens": speaker.tokens, "text": "".join(pieces)}
    print(json.dumps(result, ensure_ascii=False) if as_json else "")
