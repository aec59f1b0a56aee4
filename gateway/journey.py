"""The way of one answer over the engines: where it was, where it may still go, when to give up.

Owns: the poison guard, patience while no engine is usable, counting moves in the metrics.
Not here: speaking to an engine (attempt.py), the answer itself (relay.py).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Protocol

from gateway.answer import Call
from gateway.attempt import Attempt, Break
from gateway.ejection import Outcome
from gateway.engine import Engine
from gateway.engines import EnginePool
from gateway.errors import EngineFailed, NoEngine, Overloaded, TandemError

#: A request during which engines broke this many times is not tried again.
POISON = 2
#: Two engines have just failed; one may be back by then.
BACK_SECONDS = 30.0
#: However innocent the moves are: an answer that moved so often will not arrive.
MOVES_LIMIT = 12
#: Between two rounds over engines that all refused.
ROUND_SECONDS = 0.25
ROUND_SECONDS_MOST = 2.0

log = logging.getLogger("gateway.journey")


class Failovers(Protocol):
    def labels(self, *values: str) -> Any: ...


class RelayMetrics(Protocol):
    @property
    def failovers(self) -> Failovers: ...


class RequestBreaksEngines(EngineFailed):
    status = 503
    code = "request_breaks_engines"
    default = (
        "Two engines failed while they had this request, so it is not tried on another one: it may "
        "be the cause. Change it, or send it again later if it is not; report it with its "
        "x-request-id."
    )


class AnswerInterrupted(EngineFailed):
    code = "answer_interrupted"
    default = (
        "The engine failed in the middle of this answer, and another engine could not continue it "
        "exactly. Send the request again."
    )


class Journey:
    def __init__(
        self,
        call: Call,
        pool: EnginePool,
        metrics: RelayMetrics,
        try_on: Callable[[Engine], Attempt],
        queue_seconds: float,
        clock: Callable[[], float],
    ) -> None:
        self._call = call
        self._pool = pool
        self._metrics = metrics
        self._try_on = try_on
        self._queue_seconds = queue_seconds
        self._clock = clock
        self._started = clock()
        self._attempt: Attempt | None = None
        self._broken: frozenset[str] = frozenset()
        self._avoided: frozenset[str] = frozenset()
        self._last: Break | None = None
        self._from = ""
        self._broke_at = 0.0
        self._moves = 0
        self._breaks = 0
        self._failures = 0
        self._waits_until: float | None = None
        self._pause = ROUND_SECONDS

    @property
    def begun(self) -> bool:
        """The client has a part of the answer."""
        return self._call.outcome.ttft is not None

    async def next_attempt(self) -> Attempt:
        """A try on the engine that is best now; waits for one, but not for ever."""
        while True:
            try:
                engine = self._pool.choose(
                    self._call.affinity, exclude=self._broken | self._avoided
                )
            except NoEngine:
                await self._wait()
                continue
            self._attempt = self._try_on(engine)
            if self._call.on_engine is not None:
                self._call.on_engine(engine.name)
            return self._attempt

    def arrived(self, how: str) -> None:
        """An engine took the answer. Patience begins anew."""
        assert self._attempt is not None
        outcome, name = self._call.outcome, self._attempt.engine.name
        self._waits_until = None
        self._avoided = frozenset()
        self._failures = 0
        self._pause = ROUND_SECONDS
        outcome.engine = name
        if self._last is not None:
            outcome.failovers += 1
            self._count(name, how)
            self._tell(name, self._last.reason)
            self._last = None

    def delivered(self) -> None:
        """The client gets a part of the answer."""
        outcome = self._call.outcome
        if outcome.ttft is None:
            outcome.ttft = self._clock() - self._started

    def broke(self, fault: Break) -> None:
        """Remember it; TandemError when there is no sense in going on."""
        assert self._attempt is not None
        name = self._attempt.engine.name
        if self._last is None:
            self._broke_at = self._clock()
        self._from, self._last = name, fault
        self._moves += fault.kind in ("broke", "hung", "moved")
        if fault.kind == "broke":
            self._breaks += 1
            self._broken |= {name}
        elif fault.kind == "moved":
            # The one that broke long ago may be back as a new process, and there is no other.
            self._broken = frozenset()
        else:
            self._avoided |= {name}
        if fault.kind == "failed":
            self._failures += 1
        error = self._hopeless()
        if error is not None:
            raise error

    def failed(self, error: TandemError) -> TandemError:
        """The end of the way. Returns what the client is told: a 4xx is its own fault only
        while it has nothing yet."""
        self.leave(Outcome.CLIENT_ERROR)
        if self._last is not None:
            self._count("", "failed")
        outcome = self._call.outcome
        outcome.outcome = _word(error, self.begun)
        outcome.error = AnswerInterrupted() if self.begun and error.status < 500 else error
        return outcome.error

    def leave(self, outcome: Outcome) -> None:
        """Leave the engine, if that has not happened yet."""
        if self._attempt is not None:
            self._attempt.end(outcome)

    def _hopeless(self) -> TandemError | None:
        assert self._last is not None
        if self._breaks >= POISON:
            return RequestBreaksEngines(retry_after=BACK_SECONDS)
        if self._moves >= MOVES_LIMIT:
            return EngineFailed(retry_after=1.0)
        if not self.begun and self._failures >= len(self._pool.engines):
            return self._last.error or EngineFailed(retry_after=1.0)
        return None

    async def _wait(self) -> None:
        """Nobody is left: wait until one may be tried, again or for the first time."""
        now = self._clock()
        if self._waits_until is None:
            self._waits_until = now + self._queue_seconds
        left = self._waits_until - now
        if left <= 0:
            raise self._nobody()
        if self._avoided:
            if self._last is not None and self._last.kind == "busy" and not self.begun:
                raise self._nobody()
            await asyncio.sleep(min(left, self._pause))
            self._pause = min(2 * self._pause, ROUND_SECONDS_MOST)
            self._avoided = frozenset()
            return
        try:
            await self._pool.wait_usable(left, exclude=self._broken)
        except NoEngine:
            raise self._nobody() from None

    def _nobody(self) -> TandemError:
        if self._last is not None and self._last.kind == "busy":
            return Overloaded(retry_after=1.0)
        return NoEngine()

    def _tell(self, to: str, reason: str) -> None:
        """One line for each move: when engines die, it says where the time went."""
        fields = {
            "request_id": self._call.request_id,
            "engine": to,
            "from": self._from,
            "reason": reason,
            "seconds": round(self._clock() - self._broke_at, 3),
        }
        log.info("an answer moved", extra=fields)

    def _count(self, to: str, outcome: str) -> None:
        assert self._last is not None
        self._metrics.failovers.labels(self._from, to, self._last.reason, outcome).inc()


def _word(error: TandemError, begun: bool) -> str:
    if begun:
        return "stream_aborted"
    if error.status < 500:
        return "client_error"
    return "overloaded" if isinstance(error, Overloaded) else "upstream_error"
