"""How a turn ends in the store: its two messages saved at once, or the session set free.

Owns the attempts: now, and for a bounded time afterwards when the store is away. The last event
of a resumable turn goes into its log in the same step. Not here: what the outcome of a turn is
(turn_run.py).
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from gateway.errors import SessionStoreUnavailable
from gateway.history import Message
from gateway.sessions import WITHOUT_LOG, LastEntry, SessionStore, TurnRef
from gateway.turn_log import TurnLog
from gateway.turns import Entry, TurnStore

FLUSH_SECONDS: Final = 1.0
SAVE_AGAIN_SECONDS: Final = 60.0
SAVE_PAUSE_SECONDS: Final = 1.0

LATER: Final = "later"
SAVED: Final = "saved"
FENCED: Final = "fenced"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Result:
    """The two messages of the turn and its last event, which is told whether they were saved."""

    question: Message
    answer: Message
    system: str
    event: str
    data: dict[str, Any]


class TurnEnding:
    def __init__(
        self,
        sessions: SessionStore,
        ref: TurnRef,
        turn_log: TurnLog | None,
        *,
        monotonic: Callable[[], float],
    ) -> None:
        self._sessions = sessions
        self._ref = ref
        self._log = turn_log
        self._monotonic = monotonic

    async def hand_over(self, turns: TurnStore) -> bool:
        """Whether another gateway may take the turn from here."""
        try:
            return await turns.let_go(self._ref)
        except SessionStoreUnavailable:
            return False

    async def release(self, event: str, data: dict[str, Any]) -> None:
        try:
            await self._sessions.release(self._ref, self._last(event, {**data, "saved": False}))
        except SessionStoreUnavailable:
            log.warning("a session keeps its turn until the lease runs out: the store is away")

    async def save(self, result: Result) -> str:
        """`saved`; `gone` or `fenced`: there is no place for it; `later`: try again."""
        if (
            self._log is not None
            and not self._log.over
            and not await self._log.flush(FLUSH_SECONDS)
        ):
            return LATER
        last = self._last(result.event, {**result.data, "saved": True})
        messages = (result.question, result.answer)
        try:
            return await self._sessions.commit(self._ref, messages, result.system, last)
        except SessionStoreUnavailable:
            return LATER

    async def save_later(self, result: Result) -> str:
        deadline = self._monotonic() + SAVE_AGAIN_SECONDS
        while self._monotonic() < deadline:
            await asyncio.sleep(SAVE_PAUSE_SECONDS)
            outcome = await self.save(result)
            if outcome != LATER:
                return "late" if outcome == SAVED else outcome
        return "lost"

    def _last(self, event: str, data: dict[str, Any]) -> LastEntry:
        if self._log is None:
            return WITHOUT_LOG
        return LastEntry(self._log.next_number, Entry(event=event, data=data).to_json())
