"""Who may talk to the server: whoever has a key or, where there are no keys, this machine alone."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.types import Scope

from fathom.config.errors import quoted
from fathom.serve.errors import ApiError
from fathom.serve.limits import HEADER_BYTES, HEADERS, TARGET_BYTES

BY_PROXY = (b"forwarded", b"x-forwarded-for", b"x-forwarded-host", b"x-real-ip")


def is_loopback(host: str) -> bool:
    """Whether an address or a host's name, without a port, means this machine."""
    try:
        address = ip_address(host.strip("[]"))
    except ValueError:
        return host.lower() == "localhost"
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


class Keys:
    """The keys that open the server."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._digests = [hashlib.sha256(key.encode()).digest() for key in keys]

    def __bool__(self) -> bool:
        return bool(self._digests)

    def knows(self, given: bytes) -> str:
        """A short name of the key; "" for what is none. Takes as long for a wrong one as for a right one."""
        digest, found = hashlib.sha256(given).digest(), ""
        for known in self._digests:
            if hmac.compare_digest(known, digest):
                found = known.hex()[:16]
        return found


class Access:
    """Judges a request by its head."""

    def __init__(self, keys: Sequence[str]) -> None:
        self.keys = Keys(keys)

    def admit(self, scope: Scope, *, page: bool) -> str:
        """The name of its key, "" where none is needed. ApiError. `page`: a browser may ask for the key."""
        headers = scope["headers"]
        self._origin(headers)
        if self.keys:
            return self._key(headers, page)
        client = scope.get("client")
        if client is None or not is_loopback(client[0]):
            raise ApiError(403, "without a key only this machine is served", fix="start it with --api-key")
        if any(name in BY_PROXY for name, _ in headers):
            raise ApiError(
                403, "this came through a proxy, and there is no key", fix="start it with --api-key"
            )
        if not is_loopback(_hostname(_only(headers, b"host"))):
            what = f"the host {quoted(_text(_only(headers, b'host')))} is not this machine"
            raise ApiError(403, what, fix="ask for localhost, or start it with --api-key")
        return ""

    def _origin(self, headers: Sequence[tuple[bytes, bytes]]) -> None:
        """A page of another site may not use a browser's access."""
        origin = _only(headers, b"origin")
        if origin is None:
            return
        try:
            theirs = urlsplit(_text(origin)).netloc.lower()
        except ValueError:
            theirs = ""
        own = _text(_only(headers, b"host")).lower()
        if not theirs or theirs != own:
            what = f"the page of {quoted(_text(origin))} may not use this server"
            raise ApiError(403, what, fix="use the page that this server brings")

    def _key(self, headers: Sequence[tuple[bytes, bytes]], page: bool) -> str:
        given = _only(headers, b"authorization") or b""
        scheme, _, secret = given.partition(b" ")
        kind = scheme.lower()
        if kind == b"bearer":
            name = self.keys.knows(secret.strip())
        elif kind == b"basic":
            name = self.keys.knows(_password(secret.strip()))
        else:
            name = ""
        if not name:
            what = "the API key is wrong" if given else "an API key is needed"
            error = ApiError(401, what, fix="send the header Authorization: Bearer KEY")
            error.headers["WWW-Authenticate"] = 'Basic realm="fathom"' if page and not given else "Bearer"
            raise error
        return name


def _password(encoded: bytes) -> bytes:
    """Of HTTP's basic authentication, which is how a browser asks its person for a key."""
    try:
        return base64.b64decode(encoded, validate=True).partition(b":")[2]
    except binascii.Error:
        return b""


def need_moderate(scope: Scope) -> None:
    """Refuse heads that are longer than any honest one, and bodies that two readers might end differently."""
    size = sum(len(name) + len(value) for name, value in scope["headers"])
    if len(scope["headers"]) > HEADERS or size > HEADER_BYTES:
        what = f"{len(scope['headers'])} headers of {size} bytes"
        raise ApiError(431, what, fix=f"send at most {HEADERS}, of {HEADER_BYTES} bytes together")
    target = len(scope.get("raw_path") or b"") + len(scope.get("query_string") or b"")
    if target > TARGET_BYTES:
        raise ApiError(414, f"an address of {target} bytes", fix=f"use at most {TARGET_BYTES}")
    if {b"content-length", b"transfer-encoding"} <= {name for name, _ in scope["headers"]}:
        raise ApiError(400, "a body both with a length and in chunks", fix="send it one way")


def _only(headers: Sequence[tuple[bytes, bytes]], name: bytes) -> bytes | None:
    """The one header of this name; ApiError for two, of which others might read another one than we do."""
    found = [value for key, value in headers if key == name]
    if len(found) > 1:
        raise ApiError(400, f"the header {name.decode()} comes {len(found)} times", fix="send it once")
    return found[0] if found else None


def _text(value: bytes | None) -> str:
    return (value or b"").decode("latin-1").strip()


def _hostname(value: bytes | None) -> str:
    host = _text(value)
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0]
