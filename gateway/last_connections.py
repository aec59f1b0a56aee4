"""The server's orderly end, as the door sees it: nothing that was sent here is reset.

On SIGTERM the gateway goes on listening and answers new requests with «ask the other gateway»,
until its answers are done and nobody has sent anything for longer than the door keeps a
connection. Only then is the socket closed. Not here: who is told what (middleware/errors_told.py).
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable

import uvicorn

from gateway.lifecycle import Lifecycle

# Longer than the door keeps an idle connection (nginx: keepalive_timeout 2s in the upstream).
LINGER_SECONDS = 3.0
LOOK_SECONDS = 0.1
# Answers that were told to end may need this long to say so.
LAST_WORDS_SECONDS = 5.0


class Server(uvicorn.Server):
    """`drain_seconds`: how long running answers may still take after SIGTERM."""

    def __init__(self, config: uvicorn.Config, lifecycle: Lifecycle, drain_seconds: float) -> None:
        super().__init__(config)
        self._lifecycle = lifecycle
        self._drain_seconds = drain_seconds

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._lifecycle.stop()
        await self._until(self._quiet, self._drain_seconds)
        if self._lifecycle.running:
            self._lifecycle.end_all()
            await self._until(lambda: not self._lifecycle.running, LAST_WORDS_SECONDS)
        await super().shutdown(sockets)

    def _quiet(self) -> bool:
        idle = time.monotonic() - self._lifecycle.busy_at
        return not self._lifecycle.running and idle >= LINGER_SECONDS

    async def _until(self, done: Callable[[], bool], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        for _ in range(int(seconds / LOOK_SECONDS) + 1):
            if done() or self.force_exit or time.monotonic() > deadline:
                return
            await asyncio.sleep(LOOK_SECONDS)
