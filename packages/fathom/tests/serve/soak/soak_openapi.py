"""The routes as OpenAPI 3.1 has them, made from the server's own tables of fields and limits.

A field that the server comes to know and that has no form here is a KeyError, so this cannot fall behind.
"""

from __future__ import annotations

from typing import Any

from fathom.serve import chat, completions, limits, messages, other_routes

Form = dict[str, Any]
ERRORS = {400, 404, 408, 413, 414, 415, 429, 431, 503}      # that a request alone can bring about, and no key
NULL: Form = {"type": "null"}


def text(most: int | None = None, least: int = 0) -> Form:
    return {"type": "string", "minLength": least} | ({} if most is None else {"maxLength": most})


def whole(low: int, high: int) -> Form:
    return {"type": "integer", "minimum": low, "maximum": high}


def number(low: float, high: float, *, above: bool = False) -> Form:
    return {"type": "number", "exclusiveMinimum" if above else "minimum": low, "maximum": high}


def many(items: Form, most: int, least: int = 0) -> Form:
    return {"type": "array", "items": items, "minItems": least, "maxItems": most}


def table(needed: list[str], fields: dict[str, Form]) -> Form:
    """An object of these fields, each of which may be null unless it is needed."""
    forms = {name: one if name in needed else {"anyOf": [one, NULL]} for name, one in fields.items()}
    return {"type": "object", "properties": forms, "required": needed, "additionalProperties": False}


FLAG: Form = {"type": "boolean"}
SCHEMA: Form = {"type": "object", "properties": {"type": {"enum": ["object", "string", "integer", "array"]}},
                "required": ["type"], "additionalProperties": False}  # fmt: skip
STOP = text(limits.STOP_LENGTH, 1)
FORMAT: Form = {"anyOf": [
    table(["type"], {"type": {"enum": ["text", "json_object"]}}),
    table(["type", "json_schema"], {"type": {"const": "json_schema"}, "json_schema": table(["schema"], {
        "name": text(64), "description": text(), "schema": SCHEMA, "strict": FLAG,
    })}),
]}  # fmt: skip
PART = table(["type", "text"], {"type": {"const": "text"}, "text": text()})
CONTENT: Form = {"anyOf": [text(), many(PART, 4)]}
CALL = table(["function"], {"id": text(256), "type": {"const": "function"}, "index": {},
    "function": table(["name", "arguments"], {"name": text(256), "arguments": text()})})  # fmt: skip
NAME: Form = {"type": "string", "pattern": f"^{messages.NAME.pattern}$"}
TOOL = table(["type", "function"], {"type": {"const": "function"}, "function": table(["name"], {
    "name": NAME, "description": text(), "parameters": SCHEMA, "strict": FLAG})})  # fmt: skip


def message(role: str) -> Form:
    short = text(256)
    also = {"assistant": {"tool_calls": many(CALL, 3)}, "tool": {"tool_call_id": short, "name": short}}
    return table(["role", "content"], {"role": {"const": role}, "content": CONTENT, **also.get(role, {})})


def forms(context: int, vocabulary: int) -> dict[str, Form]:
    """Of every field, by its name; those that differ between the routes are in `bodies`."""
    token = {"type": "string", "enum": [str(k) for k in range(vocabulary)]}
    return {
        "temperature": number(0, 2), "top_p": number(0, 1, above=True), "top_k": whole(-1, 10**9),
        "min_p": number(0, 1), "presence_penalty": number(-2, 2), "frequency_penalty": number(-2, 2),
        "repetition_penalty": number(0, 100, above=True), "ignore_eos": FLAG,
        "logit_bias": {"type": "object", "propertyNames": token, "additionalProperties": number(-100, 100),
                       "maxProperties": limits.BIASES},
        "stop": {"anyOf": [STOP, many(STOP, limits.STOPS)]}, "seed": whole(-(2**63), 2**64 - 1),
        "n": whole(1, limits.CHOICES),
        "max_tokens": whole(1, context), "max_completion_tokens": whole(1, context),
        "response_format": FORMAT, "stream": FLAG, "user": text(limits.USER_LENGTH), "fathom_details": FLAG,
        "stream_options": table([], {"include_usage": FLAG}), "model": {"enum": ["", "tiny"]},
        "messages": many({"anyOf": [message(role) for role in messages.ROLES]}, limits.MESSAGES, 1),
        "top_logprobs": whole(0, limits.TOP_LOGPROBS), "logprobs": FLAG, "tools": many(TOOL, limits.TOOLS),
        "tool_choice": {"enum": ["none", "auto"]}, "echo": FLAG,
    }  # fmt: skip


