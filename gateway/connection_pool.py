"""The connections of one gateway to its engines: kept while fresh, bounded, closed on request.

Owns: which connection carries a request, how long an idle one is kept, how many there are.
Not here: what goes over them (connection.py), repeats (engine_client.py).
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Protocol

from gateway.connection import EngineConnection
from gateway.engine_response import EngineBusy, EngineUnreachable

#: Shorter than the engine's own keep-alive (75 s), so that the gateway lets go first.
IDLE_SECONDS = 30.0
CONNECT_SECONDS = 1.0
#: More than admission lets in; a guard against a leak, not a queue.
CONNECTION_LIMIT = 2048


class Address(Protocol):
    """An engine as seen from here; the name is looked up anew at each connect."""

    name: str
    host: str
    port: int


class ConnectionPool:
    """All connections to one engine."""

    def __init__(
        self,
        engine: Address,
        loop: asyncio.AbstractEventLoop,
        *,
        connect_seconds: float = CONNECT_SECONDS,
        idle_seconds: float = IDLE_SECONDS,
        limit: int = CONNECTION_LIMIT,
    ) -> None:
        self._engine = engine
        self._loop = loop
        self._connect_seconds = connect_seconds
        self._idle_seconds = idle_seconds
        self._limit = limit
        self._idle: deque[EngineConnection] = deque()
        self._open: set[EngineConnection] = set()
        self._connecting = 0
        self._sweep: asyncio.TimerHandle | None = None

    @property
    def idle(self) -> int:
        return len(self._idle)

    @property
    def open(self) -> int:
        return len(self._open) + self._connecting

    def kept(self) -> EngineConnection | None:
        """The connection used last, if it is still fresh."""
        while self._idle:
            connection = self._idle.pop()
            if connection.usable and self._fresh(connection):
                return connection
            connection.drop()
        return None

    async def connect(self) -> EngineConnection:
        """A new connection, within the connect deadline."""
        if self.open >= self._limit:
            raise EngineBusy("all connections to the engine are taken")
        self._connecting += 1
        try:
            async with asyncio.timeout(self._connect_seconds):
                _, connection = await self._loop.create_connection(
                    lambda: EngineConnection(self._loop, self._ended),
                    self._engine.host,
                    self._engine.port,
                )
        except TimeoutError:
            raise EngineUnreachable("the engine does not take connections") from None
        except OSError as error:
            raise EngineUnreachable("the engine refuses connections") from error
        finally:
            self._connecting -= 1
        self._open.add(connection)
        return connection

    def drop_idle(self) -> None:
        """The engine changed: what is idle may lead to a process that is gone."""
        while self._idle:
            self._idle.pop().drop()
        self._still()

    def close(self) -> None:
        """Drop everything, running requests too."""
        for connection in list(self._open):
            connection.drop()
        self.drop_idle()

    def _ended(self, connection: EngineConnection) -> None:
        if not connection.usable:
            self._open.discard(connection)
            return
        connection.idle_since = self._loop.time()
        self._idle.append(connection)
        if self._sweep is None:
            self._sweep = self._loop.call_later(self._idle_seconds, self._sweep_idle)

    def _fresh(self, connection: EngineConnection) -> bool:
        return self._loop.time() - connection.idle_since < self._idle_seconds

    def _sweep_idle(self) -> None:
        """Close what has been idle for too long; the oldest are on the left."""
        self._sweep = None
        while self._idle and not (self._idle[0].usable and self._fresh(self._idle[0])):
            self._idle.popleft().drop()
        if self._idle:
            self._sweep = self._loop.call_later(self._idle_seconds, self._sweep_idle)

    def _still(self) -> None:
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
