"""One try of one request on one engine: from entering it to leaving it.

Owns: accounting at the engine, noticing silence, going when the engine says so, and naming
whatever goes wrong as one Break. Not here: what to do then (relay.py, journey.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson

from gateway.ejection import Outcome
from gateway.engine import Engine
from gateway.engine_client import (
    EngineBusy,
    EngineClient,
    EngineFault,
    EngineResponse,
    EngineTimeout,
    EngineUnreachable,
)
from gateway.engine_response import BODY_LIMIT
from gateway.errors import TandemError, engine_error

#: Short questions beside an answer: the context's length, the text of a few tokens.
ASK_SECONDS = 5.0
#: However busy the engine is, a stream is not silent for longer than this many stall times.
SILENCE_FACTOR = 10.0
#: How long a finished answer may take to say [DONE] and to leave its connection clean.
FAREWELL_SECONDS = 1.0
ERROR_BODY_LIMIT = 64 * 1024


class Break(Exception):
    """An engine did not bring the answer to its end.

    kind: "refused" never saw it · "busy" · "failed" a 5xx before the first byte · "broke" it had
    begun and broke · "moved" was told to leave (draining) · "hung" fell silent
    """

    def __init__(self, kind: str, reason: str, error: TandemError | None = None) -> None:
        super().__init__(reason)
        self.kind = kind
        self.reason = reason
        self.error = error


class Left(EngineFault):
    """The stream was told to leave its engine, or left because of silence."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long an engine may be silent while it makes no steps."""

    first_token: float
    stall: float


_REPORTS = {
    "refused": Outcome.BROKEN,
    "failed": Outcome.BROKEN,
    "broke": Outcome.BROKEN,
    "hung": Outcome.BROKEN,
    "busy": Outcome.BUSY,
    "moved": Outcome.CLIENT_GONE,
}


