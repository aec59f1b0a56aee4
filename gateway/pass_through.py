"""A request as it came, on any usable engine; on another one until the first byte has come.

Owns the retry and the accounting at the engine. Not here: answers that go on across engines
(relay.py), what is sent to the client (routes/messages.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from functools import partial

from gateway.ejection import Outcome
from gateway.engine import Engine
from gateway.engine_client import (
    EngineBusy,
    EngineClient,
    EngineFault,
    EngineResponse,
    EngineTimeout,
)
from gateway.engines import EnginePool
from gateway.errors import EngineFailed, NoEngine, TandemError, engine_error

WAIT_SECONDS = 5.0
SILENCE_SECONDS = 60.0


@dataclass(slots=True)
class Passed:
    """One request, and in the end who answered it and how."""

    path: str
    body: bytes
    affinity: str | None = None
    engine: str = ""
    status: int = 200
    content_type: str = "application/json"


class PassThrough:
    def __init__(self, pool: EnginePool, client: EngineClient, first_byte_seconds: float) -> None:
        self._pool = pool
        self._client = client
        self._first_byte_seconds = first_byte_seconds

    async def stream(self, passed: Passed) -> AsyncGenerator[bytes]:
        """The body's bytes. TandemError before the first piece, or when an engine breaks later."""
        tried: frozenset[str] = frozenset()
        refusal: TandemError = EngineFailed(retry_after=1.0)
        while len(tried) < len(self._pool.engines):
            try:
                engine = await self._engine(passed, tried)
            except NoEngine as nobody:
                raise (refusal if tried else nobody) from None
            tried |= {engine.name}
            begun = False
            engine.enter()
            outcome = Outcome.CLIENT_GONE
            sent: list[EngineResponse] = []
            unwatch = engine.watch_leave(partial(_let_go, sent))
            try:
                response = await self._ask(engine, passed, sent.append)
                try:
                    while piece := await _piece(response, passed, engine, begun):
                        begun = True
                        yield piece
                    outcome = Outcome.OK
                finally:
                    response.close()
                return
            except (EngineFault, TimeoutError) as fault:
                outcome = self._blame(fault, engine)
                if begun:
                    raise EngineFailed() from None
            except TandemError as error:
                outcome = _judged(error)
                if outcome is Outcome.CLIENT_ERROR:
                    raise
                refusal = error
            finally:
                unwatch()
                engine.leave()
                engine.report(outcome)
        raise refusal

    async def _engine(self, passed: Passed, tried: frozenset[str]) -> Engine:
        await self._pool.wait_usable(0.0 if tried else WAIT_SECONDS, exclude=tried)
        return self._pool.choose(passed.affinity, exclude=tried)

    def _blame(self, fault: Exception, engine: Engine) -> Outcome:
        """An engine that works on is not broken, however long this answer takes."""
        late = isinstance(fault, (EngineTimeout, TimeoutError))
        if isinstance(fault, EngineBusy) or (late and engine.progressing(SILENCE_SECONDS)):
            return Outcome.BUSY
        return Outcome.BROKEN

    async def _ask(
        self, engine: Engine, passed: Passed, on_sent: Callable[[EngineResponse], None]
    ) -> EngineResponse:
        response = await self._client.request(
            engine,
            "POST",
            passed.path,
            passed.body,
            timeout=self._first_byte_seconds,
            on_sent=on_sent,
        )
        if response.status < 400:
            return response
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                raise engine_error(response.status, await response.read(limit=64 * 1024))
        finally:
            response.close()


async def _piece(response: EngineResponse, passed: Passed, engine: Engine, begun: bool) -> bytes:
    async with asyncio.timeout(SILENCE_SECONDS):
        piece = await response.chunk()
    if not begun:
        passed.engine, passed.status = engine.name, response.status
        passed.content_type = response.headers.get("content-type", passed.content_type)
    return piece


def _let_go(sent: list[EngineResponse], reason: str) -> None:
    """The engine died or hangs: no waiting for it. A drained one may end what it has.

    No EngineBroke: the client would take it for a stale connection and ask the same engine again.
    """
    if reason != "draining":
        for response in sent:
            response.fail(EngineFault("the engine went down"))


def _judged(error: TandemError) -> Outcome:
    if error.status < 500:
        return Outcome.CLIENT_ERROR
    return Outcome.BUSY if error.status == 503 else Outcome.BROKEN
