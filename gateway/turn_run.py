"""One session turn while this gateway runs it: fit the history, wait for a place, relay, save.

Owns the turn's life from its beginning to the saved answer, whoever reads it meanwhile. It runs
in a task of its own that nobody cancels: to end it early is to `halt` it, and then it still
saves. Not here: which turns run (chat_turn.py), how readers follow (turn_events.py), what the
store is told at the end (turn_ending.py).
"""

import asyncio
import contextlib
import json
import logging
import secrets
from typing import Any, Final

from gateway.answer import CHAT, Call
from gateway.errors import EngineFailed, InternalError, SessionStoreUnavailable, TandemError
from gateway.history import Message, fit
from gateway.sessions import TurnRef
from gateway.turn_ending import FENCED, FLUSH_SECONDS, LATER, SAVED, Result, TurnEnding
from gateway.turn_events import Answer
from gateway.turn_log import TurnLog
from gateway.turn_pieces import Piece, PieceReader, told
from gateway.turn_plan import Plan, Resumption, TurnParts, without_ids

HEARTBEAT_SECONDS: Final = 1.0
# A page that is reloaded, or changes from Wi-Fi to mobile, is back well within this time; longer
# would keep a place on the engine for a reader who has left.
GRACE_SECONDS: Final = 20.0
ABORT_SECONDS: Final = 5.0
CANCELLED: Final = "cancelled"
# This gateway ends.
SHUTDOWN: Final = "shutdown"
FOLLOWED_SECONDS: Final = 4.0
# The turn's gateway died and nobody came back for the answer.
INTERRUPTED: Final = "interrupted"

log = logging.getLogger(__name__)


