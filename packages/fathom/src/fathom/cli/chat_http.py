"""An OpenAI-compatible server over HTTP, with the standard library alone.

Certificates are verified, silence has an end, what is read is bounded, no proxy is used, and no redirect
leads to another host, for the key would go with it.
"""

from __future__ import annotations

import contextlib
import json
import ssl
from collections.abc import Generator, Iterator
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from ipaddress import ip_address
from typing import Any
from urllib.parse import SplitResult, urljoin, urlsplit

from fathom import __version__
from fathom.cli.chat_errors import (
    WRONG,
    ServerError,
    broken,
    elsewhere,
    message,
    nonsense,
    refused,
    unanswered,
    unreached,
)
from fathom.config.errors import ConfigError, need, plain, quoted

PATIENCE = 120.0  # seconds of silence; a long prompt on a slow machine takes its time
LONGEST_PATIENCE = 86_400.0  # seconds
TO_CONNECT = 10.0  # seconds
MOST_REDIRECTS = 3
LONGEST_EVENT = 1 << 20  # bytes
LONGEST_ANSWER = 16 << 20  # bytes of one that is not streamed, or of a list of models
LONGEST_STREAM = 512 << 20  # bytes of a streamed one, most of which is not its text
PORTS = {"http": 80, "https": 443}
KEPT = {307, 308}  # redirects that keep the method
REDIRECTS = {301, 302, 303} | KEPT


