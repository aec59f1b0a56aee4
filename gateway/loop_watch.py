"""Ends the process when its event loop stands still: a restart heals what nothing else can.

A thread looks, since the loop cannot look at itself. Like the engines' watchdog it leaves one
clear last line in the log.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Callable

BEAT_SECONDS = 1.0
EXIT_CODE = 70  # EX_SOFTWARE of sysexits.h

log = logging.getLogger("gateway.loop_watch")


def _end() -> None:
    logging.shutdown()
    os._exit(EXIT_CODE)


class LoopWatch:
    """`seconds`: how long the loop may stand still. `end` is called once, from the thread."""

    def __init__(self, seconds: float, end: Callable[[], None] = _end) -> None:
        self._seconds = seconds
        self._end = end
        self._beat_at = time.monotonic()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="loop-watch", daemon=True)
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Call on the loop that is to be watched."""
        self._beat()
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        if self._timer is not None:
            self._timer.cancel()
        self._thread.join(timeout=2 * BEAT_SECONDS)

    def _beat(self) -> None:
        self._beat_at = time.monotonic()
        self._timer = asyncio.get_running_loop().call_later(BEAT_SECONDS, self._beat)

    def _watch(self) -> None:
        looked_at = time.monotonic()
        while not self._stopped.wait(min(BEAT_SECONDS, self._seconds / 4)):
            now = time.monotonic()
            # A machine that slept, or a stopped process, has stopped this thread as well.
            if now - looked_at > self._seconds / 2:
                self._beat_at = now
            looked_at = now
            if now - self._beat_at > self._seconds:
                log.critical(
                    "the event loop stood still for %.0f s; this process ends to be restarted",
                    now - self._beat_at,
                )
                self._end()
                return
