"""Whether this gateway takes requests, and the answers that run in it.

Owns the orderly end: no new requests, running answers get their time, what is left then is told
and ended. Not here: the listening socket (last_connections.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Lifecycle:
    """`clock` gives monotonic seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._running: set[asyncio.Task[object]] = set()
        self.stopping = False
        self.out_of_time = False
        self.busy_at = clock()

    def stop(self) -> None:
        """From now on new requests are sent to the other gateway."""
        self.stopping = True
        self.busy_at = self._clock()

    @property
    def running(self) -> int:
        return len(self._running)

    @contextmanager
    def request(self) -> Iterator[None]:
        """While a request is inside: it is waited for when the gateway stops."""
        task = asyncio.current_task()
        assert task is not None
        self._running.add(task)
        try:
            yield
        finally:
            self._running.discard(task)
            self.busy_at = self._clock()

    def seen(self) -> None:
        """Somebody still sends requests to a stopping gateway."""
        self.busy_at = self._clock()

    def end_all(self) -> None:
        """The time is over: running answers are cancelled, and say so to their callers."""
        self.out_of_time = True
        for task in list(self._running):
            task.cancel()
