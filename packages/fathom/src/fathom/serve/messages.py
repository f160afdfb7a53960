"""Messages and tools of a chat request, checked and brought into the form that the chat template reads."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from fathom.config.errors import quoted
from fathom.serve.errors import ApiError, need
from fathom.serve.fields import Fields, need_shallow
from fathom.serve.limits import MESSAGES, TOOL_NAME, TOOLS

ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "tool"}
ALSO = {"assistant": ("tool_calls",), "tool": ("tool_call_id", "name")}
NEUTRAL: dict[str, tuple[Any, ...]] = {     # what clients send back with an assistant's message
    "refusal": (), "audio": (), "function_call": (), "annotations": ([],),
}  # fmt: skip
NAME = re.compile(rf"[A-Za-z0-9_.-]{{1,{TOOL_NAME}}}")


def read_messages(fields: Fields) -> tuple[Mapping[str, Any], ...]:
    """Each as {"role", "content"} and, of the assistant, "tool_calls"."""
    fields.want("messages", fields.given("messages"), "a list", fix="give a list of messages")
    given = fields.items("messages", MESSAGES, least=1)
    return tuple(_message(f"messages[{index}]", one) for index, one in enumerate(given))


def _message(where: str, given: Any) -> Mapping[str, Any]:
    if not isinstance(given, Mapping):
        raise ApiError(400, f"{where}={quoted(given)} is not an object", fix="give a message", param=where)
    role = given.get("role")
    known = isinstance(role, str) and role in ROLES
    what = f"{where}.role={quoted(role)} is not known"
    need(known, f"{where}.role", what, fix=f"use one of {', '.join(ROLES)}")
    also = ALSO.get(str(role), ())
    fields = Fields(given, ("role", "content", *also), where=f"{where}.", neutral=NEUTRAL)
    for name in ("tool_call_id", "name"):  # the template has no place for them
        fields.text(name, most=256)
    message: dict[str, Any] = {"role": ROLES[str(role)]}
    calls = fields.items("tool_calls", TOOLS)
    if calls:
        message["tool_calls"] = [_call(f"{where}.tool_calls[{k}]", call) for k, call in enumerate(calls)]
    if calls and not fields.given("content"):
        return message | {"content": ""}
    return message | {"content": _content(fields)}


def _content(fields: Fields) -> str:
    content, param = fields.get("content"), fields.param("content")
    if isinstance(content, str):
        return content
    fields.want("content", isinstance(content, list), "a text or a list of parts", fix="give a text")
    texts = []
    for index, part in enumerate(content):
        where = f"{param}[{index}]"
        kind = part.get("type") if isinstance(part, Mapping) else None
        what = f"{where} is of type {quoted(kind)}"
        need(
            kind == "text",
            where,
            what,
            fix="give parts of type text; nothing else is read, no URL is fetched",
        )
        texts.append(Fields(part, ("type", "text"), where=f"{where}.").text("text", required=True) or "")
    return "".join(texts)


def _call(where: str, given: Any) -> Mapping[str, Any]:
    fields = Fields(given, ("id", "type", "function", "index"), where=f"{where}.")
    fields.text("id", most=256)
    kind = fields.get("type")
    fields.want("type", kind in (None, "function"), "function")
    inner = Fields(fields.get("function"), ("name", "arguments"), where=f"{where}.function.")
    name, arguments = inner.text("name", most=256, required=True), inner.text("arguments", required=True)
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


def read_tools(fields: Fields, most: int) -> tuple[Mapping[str, Any], ...]:
    """The functions that the model is told of."""
    found = []
    for index, given in enumerate(fields.items("tools", most)):
        where = f"tools[{index}]"
        outer = Fields(given, ("type", "function"), where=f"{where}.")
        if outer.get("type") != "function":
            what = f"{where}.type={quoted(outer.get('type'))} is not supported"
            raise ApiError(400, what, fix="give tools of type function", param=f"{where}.type")
        known = ("name", "description", "parameters", "strict")
        inner = Fields(outer.get("function"), known, where=f"{where}.function.")
        name, says = inner.get("name"), f"a name of 1 to {TOOL_NAME} letters, digits, _, . and -"
        inner.want(
            "name", isinstance(name, str) and NAME.fullmatch(name) is not None, says, fix=f"give {says}"
        )
        inner.text("description")
        inner.flag("strict")
        parameters = inner.get("parameters")
        inner.want("parameters", parameters is None or isinstance(parameters, Mapping), "a JSON schema")
        need_shallow(parameters, inner.param("parameters"))
        told = ("name", "description", "parameters")
        function = {key: inner.get(key) for key in told if inner.given(key)}
        found.append({"type": "function", "function": function})
    return tuple(found)
