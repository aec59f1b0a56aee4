"""Gateways that share a real Redis and answer turns with a relay whose every letter is released
by the test.

A `Gateway` is the part of one that owns conversations. Its `cut_off` makes the store unreachable
for it alone, as if it had died for everybody else. Not here: the redis-server (redis_server.py).
"""

from __future__ import annotations

import asyncio
import json
import time
from array import array
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from redis.asyncio import Redis

from gateway.answer import IDS, Call, Progress
from gateway.chat_turn import ChatTurn, TurnRequest
from gateway.context_counter import ContextCounter
from gateway.errors import TandemError
from gateway.session_scripts import ScriptRunner, store_unavailable
from gateway.sessions import SessionStore
from gateway.sse import DONE
from gateway.turn_events import TurnEvent
from gateway.turn_plan import TurnParts
from gateway.turn_run import TurnRun
from gateway.turns import TurnStore

T = TypeVar("T")
OWNER = "alice"
TEXT = "The rain in Spain 落在平原上 🌧 mainly."
CONTEXT = 4096
# Far more than anything here needs, so that a machine under load changes no verdict.
PATIENCE = 60.0


class ScriptedModel:
    """A relay whose answer is TEXT, one letter a token; `release(n)` lets n more letters out.

    It continues by token ids exactly as the real one does, and notes what it was asked.
    """

    def __init__(self) -> None:
        self.text = TEXT
        self.calls: list[Call] = []
        self.counts = 0
        self.refusal: TandemError | None = None
        self.break_at: int | None = None
        self.exact = True
        self.streams = 0
        self._letters = asyncio.Semaphore(0)
        self._open = asyncio.Event()

    def release(self, letters: int | None = None) -> None:
        """So many more letters; all there ever will be when no number is given."""
        if letters is None:
            self._open.set()
        for _ in range(letters or 1):
            self._letters.release()

    def hold(self) -> None:
        self._open.clear()
        self._letters = asyncio.Semaphore(0)

    async def stream(self, call: Call) -> AsyncIterator[bytes]:
        self.calls.append(call)
        if self.refusal is not None:
            raise self.refusal
        progress = call.progress or Progress(seed=7)
        if self.exact:
            call.progress = progress
        call.outcome.engine = "vllm-a"
        self.streams += 1
        try:
            async for item in self._letters_of(progress):
                yield item
            yield self._ending(len(progress.ids))
        finally:
            self.streams -= 1

    async def _letters_of(self, progress: Progress) -> AsyncIterator[bytes]:
        progress.prompt_ids = progress.prompt_ids or array(IDS, [1, 2, 3])
        while len(progress.ids) < len(self.text):
            if not self._open.is_set():
                await self._letters.acquire()
            place = len(progress.ids)
            if place == self.break_at:
                yield b'data: {"error": {"message": "broke", "type": "server_error"}}\n\n' + DONE
                return
            progress.ids.append(place)
            yield _chunk({"content": self.text[place]}, None)

    def _ending(self, tokens: int) -> bytes:
        usage = {"prompt_tokens": 3, "completion_tokens": tokens, "total_tokens": 3 + tokens}
        return _chunk({}, "stop") + _event({"choices": [], "usage": usage}) + DONE

    async def forward(
        self, method: str, path: str, body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        assert (method, path) == ("POST", "/tokenize")
        self.counts += 1
        words = sum(len(m["content"].split()) for m in json.loads(body)["messages"])
        answer = {"count": words, "max_model_len": CONTEXT, "tokens": []}
        return 200, {}, json.dumps(answer).encode()


def _chunk(delta: dict[str, str], finish: str | None) -> bytes:
    return _event({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})


def _event(data: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(data).encode() + b"\n\n"


class OpenAdmission:
    """Everybody may enter; `inside` says how many are."""

    def __init__(self) -> None:
        self.inside = 0
        self.refusal: TandemError | None = None

    @asynccontextmanager
    async def enter(self, key_id: str) -> AsyncGenerator[None]:
        if self.refusal is not None:
            raise self.refusal
        self.inside += 1
        try:
            yield
        finally:
            self.inside -= 1


class CuttableScripts(ScriptRunner):
    """`cut`: no operation reaches the store; `lost_replies`: so many reach it, but their answers
    do not come back."""

    cut = False
    lost_replies = 0

    async def run(self, script: str, keys: Any, args: Any) -> Any:
        if self.cut:
            raise store_unavailable()
        answer = await super().run(script, keys, args)
        if self.lost_replies:
            self.lost_replies -= 1
            raise store_unavailable()
        return answer

    async def pipeline(self, *commands: Any) -> list[Any]:
        if self.cut:
            raise store_unavailable()
        return await super().pipeline(*commands)


class Gateway:
    def __init__(self, name: str, redis: Redis) -> None:
        self.scripts = CuttableScripts(redis, deadline=PATIENCE)
        self.model = ScriptedModel()
        self.admission = OpenAdmission()
        self.saved: list[str] = []
        self.resumed: list[str] = []
        self.now = time.time()
        self.moment = 0.0
        self.sessions = SessionStore(
            self.scripts, gateway=name, ttl_seconds=3600, record_seconds=300, clock=self.clock
        )
        self.turns = TurnStore(self.scripts, gateway=name, record_seconds=300)
        counter = ContextCounter(self.model, model="some-model", monotonic=time.monotonic)
        self.parts = TurnParts(
            self.sessions, self.turns, self.model, self.admission, counter, self.monotonic,
            self.saved.append,
        )  # fmt: skip
        self.chat_turn = ChatTurn(self.parts, model="some-model", resumed=self.resumed.append)

    def clock(self) -> float:
        """Each look is a millisecond later, so that no two sessions are of one age."""
        self.now += 0.001
        return self.now

    def monotonic(self) -> float:
        return time.monotonic() + self.moment

    async def start(self, prompt: str = "hello", **more: Any) -> TurnRun:
        request = TurnRequest(**{"owner": OWNER, "prompt": prompt, "request_id": "r", **more})
        run = await self.chat_turn.start(request)
        assert isinstance(run, TurnRun)
        return run

    async def turn(self, prompt: str = "hello", **more: Any) -> TurnRun:
        """A whole turn, answered and saved."""
        self.model.release()
        run = await self.start(prompt, **more)
        await within(run.ended())
        return run

    async def history(self, session_id: str) -> list[tuple[str, str]]:
        session = await self.sessions.get(OWNER, session_id)
        return [(message.role, message.content) for message in session.messages]

    async def close(self) -> None:
        self.scripts.cut = False
        self.model.release()
        await self.chat_turn.aclose(PATIENCE)


async def within(work: Awaitable[T]) -> T:
    async with asyncio.timeout(PATIENCE):
        return await work


async def until(holds: Callable[[], Any]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not holds():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.01)


async def follow(
    gateway: Gateway, turn_id: str, last_event_id: int = 0, *, owner: str = OWNER
) -> list[TurnEvent]:
    """All events after that one, up to the last."""
    events = gateway.chat_turn.events(owner, turn_id, last_event_id)
    async with asyncio.timeout(PATIENCE):
        return [event async for event in events]


def text_of(events: list[TurnEvent]) -> str:
    return "".join(event.data["text"] for event in events if event.event == "delta")
