"""Reads a request's body to its end. Its size was bounded on the way (middleware/body_limit.py)."""

from __future__ import annotations

import asyncio

from starlette.types import Receive

from gateway.client_watch import ClientGone
from gateway.errors import BadRequest

# The door allows a slow sender less than this between two pieces (nginx: client_body_timeout).
BODY_SECONDS = 60.0


async def read_body(receive: Receive) -> bytes:
    """All of it. ClientGone when the caller leaves first, BadRequest when it takes too long."""
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await _read(receive)
    except TimeoutError:
        raise BadRequest(f"The body did not arrive within {BODY_SECONDS:g} s.") from None


async def _read(receive: Receive) -> bytes:
    message = await receive()
    if not message.get("more_body") and message["type"] == "http.request":
        return bytes(message["body"])
    pieces = []
    while True:
        if message["type"] == "http.disconnect":
            raise ClientGone
        pieces.append(message["body"])
        if not message.get("more_body"):
            return b"".join(pieces)
        message = await receive()
