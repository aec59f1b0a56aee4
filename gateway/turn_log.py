"""When a turn's log is written: in batches, again until it is there, never in the turn's way.

Owns the order of things between the answer and its record: a piece is shown to readers once it
is logged, so that a take-over can repeat exactly what readers have. When Redis is slower than
PATIENCE_SECONDS the answer goes on without it and the log catches up; what waits is at most the
rest of one answer.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from gateway.errors import SessionStoreUnavailable
from gateway.sessions import TurnRef
from gateway.turns import Entry, TurnStore

# Twenty writes a second are smooth to read and keep Redis, and this process, nearly idle.
PAUSE_SECONDS: Final = 0.04
PATIENCE_SECONDS: Final = 0.25
RETRY_FIRST_SECONDS: Final = 0.1
RETRY_AT_MOST_SECONDS: Final = 1.0

Show = Callable[[int], None]
Signal = Callable[[str], None]


class TurnLog:
    """`show(characters)`: so much of the answer may be read now. `signal(status)`: the store
    said `stop` or `fenced`."""

    def __init__(
        self, store: TurnStore, ref: TurnRef, *, first: int, length: int, show: Show, signal: Signal
    ) -> None:
        self._store = store
        self._ref = ref
        self._next = first
        self._length = length
        self._show = show
        self._signal = signal
        self._waiting: list[Entry] = []
        self._fields: dict[str, str] = {}
        self._dirty = asyncio.Event()
        self._written = asyncio.Event()
        self._written.set()
        self._late = False
        self.over = False

    @property
    def next_number(self) -> int:
        """The number that an entry after all the present ones will have."""
        return self._next + len(self._waiting)

    def event(self, event: str, data: dict[str, object], fields: dict[str, str]) -> None:
        self._put(Entry(event=event, data=data), fields)

    def write(self, text: str, ids: list[int], finish: str | None, fields: dict[str, str]) -> None:
        self._length += len(text)
        last = self._waiting[-1] if self._waiting else None
        if last is None or last.event or last.finish:
            self._put(Entry(text=text, ids=list(ids), finish=finish), fields)
        else:
            last.text += text
            last.ids.extend(ids)
            last.finish = finish
            self._fields.update(fields)
        if self._late or self.over:
            self._show(self._length)

    def _put(self, entry: Entry, fields: dict[str, str]) -> None:
        if self.over:
            return
        self._waiting.append(entry)
        self._fields.update(fields)
        self._written.clear()
        self._dirty.set()

    async def run(self) -> None:
        while not self.over:
            await self._dirty.wait()
            self._dirty.clear()
            entries, self._waiting = self._waiting, []
            fields, self._fields = self._fields, {}
            if entries:
                await self._write(entries, fields, self._next, self._length)
            if not self._waiting:
                self._written.set()
            await asyncio.sleep(PAUSE_SECONDS)

    async def _write(
        self, entries: list[Entry], fields: dict[str, str], first: int, length: int
    ) -> None:
        self._next = first + len(entries)
        writing = asyncio.create_task(self._until_there(entries, fields, first))
        try:
            await asyncio.wait({writing}, timeout=PATIENCE_SECONDS)
            if not writing.done():
                self._late = True
                self._show(self._length)
            outcome = await writing
        finally:
            writing.cancel()
        self._late = False
        self._show(length)
        if outcome == "gone" or outcome == "fenced":
            self._end(outcome)
        elif outcome == "stop":
            self._signal("stop")

    async def _until_there(self, entries: list[Entry], fields: dict[str, str], first: int) -> str:
        pause = RETRY_FIRST_SECONDS
        while True:
            try:
                return await self._store.append(self._ref, first, entries, fields)
            except SessionStoreUnavailable:
                await asyncio.sleep(pause)
                pause = min(RETRY_AT_MOST_SECONDS, pause * 2)

    def _end(self, outcome: str) -> None:
        """Nothing more can be logged. A turn that the store lost goes on all the same."""
        self.over = True
        self._waiting.clear()
        self._written.set()
        if outcome == "fenced":
            self._signal("fenced")
        else:
            self._show(self._length)

    async def flush(self, seconds: float) -> bool:
        """Whether all is written, after at most so long."""
        try:
            async with asyncio.timeout(seconds):
                await self._written.wait()
        except TimeoutError:
            return False
        return not self.over
