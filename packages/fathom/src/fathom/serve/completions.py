"""POST /v1/completions: texts or token ids, continued; with `echo` and `logprobs` also scored.

Evaluations ask with echo, logprobs and max_tokens 0 or 1 how likely a given text is. Its prompt's log
probabilities come from a forward of its own; with max_tokens 1 the end of the text counts as a token, so that
exactly one follows the prompt.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from fathom.config.errors import quoted
from fathom.serve.errors import ApiError, need
from fathom.serve.fields import Fields
from fathom.serve.limits import PROMPTS, TOP_LOGPROBS, USER_LENGTH
from fathom.serve.order import Order, need_model, read_stream
from fathom.serve.parts import Part, entry
from fathom.serve.room import need_room, need_short
from fathom.serve.sampling import SAMPLING, read_max_tokens, read_sampling
from fathom.serve.service import Service
from fathom.serve.texts import Offsets, shown
from fathom.serve.wire import Ask, Info

KNOWN = (
    *SAMPLING,
    "model",
    "prompt",
    "echo",
    "logprobs",
    "stream",
    "stream_options",
    "user",
    "fathom_details",
)
NEUTRAL: dict[str, tuple[Any, ...]] = {"best_of": (1,), "suffix": ("",)}
DEFAULT_TOKENS = 16  # OpenAI's
MOST_ENTRIES = 400_000  # log probabilities of one request's prompts, as the engine allows for one prompt
Prompt = str | tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """A checked body: an order whose prompts may still have to be read by the engine."""

    prompts: tuple[Prompt, ...]
    echo: bool
    max_tokens: int
    order: Order


def read_completion(body: Mapping[str, Any], info: Info, model: str, key: str) -> Wanted:
    """What a body wants; ApiError names the field that cannot be used."""
    fields = Fields(body, KNOWN, neutral=NEUTRAL)
    need_model(fields, model)
    fields.text("user", most=USER_LENGTH)
    prompts, echo = _prompts(fields, info), bool(fields.flag("echo"))
    sampling = read_sampling(fields, info)
    asked = read_max_tokens(fields, info, least=0)
    max_tokens = min(DEFAULT_TOKENS, info.context) if asked is None else asked
    logprobs = fields.whole("logprobs", 0, TOP_LOGPROBS)
    n = sampling.get("n", 1)
    what = f"{len(prompts)} prompts with n={n} are {len(prompts) * n} answers"
    need(len(prompts) * n <= PROMPTS, "n", what, fix=f"ask for at most {PROMPTS}")
    sampling["max_tokens"] = max_tokens
    if logprobs is not None:
        sampling["logprobs"] = logprobs
    if echo and logprobs is not None and max_tokens == 1:
        sampling["ignore_eos"] = True
    asks = tuple(
        Ask(text=one, sampling=sampling, key=key) if isinstance(one, str) else
        Ask(tokens=one, sampling=sampling, key=key) for one in prompts
    )  # fmt: skip
    order = Order(asks=asks, n=n, logprobs=logprobs, **read_stream(fields))
    return Wanted(prompts=prompts, echo=echo, max_tokens=max_tokens, order=order)


def _prompts(fields: Fields, info: Info) -> tuple[Prompt, ...]:
    given = fields.get("prompt")
    says = "a text, a list of token ids, or a list of either"
    fields.want("prompt", isinstance(given, (str, list)) and given != [], says, fix=f"give {says}")
    one = isinstance(given, str) or all(isinstance(item, int) for item in given)
    many = [given] if one else given
    what = f"prompt holds {len(many)} prompts"
    need(len(many) <= PROMPTS, "prompt", what, fix=f"give at most {PROMPTS}")
    for item in many:
        need_short(len(item) if isinstance(item, str) else 0, "prompt", info)
    return tuple(
        item if isinstance(item, str) else token_ids(item, "prompt" if one else f"prompt[{index}]", info)
        for index, item in enumerate(many)
    )


def token_ids(given: Any, param: str, info: Info) -> tuple[int, ...]:
    """A list of ids that are tokens and fit the context."""
    if not isinstance(given, list) or not given:
        raise ApiError(400, f"{param}={quoted(given)} is no list", fix="give token ids", param=param)
    what = f"{param} holds {len(given)} tokens, and the context {info.context}"
    need(len(given) <= info.context, param, what, fix="give less")
    wrong = next((t for t in given if type(t) is not int or not 0 <= t < info.vocabulary), 0)
    known = type(wrong) is int and 0 <= wrong < info.vocabulary
    need(known, param, f"{param} holds {quoted(wrong)}", fix=f"give ids from 0 to {info.vocabulary - 1}")
    return tuple(given)


async def prepare(wanted: Wanted, service: Service) -> Order:
    """The order, with the prompts read and scored where it takes that. ApiError or Refused."""
    scored = wanted.echo and wanted.order.logprobs is not None
    order, lead, asks, lengths = wanted.order, list[Part](), list[Ask](), list[int]()
    entries = 0
    for number, (prompt, ask) in enumerate(zip(wanted.prompts, order.asks, strict=True)):
        ids, hidden = prompt, 0
        if isinstance(prompt, str) and (scored or wanted.max_tokens == 0):
            bos = await service.begin_of_text()
            ids, hidden = (*bos, *await service.link.encode(text=prompt)), len(bos)
            need_room(len(ids), "prompt", service.info)
            ask = replace(ask, text=None, tokens=ids)
        if scored:
            entries += len(ids) * order.n * ((order.logprobs or 0) + 1)
            what = f"{entries:,} log probabilities of prompts, and at most {MOST_ENTRIES:,} are told"
            need(entries <= MOST_ENTRIES, "logprobs", what, fix="send fewer prompts at a time")
        if wanted.echo:
            part = await _echoed(prompt, ids, hidden, service, order.logprobs)
            lead += [replace(part, index=number * order.n + k) for k in range(order.n)]
        asks.append(ask)
        lengths.append(len(ids))
    if wanted.max_tokens == 0:
        return replace(order, asks=(), lead=tuple(lead), unasked=tuple(lengths))
    return replace(order, asks=tuple(asks), lead=tuple(lead))


async def _echoed(prompt: Prompt, ids: Prompt, hidden: int, service: Service, logprobs: int | None) -> Part:
    """A prompt as the part that its answers begin with. `hidden` tokens at its head are not in its text."""
    if isinstance(ids, str):
        return Part(index=0, text=ids)
    await service.texts.fetch(ids)
    text = prompt if isinstance(prompt, str) else service.texts.joined(ids)
    if logprobs is None:
        return Part(index=0, text=text)
    scores = (await service.link.score(list(ids), logprobs))[hidden:]
    await service.texts.fetch(t for _, _, top in scores for t, _ in top)
    entries = [entry(service.texts, *one) for one in scores]
    return Part(index=0, text=text, logprobs=entries, echoed=len(entries))


class TextForm:
    """Parts of answers as OpenAI's completions. One for each request: it counts characters."""

    whole_object, chunk_object, prefix = "text_completion", "text_completion", "cmpl-"

    def __init__(self) -> None:
        self._offsets: dict[int, Offsets] = {}

    def opening(self, index: int) -> dict[str, Any] | None:
        """None: such a stream begins with text."""
        return None

    def chunk(self, part: Part) -> dict[str, Any]:
        """A part as a choice; chunks and whole answers look the same."""
        return {
            "index": part.index, "text": part.text, "logprobs": self._logprobs(part),
            "finish_reason": part.finish,
        }  # fmt: skip

    whole = chunk

    def _logprobs(self, part: Part) -> dict[str, Any] | None:
        if part.logprobs is None:
            return None
        own, offsets = self._offsets.setdefault(part.index, Offsets()), []
        for place, (raw, _, _) in enumerate(part.logprobs, start=1):
            offsets.append(own.next(raw))
            if place == part.echoed:  # the engine's own text begins with a character of its own
                own.cut()
        return {
            "tokens": [shown(raw) for raw, _, _ in part.logprobs],
            "token_logprobs": [log for _, log, _ in part.logprobs],
            "top_logprobs": [_ranked(*one) for one in part.logprobs],
            "text_offset": offsets,
        }


def _ranked(raw: str, log: float | None, top: list[tuple[str, float]]) -> dict[str, float] | None:
    """The likeliest by text, and the token itself. Of two tokens that look the same the likelier counts."""
    if log is None:
        return None
    ranked: dict[str, float] = {}
    for other, value in [*top, (raw, log)]:
        ranked.setdefault(shown(other), value)
    return ranked
