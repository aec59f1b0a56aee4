"""A caller of an ASGI application that reads as it likes, and may leave at any moment."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from gateway.sse import Event, EventParser


class RawCaller:
    """`async with` starts the request; `leave()` is what a closed connection looks like."""

    def __init__(
        self, app: Any, method: str, path: str, *, body: Any = None, headers: dict[str, str]
    ) -> None:
        target, _, query = path.partition("?")
        self._scope = {
            "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "method": method,
            "path": target, "raw_path": target.encode(), "query_string": query.encode(),
            "headers": [(k.encode(), v.encode()) for k, v in headers.items()],
            "http_version": "1.1", "scheme": "http", "server": ("gateway", 80),
            "client": ("caller", 1), "root_path": "",
        }  # fmt: skip
        self._app = app
        self._incoming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        raw = b"" if body is None else json.dumps(body).encode()
        self._incoming.put_nowait({"type": "http.request", "body": raw, "more_body": False})
        self._parser = EventParser()
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.status = 0
        self.headers: dict[str, str] = {}
        self.raw = b""
        self.events: list[Event] = []
        self.ended = False

    async def __aenter__(self) -> RawCaller:
        self._task = asyncio.create_task(self._app(self._scope, self._incoming.get, self._send))
        return self

    async def __aexit__(self, *_: object) -> None:
        self.leave()
        assert self._task is not None
        await asyncio.wait({self._task}, timeout=60)
        assert self._task.done(), "the gateway still serves a caller who left"
        if not self._task.cancelled() and self._task.exception() is not None:
            raise self._task.exception()  # type: ignore[misc]

    def leave(self) -> None:
        self._incoming.put_nowait({"type": "http.disconnect"})

    async def finished(self) -> None:
        assert self._task is not None
        async with asyncio.timeout(60):
            await asyncio.shield(self._task)

    async def _send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {k.decode(): v.decode() for k, v in message["headers"]}
        else:
            self.raw += message.get("body", b"")
            self.events += self._parser.feed(message.get("body", b""))
            self.ended = not message.get("more_body", False)
        self._changed.set()

    async def until(self, holds: Any) -> None:
        async with asyncio.timeout(60):
            while not holds(self):
                self._changed.clear()
                await self._changed.wait()

    @property
    def json(self) -> Any:
        return json.loads(self.raw)

    @property
    def names(self) -> list[str]:
        return [event.event or "" for event in self.events]

    @property
    def text(self) -> str:
        return "".join(json.loads(e.data)["text"] for e in self.events if e.event == "delta")

    @property
    def last_id(self) -> int:
        return max((int(event.id) for event in self.events if event.id), default=0)

    @property
    def opening(self) -> Any:
        return json.loads(self.events[0].data)

    @property
    def ending(self) -> Any:
        return json.loads(self.events[-1].data)
