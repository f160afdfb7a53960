"""Errors as OpenAI's interface words them: {"error": {"message", "type", "param", "code"}}."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from fathom.serve.wire import Refused

TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}
CODES = {
    401: "invalid_api_key", 403: "forbidden", 404: "not_found", 405: "method_not_allowed", 408: "timeout",
    413: "too_large", 414: "too_large", 415: "unsupported_media_type", 429: "busy", 431: "too_large",
    500: "internal_error", 503: "unavailable",
}  # fmt: skip


class ApiError(Exception):
    """A refusal with its HTTP status; the message is one line that ends with the fix."""

    def __init__(
        self, status: int, what: str, *, fix: str, param: str | None = None, code: str | None = None,
        retry_after: int | None = None,
    ) -> None:  # fmt: skip
        self.status, self.param = status, param
        self.message = f"{what}. Fix: {fix}" if fix else what
        self.code = code or CODES.get(status, "invalid_value" if param else "invalid_request")
        self.headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
        super().__init__(self.message)

    def body(self) -> dict[str, Any]:
        """As JSON."""
        kind = TYPES.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def response(self, headers: Mapping[str, str] | None = None) -> Response:
        """The same as a response."""
        return json_response(self.body(), self.status, {**self.headers, **(headers or {})})


def need(ok: bool, param: str, what: str, *, fix: str) -> None:
    """Refuse a request for what the field `param` holds, unless `ok`."""
    if not ok:
        raise ApiError(400, what, fix=fix, param=param)


def of_refusal(refused: Refused, retry_after: int) -> ApiError:
    """What the engine does not take up."""
    status = {"request": 400, "busy": 429}.get(refused.kind, 503)
    again = None if status == 400 else retry_after
    return ApiError(status, refused.message, fix="", retry_after=again)


def json_bytes(value: Any) -> bytes:
    """Compact, in UTF-8; half a surrogate pair becomes a question mark."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.encode("utf-8", "replace")


def json_response(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """JSON with a status."""
    head = {"content-type": "application/json", **(headers or {})}
    return Response(json_bytes(value), status_code=status, headers=head)
