"""Whether a prompt can fit the context, judged before it is encoded where that is certain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fathom.serve.errors import need
from fathom.serve.wire import Info


def need_short(characters: int, param: str, info: Info) -> None:
    """Refuse a text that is too long however it is cut into tokens; one has `info.token_bytes` at most."""
    most = info.context * info.token_bytes
    what = f"{param} has {characters:,} characters, which the context of {info.context} tokens cannot hold"
    need(not most or characters <= most, param, what, fix="give less")


def need_short_talk(messages: Sequence[Mapping[str, Any]], info: Info) -> None:
    """The same of a conversation."""
    need_short(sum(len(one["content"]) for one in messages), "messages", info)


def need_room(tokens: int, param: str, info: Info) -> None:
    """Refuse a prompt of so many tokens if they are more than the context."""
    what = f"{param} has {tokens} tokens, and the context {info.context}"
    need(tokens <= info.context, param, what, fix="give less")
