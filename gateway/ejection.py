"""Passive signals: what the outcomes of real requests say about one engine.

Owns: the outcome classes, the window of outcomes, the ejection clock and the half-open trial.
Not here: active checks (health_watch.py), and who is the last usable engine (engines.py).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from enum import StrEnum

CONSECUTIVE_BROKEN = 3
WINDOW_SECONDS = 30.0
WINDOW_MINIMUM = 6
BROKEN_RATIO = 0.5
WINDOW_LIMIT = 512
BASE_SECONDS = 5.0
CAP_SECONDS = 60.0
FORGIVEN_SECONDS = 120.0
TRIAL_SECONDS = 30.0


class Outcome(StrEnum):
    """How one request on one engine ended."""

    OK = "ok"
    CLIENT_ERROR = "client_error"
    BUSY = "busy"
    BROKEN = "broken"
    CLIENT_GONE = "client_gone"


class Ejection:
    """The breaker of one engine: closed, ejected (until a time), then half-open with one trial."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._window: deque[tuple[float, bool]] = deque(maxlen=WINDOW_LIMIT)
        self._broken_in_a_row = 0
        self._until: float | None = None
        self._times = 0
        self._last_end = 0.0
        self._trial_ends: float | None = None

    @property
    def ejected(self) -> bool:
        return self._until is not None and self._clock() < self._until

    @property
    def half_open(self) -> bool:
        return self._until is not None and self._clock() >= self._until

    @property
    def seconds_left(self) -> float:
        return 0.0 if self._until is None else max(0.0, self._until - self._clock())

    def record(self, outcome: Outcome) -> bool:
        """Count an outcome; true when the engine should now be ejected.

        Busy, client errors and clients that left say nothing about the engine's health.
        """
        if outcome not in (Outcome.OK, Outcome.BROKEN):
            self._trial_ends = None
            return False
        broken = outcome is Outcome.BROKEN
        self._window.append((self._clock(), broken))
        self._broken_in_a_row = self._broken_in_a_row + 1 if broken else 0
        if self.half_open:
            if broken:
                return True
            self.close()
            return False
        return broken and not self.ejected and self._should_eject()

    def eject(self) -> float:
        """Take the engine out, each time twice as long; returns for how many seconds."""
        now = self._clock()
        if now - self._last_end > FORGIVEN_SECONDS:
            self._times = 0
        seconds: float = min(CAP_SECONDS, BASE_SECONDS * 2**self._times)
        self._times = min(self._times + 1, 16)
        self._until = self._last_end = now + seconds
        self._forget()
        return seconds

    def claim_trial(self) -> bool:
        """Half-open lets one request through at a time; a trial nobody reports on expires."""
        now = self._clock()
        if not self.half_open or (self._trial_ends is not None and now < self._trial_ends):
            return False
        self._trial_ends = now + TRIAL_SECONDS
        return True

    def close(self) -> None:
        """The engine proved itself. How often it was ejected is remembered for a while."""
        self._until = None
        self._forget()

    def reset(self) -> None:
        """A new process stands behind the name: nothing of the old one counts."""
        self.close()
        self._times = 0

    def _forget(self) -> None:
        self._window.clear()
        self._broken_in_a_row = 0
        self._trial_ends = None

    def _should_eject(self) -> bool:
        if self._broken_in_a_row >= CONSECUTIVE_BROKEN:
            return True
        since = self._clock() - WINDOW_SECONDS
        recent = [broken for at, broken in self._window if at >= since]
        return len(recent) >= WINDOW_MINIMUM and sum(recent) >= BROKEN_RATIO * len(recent)
