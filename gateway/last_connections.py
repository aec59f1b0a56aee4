"""The server's orderly end, as the door sees it: nothing that was sent here is reset.

On SIGTERM the gateway goes on listening and answers new requests with «ask the other gateway»,
until its answers are done and nobody has sent anything for longer than the door keeps a
connection. Then the socket is closed, and what the kernel had queued on it is accepted first.
Not here: who is told what (middleware/errors_told.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from types import FrameType

import uvicorn

from gateway.lifecycle import Lifecycle

# Longer than the door keeps an idle connection (nginx: keepalive_timeout 2s in the upstream).
LINGER_SECONDS = 3.0
# The door may never fall quiet: its requests are refused as connections then, and sent on as well.
LINGER_SECONDS_AT_MOST = 10.0
LOOK_SECONDS = 0.1
# Answers that were told to end may need this long to say so.
LAST_WORDS_SECONDS = 5.0

log = logging.getLogger("gateway.server")


class Server(uvicorn.Server):
    """`drain_seconds`: how long running answers may still take after SIGTERM."""

    def __init__(self, config: uvicorn.Config, lifecycle: Lifecycle, drain_seconds: float) -> None:
        super().__init__(config)
        self._lifecycle = lifecycle
        self._drain_seconds = drain_seconds

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals end the process in good order and with exit code 0; uvicorn's own way sends
        itself the signal once more in the end."""
        wanted = (signal.SIGTERM, signal.SIGINT)
        before = {number: signal.signal(number, self.handle_exit) for number in wanted}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal begins the end; a second SIGINT cuts it short."""
        self._lifecycle.stop()
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._lifecycle.stop()
        log.info("stopping; running answers may finish", extra={"running": self._running})
        await self._until(lambda: not self._running, self._drain_seconds)
        if self._running:
            log.warning("the time to drain is over", extra={"running": self._running})
            self._lifecycle.end_all()
            await self._until(lambda: not self._running, LAST_WORDS_SECONDS)
        await self._until(self._quiet, LINGER_SECONDS_AT_MOST)
        await self._stop_listening(sockets)
        await self._until(self._quiet, LINGER_SECONDS_AT_MOST)
        await super().shutdown(sockets)

    @property
    def _running(self) -> int:
        return self._lifecycle.running

    def _quiet(self) -> bool:
        idle = time.monotonic() - self._lifecycle.busy_at
        return not self._running and idle >= LINGER_SECONDS

    async def _stop_listening(self, sockets: list[socket.socket] | None) -> None:
        """The event loop lets go of the socket, which still listens through a second handle;
        that one is emptied and closed, so that no connection is lost in between."""
        spares = self._listening()
        for server in self.servers:
            server.close()
        for own in sockets or []:
            own.close()
        await asyncio.sleep(0)
        for spare in spares:
            await self._accept_queued(spare)
            spare.close()

    def _listening(self) -> list[socket.socket]:
        """Second handles on the listening sockets, to be closed by whoever asks."""
        found = [own for server in self.servers for own in server.sockets or ()]
        return [socket.socket(fileno=os.dup(own.fileno())) for own in found]

    async def _accept_queued(self, listening: socket.socket) -> None:
        listening.setblocking(False)
        while True:
            try:
                connection, _ = listening.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            self._lifecycle.seen()
            connection.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.connect_accepted_socket(self._protocol, connection)

    def _protocol(self) -> asyncio.Protocol:
        made = self.config.http_protocol_class(  # type: ignore[call-arg]
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        assert isinstance(made, asyncio.Protocol)
        return made

    async def _until(self, done: Callable[[], bool], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        for _ in range(int(seconds / LOOK_SECONDS) + 1):
            if done() or self.force_exit or time.monotonic() >= deadline:
                return
            await asyncio.sleep(LOOK_SECONDS)
