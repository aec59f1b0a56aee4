"""The only place from which HTTP requests to engines start.

Owns: the request's bytes, the deadline until its headers, the one repeat on a stale connection.
Not here: connections (connection_pool.py), reading (engine_response.py), failover (relay.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from gateway.connection_pool import CONNECT_SECONDS, IDLE_SECONDS, Address, ConnectionPool
from gateway.engine_response import (
    EngineBroke,
    EngineBusy,
    EngineFault,
    EngineResponse,
    EngineTimeout,
    EngineUnreachable,
)

__all__ = [
    "EngineBroke",
    "EngineBusy",
    "EngineClient",
    "EngineFault",
    "EngineResponse",
    "EngineTimeout",
    "EngineUnreachable",
]

Headers = Iterable[tuple[str, str]]


class EngineClient:
    """Requests to engines over kept connections. Use it within one event loop."""

    def __init__(
        self, *, connect_seconds: float = CONNECT_SECONDS, idle_seconds: float = IDLE_SECONDS
    ) -> None:
        self._connect_seconds = connect_seconds
        self._idle_seconds = idle_seconds
        self._pools: dict[str, ConnectionPool] = {}

    async def request(
        self,
        engine: Address,
        method: str,
        path: str,
        body: bytes = b"",
        *,
        timeout: float = 10.0,  # noqa: ASYNC109 - one deadline over connect, repeat and headers
        headers: Headers = (),
        on_sent: Callable[[EngineResponse], None] | None = None,
    ) -> EngineResponse:
        """Send it and wait for status and headers; the body is then read from the response.

        on_sent gets the response as soon as the request is on its way, to fail() it from outside.
        """
        pool = self._pool(engine)
        message = _message(engine, method, path, body, headers)
        try:
            async with asyncio.timeout(timeout):
                return await _exchange(pool, message, on_sent)
        except TimeoutError:
            raise EngineTimeout("the engine did not answer in time") from None

    def drop_idle(self, engine: Address) -> None:
        """Close idle connections: call it when the engine's state changes."""
        if engine.name in self._pools:
            self._pools[engine.name].drop_idle()

    async def aclose(self) -> None:
        for pool in self._pools.values():
            pool.close()
        self._pools.clear()
        await asyncio.sleep(0)  # lets the transports' own close callbacks run

    def connections(self, engine: Address) -> tuple[int, int]:
        """How many are (open, idle)."""
        pool = self._pools.get(engine.name)
        return (0, 0) if pool is None else (pool.open, pool.idle)

    def _pool(self, engine: Address) -> ConnectionPool:
        pool = self._pools.get(engine.name)
        if pool is None:
            pool = self._pools[engine.name] = ConnectionPool(
                engine,
                asyncio.get_running_loop(),
                connect_seconds=self._connect_seconds,
                idle_seconds=self._idle_seconds,
            )
        return pool


async def _exchange(
    pool: ConnectionPool, message: bytes, on_sent: Callable[[EngineResponse], None] | None
) -> EngineResponse:
    """A kept connection may have been closed by the engine in this very moment. When it breaks
    before a byte of the answer, the engine has not begun: ask again, once, on a new one."""
    connection = pool.kept()
    kept = connection is not None
    while True:
        connection = connection or await pool.connect()
        response = connection.send(message)
        if on_sent is not None:
            on_sent(response)
        try:
            await response.head()
            return response
        except EngineBroke:
            if not kept or response.received:
                raise
            connection, kept = None, False
        except BaseException:
            response.close()
            raise


def _message(engine: Address, method: str, path: str, body: bytes, headers: Headers) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", f"host: {engine.name}", "accept: */*"]
    if body or method == "POST":
        lines += ["content-type: application/json", f"content-length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers]
    if any("\r" in line or "\n" in line for line in lines):
        raise ValueError("a header, method or path must be a single line")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body
