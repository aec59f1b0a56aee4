"""The body of one streamed response on its way to the client: written at once, or awaited.

`write` is for callers that cannot wait (shortcut.py): it makes the first step of the server's
`send` by hand, which is all of it unless the client is slow. Then the rest is done in a task, and
whoever writes next waits for it. So at most one piece lies here. With uvicorn, which is what
serves here, that step is its transport's write: two coroutines less for each token.
"""

from __future__ import annotations

import asyncio
import contextlib
import types
from collections.abc import Coroutine, Generator
from functools import partial
from typing import Any

from starlette.types import Send
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle


class ClientStream:
    """`async with contextlib.aclosing(ClientStream(send))`: nothing goes on after it."""

    def __init__(self, send: Send) -> None:
        self._send = send
        server = getattr(send, "__self__", None)
        self._cycle = server if isinstance(server, RequestResponseCycle) else None
        self._begun = False
        self._late: asyncio.Future[None] | None = None

    @property
    def ready(self) -> bool:
        """The response has begun, and the server has taken everything so far."""
        return self._begun and self._late is None

    def write(self, data: bytes) -> None:
        """Only while `ready`. A failure is raised by the next send()."""
        cycle = self._cycle
        try:
            if cycle is None or not cycle.chunked_encoding or cycle.flow.write_paused:
                self._first_step(data)
            elif not cycle.disconnected:
                cycle.transport.write(b"%x\r\n%b\r\n" % (len(data), data))
        except Exception as error:
            self._late = asyncio.get_running_loop().create_future()
            self._late.set_exception(error)

    def _first_step(self, data: bytes) -> None:
        step: Any = self._send(_body(data, more=True))
        try:
            awaited = step.send(None)
        except StopIteration:
            return
        self._late = asyncio.create_task(_rest(step, awaited))

    async def send(self, data: bytes, *, more: bool = True) -> None:
        """After everything that was written. The first one: after the response's start."""
        self._begun = True
        late, self._late = self._late, None
        if late is not None:
            await late
        await self._send(_body(data, more=more))

    async def aclose(self) -> None:
        late, self._late = self._late, None
        if late is not None:
            late.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await late


def _body(data: bytes, *, more: bool) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": more}


async def _rest(step: Coroutine[Any, Any, None], awaited: Any) -> None:
    await _steps(step, awaited)


@types.coroutine
def _steps(step: Coroutine[Any, Any, None], awaited: Any) -> Generator[Any, Any, None]:
    """Goes on with a coroutine whose first step was made by hand and gave `awaited`."""
    while True:
        try:
            value = yield awaited
        except BaseException as error:
            resume = partial(step.throw, error)
        else:
            resume = partial(step.send, value)
        try:
            awaited = resume()
        except StopIteration:
            return
