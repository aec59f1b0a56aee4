"""How late this process's own event loop was: so that our own lateness is not blamed on others.

Owns: the measurement. Not here: what follows from it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

TICK_SECONDS = 0.1
WORTH_KEEPING = 0.05
KEPT = 256


class LoopLag:
    """Sleeps in short ticks and remembers the ticks that came late."""

    def __init__(self, clock: Callable[[], float], tick: float = TICK_SECONDS) -> None:
        self._clock = clock
        self._tick = tick
        self._late: deque[tuple[float, float]] = deque(maxlen=KEPT)
        self._expected: float | None = None

    async def run(self) -> None:
        try:
            while True:
                self._expected = self._clock() + self._tick
                await asyncio.sleep(self._tick)
                self._note(self._clock())
        finally:
            self._expected = None

    def _note(self, now: float) -> None:
        late = self._overdue(now)
        if late >= WORTH_KEEPING:
            self._late.append((now, late))

    def _overdue(self, now: float) -> float:
        return 0.0 if self._expected is None else max(0.0, now - self._expected)

    def worst_since(self, moment: float) -> float:
        """The longest delay seen since a moment, a tick that is overdue right now included."""
        seen = [late for at, late in self._late if at >= moment]
        return max([self._overdue(self._clock()), *seen])
