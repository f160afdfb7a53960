"""What a request asks for, whichever route it came by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fathom.config.errors import quoted
from fathom.serve.errors import ApiError
from fathom.serve.fields import Fields
from fathom.serve.parts import Part
from fathom.serve.wire import Ask


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """Requests to the engine, and how their answers are told.

    asks       one a prompt; choice k of prompt p has index p * n + k
    logprobs   None = none are told
    lead       parts that stand before what the engine writes: the prompt, if it is echoed
    unasked    tokens of prompts that the engine is not asked to continue, for `usage`
    """

    asks: tuple[Ask, ...]
    n: int = 1
    logprobs: int | None = None
    stream: bool = False
    usage: bool = False
    details: bool = False
    lead: tuple[Part, ...] = ()
    unasked: tuple[int, ...] = ()

    @property
    def choices(self) -> int:
        """Over all prompts."""
        return self.n * (len(self.asks) or len(self.unasked))


def need_model(fields: Fields, model: str) -> None:
    """Refuse a request for another model; one that names none means this one."""
    name = fields.text("model", most=1024)
    if name not in (None, "", model):
        what = f"the model {quoted(name)} does not exist here"
        raise ApiError(404, what, fix=f"ask for {model}", param="model", code="model_not_found")


def read_stream(fields: Fields) -> dict[str, Any]:
    """stream, stream_options and fathom_details, as fields of Order."""
    stream = bool(fields.flag("stream"))
    usage = False
    if fields.given("stream_options"):
        fields.want("stream_options", stream, "given with stream", fix="set stream to true, or leave it out")
        neutral = {"include_obfuscation": (False,)}
        options = Fields(
            fields.get("stream_options"), ("include_usage",), where="stream_options.", neutral=neutral
        )
        usage = bool(options.flag("include_usage"))
    return {"stream": stream, "usage": usage, "details": bool(fields.flag("fathom_details"))}