def bodies(context: int, vocabulary: int) -> dict[str, Form]:
    """What each route takes, by its path."""
    known, ids = forms(context, vocabulary), many({"enum": [*range(vocabulary)]}, context, 1)
    prompt: Form = {"anyOf": [text(), ids, many({"anyOf": [text(), ids]}, limits.PROMPTS, 1)]}
    texts = known | {"prompt": prompt, "max_tokens": whole(0, context), "logprobs": known["top_logprobs"]}
    either = {"prompt": text(), "messages": known["messages"]}
    others = {name: FLAG for name in other_routes.TOKENIZE if name not in either} | {"model": known["model"]}

    def asked(names: Any, fields: dict[str, Form], neutral: dict[str, tuple[Any, ...]], needed: str) -> Form:
        nothing = {name: {"enum": [*values]} if values else NULL for name, values in neutral.items()}
        return table([needed], {name: fields[name] for name in names} | nothing)

    return {
        "/v1/chat/completions": asked(chat.KNOWN, known, chat.NEUTRAL, "messages"),
        "/v1/completions": asked(completions.KNOWN, texts, completions.NEUTRAL, "prompt"),
        "/tokenize": {"anyOf": [table([name], others | {name: one}) for name, one in either.items()]},
        "/fathom/experts": table(["tokens"], {"tokens": ids}),
    }


def document(context: int, vocabulary: int) -> Form:
    """All of it."""
    error = table(["message", "type", "param", "code"], {
        "message": {"type": "string", "pattern": "Fix: "}, "type": {"type": "string", "pattern": "_error$"},
        "param": {"type": ["string", "null"]}, "code": {"type": "string"},
    })  # fmt: skip
    refusal = {"application/json": {"schema": table(["error"], {"error": error})}}
    refused = {str(status): {"description": "refused", "content": refusal} for status in sorted(ERRORS)}
    paths: dict[str, Any] = {}
    for path, body in bodies(context, vocabulary).items():
        answer: Form = {"application/json": {"schema": {"type": "object"}}}
        if path.endswith("completions"):
            form = {"type": "object", "required": ["id", "choices", "usage"]}
            answer = {"application/json": {"schema": form}, "text/event-stream": {}}
        asked = {"required": True, "content": {"application/json": {"schema": body}}}
        told = {"200": {"description": "an answer", "content": answer}} | refused
        paths[path] = {"post": {"requestBody": asked, "responses": told}}
    for path, kind in (("/v1/models", "application/json"), ("/v1/models/{model}", "application/json"),
                       ("/health", "application/json"), ("/metrics", "text/plain"),
                       ("/fathom/info", "application/json"), ("/", "text/html")):  # fmt: skip
        told = {"200": {"description": "it", "content": {kind: {}}}} | refused
        paths[path] = {"get": {"responses": told}}
        if "{" in path:
            name = {"anyOf": [{"const": "tiny"}, text(None, 1)]}
            form = {"name": "model", "in": "path", "required": True, "schema": name}
            paths[path]["get"]["parameters"] = [form]
    return {"openapi": "3.1.0", "info": {"title": "fathom", "version": "1"}, "paths": paths}
