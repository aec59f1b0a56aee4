"""Writes of many streams, put together in time.

A write wakes the process that reads the other end, and on an idle core that costs more than all
the gateway does for a token. So when tokens of many streams come within WINDOW_SECONDS, the first
is written at once and the others together at the window's end. A stream by itself is never held
back, and no token for longer than the window. Not here: what is written (client_stream.py).
"""

from __future__ import annotations

import asyncio
from typing import Protocol

#: Far below what a reader sees, and below the 5 ms that a token may be late (design, budgets).
WINDOW_SECONDS = 0.002


class Held(Protocol):
    def flush(self) -> None: ...


class Pace:
    """One for all streams of an event loop."""

    def __init__(self, seconds: float = WINDOW_SECONDS) -> None:
        self._seconds = seconds
        self._began = float("-inf")
        self._held: list[Held] = []

    def hold(self, stream: Held) -> bool:
        """Whether the stream should keep what it has until flush(), which then comes by itself."""
        if not self._held:
            loop = asyncio.get_running_loop()
            now = loop.time()
            if now - self._began >= self._seconds:
                self._began = now
                return False
            loop.call_at(self._began + self._seconds, self._end)
        self._held.append(stream)
        return True

    def _end(self) -> None:
        held, self._held = self._held, []
        self._began = asyncio.get_running_loop().time()
        for stream in held:
            stream.flush()
