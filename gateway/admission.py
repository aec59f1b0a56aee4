"""How many requests may be inside at once; the rest wait in a bounded, fair line or are told when.

Owns: places, waiting, and an honest Retry-After. Not here: who is next in line (fair_queue.py),
how many engines there are (engines.py tells through `capacity`).

A place is handed over inside one step of the event loop: it is either free, held, or granted to
a waiter; a waiter that is cancelled after the grant hands it on. So no place leaks and no wake-up
is lost.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol

from gateway.errors import NoEngine, Overloaded, TandemError
from gateway.fair_queue import FairQueue, Priority

RATE_SECONDS = 60.0
RATE_SAMPLES = 256
RETRY_LEAST = 1
RETRY_MOST = 60


class _Fate(Enum):
    ADMITTED = "admitted"
    TOO_LATE = "too late"
    SENT_AWAY = "sent away"


@dataclass(eq=False)
class _Waiter:
    key_id: str
    priority: Priority
    since: float
    fate: asyncio.Future[_Fate] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )

    def settle(self, fate: _Fate) -> None:
        if not self.fate.done():
            self.fate.set_result(fate)

    @property
    def admitted(self) -> bool:
        done = self.fate.done() and not self.fate.cancelled()
        return done and self.fate.result() is _Fate.ADMITTED


class AdmissionMetrics(Protocol):
    """The gauges queue_depth and inflight, and the histogram queue_seconds."""

    @property
    def queue_depth(self) -> Any: ...

    @property
    def queue_seconds(self) -> Any: ...

    @property
    def inflight(self) -> Any: ...


class Admission:
    """`async with admission.enter(key_id): …` holds one place."""

    def __init__(
        self,
        capacity: Callable[[], int],
        queue_length: int,
        queue_seconds: float,
        metrics: AdmissionMetrics,
        clock: Callable[[], float],
    ) -> None:
        self._capacity = capacity
        self._queue: FairQueue[_Waiter] = FairQueue(queue_length)
        self._queue_seconds = queue_seconds
        self._metrics = metrics
        self._clock = clock
        self._inside = 0
        self._left: deque[float] = deque(maxlen=RATE_SAMPLES)

    @property
    def inside(self) -> int:
        return self._inside

    @property
    def queued(self) -> int:
        return len(self._queue)

    @asynccontextmanager
    async def enter(self, key_id: str, priority: Priority = "interactive") -> AsyncIterator[None]:
        """Hold a place while inside; raises Overloaded, or NoEngine where no engine is there."""
        await self._obtain(key_id, priority)
        try:
            yield
        finally:
            self._left.append(self._clock())
            self._give_back()

    def wake(self) -> None:
        """Capacity may have grown: let waiters in."""
        while self.queued and self._inside < self._capacity():
            waiter = self._queue.next()
            if waiter is None:
                break
            if not waiter.fate.done():
                self._inside += 1
                waiter.settle(_Fate.ADMITTED)
        self._show()

    async def _obtain(self, key_id: str, priority: Priority) -> None:
        if not self.queued and self._inside < self._capacity():
            self._inside += 1
            self._show()
            self._metrics.queue_seconds.observe(0.0)
            return
        self._make_room(key_id, priority)
        waiter = _Waiter(key_id, priority, self._clock())
        self._queue.add(key_id, priority, waiter)
        self.wake()
        fate = await self._wait(waiter)
        self._metrics.queue_seconds.observe(max(0.0, self._clock() - waiter.since))
        if fate is not _Fate.ADMITTED:
            raise self._refusal()

    async def _wait(self, waiter: _Waiter) -> _Fate:
        """Wait for the fate; leave nothing behind however the waiting ends."""
        loop = asyncio.get_running_loop()
        timer = loop.call_later(self._queue_seconds, waiter.settle, _Fate.TOO_LATE)
        try:
            return await waiter.fate
        except asyncio.CancelledError:
            if waiter.admitted:
                self._give_back()
            raise
        finally:
            timer.cancel()
            self._queue.remove(waiter.key_id, waiter.priority, waiter)
            self._show()

    def _make_room(self, key_id: str, priority: Priority) -> None:
        if not self._queue.full:
            return
        sent_away = self._queue.make_room(key_id, priority)
        if sent_away is None:
            raise self._refusal()
        sent_away.settle(_Fate.SENT_AWAY)

    def _give_back(self) -> None:
        self._inside -= 1
        self.wake()

    def _refusal(self) -> TandemError:
        if self._capacity() == 0:
            return NoEngine()
        return Overloaded(retry_after=self.retry_after())

    def retry_after(self) -> int:
        """Seconds until the line of now is served, at the pace of the last minute."""
        now = self._clock()
        recent = [at for at in self._left if at > now - RATE_SECONDS]
        if not recent:
            seconds = self._queue_seconds
        else:
            seconds = (self.queued + 1) * max(now - recent[0], 1.0) / len(recent)
        return round(min(RETRY_MOST, max(RETRY_LEAST, seconds)))

    def _show(self) -> None:
        self._metrics.queue_depth.set(self.queued)
        self._metrics.inflight.set(self._inside)
