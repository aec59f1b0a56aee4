"""Turns what was raised into OpenAI's error shape; nothing else ever reaches a caller.

Before the response has begun that is a whole JSON response; afterwards only the log hears of it
(a stream tells its own failures). Also sends requests of a stopping gateway to the other one.
"""

from __future__ import annotations

import asyncio
import logging

from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.errors import InternalError, Overloaded, TandemError
from gateway.lifecycle import Lifecycle

# Asked of this very process, so it answers while it stops.
_OWN = ("/healthz", "/readyz", "/metrics", "/internal/")

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
                self._lifecycle.seen()
                raise _elsewhere()
            await self._app(scope, receive, send)
        except TandemError as error:
            if not line.response_started:
                await tell(send, error, closing=self._lifecycle.stopping)
        except asyncio.CancelledError:
            raise
        except Exception:
            log.exception("a request failed", extra={"request_id": line.request_id})
            line.outcome = "internal_error"
            if not line.response_started:
                await tell(send, InternalError())


def _elsewhere() -> Overloaded:
    return Overloaded(
        "This gateway is stopping and takes no new requests. Send it again.",
        code="gateway_stopping",
        retry_after=1.0,
    )


async def tell(send: Send, error: TandemError, *, closing: bool = False) -> None:
    """Send the whole response for one error."""
    body = error.response_bytes()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        *error.headers(),
    ]
    if closing:
        headers.append((b"connection", b"close"))
    if error.code == "gateway_stopping":
        # The door sends such a request to the other gateway (nginx/templates).
        headers.append((b"x-tandem-retry", b"other-gateway"))
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
