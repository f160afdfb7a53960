"""What goes wrong between `fathom chat --url` and a server: one line, with the fix, and an exit status."""

from __future__ import annotations

import contextlib
import math
import socket
import ssl
import time
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import SplitResult

from fathom.config.errors import FathomError, plain, quoted

WRONG, BUSY = 2, 75  # exit statuses: what an option mends, and what a later try may
LONGEST_WORD = 200  # characters of a server's own message that we repeat
REFUSES = ("refuses the request", "leave out what it names; /reset if the conversation is too long", WRONG)
MEANINGS = {  # of a status: what the server does, the fix, our exit status
    400: REFUSES,
    401: ("wants a key, or another one", "give --api-key, or set FATHOM_API_KEY", WRONG),
    403: ("does not let this key in", "give another --api-key", WRONG),
    404: ("has no such path or model", "end --url with the API's base, such as /v1; check --model", WRONG),
    413: REFUSES,
    422: REFUSES,
    429: ("takes no more requests now", "try again {later}", BUSY),
    503: ("cannot answer now", "try again {later}", BUSY),
}


class ServerError(FathomError):
    """The server, or the way to it. `status` is HTTP's where there was one."""

    def __init__(self, what: str, *, fix: str, exit_code: int = 1, status: int = 0) -> None:
        super().__init__(f"{what}. Fix: {fix}")
        self.exit_code, self.status = exit_code, status


def refused(base: str, status: int, retry_after: str, said: str, theirs: str) -> ServerError:
    """A status other than 200, with the server's own words and, for a wrong request, its own fix."""
    strange = "failed" if status >= 500 else "answers strangely"
    what, fix, code = MEANINGS.get(status, (strange, "look at the server's log", 1))
    fix = theirs if theirs and code == WRONG else fix.format(later=later(retry_after))
    told = f"{base} {what} ({status}{': ' if said else ''}{said})"
    return ServerError(told, fix=fix, exit_code=code, status=status)


def unreached(origin: str, host: str, error: OSError | UnicodeError) -> ServerError:
    """There is no connection."""
    if isinstance(error, ConnectionRefusedError):
        fix = "start it (fathom serve --model DIR), or correct --url"
        return ServerError(f"nobody answers at {origin}", fix=fix)
    if isinstance(error, (socket.gaierror, UnicodeError)):
        return ServerError(f"no host {plain(host)} is known", fix="correct --url", exit_code=WRONG)
    if isinstance(error, ssl.SSLCertVerificationError):
        what = f"the certificate of {origin} is not to be trusted ({error.verify_message})"
        fix = "use the name it was issued for, or set SSL_CERT_FILE to its authority"
        return ServerError(what, fix=fix)
    if isinstance(error, ssl.SSLError):
        return ServerError(f"{origin} speaks no TLS that we know", fix="try http:// in --url")
    reason = "it takes too long" if isinstance(error, TimeoutError) else error.strerror
    what = f"{origin} cannot be reached ({reason or type(error).__name__})"
    return ServerError(what, fix="correct --url, or try later")


def unanswered(origin: str, seconds: float, error: Exception) -> ServerError:
    """There is a connection, and nothing comes that begins an answer."""
    if isinstance(error, TimeoutError):
        what = f"{origin} has not answered for {seconds:g} s"
        return ServerError(what, fix="look at the server, or give a longer --timeout")
    if isinstance(error, OSError):  # http.client's RemoteDisconnected too
        return ServerError(f"{origin} hung up without an answer", fix="look at the server's log")
    what = f"what answers at {origin} speaks no HTTP"
    return ServerError(what, fix="correct --url", exit_code=WRONG)


def broken(origin: str, seconds: float, error: Exception | None) -> ServerError:
    """An answer began and did not end."""
    fix = "/regen asks again; the server's log may say why"
    if isinstance(error, TimeoutError):
        return ServerError(f"the answer stopped: {seconds:g} s of silence", fix=fix)
    return ServerError(f"the answer broke off: {origin} hung up before its end", fix=fix)


def nonsense(base: str, what: str) -> ServerError:
    """An answer that is none."""
    return ServerError(f"{base} sent {what}", fix="check that --url is an OpenAI-compatible API")


def elsewhere(origin: str, parts: SplitResult) -> ServerError:
    """A redirect to another host, port or protocol, where the key would go too."""
    there = plain(f"{parts.scheme}://{parts.netloc}")
    what = f"{origin} sends us on to {there}, another place"
    return ServerError(what, fix="if you trust it, give it as --url", exit_code=WRONG)


def message(value: Any, key: str) -> tuple[str, str]:
    """What the body of an error says, on one printable line without the key; and its own fix, or ""."""
    for name in ("error", "message", "detail"):
        value = value.get(name, value) if isinstance(value, dict) else value
    text = " ".join(value.split()) if isinstance(value, str) else quoted(value)
    text = text.replace(key, "[the key]") if key else text
    text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    said, _, fix = text.partition(". Fix: ")
    return cut(said.rstrip(".")), cut(fix)


def cut(text: str) -> str:
    """At most LONGEST_WORD characters of it."""
    return text if len(text) <= LONGEST_WORD else f"{text[: LONGEST_WORD - 3]}..."


def later(told: str) -> str:
    """When Retry-After, seconds or a date, says that it is worth another try."""
    seconds = math.nan
    if told.isascii() and told.isdigit():
        seconds = float(told[:9])
    else:
        with contextlib.suppress(ValueError, TypeError, OverflowError):
            seconds = parsedate_to_datetime(told).timestamp() - time.time()
    return "in a while" if math.isnan(seconds) else f"in {max(1, math.ceil(seconds)):,} s"
