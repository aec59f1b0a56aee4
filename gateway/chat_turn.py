"""The turns of this gateway: begin one, follow one, stop one, take one over, end them all.

Owns which turns run here. Exactly one gateway runs a turn: the store decides which (turns.py).
Not here: what a turn does while it runs (turn_run.py).
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from typing import Any, Final

from gateway.errors import NotFound, TandemError
from gateway.sessions import (
    AlreadyAnswered,
    Begun,
    Opening,
    Orphan,
    new_id,
    turn_in_progress,
)
from gateway.turn_events import Answer, TurnEvent
from gateway.turn_follow import LogReader, failure, tail_lost, turn_lost
from gateway.turn_plan import Plan, TurnParts, plan_of, resumption_of
from gateway.turn_run import ABORT_SECONDS, INTERRUPTED, SHUTDOWN, TurnRun
from gateway.turns import Taken, View, turn_not_found

BEGIN_ATTEMPTS: Final = 3
STOP_SECONDS: Final = 3.0
STOP_LOOK_SECONDS: Final = 0.05

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TurnRequest:
    """`sampling`: what goes to the model as it came."""

    owner: str
    prompt: str
    request_id: str
    session_id: str | None = None
    turn_id: str | None = None
    system: str | None = None
    max_tokens: int = 512
    max_tokens_given: bool = False
    resumable: bool = False
    sampling: dict[str, Any] = field(default_factory=dict)


class ChatTurn:
    """`resumed(outcome)` counts: live, log, taken_over, lost."""

    def __init__(self, parts: TurnParts, *, model: str, resumed: Callable[[str], None]) -> None:
        self._parts = parts
        self._model = model
        self._resumed = resumed
        self._runs: dict[str, TurnRun] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    # -- beginning -------------------------------------------------------------------------------

    async def start(self, request: TurnRequest) -> TurnRun | AlreadyAnswered:
        turn_id = request.turn_id or new_id("turn")
        opening = Opening(
            request.owner, request.session_id, turn_id, request.prompt, request.system,
            request.resumable, self._plan(request).to_json() if request.resumable else "",
        )  # fmt: skip
        for _ in range(BEGIN_ATTEMPTS):
            begun = await self._parts.sessions.begin(opening)
            if isinstance(begun, AlreadyAnswered):
                return begun
            if isinstance(begun, Begun):
                return self._launch(TurnRun(self._parts, begun.ref, self._plan(request, begun)))
            await self._end_orphan(request.owner, begun)
        raise turn_in_progress(turn_id, 1000)

    def _plan(self, request: TurnRequest, begun: Begun | None = None) -> Plan:
        system, history = (begun.system, begun.history) if begun else (request.system, [])
        body = {
            **request.sampling,
            "model": self._model,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        return Plan(
            request.prompt, system, body, request.request_id, request.resumable,
            request.max_tokens, request.max_tokens_given, history=history,
        )  # fmt: skip

    def _launch(self, run: TurnRun) -> TurnRun:
        self._runs[run.ref.turn_id] = run
        task = asyncio.create_task(run.execute())
        self._tasks.add(task)
        task.add_done_callback(lambda done: self._finished(run, done))
        return run

    def _finished(self, run: TurnRun, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if self._runs.get(run.ref.turn_id) is run:
            del self._runs[run.ref.turn_id]
        if not task.cancelled() and task.exception() is not None:
            log.error("a turn ended unexpectedly", exc_info=task.exception())

    async def _end_orphan(self, owner: str, orphan: Orphan) -> None:
        """What the dead gateway had logged of the last turn is saved before the next begins."""
        taken = await self._parts.turns.take_over(owner, orphan.turn_id, orphan.session_id)
        if taken is not None:
            await self._save_orphan(taken)

    async def _save_orphan(self, taken: Taken) -> None:
        if taken.request is None:
            await self._parts.sessions.release(taken.ref)
            return
        run = TurnRun(self._parts, taken.ref, plan_of(taken), resumption_of(taken))
        run.halt(INTERRUPTED)
        self._launch(run)
        await run.ended()

    # -- following -------------------------------------------------------------------------------

    async def events(
        self, owner: str, turn_id: str, last_event_id: int
    ) -> AsyncGenerator[TurnEvent]:
        """Everything after that event, then what comes. If the turn's gateway is dead, this one
        goes on with it."""
        last = last_event_id
        while True:
            run = self._mine(owner, turn_id)
            if run is None or run.answer.moved:
                reader = self._reader(owner, turn_id)
                source = reader.events(last)
            else:
                self._resumed("live")
                reader, source = None, run.answer.follow(last)
            async with contextlib.aclosing(source):
                async for event in source:
                    last = event.id
                    yield event
                    if event.last:
                        return
            if reader is None:
                if run is not None and run.answer.moved:
                    continue
                return
            if reader.orphan is None:
                return
            problem = await self._adopt(owner, turn_id, reader.orphan, last)
            if problem is not None:
                yield failure(problem, last)
                return

    def _reader(self, owner: str, turn_id: str) -> LogReader:
        return LogReader(self._parts.turns, owner, turn_id, monotonic=self._parts.monotonic)

    def _mine(self, owner: str, turn_id: str) -> TurnRun | None:
        run = self._runs.get(turn_id)
        if run is not None and run.ref.owner != owner:
            raise turn_not_found()
        return run

    async def _adopt(
        self, owner: str, turn_id: str, orphan: View, last_event_id: int
    ) -> TandemError | None:
        taken = await self._parts.turns.take_over(owner, turn_id, orphan.session_id)
        if taken is None:
            return None
        if taken.request is None or not taken.resumable:
            self._resumed("lost")
            await self._parts.sessions.release(taken.ref)
            return turn_lost()
        run = self._launch(TurnRun(self._parts, taken.ref, plan_of(taken), resumption_of(taken)))
        self._resumed("taken_over")
        if last_event_id - 1 > len(taken.text) and run.plan.body.get("temperature") != 0:
            return tail_lost()
        return None

    # -- stopping --------------------------------------------------------------------------------

    async def stop(self, owner: str, turn_id: str) -> dict[str, Any]:
        """Ends the turn at once, wherever it runs, and says how it ended."""
        run = self._mine(owner, turn_id)
        if run is not None and not run.answer.moved:
            run.halt("stopped")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STOP_SECONDS):
                    await run.ended()
            last = run.answer.end
            return _stopped(turn_id, run.ref.session_id, last.data if last else None)
        view = await self._parts.turns.ask_stop(owner, turn_id)
        if view.orphaned:
            await self._end_orphan(owner, Orphan(view.session_id, turn_id))
        end = await self._end_elsewhere(owner, turn_id)
        return _stopped(turn_id, view.session_id, end)

    async def _end_elsewhere(self, owner: str, turn_id: str) -> dict[str, Any] | None:
        """How a turn of the other gateway ended, empty where it kept no log; None: not yet."""
        deadline = self._parts.monotonic() + STOP_SECONDS
        while self._parts.monotonic() < deadline:
            try:
                view = await self._parts.turns.read(owner, turn_id)
            except NotFound:
                return {}
            for entry in view.entries:
                if entry.event in ("done", "error"):
                    return entry.data or {}
            if view.state != "running":
                return {}
            await asyncio.sleep(STOP_LOOK_SECONDS)
        return None

    async def aclose(self, seconds: float) -> None:
        """Running turns may finish in that time; then they are handed to the other gateway, if
        somebody reads there, or saved as far as they came."""
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=seconds)
        for run in self._runs.values():
            run.halt(SHUTDOWN)
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=ABORT_SECONDS)
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=ABORT_SECONDS)


def _stopped(turn_id: str, session_id: str, end: dict[str, Any] | None) -> dict[str, Any]:
    data = end or {}
    return {
        "turn_id": turn_id,
        "session_id": session_id,
        "status": "stopping" if end is None else "stopped",
        "finish_reason": data.get("finish_reason"),
        "saved": data.get("saved", False),
    }


def stored_answer(found: AlreadyAnswered) -> Answer:
    """An answer given before, to be followed like a new one."""
    message = found.answer
    ids = {"turn_id": message.turn_id, "session_id": found.session_id}
    answer = Answer(message.content)
    answer.open({**ids, "trimmed_turns": message.trimmed})
    answer.close("done", {**ids, **stored_result(found), "saved": True})
    return answer


def stored_result(found: AlreadyAnswered) -> dict[str, Any]:
    message = found.answer
    usage = None
    if message.prompt_tokens is not None and message.completion_tokens is not None:
        usage = {
            "prompt_tokens": message.prompt_tokens,
            "completion_tokens": message.completion_tokens,
            "total_tokens": message.prompt_tokens + message.completion_tokens,
        }
    return {
        "finish_reason": message.finish_reason,
        "usage": usage,
        "failovers": 0,
        "engine": message.engine,
        "trimmed_turns": message.trimmed,
    }