class TurnRun:
    def __init__(
        self, parts: TurnParts, ref: TurnRef, plan: Plan, resumption: Resumption | None = None
    ) -> None:
        before = resumption or Resumption()
        self.ref = ref
        self.plan = plan
        self.answer = Answer(before.text)
        self.answer.opening = before.opening
        self.error: TandemError | None = None
        self.usage = before.usage
        self.finish = before.finish
        self.admitted = asyncio.Event()
        self.halted: str | None = None
        self.call: Call | None = None
        self._parts = parts
        self._resumption = resumption
        self._halt = asyncio.Event()
        self._ids_logged = 0
        # An answer that cannot be continued by its ids is made again: this much was sent already.
        self._expected = before.text if before.progress is None else ""
        self._watched_at = parts.monotonic()
        self._followed_at = float("-inf")
        self._log: TurnLog | None = None
        if plan.resumable:
            self._log = TurnLog(
                parts.turns, ref, first=before.entries, length=len(before.text),
                show=self.answer.show, signal=self.halt,
            )  # fmt: skip
        self._ending = TurnEnding(parts.sessions, ref, self._log, monotonic=parts.monotonic)

    def halt(self, why: str) -> None:
        """Ends the turn now. `fenced`: another gateway runs it; else what is there is saved."""
        if self.halted is None or why == FENCED:
            self.halted = why
        self._halt.set()

    async def begun(self, seconds: float) -> None:
        """Returns when the turn has text, or its end; or `seconds` after it has a place, so that
        a slow first token does not keep the reader from the turn's id."""
        await self.admitted.wait()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not (self.answer.over or self.answer.visible):
                    await self.answer.changed()

    async def ended(self) -> None:
        while not self.answer.over:
            await self.answer.changed()

    async def execute(self) -> None:
        beat = asyncio.create_task(self._beat())
        writer = asyncio.create_task(self._log.run()) if self._log else None
        try:
            await self._generate_or_halt()
            await self._end()
        finally:
            self.admitted.set()
            if not self.answer.over:
                self.error = self.error or InternalError("The turn ended unexpectedly.")
                self.answer.close("error", self.error.body())
            for task in (beat, writer):
                if task is not None:
                    task.cancel()
                    await asyncio.wait({task})

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_SECONDS)
            with contextlib.suppress(SessionStoreUnavailable):
                beat = await self._parts.turns.heartbeat(self.ref)
                if beat.status in ("stop", FENCED):
                    self.halt(beat.status)
                if beat.watched:
                    self._watched_at = self._followed_at = self._parts.monotonic()
            self._check_grace()

    def _check_grace(self) -> None:
        now = self._parts.monotonic()
        if self.answer.readers or not self.plan.resumable:
            self._watched_at = now
        elif now - self._watched_at > GRACE_SECONDS:
            self.halt("abandoned")

    # -- making the answer -----------------------------------------------------------------------

    async def _generate_or_halt(self) -> None:
        if self._halt.is_set():
            return
        generating = asyncio.create_task(self._generate())
        halting = asyncio.create_task(self._halt.wait())
        await asyncio.wait({generating, halting}, return_when=asyncio.FIRST_COMPLETED)
        halting.cancel()
        if not generating.done():
            generating.cancel()
            await asyncio.wait({generating}, timeout=ABORT_SECONDS)
        if not generating.done() or generating.cancelled():
            return
        failure = generating.exception()
        if isinstance(failure, TandemError):
            self.error = failure
        elif failure is not None:
            log.error("a turn failed", exc_info=failure)
            self.error = InternalError("The answer failed for a reason of the gateway's own.")

    async def _generate(self) -> None:
        if self.answer.opening is None:
            await self._fit()
            self._open()
        if self.finish is not None:
            return
        async with self._parts.admission.enter(self.ref.owner):
            self.admitted.set()
            await self._relay()

    async def _fit(self) -> None:
        counter, body = self._parts.counter, self.plan.body
        fitted = await fit(self.plan.question(), counter.context_length, counter.count)
        self.plan.trimmed_turns = fitted.trimmed_turns
        body["messages"] = fitted.messages
        body["max_tokens"] = fitted.max_tokens
        body.setdefault("seed", secrets.randbits(31))

    def _open(self) -> None:
        data = {**self._ids(), "trimmed_turns": self.plan.trimmed_turns}
        if self._log is not None:
            self._log.event("turn", data, {"request": self.plan.to_json()})
        self.answer.open(data)

    async def _relay(self) -> None:
        progress = self._resumption.progress if self._resumption else None
        self._ids_logged = len(progress.ids) if progress else 0
        self.call = Call(
            CHAT, self.plan.body, self.plan.request_id,
            affinity=self.ref.session_id, progress=progress,
        )  # fmt: skip
        reader = PieceReader()
        stream = self._parts.relay.stream(self.call)
        try:
            async for item in stream:
                for piece in reader.feed(item):
                    self._take(piece)
        finally:
            close = getattr(stream, "aclose", None)
            if close is not None:
                await close()
        if self.finish is None and self.error is None:
            self.error = EngineFailed("The answer broke off before its end. Send the turn again.")

    def _take(self, piece: Piece) -> None:
        if piece.error is not None:
            self.error = self.error or told(piece.error)
        self.usage = piece.usage or self.usage
        self.finish = piece.finish or self.finish
        piece.text = self._unsent(piece.text)
        self.answer.add(piece.text)
        if self._log is None:
            self.answer.show(len(self.answer.text))
        elif piece.text or piece.finish:
            ids, fields = self._progress()
            self._log.write(piece.text, ids, piece.finish, fields)

    def _unsent(self, text: str) -> str:
        expected, self._expected = self._expected[: len(text)], self._expected[len(text) :]
        if not text.startswith(expected):
            raise EngineFailed(
                "The gateway that wrote this answer died, and the answer came out differently "
                "when it was made again. Send the turn again."
            )
        return text[len(expected) :]

    def _progress(self) -> tuple[list[int], dict[str, str]]:
        """What the log needs to go on from exactly here: the new ids, and the relay's place
        without its ids, which the entries carry."""
        progress = self.call.progress if self.call else None
        if progress is None or not progress.begun:
            return [], {}
        fields = {"progress": without_ids(progress).to_json()}
        if self._ids_logged == 0:
            fields["prompt_ids"] = json.dumps(list(progress.prompt_ids))
        ids = list(progress.ids[self._ids_logged :])
        self._ids_logged += len(ids)
        return ids, fields

    # -- the end ---------------------------------------------------------------------------------

    async def _end(self) -> None:
        written = False
        if self._log is not None:
            written = await self._log.flush(FLUSH_SECONDS)
            self.answer.show(len(self.answer.text))
        if self.halted == FENCED or (written and await self._handed_over()):
            self.answer.move()
            return
        if self.halted and self.finish is None:
            self._cut_short()
        event, data = self._outcome()
        if not self._worth_saving():
            await self._ending.release(event, data)
            self.answer.close(event, {**data, "saved": False})
            return
        await self._save(self._result(event, data))

    async def _handed_over(self) -> bool:
        """While somebody reads at the other gateway, that one goes on from the log."""
        followed = self._parts.monotonic() - self._followed_at <= FOLLOWED_SECONDS
        if self.halted != SHUTDOWN or not followed or self.finish or self.error:
            return False
        return self.answer.opening is not None and await self._ending.hand_over(self._parts.turns)

    def _cut_short(self) -> None:
        self.finish = INTERRUPTED if self.halted == INTERRUPTED else CANCELLED
        if not self.plan.resumable:
            self.answer.text = self.answer.text[: self.answer.read]

    def _worth_saving(self) -> bool:
        """What nobody could read is no part of the conversation; a finished answer always is."""
        if self.error is None and self.finish not in (CANCELLED, INTERRUPTED):
            return True
        return bool(self.answer.text) and (self.plan.resumable or self.answer.read > 0)

    async def _save(self, result: Result) -> None:
        outcome = await self._ending.save(result)
        if outcome == FENCED:
            self.answer.move()
            return
        self.answer.close(result.event, {**result.data, "saved": outcome == SAVED})
        if outcome == LATER:
            outcome = await self._ending.save_later(result)
        self._parts.saved(outcome)

    def _outcome(self) -> tuple[str, dict[str, Any]]:
        if self.error is not None:
            return "error", {**self.error.body(), **self._ids()}
        outcome = self.call.outcome if self.call else None
        return "done", {
            **self._ids(),
            "finish_reason": self.finish,
            "usage": self.usage or (outcome.usage if outcome else None),
            "failovers": outcome.failovers if outcome else 0,
            "engine": outcome.engine if outcome else None,
            "trimmed_turns": self.plan.trimmed_turns,
        }

    def _ids(self) -> dict[str, str]:
        return {"turn_id": self.ref.turn_id, "session_id": self.ref.session_id}

    def _result(self, event: str, data: dict[str, Any]) -> Result:
        now, usage = self._parts.sessions.now_ms() // 1000, self.usage or {}
        answer = Message(
            "assistant", self.answer.text, now, self.ref.turn_id,
            finish_reason="error" if self.error else self.finish,
            engine=(self.call.outcome.engine or None) if self.call else None,
            prompt_tokens=usage.get("prompt_tokens"),
            completion_tokens=usage.get("completion_tokens"),
            trimmed=self.plan.trimmed_turns,
        )  # fmt: skip
        question = Message("user", self.plan.prompt, now, self.ref.turn_id)
        return Result(question, answer, self.plan.system or "", event, data)
