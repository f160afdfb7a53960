"""uvicorn's HTTP/1.1 with limits that it lacks: connections, slow heads, and errors in our form."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from fathom.serve.errors import ApiError, json_bytes
from fathom.serve.guard import HEADERS
from fathom.serve.limits import CONNECTIONS, HEADER_BYTES, Settings

LARGEST_HEAD = 2 * HEADER_BYTES  # bytes that are held before the guard can count


def protocol_for(settings: Settings) -> type[H11Protocol]:
    """The protocol class of one server."""
    most = settings.most_inside + CONNECTIONS

    class Limited(H11Protocol):
        """A connection that must say what it wants, and soon."""

        _deadline: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            if len(self.connections) > most:
                transport.abort()
                return
            # asyncio does so only where the listening socket names its protocol, and ours does not
            own = transport.get_extra_info("socket")
            own.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if hasattr(socket, "TCP_USER_TIMEOUT"):  # what nobody takes must not keep a connection for ever
                milliseconds = int(settings.write_seconds * 1000)
                own.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)
            self.app_state = {**self.app_state, "abort": transport.abort}
            self._watch()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.cycle is not None and not (self.cycle.more_body or self.cycle.response_complete):
                self._read_on()
            self._watch()

        def connection_lost(self, exc: Exception | None) -> None:
            self._forget()
            super().connection_lost(exc)

        def send_400_response(self, msg: str) -> None:
            if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
                for event in _no_http():
                    self.transport.write(self.conn.send(event) or b"")
            self.transport.close()

        def _read_on(self) -> None:
            """uvicorn does not while a next request waits, and would not see that the client leaves."""
            if len(self.conn.trailing_data[0]) > LARGEST_HEAD:
                self.transport.abort()
            else:
                self.flow.resume_reading()

        def _watch(self) -> None:
            """A head has so long to be whole; and so long what is sent after an answer may go on."""
            waits = self.cycle is None or self.cycle.response_complete
            if not waits:
                self._forget()
            elif self._deadline is None and self.timeout_keep_alive_task is None:
                self._deadline = self.loop.call_later(settings.header_seconds, self.transport.close)

        def _forget(self) -> None:
            if self._deadline is not None:
                self._deadline.cancel()
                self._deadline = None

    return Limited


def _no_http() -> tuple[h11.Response, h11.Data, h11.EndOfMessage]:
    error = ApiError(400, "this is no HTTP request", fix="send HTTP/1.1")
    body = json_bytes(error.body())
    headers = [
        (b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"), *HEADERS,
    ]  # fmt: skip
    head = h11.Response(status_code=400, headers=headers, reason=b"Bad Request")
    return head, h11.Data(data=body), h11.EndOfMessage()


def uvicorn_settings(settings: Settings) -> dict[str, Any]:
    """For uvicorn.Config. No proxy's word is taken for who the client is."""
    return {
        "http": protocol_for(settings), "ws": "none", "lifespan": "off", "loop": "asyncio",
        "proxy_headers": False, "server_header": False, "access_log": False,
        "log_config": None, "log_level": "error", "timeout_keep_alive": 30, "timeout_graceful_shutdown": 2,
        "h11_max_incomplete_event_size": LARGEST_HEAD, "backlog": 512,
    }  # fmt: skip
