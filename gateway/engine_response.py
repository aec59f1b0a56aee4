"""The response of an engine while it arrives, and every way in which it can fail.

Owns: handing bytes to one reader as they come, how much may lie unread, the fault classes.
Not here: parsing HTTP (connection.py), deadlines and repeats (engine_client.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Protocol

#: Unread bytes at which the connection is not read on, so that the engine has to wait.
BUFFER_LIMIT = 64 * 1024
BODY_LIMIT = 64 * 1024 * 1024


class EngineFault(Exception):
    """Something went wrong between the gateway and an engine."""


class EngineUnreachable(EngineFault):
    """No connection could be made: the engine never saw the request."""


class EngineBusy(EngineFault):
    """All connections that an engine may have are taken."""


class EngineBroke(EngineFault):
    """The engine had the request, then the connection or its bytes broke."""


class EngineTimeout(EngineFault):
    """The engine did not answer in time."""


class Source(Protocol):
    """What a response needs of its connection."""

    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def drop(self) -> None: ...


class EngineResponse:
    """Read it to its end, or close() it and its connection drops, so that vLLM aborts."""

    __slots__ = (
        "_chunks",
        "_error",
        "_loop",
        "_paused",
        "_size",
        "_source",
        "_waiter",
        "complete",
        "headers",
        "received",
        "shortcut",
        "status",
    )

    def __init__(self, source: Source, loop: asyncio.AbstractEventLoop) -> None:
        self.status = 0
        #: names in lower case
        self.headers: dict[str, str] = {}
        #: all bytes of the body have arrived (not: have been read)
        self.complete = False
        #: a byte of the response has arrived
        self.received = False
        #: gets what arrives while the reader waits, and returns what it leaves to the reader
        self.shortcut: Callable[[bytes], bytes] | None = None
        self._source = source
        self._loop = loop
        self._chunks: list[bytes] = []
        self._size = 0
        self._paused = False
        self._error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None

    @property
    def waiting(self) -> bool:
        """Somebody waits for bytes: the engine is the slow one, not the reader."""
        return self._waiter is not None

    @property
    def read_out(self) -> bool:
        """All of the body has arrived and was read."""
        return self.complete and not self._chunks

    # The reader's side ---------------------------------------------------------------------

    async def head(self) -> None:
        """Wait until status and headers are there."""
        while not self.status:
            if self._error is not None:
                raise self._error
            await self._arrival()

    async def chunk(self) -> bytes:
        """All bytes that have arrived, at least one; b"" at the end of the body.

        Bytes that came before a failure are given before the failure is raised.
        """
        while not self._chunks:
            if self._error is not None:
                raise self._error
            if self.complete:
                return b""
            await self._arrival()
        chunks = self._chunks
        self._chunks = []
        self._size = 0
        if self._paused:
            self._paused = False
            self._source.resume()
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    async def read(self, limit: int = BODY_LIMIT) -> bytes:
        """The whole body; EngineBroke when it is larger than `limit`."""
        parts: list[bytes] = []
        size = 0
        while part := await self.chunk():
            size += len(part)
            if size > limit:
                self.close()
                raise EngineBroke("the engine's answer is larger than the gateway accepts")
            parts.append(part)
        return b"".join(parts)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while chunk := await self.chunk():
            yield chunk

    def close(self) -> None:
        """Not interested any more."""
        self.fail(EngineBroke("the response was closed by the gateway"))

    def fail(self, error: Exception) -> None:
        """End it with this error unless all of it is here; its connection drops."""
        if not self.complete and self._error is None:
            self._error = error
            self._source.drop()
            self.wake()

    async def _arrival(self) -> None:
        waiter = self._waiter = self._loop.create_future()
        try:
            await waiter
        finally:
            self._waiter = None

    # The connection's side -----------------------------------------------------------------

    def finish(self) -> None:
        self.complete = True
        self._paused = False

    def feed(self, data: bytes) -> None:
        self._chunks.append(data)
        self._size += len(data)

    def wake(self) -> None:
        """One read of the socket is parsed: let the reader have it, or slow the engine down."""
        waiter = self._waiter
        if waiter is not None:
            if not waiter.done() and not self._cut_short():
                waiter.set_result(None)
        elif self._size > BUFFER_LIMIT and not self._paused and not self.complete:
            self._paused = True
            self._source.pause()

    def _cut_short(self) -> bool:
        """Whether all that has arrived is dealt with, and the reader may sleep on."""
        chunks = self._chunks
        if self.shortcut is None or not chunks or self.complete or self._error is not None:
            return False
        rest = self.shortcut(chunks[0] if len(chunks) == 1 else b"".join(chunks))
        self._chunks = [rest] if rest else []
        self._size = len(rest)
        return not rest
