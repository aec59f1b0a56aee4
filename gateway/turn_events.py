"""A turn's answer in the memory of the gateway that runs it, and how readers follow it.

Owns the numbering of events. The id of an event says what its reader has, to the character:
`turn` is 1, a `delta` is 1 + the characters of the answer up to its end, the last event is
2 + all characters. So a reader that comes back with Last-Event-ID gets exactly the rest, however
the pieces were cut before. A slow reader is no burden: what it has not read is joined.
"""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any, Final

TURN_ID: Final = 1


@dataclass(frozen=True)
class TurnEvent:
    id: int
    event: str
    data: dict[str, Any]

    @property
    def last(self) -> bool:
        return self.event in ("done", "error")


def delta(text: str, characters: int) -> TurnEvent:
    return TurnEvent(TURN_ID + characters, "delta", {"text": text})


def ending(event: str, data: dict[str, Any], characters: int) -> TurnEvent:
    return TurnEvent(TURN_ID + 1 + characters, event, data)


class Reader:
    """How far one reader has come."""

    def __init__(self, last_event_id: int) -> None:
        self.last_event_id = last_event_id
        self.finished = False

    @property
    def characters(self) -> int:
        return max(0, self.last_event_id - TURN_ID)

    def takes(self, event: TurnEvent) -> TurnEvent:
        self.last_event_id = event.id
        self.finished = event.last
        return event


class Answer:
    """`visible`: how much of `text` readers may have; `read`: how much any of them has had."""

    def __init__(self, text: str = "") -> None:
        self.text = text
        self.visible = len(text)
        self.read = 0
        self.opening: dict[str, Any] | None = None
        self.end: TurnEvent | None = None
        self.moved = False
        self.readers = 0
        self._changed = asyncio.Event()

    def open(self, data: dict[str, Any]) -> None:
        self.opening = data
        self._wake()

    def add(self, text: str) -> None:
        self.text += text

    def show(self, characters: int) -> None:
        if characters > self.visible:
            self.visible = min(characters, len(self.text))
            self._wake()

    def close(self, event: str, data: dict[str, Any]) -> None:
        """No more text: what is kept is what there is to read."""
        self.visible = len(self.text)
        self.end = ending(event, data, len(self.text))
        self._wake()

    def move(self) -> None:
        """Another gateway has the turn; readers go on with its log."""
        self.moved = True
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def changed(self) -> None:
        await self._changed.wait()

    @property
    def over(self) -> bool:
        return self.end is not None or self.moved

    async def follow(self, last_event_id: int) -> AsyncGenerator[TurnEvent]:
        """Events after that id; text that the reader has already is never sent again."""
        reader = Reader(last_event_id)
        self.readers += 1
        try:
            while not reader.finished:
                changed = self._changed
                event = self.next_for(reader)
                if event is not None:
                    yield event
                elif self.over:
                    return
                else:
                    await changed.wait()
        finally:
            self.readers -= 1

    def next_for(self, reader: Reader) -> TurnEvent | None:
        if self.opening is not None and reader.last_event_id < TURN_ID:
            return reader.takes(TurnEvent(TURN_ID, "turn", self.opening))
        has = reader.characters
        if self.visible > has:
            self.read = max(self.read, self.visible)
            return reader.takes(delta(self.text[has : self.visible], self.visible))
        if self.end is not None and reader.last_event_id < self.end.id:
            return reader.takes(self.end)
        return None
