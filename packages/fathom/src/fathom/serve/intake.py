"""Reading a body: never more than its limit, never longer than its time."""

from __future__ import annotations

import asyncio

from starlette.types import Receive, Scope

from fathom.serve.errors import ApiError

LINGER = 1.0  # seconds in which what a refused client still sends is thrown away, so that it reads why


class Left(Exception):
    """The client closed the connection before its request was whole."""


def need_readable(scope: Scope, most: int) -> None:
    """Refuse by the head what could not be read. ApiError."""
    headers = dict(scope["headers"])
    kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    if kind != b"application/json":
        shown = kind.decode("latin-1")[:60]
        what = f"a body of type {shown!r}" if shown else "a body without a type"
        raise ApiError(415, what, fix="send JSON with Content-Type: application/json")
    if headers.get(b"content-encoding", b"identity").strip().lower() != b"identity":
        raise ApiError(415, "the body is compressed", fix="send it as it is")
    length = headers.get(b"content-length", b"0")
    if not length.isdigit() or int(length[:20]) > most:
        raise too_large(most)


def too_large(most: int) -> ApiError:
    """The body is longer than `most` bytes."""
    return ApiError(413, f"the body is above {most:,} bytes", fix="send less")


async def read_body(receive: Receive, most: int, seconds: float) -> bytes:
    """The whole body, in at most one piece more than `most` bytes. ApiError; Left."""
    pieces, size = list[bytes](), 0
    try:
        async with asyncio.timeout(seconds):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Left
                piece = message.get("body", b"")
                size += len(piece)
                if size > most:
                    raise too_large(most)
                if piece:
                    pieces.append(piece)
                if not message.get("more_body", False):
                    return b"".join(pieces)
    except TimeoutError:
        raise ApiError(408, f"the body did not come within {seconds:g} s", fix="send it faster") from None


async def throw_away(receive: Receive, most: int) -> None:
    """Read on for a moment and keep nothing: who still sends when it is closed loses what it was told."""
    size = 0
    try:
        async with asyncio.timeout(LINGER):
            while size <= most:
                message = await receive()
                size += len(message.get("body", b""))
                if message["type"] == "http.disconnect" or not message.get("more_body", False):
                    return
    except TimeoutError:
        return
