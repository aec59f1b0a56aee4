"""Reading a turn that another gateway runs: its log, again and again until it ends.

Owns the pace of looking and what a reader is told when the log ends without an end. Not here:
taking a turn over (chat_turn.py).
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Final

from gateway.errors import EngineFailed, SessionStoreUnavailable, TandemError
from gateway.turn_events import TURN_ID, Answer, Reader, TurnEvent, ending
from gateway.turns import Entry, TurnStore, View, turn_not_found

LOOK_SECONDS: Final = 0.1
# A store that is away for longer than this ends the reading; the reader may come back.
STORE_PATIENCE_SECONDS: Final = 15.0


def turn_lost() -> TandemError:
    return EngineFailed(
        "The gateway that answered this turn died, and the turn could not be continued. What was "
        "saved is in its session; send the prompt again.",
        code="turn_lost",
    )


def tail_lost() -> TandemError:
    return EngineFailed(
        "The gateway that answered this turn died with the last words that you have read, and "
        "the answer goes on differently. The complete answer is in its session.",
        code="answer_tail_lost",
    )


def failure(error: TandemError, last_event_id: int) -> TurnEvent:
    return TurnEvent(max(last_event_id, TURN_ID) + 1, "error", error.body())


class LogReader:
    """After `events()` ended without a last event, `orphan` is the turn as it was left."""

    def __init__(
        self, turns: TurnStore, owner: str, turn_id: str, *, monotonic: Callable[[], float]
    ) -> None:
        self._turns = turns
        self._owner = owner
        self._turn_id = turn_id
        self._monotonic = monotonic
        self._answer = Answer()
        self._entries = 0
        self.orphan: View | None = None

    async def events(self, last_event_id: int) -> AsyncGenerator[TurnEvent]:
        reader = Reader(last_event_id)
        while True:
            view = await self._look()
            if not view.resumable:
                raise turn_not_found()
            self._apply(view.entries)
            while (event := self._answer.next_for(reader)) is not None:
                yield event
            if self._answer.end is not None:
                return
            if view.orphaned:
                self.orphan = view
                return
            if view.state != "running":
                yield failure(turn_lost(), reader.last_event_id)
                return
            await asyncio.sleep(LOOK_SECONDS)

    async def _look(self) -> View:
        """The first look fails at once, so that the caller gets a plain answer."""
        deadline = self._monotonic() + (STORE_PATIENCE_SECONDS if self._entries else 0)
        while True:
            try:
                return await self._turns.read(self._owner, self._turn_id, self._entries)
            except SessionStoreUnavailable:
                if self._monotonic() >= deadline:
                    raise
            await asyncio.sleep(LOOK_SECONDS)

    def _apply(self, entries: list[Entry]) -> None:
        self._entries += len(entries)
        for entry in entries:
            if entry.event == "turn":
                self._answer.open(entry.data or {})
            elif entry.event:
                self._answer.end = ending(entry.event, entry.data or {}, len(self._answer.text))
            else:
                self._answer.add(entry.text)
        self._answer.show(len(self._answer.text))
