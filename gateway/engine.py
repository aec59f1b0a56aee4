"""One engine: its address, its state, and what runs on it.

    STARTING  not yet seen healthy          SUSPECT  used only when no healthy one is there
    HEALTHY   gets work                     DOWN     gets none (died, hung, or ejected)
    DRAINING  an operator took it out: no new work; `move` also sends running streams away

The state is derived, never stored: an operator's drain wins, then what the health watch observed,
then what real requests said (ejection). Not here: looking (health_watch.py), choosing (engines.py).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import Literal

from gateway.ejection import Ejection, Outcome

Drain = Literal["move", "wait"]

log = logging.getLogger("gateway.engine")


class EngineState(StrEnum):
    STARTING = "starting"
    HEALTHY = "healthy"
    SUSPECT = "suspect"
    DRAINING = "draining"
    DOWN = "down"


class Engine:
    def __init__(self, name: str, host: str, port: int, clock: Callable[[], float]) -> None:
        self.name = name
        self.host = host
        self.port = port
        self.in_flight = 0
        self.running = 0
        self.waiting = 0
        self.kv_cache = 0.0
        self.steps = 0
        self.steps_at = clock()
        self.drain: Drain | None = None
        self.ejection = Ejection(clock)
        self.in_flight_since = clock()
        self._clock = clock
        self._observed = EngineState.STARTING
        self._observed_reason = "not yet seen healthy"
        self._siblings: tuple[Engine, ...] = (self,)
        self._leavers: dict[object, Callable[[str], None]] = {}
        self._published: tuple[EngineState, str, str | None] = (self.state, self.reason, None)
        self._changed: Callable[[Engine], None] = lambda _: None
        self._wake_watch: Callable[[], None] = lambda: None

    def __repr__(self) -> str:
        return f"<Engine {self.name} {self.state} in_flight={self.in_flight}>"

    # What is known -----------------------------------------------------------------------

    @property
    def state(self) -> EngineState:
        return self._judge()[0]

    @property
    def reason(self) -> str:
        return self._judge()[1]

    def _judge(self) -> tuple[EngineState, str]:
        if self.drain is not None:
            return EngineState.DRAINING, f"drained by an operator ({self.drain})"
        if not self.alive:
            return self._observed, self._observed_reason
        if self.ejection.ejected:
            return EngineState.DOWN, "ejected"
        if self.ejection.half_open:
            return EngineState.SUSPECT, "half-open"
        return self._observed, self._observed_reason

    @property
    def observed(self) -> EngineState:
        """What the checks say, without drains and ejections."""
        return self._observed

    @property
    def alive(self) -> bool:
        """The process answers its checks, whatever an operator or past requests say."""
        return self._observed in (EngineState.HEALTHY, EngineState.SUSPECT)

    @property
    def tier(self) -> int | None:
        """0 healthy · 1 suspect · 2 ejected only (the last resort) · None: gets no work."""
        state = self.state
        if state is EngineState.HEALTHY:
            return 0
        if state is EngineState.SUSPECT:
            return 1
        return 2 if state is EngineState.DOWN and self.alive else None

    @property
    def usable(self) -> bool:
        """May get new work: no sibling is in a better tier."""
        mine = self.tier
        return mine is not None and mine == best_tier(self._siblings)

    @property
    def leave_reason(self) -> str | None:
        """Why running streams should move away, or None: "down", "hung" or "draining"."""
        if self._observed is EngineState.DOWN:
            return "hung" if self._observed_reason == "hung" else "down"
        return "draining" if self.drain == "move" else None

    def progressing(self, within: float) -> bool:
        """The engine was seen to make a step during the last `within` seconds."""
        return self._clock() - self.steps_at <= within

    # What the relay tells ----------------------------------------------------------------

    def enter(self) -> None:
        """A request goes to this engine; pair it with leave()."""
        if self.in_flight == 0:
            self.in_flight_since = self._clock()
        self.in_flight += 1

    def leave(self) -> None:
        self.in_flight = max(0, self.in_flight - 1)

    def watch_leave(self, callback: Callable[[str], None]) -> Callable[[], None]:
        """Call back with the reason once running streams should move; returns unsubscribe.

        Only changes after this call are reported: look at leave_reason for the present.
        """
        token = object()
        self._leavers[token] = callback
        return lambda: (self._leavers.pop(token, None), None)[1]

    def report(self, outcome: Outcome, *, refused: bool = False) -> None:
        """Passive signal: how a request ended; refused: the connection was not even taken."""
        due = self.ejection.record(outcome)
        if due and (self.ejection.half_open or self._another_usable()):
            seconds = self.ejection.eject()
            log.warning("engine ejected", extra={"engine": self.name, "seconds": seconds})
        if outcome is Outcome.BROKEN:
            if (refused or due) and self._observed is EngineState.HEALTHY:
                self._observed = EngineState.SUSPECT
                self._observed_reason = "refused a connection" if refused else "requests failed"
            self._wake_watch()
        self.publish()

    def _another_usable(self) -> bool:
        return any(e is not self and e.tier in (0, 1) for e in self._siblings)

    # What the health watch and the operator tell -------------------------------------------

    def observe(self, state: EngineState, reason: str = "") -> None:
        """Set the observed state; never DRAINING, which follows from `drain`."""
        if state is EngineState.DOWN and self._observed is not EngineState.DOWN:
            self.ejection.reset()
        self._observed, self._observed_reason = state, reason
        self.publish()

    def saw_progress(self, steps: int) -> None:
        self.steps = steps
        self.steps_at = self._clock()

    def set_drain(self, drain: Drain | None) -> None:
        """Undrained, an engine first has to pass a check again."""
        if self.drain is not None and drain is None and self.alive:
            self._observed, self._observed_reason = EngineState.STARTING, "undrained"
        self.drain = drain
        self.publish()

    def connect(self, siblings: tuple[Engine, ...], changed: Callable[[Engine], None]) -> None:
        """The pool introduces itself."""
        self._siblings, self._changed = siblings, changed

    def on_doubt(self, wake: Callable[[], None]) -> None:
        """The health watch asks to be woken when a request broke here."""
        self._wake_watch = wake

    def publish(self) -> None:
        """Tell about a change, if there is one; also called as time passes (ejections end)."""
        now = (*self._judge(), self.leave_reason)
        before, self._published = self._published, now
        if now == before:
            return
        log.info("engine %s is %s (%s)", self.name, now[0], now[1], extra={"engine": self.name})
        self._changed(self)
        if now[2] is not None and now[2] != before[2]:
            self._send_away(now[2])

    def _send_away(self, reason: str) -> None:
        for callback in list(self._leavers.values()):
            try:
                callback(reason)
            except Exception:
                log.exception("a stream could not be told to leave", extra={"engine": self.name})


def best_tier(engines: Iterable[Engine]) -> int | None:
    return min((tier for e in engines if (tier := e.tier) is not None), default=None)
