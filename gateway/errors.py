"""Every error a caller can be told, and the one JSON shape in which it is told (OpenAI's).

    TandemError
    ├── BadRequest 400 ── ContextLengthExceeded 400
    ├── AuthenticationFailed 401
    ├── NotFound 404          ├── MethodNotAllowed 405
    ├── Conflict 409          ├── PayloadTooLarge 413     ├── UnsupportedMedia 415
    ├── RateLimited 429
    ├── InternalError 500     ├── EngineFailed 502
    └── Overloaded 503        ├── NoEngine 503            └── SessionStoreUnavailable 503

A message says what was wrong, what was expected and how to mend it; never a host, a stack, a key
or a prompt. Not here: turning an exception into a response (middleware/).
"""

from __future__ import annotations

import math
import re
from typing import Any

import orjson


class TandemError(Exception):
    """What a caller is told. `retry_after` is in seconds and becomes the Retry-After header."""

    status = 500
    type = "server_error"
    code: str | None = None
    default = "Something went wrong."

    def __init__(
        self,
        message: str | None = None,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message or self.default)
        self.message = message or self.default
        self.param = param
        self.type = type(self).type
        self.code = code if code is not None else type(self).code
        self.retry_after = retry_after

    def body(self) -> dict[str, Any]:
        return {
            "error": {
                "message": self.message,
                "type": self.type,
                "param": self.param,
                "code": self.code,
            }
        }

    @property
    def outcome(self) -> str:
        """What metrics and logs call a request that ended with this."""
        if self.status == 429 or type(self) is Overloaded:
            return "rate_limited"
        if self.status < 500:
            return "client_error"
        return "internal_error" if self.status == 500 else "upstream_error"

    def response_bytes(self) -> bytes:
        return orjson.dumps(self.body())

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Header fields that belong to this error: Retry-After in whole seconds, at least 1."""
        if self.retry_after is None:
            return []
        return [(b"retry-after", str(max(1, math.ceil(self.retry_after))).encode())]


class BadRequest(TandemError):
    status = 400
    type = "invalid_request_error"
    default = "The request is not valid."


class ContextLengthExceeded(BadRequest):
    code = "context_length_exceeded"
    default = "The prompt is longer than the model's context. Shorten it."


class AuthenticationFailed(TandemError):
    status = 401
    type = "authentication_error"
    code = "invalid_api_key"
    default = (
        "No valid API key was given. Send it as «Authorization: Bearer KEY» or «x-api-key: KEY»."
    )

    def headers(self) -> list[tuple[bytes, bytes]]:
        return [*super().headers(), (b"www-authenticate", b"Bearer")]


class NotFound(TandemError):
    status = 404
    type = "invalid_request_error"
    code = "not_found"
    default = "There is nothing at this path. See the README for the paths that exist."


class MethodNotAllowed(TandemError):
    status = 405
    type = "invalid_request_error"
    code = "method_not_allowed"
    default = "This path does not take this method."


class Conflict(TandemError):
    status = 409
    type = "invalid_request_error"
    code = "conflict"
    default = "The request collides with another one. Try again when that has ended."


class PayloadTooLarge(TandemError):
    status = 413
    type = "invalid_request_error"
    code = "request_too_large"
    default = "The request body is too large. Send a shorter one."


class UnsupportedMedia(TandemError):
    status = 415
    type = "invalid_request_error"
    code = "unsupported_encoding"
    default = "The body must be plain JSON: send it without Content-Encoding."


class RateLimited(TandemError):
    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"
    default = "This key has sent more requests than it may. Wait, as Retry-After says."


class InternalError(TandemError):
    code = "internal_error"
    default = "The gateway failed for a reason of its own. Try again; quote the x-request-id."


class EngineFailed(TandemError):
    status = 502
    type = "server_error"
    code = "upstream_error"
    default = "The engine failed before it answered. Try again."


class Overloaded(TandemError):
    status = 503
    type = "overloaded_error"
    code = "overloaded"
    default = "All places are taken and the queue is full. Try again, as Retry-After says."


class NoEngine(TandemError):
    status = 503
    type = "overloaded_error"
    code = "no_engine_available"
    default = "No engine can answer at the moment: they are starting or down. Try again shortly."

    def __init__(self, message: str | None = None, **details: Any) -> None:
        details.setdefault("retry_after", 5.0)
        super().__init__(message, **details)


class SessionStoreUnavailable(TandemError):
    status = 503
    type = "server_error"
    code = "session_store_unavailable"
    default = "Conversations cannot be read or saved at the moment. Try again in a few seconds."

    def __init__(self, message: str | None = None, **details: Any) -> None:
        details.setdefault("retry_after", 5.0)
        super().__init__(message, **details)


# Errors of an engine -----------------------------------------------------------------------

_BY_STATUS: dict[int, type[TandemError]] = {
    401: EngineFailed,  # the engine's own key is our affair, not the caller's
    403: EngineFailed,
    404: NotFound,
    413: PayloadTooLarge,
    415: UnsupportedMedia,
    429: Overloaded,
    503: Overloaded,
}
_ADDRESS = re.compile(r"\b(?:https?://\S+|(?:\d{1,3}\.){3}\d{1,3}(?::\d+)?|\S+:\d{2,5}\b)")
_TOO_LONG = re.compile(r"maximum context length|longer than the maximum model length|max_model_len")
# From here on pydantic quotes what the caller sent.
_QUOTED = re.compile(r",?\s*['\"]?(?:input['\"]\s*:|input_value=)")
_MESSAGE_BYTES = 2000


def engine_error(status: int, body: bytes) -> TandemError:
    """vLLM's own error, in our shape: `{"error": {…}}`, `{"message": …}` or FastAPI's `detail`."""
    fields = _fields(body)
    message = _cleaned(fields.get("message"))
    if status in _BY_STATUS:
        kind = _BY_STATUS[status]
    else:
        kind = BadRequest if 400 <= status < 500 else EngineFailed
    if kind is BadRequest and message and _TOO_LONG.search(message):
        kind = ContextLengthExceeded
    if kind in (EngineFailed, Overloaded):
        return kind(retry_after=1.0)
    param = fields.get("param")
    return kind(message, param=param if isinstance(param, str) else None)


def _fields(body: bytes) -> dict[str, Any]:
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    if not isinstance(parsed, dict):
        return {}
    inner = parsed.get("error", parsed)
    if isinstance(inner, str):
        return {"message": inner}
    if not isinstance(inner, dict):
        return {}
    if isinstance(inner.get("detail"), str):
        return {"message": inner["detail"]}
    if isinstance(inner.get("detail"), list):
        return {"message": _first_detail(inner["detail"])}
    return inner


def _first_detail(details: list[Any]) -> str:
    """FastAPI's list of faults: where and what of the first one, without the input itself."""
    first = details[0] if details and isinstance(details[0], dict) else {}
    where = ".".join(str(part) for part in first.get("loc", ())[1:])
    return f"{where}: {first.get('msg', 'not valid')}" if where else str(first.get("msg", ""))


def _cleaned(message: Any) -> str | None:
    """Without addresses and stacks, and of bounded length."""
    if not isinstance(message, str) or not message.strip():
        return None
    line = _QUOTED.split(message.partition("Traceback")[0], 1)[0].strip()[:_MESSAGE_BYTES]
    return _ADDRESS.sub("(address)", line) or None
