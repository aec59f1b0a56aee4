"""Writes a turn's events to one reader, with a sign of life while there is nothing to tell.

Owns the bytes of a turn's stream. Not here: where the events come from (chat_turn.py).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator

import orjson
from starlette.types import Send

from gateway import sse
from gateway.errors import TandemError
from gateway.turn_events import TurnEvent

# The page takes a connection that says nothing for 45 s for lost.
SIGN_OF_LIFE_SECONDS = 15.0
SIGN_OF_LIFE = b": tandem is at work\n\n"
# A turn that cannot be followed is told as a plain error, when that is known so soon.
FIRST_SECONDS = 0.5
HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


def encoded(event: TurnEvent) -> bytes:
    return sse.encode(orjson.dumps(event.data), event=event.event, id=str(event.id))


async def pump(
    events: AsyncGenerator[TurnEvent], send: Send, headers: list[tuple[bytes, bytes]]
) -> TurnEvent | None:
    """All events to the reader; returns the last one. What is raised before anything was sent
    is the caller's to tell; afterwards it is an event without an id, so that a reader who comes
    back does so from the last event that it has."""
    last: TurnEvent | None = None
    coming = asyncio.ensure_future(anext(events, None))
    try:
        await asyncio.wait({coming}, timeout=FIRST_SECONDS)
        if coming.done():
            coming.result()
        await send({"type": "http.response.start", "status": 200, "headers": [*HEADERS, *headers]})
        while True:
            done, _ = await asyncio.wait({coming}, timeout=SIGN_OF_LIFE_SECONDS)
            if not done:
                await _write(send, SIGN_OF_LIFE)
                continue
            try:
                event = coming.result()
            except TandemError as error:
                await _write(send, sse.encode(error.response_bytes(), event="error"))
                break
            if event is None:
                break
            last = event
            await _write(send, encoded(event))
            coming = asyncio.ensure_future(anext(events, None))
        await send({"type": "http.response.body", "body": b""})
        return last
    finally:
        coming.cancel()
        with contextlib.suppress(BaseException):
            await coming
        await events.aclose()


async def _write(send: Send, body: bytes) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": True})