class Server:
    """Where requests go: a connection for each, closed when its answer ends or nobody reads on."""

    def __init__(self, url: str, *, key: str = "", timeout: float | None = None) -> None:
        """`url` ends with the API's base; without a path it is /v1. ConfigError if it cannot be used."""
        self.timeout = PATIENCE if timeout is None else timeout
        bounds = f"give seconds above 0, at most {LONGEST_PATIENCE:g}"
        ok = 0 < self.timeout <= LONGEST_PATIENCE
        need(ok, f"--timeout {self.timeout:g} is out of bounds", fix=bounds)
        need(fits_a_header(key), "the API key holds what no header can", fix="give it as it was issued")
        self.key, parts = key, parsed(url)
        self.scheme, self.host = parts.scheme, parts.hostname or ""
        self.port = parts.port or PORTS[self.scheme]
        self.path = parts.path.rstrip("/").removesuffix("/chat/completions") or "/v1"
        self.origin = f"{self.scheme}://{parts.netloc}"
        self.base = self.origin + self.path

    @property
    def tells_the_key(self) -> bool:
        """Whether others on the way to the server could read the key."""
        try:
            here = ip_address(self.host).is_loopback
        except ValueError:
            here = self.host == "localhost"
        return bool(self.key) and self.scheme == "http" and not here

    def first_model(self) -> str:
        """Of those that the server lists."""
        with self._sent("GET", "/models") as response:
            listed = self._object(self._whole(response)).get("data")
        first = listed[0] if isinstance(listed, list) and listed else None
        name = first.get("id") if isinstance(first, dict) else None
        if not isinstance(name, str) or not name:
            raise ServerError(f"{self.base} lists no model", fix="name one with --model", exit_code=WRONG)
        return name

    def chat(self, body: dict[str, Any]) -> Generator[dict[str, Any], None, None]:
        """The parsed events of a streamed answer, or the one object of a server that does not stream.

        Errors: ServerError; behind events if the stream breaks off or turns to nonsense. Close the generator
        to hang up.
        """
        with self._sent("POST", "/chat/completions", json.dumps(body).encode()) as response:
            kind = response.headers.get_content_type()
            if kind == "application/json":
                yield self._object(self._whole(response))
                return
            if kind != "text/event-stream":
                raise nonsense(self.base, f"{plain(kind)} in place of a stream of events")
            ended = False
            try:
                for data in self._events(response):
                    if data == "[DONE]":
                        return
                    event = self._object(data)
                    yield event
                    ended = ended or finished(event)
            except (OSError, HTTPException) as error:
                if not ended:
                    raise broken(self.origin, self.timeout, error) from None
            if not ended:
                raise broken(self.origin, self.timeout, None)

    def _events(self, response: HTTPResponse) -> Iterator[str]:
        """The data of each server-sent event; comments and other fields are passed over."""
        data: list[str] = []
        held = total = 0
        while line := response.readline(LONGEST_EVENT + 1):
            held, total = held + len(line), total + len(line)
            if total > LONGEST_STREAM:
                raise nonsense(self.base, f"an answer of over {LONGEST_STREAM:,} bytes")
            if held > LONGEST_EVENT:
                raise nonsense(self.base, f"an event of over {LONGEST_EVENT:,} bytes")
            try:
                text = line.decode("utf-8").rstrip("\r\n")
            except UnicodeDecodeError:
                raise nonsense(self.base, f"{quoted(line)}, which is not UTF-8") from None
            if text.startswith("data:"):
                data.append(text[5:].removeprefix(" "))
            elif text.startswith(":"):
                held -= len(line)
            elif not text:
                if data:
                    yield "\n".join(data)
                data, held = [], 0
        if data == ["[DONE]"]:  # the empty line behind it may be missing
            yield data[0]

    @contextlib.contextmanager
    def _sent(self, method: str, path: str, body: bytes | None = None) -> Iterator[HTTPResponse]:
        """The response, with status 200; closed behind the block."""
        target = self.path + path
        for _ in range(MOST_REDIRECTS + 1):
            connection, response = self._exchange(method, target, body)
            with contextlib.closing(connection), contextlib.closing(response):
                if response.status == 200:
                    yield response
                    return
                if response.status not in REDIRECTS:
                    raise self._refusal(response)
                target = self._onward(response, method, target)
        raise ServerError(f"{self.base} sends us in circles", fix="correct --url", exit_code=WRONG)

    def _exchange(
        self, method: str, target: str, body: bytes | None
    ) -> tuple[HTTPConnection, HTTPResponse]:
        headers = {"Accept": "text/event-stream, application/json", "Connection": "close"}
        headers["User-Agent"] = f"fathom/{__version__}"
        if body is not None:
            headers["Content-Type"] = "application/json"
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        with contextlib.ExitStack() as unless_answered:
            connection = self._connection()
            unless_answered.callback(connection.close)
            try:
                connection.connect()
            except (OSError, UnicodeError) as error:
                raise unreached(self.origin, self.host, error) from None
            connection.sock.settimeout(self.timeout)
            try:
                connection.request(method, target, body, headers)
                response = connection.getresponse()
            except (OSError, HTTPException) as error:
                raise unanswered(self.origin, self.timeout, error) from None
            unless_answered.pop_all()
        return connection, response

    def _connection(self) -> HTTPConnection:
        patience = min(TO_CONNECT, self.timeout)
        if self.scheme == "http":
            return HTTPConnection(self.host, self.port, timeout=patience)
        verified = ssl.create_default_context()
        return HTTPSConnection(self.host, self.port, timeout=patience, context=verified)

    def _whole(self, response: HTTPResponse) -> str:
        try:
            read = response.read(LONGEST_ANSWER + 1)
        except (OSError, HTTPException) as error:
            raise broken(self.origin, self.timeout, error) from None
        if len(read) > LONGEST_ANSWER:
            raise nonsense(self.base, f"over {LONGEST_ANSWER:,} bytes at once")
        return read.decode("utf-8", "replace")

    def _object(self, text: str) -> dict[str, Any]:
        """`text` as a JSON object; an error that the server puts in its place is raised."""
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            raise nonsense(self.base, f"{quoted(text)}, which is no JSON object")
        if value.get("error"):
            said, theirs = message(value, self.key)
            raise ServerError(f"the server says: {said}", fix=theirs or "/regen asks again")
        return value

    def _refusal(self, response: HTTPResponse) -> ServerError:
        said, theirs = "", ""
        with contextlib.suppress(OSError, HTTPException, ValueError, RecursionError):
            said, theirs = message(json.loads(response.read(LONGEST_EVENT)), self.key)
        return refused(self.base, response.status, response.headers.get("Retry-After", ""), said, theirs)

    def _onward(self, response: HTTPResponse, method: str, target: str) -> str:
        """Where a redirect leads, if that is at the same place. ServerError if it is not."""
        told = response.headers.get("Location", "")
        try:
            parts = urlsplit(urljoin(self.origin + target, told))
            there = parts.scheme, parts.hostname, parts.port or PORTS.get(parts.scheme)
        except ValueError:
            raise nonsense(self.base, f"a redirect to {quoted(told)}") from None
        if there != (self.scheme, self.host, self.port):
            raise elsewhere(self.origin, parts)
        if method != "GET" and response.status not in KEPT:
            what = f"{self.origin} moved the chat to {plain(parts.path)}"
            raise ServerError(what, fix="give that as --url", exit_code=WRONG)
        onward = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        if not fits_a_header(onward):
            raise nonsense(self.base, f"a redirect to {quoted(told)}")
        return onward


def finished(event: dict[str, Any]) -> bool:
    """Whether `event` says why the answer ended."""
    choices = event.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    return isinstance(first, dict) and bool(first.get("finish_reason"))


def fits_a_header(text: str) -> bool:
    """Whether `text` is printable ASCII without a blank: no line of a request ends in it."""
    return text.isascii() and text.isprintable() and " " not in text


def parsed(url: str) -> SplitResult:
    """The parts of --url; ConfigError for what is no plain http or https address."""
    what, fix = f"--url {quoted(url)} is no address", "give one such as http://localhost:8000"
    need(fits_a_header(url), what, fix=fix)
    try:
        parts = urlsplit(url)
        known = parts.scheme in PORTS and bool(parts.hostname) and parts.port != 0
    except ValueError:
        raise ConfigError(f"{what}. Fix: {fix}") from None
    secret = "@" in parts.netloc
    need(not secret, "--url holds a name or a password", fix="give the key as --api-key")
    need(known, what, fix=fix)
    bare = not parts.query and not parts.fragment
    need(bare, f"--url {quoted(url)} goes on behind its path", fix="leave out what follows ? or #")
    return parts
