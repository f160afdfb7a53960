"""The middleware before every route: access, limits, a place inside, the body, headers of every answer.

The order is that of cost. The head decides first; then whether there is a place; only then a body is read,
and only a whole one reaches a route.
"""

from __future__ import annotations

import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fathom.serve.access import Access, need_moderate
from fathom.serve.errors import ApiError
from fathom.serve.intake import Left, need_readable, read_body, throw_away
from fathom.serve.service import Service

OPEN = frozenset({("GET", "/health"), ("HEAD", "/health")})  # served to everybody
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
    (b"cache-control", b"no-store"),
)


class Guard:
    """Lets through what may come in; `page` says which paths are the chat page's."""

    def __init__(self, app: ASGIApp, service: Service, routes: frozenset[str], page: frozenset[str]) -> None:
        self.app, self.service = app, service
        self._routes, self._page = routes, page
        self._access = Access(service.settings.keys)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As an ASGI application."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            scope["state"] = {**scope.get("state", {}), "began": time.monotonic(), "key": "", "body": b""}
            await self._or_fault(scope, receive, self._dressed(scope, send))

    async def _or_fault(self, scope: Scope, receive: Receive, send: Send) -> None:
        """What goes wrong is told here, for behind the framework's own handler no header would be added."""
        begun = False

        async def noted(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._http(scope, receive, noted)
        except Exception as problem:
            if not begun:
                what = f"the server failed at this request ({type(problem).__name__})"
                error = ApiError(500, what, fix="report it as a fault of the server")
                await error.response({"Connection": "close"})(scope, receive, noted)
            raise  # uvicorn writes it down

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            need_moderate(scope)
            if (scope["method"], scope["path"]) not in OPEN:
                scope["state"]["key"] = self._access.admit(scope, page=scope["path"] in self._page)
            if scope["method"] != "POST":
                await self.app(scope, receive, send)
                return
            self.service.doors.enter()
        except ApiError as error:
            await self._refuse(error, scope, receive, send)
            return
        try:
            await self._post(scope, receive, send)
        finally:
            self.service.doors.leave()

    async def _post(self, scope: Scope, receive: Receive, send: Send) -> None:
        settings = self.service.settings
        try:
            need_readable(scope, settings.body_bytes)
            body = await read_body(receive, settings.body_bytes, settings.body_seconds)
        except Left:
            return
        except ApiError as error:
            await self._refuse(error, scope, receive, send)
            return
        scope["state"]["body"] = body
        await self.app(scope, _behind(body, receive), send)

    async def _refuse(self, error: ApiError, scope: Scope, receive: Receive, send: Send) -> None:
        """Say why, at once. The connection is of no more use: what else comes belongs to no request."""
        response, headers = error.response({"Connection": "close"}), dict(scope["headers"])
        head = {"type": "http.response.start", "status": error.status, "headers": response.raw_headers}
        await send(head)
        await send({"type": "http.response.body", "body": response.body, "more_body": True})
        if scope["method"] == "POST" and error.status != 408 and b"expect" not in headers:
            await throw_away(receive, self.service.settings.body_bytes)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _dressed(self, scope: Scope, send: Send) -> Send:
        """`send` that adds the headers of every answer, and counts it."""
        route = scope["path"] if scope["path"] in self._routes else "other"

        async def dressed(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = {name.lower() for name, _ in message.get("headers", ())}
                more = [(name, value) for name, value in HEADERS if name not in given]
                message = {**message, "headers": [*message.get("headers", ()), *more]}
                self.service.metrics.http.labels(route, str(message["status"])).inc()
            await send(message)

        return dressed


def _behind(body: bytes, receive: Receive) -> Receive:
    """`receive` that tells of the body once more, and then of what follows."""
    left = [body]

    async def behind() -> Message:
        if not left:
            return await receive()
        return {"type": "http.request", "body": left.pop(), "more_body": False}

    return behind