class Attempt:
    """Make it right after EnginePool.choose(); end() it whatever happens."""

    def __init__(
        self, engine: Engine, client: EngineClient, patience: Patience, request_id: str
    ) -> None:
        self.engine = engine
        self._client = client
        self._patience = patience
        self._headers = [("x-request-id", request_id)] if _sendable(request_id) else []
        self._loop = asyncio.get_running_loop()
        self._response: EngineResponse | None = None
        self._begun = False
        self._left: str | None = None
        self._over = False
        self._quiet_since = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None
        self._look_due = 0.0
        engine.enter()
        self._unwatch: Callable[[], None] = engine.watch_leave(self.leave)
        self._arm()

    # Speaking to the engine ----------------------------------------------------------------

    async def open(
        self, path: str, body: bytes, *, method: str = "POST", deadline: float | None = None
    ) -> str:
        """Send the request and wait for 200; returns the content type. A 4xx is raised as the
        client's own error."""
        try:
            response = await self._client.request(
                self.engine,
                method,
                path,
                body,
                timeout=deadline or self._patience.first_token * SILENCE_FACTOR,
                headers=self._headers,
                on_sent=self._sent,
            )
            if response.status != 200:
                raise _refusal(response.status, await self._all(ERROR_BODY_LIMIT, ASK_SECONDS))
        except EngineFault as fault:
            raise self._named(fault) from fault
        return response.headers.get("content-type", "")

    def cut_short(self, shortcut: Callable[[bytes], bytes]) -> None:
        """Bytes that arrive while chunk() waits go to `shortcut`; it returns what it leaves."""
        if self._response is not None:
            self._response.shortcut = shortcut

    async def chunk(self) -> bytes:
        """The next bytes. Their end is for the caller to judge: b""."""
        assert self._response is not None
        try:
            return await self._response.chunk()
        except EngineFault as fault:
            raise self._named(fault) from fault

    async def read(self, deadline: float | None = None) -> bytes:
        """The whole body."""
        try:
            return await self._all(BODY_LIMIT, deadline)
        except EngineFault as fault:
            raise self._named(fault) from fault

    async def ask(self, method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """A short question beside the answer."""
        data = orjson.dumps(body) if body else b""
        try:
            async with asyncio.timeout(ASK_SECONDS):
                response = await self._client.request(
                    self.engine, method, path, data, on_sent=self._sent
                )
                content = await response.read()
        except EngineFault as fault:
            raise self._named(fault) from fault
        except TimeoutError:
            raise Break("hung", "hung") from None
        finally:
            self._drop_response()
        if response.status != 200:
            raise Break("failed", f"http_{response.status}", engine_error(response.status, content))
        try:
            answer = orjson.loads(content)
        except orjson.JSONDecodeError:
            answer = None
        if not isinstance(answer, dict):
            raise Break("broke", "garbage")
        return answer

    def spoke(self) -> None:
        """The engine gave a part of the answer (a comment is none)."""
        self._begun = True
        self._quiet_since = self._loop.time()

    @property
    def speaking(self) -> bool:
        """There is a response to read, and it may have more to say."""
        return self._response is not None and not self._response.read_out

    # Leaving it ----------------------------------------------------------------------------

    def leave(self, reason: str) -> None:
        """Go away at once; what has arrived is still given."""
        if self._left is None and not self._over:
            self._left = reason
            if self._response is not None:
                self._response.fail(Left(reason))

    def end(self, outcome: Outcome, *, refused: bool = False) -> None:
        """Leave the engine and say how it went; the first call counts."""
        if self._over:
            return
        self._over = True
        if self._timer is not None:
            self._timer.cancel()
        self._unwatch()
        self._drop_response()
        self.engine.leave()
        self.engine.report(outcome, refused=refused)

    def end_with(self, fault: Break) -> None:
        self.end(_REPORTS[fault.kind], refused=fault.kind == "refused")

    # Within --------------------------------------------------------------------------------

    def _sent(self, response: EngineResponse) -> None:
        self._response = response
        self._quiet_since = self._loop.time()
        if self._left is not None:
            response.fail(Left(self._left))

    async def _all(self, limit: int, deadline: float | None) -> bytes:
        assert self._response is not None
        try:
            async with asyncio.timeout(deadline):
                return await self._response.read(limit)
        except TimeoutError:
            raise EngineTimeout("the engine did not answer in time") from None

    def _drop_response(self) -> None:
        response, self._response = self._response, None
        if response is not None:
            response.close()

    def _named(self, fault: EngineFault) -> Break:
        match fault:
            case Left():
                return _left(self._left or "draining")
            case EngineUnreachable():
                return Break("refused", "refused")
            case EngineBusy():
                return Break("busy", "busy")
            case EngineTimeout():
                return Break("hung", "hung")
        return Break("broke", "connection")

    def _arm(self) -> None:
        every = min(1.0, self._patience.stall / 4, self._patience.first_token / 4)
        self._look_due = self._loop.time() + every
        self._timer = self._loop.call_later(every, self._look)

    def _look(self) -> None:
        """Now and then: has the engine kept the reader waiting for too long?"""
        # While our own loop stood still nobody listened: that time is no silence of the engine.
        self._quiet_since += max(0.0, self._loop.time() - self._look_due)
        self._arm()
        response = self._response
        if response is None or not response.waiting:
            return
        patience = self._patience.stall if self._begun else self._patience.first_token
        quiet = self._loop.time() - self._quiet_since
        if quiet < patience:
            return
        if quiet >= patience * SILENCE_FACTOR or not self.engine.progressing(patience):
            self.leave("hung")


def _left(reason: str) -> Break:
    if reason == "hung":
        return Break("hung", reason)
    return Break("moved" if reason == "draining" else "broke", reason)


def _refusal(status: int, content: bytes) -> Exception:
    error = engine_error(status, content)
    if status in (429, 503):
        return Break("busy", "busy", error)
    if 400 <= status < 500 and error.status < 500:
        return error
    return Break("failed", f"http_{status}", error)


def _sendable(request_id: str) -> bool:
    return bool(request_id) and request_id.isascii() and request_id.isprintable()
