"""Pieces written past the server's send: the same bytes, and never ahead of a slow client."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from gateway.client_stream import ClientStream

START = {"type": "http.response.start", "status": 200, "headers": []}
LOG = logging.getLogger("test")


class Wire:
    """The transport: what was written."""

    def __init__(self) -> None:
        self.written: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def is_closing(self) -> bool:
        return False


async def _begun(wire: Wire) -> RequestResponseCycle:
    """uvicorn's own response, its headers sent."""
    scope: Any = {"type": "http", "method": "POST", "path": "/"}
    transport: Any = wire
    cycle = RequestResponseCycle(
        scope, transport, FlowControl(transport), LOG, LOG, False, [], asyncio.Event(), False, True,
        lambda: None,
    )  # fmt: skip
    await cycle.send(START)  # type: ignore[arg-type]
    wire.written.clear()
    return cycle


async def test_the_bytes_are_those_of_the_servers_own_send() -> None:
    ours, theirs = Wire(), Wire()
    stream, cycle = ClientStream((await _begun(ours)).send), await _begun(theirs)  # type: ignore[arg-type]
    for piece in (b"a", b"data: {}\n\n" * 40):
        stream.write(piece)
        await cycle.send({"type": "http.response.body", "body": piece, "more_body": True})
    await stream.send(b"end", more=False)
    await cycle.send({"type": "http.response.body", "body": b"end", "more_body": False})
    assert ours.written == theirs.written
    assert b"".join(ours.written).endswith(b"3\r\nend\r\n0\r\n\r\n")


async def test_a_client_that_does_not_read_is_waited_for() -> None:
    wire = Wire()
    cycle = await _begun(wire)
    stream = ClientStream(cycle.send)  # type: ignore[arg-type]
    cycle.flow.pause_writing()
    stream.write(b"late")
    await asyncio.sleep(0)
    assert wire.written == [] and not stream.ready
    cycle.flow.resume_writing()
    await stream.send(b"next")
    assert wire.written == [b"4\r\nlate\r\n", b"4\r\nnext\r\n"]
    await stream.aclose()


async def test_nothing_is_written_to_a_client_that_has_left() -> None:
    wire = Wire()
    cycle = await _begun(wire)
    stream = ClientStream(cycle.send)  # type: ignore[arg-type]
    await stream.send(b"first")
    cycle.disconnected = True
    stream.write(b"piece")
    assert wire.written == [b"5\r\nfirst\r\n"] and stream.ready


async def test_it_is_not_ready_before_the_response_has_begun() -> None:
    stream = ClientStream((await _begun(Wire())).send)  # type: ignore[arg-type]
    assert not stream.ready
    await stream.send(b"first")
    assert stream.ready


async def test_a_write_that_fails_is_told_to_the_next_who_sends() -> None:
    """It is made in the engine's read callback, where nobody could handle it."""
    wire = Wire()
    cycle = await _begun(wire)
    stream = ClientStream(cycle.send)  # type: ignore[arg-type]
    wire.write = _closed  # type: ignore[method-assign]
    stream.write(b"piece")
    with pytest.raises(RuntimeError):
        await stream.send(b"next")


def _closed(data: bytes) -> None:
    raise RuntimeError("the handler is closed")
