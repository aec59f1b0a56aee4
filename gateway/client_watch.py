"""Notices that a client has gone away, and cancels what is done for it.

One task a request: it reads `receive` after the body was read, and the only thing that can come
there is the disconnect. Not here: what is cleaned up then (the request's own `finally`).
"""

from __future__ import annotations

import asyncio
from types import TracebackType

from starlette.types import Receive


class ClientGone(Exception):
    """Raised where a request is handled, in place of the cancellation that a disconnect caused."""


class ClientWatch:
    """`async with ClientWatch(receive):` raises ClientGone inside when the client leaves."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._gone = False
        self._watching: asyncio.Task[None] | None = None
        self._handler: asyncio.Task[object] | None = None

    async def __aenter__(self) -> ClientWatch:
        self._handler = asyncio.current_task()
        self._watching = asyncio.create_task(self._watch())
        return self

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._gone = True
        if self._handler is not None:
            self._handler.cancel()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        watching, handler = self._watching, self._handler
        # No circle of objects is left to the garbage collector for each request.
        self._watching = self._handler = None
        if watching is not None:
            watching.cancel()
        if self._gone and handler is not None:
            cancelled_by_watch = handler.uncancel() == 0
            if kind is asyncio.CancelledError and cancelled_by_watch:
                raise ClientGone from None
