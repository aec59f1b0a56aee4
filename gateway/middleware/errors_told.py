"""Turns what was raised into OpenAI's error shape; nothing else ever reaches a caller.

Before the response has begun that is a whole JSON response; afterwards only the log hears of it
(a stream tells its own failures). Also sends requests of a stopping gateway to the other one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging

from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.errors import InternalError, Overloaded, TandemError
from gateway.lifecycle import Lifecycle

# Asked of this very process, so it answers while it stops.
_OWN = ("/healthz", "/readyz", "/metrics", "/internal/")

UNREAD_SECONDS = 5.0
UNREAD_BYTES = 16 * 1024 * 1024

log = logging.getLogger("gateway.errors")


class ErrorsTold:
    def __init__(self, app: ASGIApp, lifecycle: Lifecycle) -> None:
        self._app = app
        self._lifecycle = lifecycle

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        line = scope["tandem.log"]
        try:
            if self._lifecycle.stopping and not scope["path"].startswith(_OWN):
                await self._send_on(scope, receive)
            await self._app(scope, receive, send)
        except TandemError as error:
            if not line.response_started:
                await tell(send, error, closing=self._lifecycle.stopping)
        except asyncio.CancelledError:
            if not self._lifecycle.out_of_time or line.response_started:
                raise
            # It waited, and nothing of an answer was sent: the other gateway can do it.
            task = asyncio.current_task()
            if task is not None:
                task.uncancel()
            line.route, line.outcome = "sent_on", "ok"
            await tell(send, _elsewhere(), closing=True)
        except Exception:
            log.exception("a request failed", extra={"request_id": line.request_id})
            line.outcome = "internal_error"
            if not line.response_started:
                await tell(send, InternalError())

    async def _send_on(self, scope: Scope, receive: Receive) -> None:
        """The body is read first: closing over unread bytes would reset the connection."""
        line = scope["tandem.log"]
        line.route, line.outcome = "sent_on", "ok"
        self._lifecycle.seen()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(UNREAD_SECONDS):
                await _read_on(receive)
        raise _elsewhere()


async def _read_on(receive: Receive) -> None:
    read = 0
    while read < UNREAD_BYTES:
        message = await receive()
        read += len(message.get("body", b""))
        if not message.get("more_body"):
            return


def _elsewhere() -> Overloaded:
    return Overloaded(
        "This gateway is stopping and takes no new requests. Send it again.",
        code="gateway_stopping",
        retry_after=1.0,
    )


async def tell(send: Send, error: TandemError, *, closing: bool = False) -> None:
    """Send the whole response for one error."""
    await send(
        {
            "type": "http.response.start",
            "status": error.status,
            "headers": error_headers(error, closing),
        }
    )
    await send({"type": "http.response.body", "body": error.response_bytes()})


def error_headers(error: TandemError, closing: bool) -> list[tuple[bytes, bytes]]:
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(error.response_bytes())).encode()),
        *error.headers(),
    ]
    if closing:
        headers.append((b"connection", b"close"))
    if error.code == "gateway_stopping":
        # The door sends such a request, body and all, to the other gateway (nginx/templates).
        headers.append((b"x-tandem-retry", b"other-gateway"))
        headers.append((b"x-accel-redirect", b"@other_gateway"))
    return headers
