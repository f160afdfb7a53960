"""The fields that say how tokens are chosen, as both kinds of completion know them."""

from __future__ import annotations

from typing import Any

from fathom.serve.errors import need
from fathom.serve.fields import Fields, need_shallow
from fathom.serve.limits import BIASES, CHOICES, STOP_LENGTH, STOPS
from fathom.serve.wire import Info

SAMPLING = (
    "temperature", "top_p", "top_k", "min_p", "presence_penalty", "frequency_penalty", "repetition_penalty",
    "logit_bias", "stop", "ignore_eos", "seed", "n", "max_tokens", "response_format",
)  # fmt: skip


def read_sampling(fields: Fields, info: Info) -> dict[str, Any]:
    """Those of `engine.SamplingParams` that were given; max_tokens and logprobs are the caller's to add."""
    seed, top_k = fields.whole("seed", -(2**63), 2**64 - 1), fields.whole("top_k", -1, 10**9)
    found = {
        "temperature": fields.number("temperature", 0, 2),
        "top_p": fields.number("top_p", 0, 1, above=True),
        "top_k": None if top_k is None else max(top_k, 0),  # -1 is how others say "all"
        "min_p": fields.number("min_p", 0, 1),
        "presence_penalty": fields.number("presence_penalty", -2, 2),
        "frequency_penalty": fields.number("frequency_penalty", -2, 2),
        "repetition_penalty": fields.number("repetition_penalty", 0, 100, above=True),
        "logit_bias": _biases(fields, info),
        "stop": _stops(fields),
        "ignore_eos": fields.flag("ignore_eos"),
        "seed": None if seed is None else seed % 2**64,
        "n": fields.whole("n", 1, CHOICES),
        "json_schema": _schema(fields),
    }
    return {name: value for name, value in found.items() if value is not None}


def _stops(fields: Fields) -> list[str] | None:
    value = fields.get("stop")
    stops = [value] if isinstance(value, str) else value
    says = f"at most {STOPS} texts of 1 to {STOP_LENGTH} characters"
    fits = stops is None or (
        isinstance(stops, list)
        and len(stops) <= STOPS
        and all(isinstance(one, str) and 0 < len(one) <= STOP_LENGTH for one in stops)
    )
    fields.want("stop", fits, says)
    return stops or None


def _biases(fields: Fields, info: Info) -> dict[int, float] | None:
    value = fields.get("logit_bias")
    if value is None:
        return None
    fields.want("logit_bias", isinstance(value, dict), "an object")
    what = f"logit_bias holds {len(value)} tokens"
    need(len(value) <= BIASES, "logit_bias", what, fix=f"give at most {BIASES}")
    biases = {}
    for name, bias in value.items():
        token = int(name) if name.isascii() and name.isdigit() and len(name) <= 9 else -1
        known = 0 <= token < info.vocabulary
        fields.want("logit_bias", known, f"by token ids, which are below {info.vocabulary}")
        number = isinstance(bias, (int, float)) and not isinstance(bias, bool) and -100 <= bias <= 100
        fields.want("logit_bias", number, "of numbers from -100 to 100")
        biases[token] = float(bias)
    return biases or None


def _schema(fields: Fields) -> dict[str, Any] | None:
    if not fields.given("response_format"):
        return None
    known = ("type", "json_schema")
    form = Fields(fields.get("response_format"), known, where="response_format.")
    kind = form.get("type")
    form.want("type", kind in ("text", "json_object", "json_schema"), "text, json_object or json_schema")
    if kind != "json_schema":
        alone = not form.given("json_schema")
        form.want("json_schema", alone, f"part of a format of type {kind}", fix="say type json_schema")
        return {"type": "object"} if kind == "json_object" else None
    about = ("name", "description", "schema", "strict")
    inner = Fields(form.get("json_schema"), about, where="response_format.json_schema.")
    inner.text("name", most=64)
    inner.text("description")
    inner.flag("strict")
    schema = inner.get("schema")
    inner.want("schema", isinstance(schema, dict), "an object", fix="give a JSON schema")
    need_shallow(schema, inner.param("schema"))
    return dict(schema)


def read_max_tokens(fields: Fields, info: Info, *, least: int) -> int | None:
    """max_tokens, or max_completion_tokens, its newer name."""
    names = ("max_tokens", "max_completion_tokens")
    given = {name: fields.whole(name, least, 2**31) for name in names if fields.given(name)}
    what = f"max_tokens and max_completion_tokens differ ({given})"
    need(len(set(given.values())) <= 1, "max_completion_tokens", what, fix="give one of them")
    for name, value in given.items():
        what = f"{name}={value} is beyond the {info.context} positions of prompt and answer together"
        need(value is not None and value <= info.context, name, what, fix="ask for less")
    return next(iter(given.values()), None)
