"""Bounds what a request body may weigh, while it is read; refuses encoded bodies.

A declared length is judged at once, an undeclared one as it comes in, so that a caller cannot fill
the memory. Not here: what is in the body (schemas.py).
"""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.errors import BadRequest, PayloadTooLarge, UnsupportedMedia


class BodyLimit:
    def __init__(self, app: ASGIApp, bytes_at_most: int) -> None:
        self._app = app
        self._most = bytes_at_most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD"):
            await self._app(scope, receive, send)
            return
        self._check_headers(scope)
        seen = 0

        async def receive_bounded() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self._most:
                raise self._too_large()
            return message

        await self._app(scope, receive_bounded, send)

    def _check_headers(self, scope: Scope) -> None:
        for name, value in scope["headers"]:
            if name == b"content-encoding" and value.lower() != b"identity":
                raise UnsupportedMedia()
            if name == b"content-length":
                if not value.isdigit():
                    raise BadRequest("Content-Length must be a number.")
                if int(value) > self._most:
                    raise self._too_large()

    def _too_large(self) -> PayloadTooLarge:
        return PayloadTooLarge(
            f"The request body is larger than {self._most} bytes. Send a shorter one, or ask the "
            "operator to raise MAX_BODY_BYTES."
        )
