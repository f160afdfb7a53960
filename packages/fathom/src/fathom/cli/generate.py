"""`fathom generate`: continue a text."""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fathom.cli.speak import Seed, Speaker, Speculate, Spoken, Temperature, TopP, drawn_seed
from fathom.config.errors import ConfigError, DataError, FathomError, need, plain, quoted

if TYPE_CHECKING:
    from fathom.engine import Completion, Delta

TopK = Annotated[int, typer.Option("--top-k", help="Keep so many likeliest tokens; 0 = all.")]
MinP = Annotated[float, typer.Option("--min-p", help="Drop tokens below this share of the likeliest.")]
Presence = Annotated[float, typer.Option("--presence-penalty", help="Taken from logits of written tokens.")]
Frequency = Annotated[float, typer.Option("--frequency-penalty", help="The same, for every time written.")]
Repetition = Annotated[float, typer.Option("--repetition-penalty", help="Divides logits of seen tokens.")]
Stop = Annotated[list[str] | None, typer.Option("--stop", help="End before this text; repeatable.")]
IgnoreEos = Annotated[bool, typer.Option("--ignore-eos", help="Write on behind the end of the text.")]
Schema = Annotated[str | None, typer.Option("--json-schema", help="Write JSON of this schema: file or text.")]
Regex = Annotated[str | None, typer.Option("--regex", help="Write a text that matches this as a whole.")]
Count = Annotated[int, typer.Option("--n", help="Number of answers.")]
Logprobs = Annotated[
    int | None, typer.Option("--logprobs", help="With --json: log probabilities, and of so many others.")
]
DraftTokens = Annotated[int, typer.Option("--draft-tokens", help="Most tokens drafted at a time, 1 to 8.")]
Json = Annotated[bool, typer.Option("--json", help='Print {"tokens", "text", "finish_reason", "seed"}.')]
Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="Say on stderr what computes, and how fast.")]


def read_stdin() -> str:
    """All of stdin; DataError at the first byte that is not UTF-8."""
    try:
        return sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"stdin is not UTF-8 at byte {error.start}. Fix: give text in UTF-8") from None


def read_schema(given: str) -> str:
    """The JSON text of a schema that is given as such or as a file; ConfigError where it is neither."""
    text, name = given, quoted(given)
    if not given.lstrip().startswith("{"):
        name = plain(given)
        try:
            text = Path(given).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not UTF-8"
            what = f"--json-schema {name} is neither JSON nor a file that can be read ({reason})"
            raise ConfigError(f"{what}. Fix: give a file, or a text such as '{{}}'") from None
    with suppress(RecursionError):  # the engine measures depth, and says what is too deep
        try:
            json.loads(text)
        except ValueError as error:
            raise ConfigError(f"--json-schema {name} is not JSON ({error}). Fix: correct it") from None
    return text


class InOrder:
    """Prints the answers one behind the other: the first as it comes, what the others have in its turn."""

    def __init__(self, count: int) -> None:
        self._held, self._ended, self._at = [""] * count, [False] * count, 0
        self._head()

    def __call__(self, delta: Delta) -> None:
        self._held[delta.index] += delta.text
        self._ended[delta.index] |= delta.finish_reason is not None
        while self._at < len(self._held):
            print(self._held[self._at], end="", flush=True)
            self._held[self._at] = ""
            if not self._ended[self._at]:
                return
            self._at += 1
            print()
            self._head()

    def _head(self) -> None:
        count = len(self._held)
        if count > 1 and self._at < count:
            print(f"--- {self._at + 1} of {count} ---")


def generate(
    model: Annotated[Path, typer.Option("--model", help="A run, a checkpoint, or any official folder.")],
    prompt: Annotated[str, typer.Option("--prompt", help="The text to continue; - reads it from stdin.")],
    max_tokens: Annotated[int, typer.Option("--max-tokens", help="Most tokens to write.")] = 128,
    temperature: Temperature = 0.7,
    top_p: TopP = 0.95,
    top_k: TopK = 0,
    min_p: MinP = 0.0,
    presence_penalty: Presence = 0.0,
    frequency_penalty: Frequency = 0.0,
    repetition_penalty: Repetition = 1.0,
    stop: Stop = None,
    ignore_eos: IgnoreEos = False,
    json_schema: Schema = None,
    regex: Regex = None,
    n: Count = 1,
    seed: Seed = None,
    logprobs: Logprobs = None,
    speculate: Speculate = "auto",
    draft_tokens: DraftTokens = 1,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Continue a text, streamed as it is written.

    \b
      fathom generate --model runs/tiny --prompt "Once upon a time"
      fathom generate --model runs/tiny --prompt "Mia had" --temperature 0 --json
      fathom generate --model runs/tiny --prompt "Mia is " --regex "[1-9] years old\\."

    The prompt is plain text after a begin-of-text token; control tokens in it are not special.
    """
    from fathom.engine import Request, SamplingParams

    if seed is None and temperature > 0:
        seed = drawn_seed()
    sampling = SamplingParams(
        max_tokens=max_tokens, temperature=temperature, top_p=top_p, top_k=top_k, min_p=min_p,
        presence_penalty=presence_penalty, frequency_penalty=frequency_penalty,
        repetition_penalty=repetition_penalty, stop=tuple(stop or ()), ignore_eos=ignore_eos,
        json_schema=None if json_schema is None else read_schema(json_schema), regex=regex,
        n=n, seed=seed, logprobs=logprobs,
    )  # fmt: skip
    need(logprobs is None or as_json, f"--logprobs {logprobs} shows only in --json", fix="add --json")
    text = read_stdin() if prompt == "-" else prompt
    speaker = Speaker.load(model, answers=n, speculate=speculate, draft_tokens=draft_tokens)
    if verbose:
        print(speaker.engine.line, file=sys.stderr)
    show = (lambda _: None) if as_json else InOrder(n)
    spoken = speaker.speak(Request(text=text, sampling=sampling), show)
    if as_json:
        print(json.dumps(as_object(spoken, seed, verbose=verbose), ensure_ascii=False))
    if verbose:
        print(spoken.lines(), file=sys.stderr)
    end(spoken)


def as_object(spoken: Spoken, seed: int | None, *, verbose: bool) -> dict[str, Any]:
    """What --json prints: the answer, or a list of the answers where there are several."""
    said = [_answer(completion) for completion in spoken.result.completions]
    said_all = said[0] if len(said) == 1 else {"answers": said}
    return said_all | {"seed": seed} | ({"stats": spoken.figures()} if verbose else {})


def _answer(completion: Completion) -> dict[str, Any]:
    said = {"tokens": completion.tokens, "text": completion.text, "finish_reason": completion.finish_reason}
    return said | ({"logprobs": [asdict(p) for p in completion.logprobs]} if completion.logprobs else {})


def end(spoken: Spoken) -> None:
    """Leave with what went wrong, if something did: FathomError, or the status of a signal."""
    for completion in spoken.result.completions:
        if completion.finish_reason == "error":
            raise FathomError(completion.error)
    if spoken.exit_code is not None:
        raise typer.Exit(spoken.exit_code)
