"""The loops that look at every engine, all the time, and set its state.

Owns: when to look, one loop of looks and one of canaries for each engine, the reading of drain
flags, and the metrics of engine states. Not here: the questions (engine_probe.py), the judgement
(engine_verdict.py), what the states mean (engine.py).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from gateway import drain_flags
from gateway.engine import Engine, EngineState
from gateway.engine_probe import (
    CANARY_SECONDS,
    CHECK_SECONDS,
    FIRST_CANARY_SECONDS,
    Answer,
    EngineProbe,
    ProbeClient,
)
from gateway.engine_verdict import HANG_SECONDS, Verdict
from gateway.engines import EnginePool
from gateway.loop_lag import LoopLag

DRAIN_READ_SECONDS = 1.0
REDIS_SECONDS = 0.5
LOOK_AGAIN_SECONDS = 0.5
SHORTEST_PAUSE_SECONDS = 0.1
CANARY_POLL_SECONDS = 0.5

log = logging.getLogger("gateway.health_watch")


class Series(Protocol):
    """A metric with labels, as far as this file needs it."""

    def labels(self, *values: str, **named: str) -> Any: ...


class WatchMetrics(Protocol):
    @property
    def engine_state(self) -> Series: ...

    @property
    def engine_checks_failed(self) -> Series: ...


class HealthWatch:
    """Give it to a task: `await watch.run()` until cancelled."""

    def __init__(
        self,
        pool: EnginePool,
        client: ProbeClient,
        redis: Any | None,
        interval: float,
        clock: Callable[[], float],
        metrics: WatchMetrics,
        *,
        model: str,
        hang: float = HANG_SECONDS,
    ) -> None:
        """`interval` and `hang` in seconds: between two looks; without a step, work there being."""
        self._pool = pool
        self._redis = redis
        self._interval = interval
        self._clock = clock
        self._metrics = metrics
        self._lag = LoopLag(clock)
        self._probe = EngineProbe(client, model, clock, self._lag)
        self._verdicts = {engine.name: Verdict(engine, clock, hang) for engine in pool.engines}
        self._looked_at = {engine.name: clock() for engine in pool.engines}
        self._redis_away = False
        pool.on_change(self._show)
        for engine in pool.engines:
            self._show(engine)

    async def run(self) -> None:
        await self.read_drains()  # before the first look, so that a drained engine gets nothing
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._lag.run(), name="loop-lag")
            tasks.create_task(self._forever(self._read_drains_and_wait), name="drain-flags")
            for engine in self._pool.engines:
                tasks.create_task(self._look_loop(engine), name=f"look-{engine.name}")
                tasks.create_task(self._canary_loop(engine), name=f"canary-{engine.name}")

    async def _forever(self, step: Callable[[], Awaitable[None]]) -> None:
        """Whatever one step runs into, the next one comes."""
        while True:
            try:
                await step()
            except Exception:
                log.exception("a step of the health watch failed; going on")
                await asyncio.sleep(self._interval)

    # Looks -------------------------------------------------------------------------------

    async def _look_loop(self, engine: Engine) -> None:
        doubt = asyncio.Event()
        engine.on_doubt(doubt.set)

        async def step() -> None:
            good = await self.look_at(engine)
            await self._pause(doubt, self._interval if good else self._again(engine))

        await self._forever(step)

    def _again(self, engine: Engine) -> float:
        """A failed check is repeated soon; an engine known to be down can wait its turn."""
        waits = engine.observed in (EngineState.DOWN, EngineState.STARTING)
        return self._interval if waits else min(self._interval, LOOK_AGAIN_SECONDS)

    async def _pause(self, doubt: asyncio.Event, seconds: float) -> None:
        """Sleep, but not on while requests are failing; never busier than the shortest pause."""
        await asyncio.sleep(min(seconds, SHORTEST_PAUSE_SECONDS))
        try:
            async with asyncio.timeout(max(0.0, seconds - SHORTEST_PAUSE_SECONDS)):
                await doubt.wait()
        except TimeoutError:
            pass
        doubt.clear()

    async def look_at(self, engine: Engine) -> bool:
        """One check of one engine, judged."""
        started = self._clock()
        look = await self._probe.look(engine)
        own_fault = look.answer is Answer.LATE and self._probe.own_fault(started, CHECK_SECONDS)
        verdict = self._verdicts[engine.name]
        verdict.nobody_looked(self._probe.stood_still(self._looked_at[engine.name]))
        self._looked_at[engine.name] = self._clock()
        good = verdict.look(look, own_fault)
        if not good and not own_fault:
            self._metrics.engine_checks_failed.labels(engine=engine.name).inc()
        engine.publish()
        return good

    # Canaries ----------------------------------------------------------------------------

    async def _canary_loop(self, engine: Engine) -> None:
        async def step() -> None:
            await asyncio.sleep(min(self._interval, CANARY_POLL_SECONDS))
            if self._verdicts[engine.name].canary_due():
                await self.send_canary(engine)

        await self._forever(step)

    async def send_canary(self, engine: Engine) -> None:
        """One canary, judged after a fresh look: an engine busy for others is not to blame."""
        verdict = self._verdicts[engine.name]
        seconds = CANARY_SECONDS if verdict.proven else FIRST_CANARY_SECONDS
        started = self._clock()
        verdict.canary_sent()
        answer = await self._probe.canary(engine, seconds)
        own_fault = answer is Answer.LATE and self._probe.own_fault(started, seconds)
        if answer is not Answer.GOOD:
            self._metrics.engine_checks_failed.labels(engine=engine.name).inc()
            await self.look_at(engine)
        verdict.canary(answer, started, own_fault)

    # Drain flags and metrics ---------------------------------------------------------------

    async def _read_drains_and_wait(self) -> None:
        await self.read_drains()
        await asyncio.sleep(min(self._interval, DRAIN_READ_SECONDS))

    async def read_drains(self) -> None:
        """Follow the operator's flags; while Redis is away the last known ones stay."""
        if self._redis is None:
            return
        try:
            async with asyncio.timeout(REDIS_SECONDS):
                flags = await drain_flags.read(self._redis, self._pool.by_name)
        except Exception as error:
            if not self._redis_away:
                log.warning("drain flags cannot be read (%s)", type(error).__name__)
            self._redis_away = True
            return
        self._redis_away = False
        for name, drain in flags.items():
            engine = self._pool.by_name[name]
            if engine.drain != drain:
                engine.set_drain(drain)

    def _show(self, engine: Engine) -> None:
        for state in EngineState:
            gauge = self._metrics.engine_state.labels(engine=engine.name, state=state.value)
            gauge.set(1 if state is engine.state else 0)
