"""Gives each request its id and its line in the log; the outermost layer.

A caller's (or the door's) own x-request-id is kept when it looks like one. Every response carries
the id. Not here: what the line says of an answer (routes/), what failed (errors_told.py).
"""

from __future__ import annotations

import logging
import re
import secrets
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.logs import RequestLog
from gateway.metrics import Metrics

_ID = re.compile(rb"[A-Za-z0-9_.:-]{8,64}")
# Asked every second by machines: in the metrics, not in the log.
_QUIET = frozenset({"healthz", "readyz", "metrics", "internal"})

log = logging.getLogger("gateway.access")


class RequestId:
    """Puts a RequestLog into `scope["tandem.log"]`, and into `scope["tandem.server"]` the server's
    own send, for what comes after the response's start."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.monotonic()
        line = RequestLog(_request_id(scope), scope["method"], scope["path"], started)
        scope["tandem.log"] = line
        scope["tandem.server"] = send
        own = (b"x-request-id", line.request_id.encode())

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                line.status = message["status"]
                line.response_started = True
                message["headers"] = [*message.get("headers", ()), own]
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        finally:
            self._finish(line, time.monotonic() - started)

    def _finish(self, line: RequestLog, seconds: float) -> None:
        status = line.status or 499  # nobody was there any more to be told
        outcome = line.outcome or outcome_of(status)
        line.status, line.outcome = status, outcome
        metrics = self._metrics
        metrics.of(metrics.http_responses, str(status)).inc()
        if line.route not in _QUIET:
            metrics.of(metrics.requests, line.route, outcome).inc()
            metrics.of(metrics.duration, line.route).observe(seconds)
            log.info("request", extra={"fields": line.fields(seconds)})


def outcome_of(status: int) -> str:
    """The outcome of a request that nobody else has judged."""
    if status < 400:
        return "ok"
    if status == 429:
        return "rate_limited"
    if status == 499:
        return "client_cancelled"
    if status < 500:
        return "client_error"
    return "internal_error" if status == 500 else "upstream_error"


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _ID.fullmatch(value):
            return str(value.decode("ascii"))
    return secrets.token_hex(16)
