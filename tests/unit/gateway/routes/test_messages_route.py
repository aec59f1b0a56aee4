"""`/v1/messages` and its kin: passed on as they are, and counted by what they say."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from gateway.engine import EngineState
from gateway.engine_client import EngineBroke
from gateway.front import front
from gateway.parts import Parts
from gateway.routes import messages
from tests.fakes.raw_caller import RawCaller
from tests.unit.conftest import KEY, MODEL

AUTH = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
ASKED = {"model": MODEL, "max_tokens": 9, "messages": [{"role": "user", "content": "hello"}]}
BEGIN = b'data: {"message": {"usage": {"input_tokens": 7, "output_tokens": 0}}}\n\n'
END = b'data: {"usage": {"output_tokens": 3}}\n\n'
STREAM = {"content-type": "text/event-stream"}
Call = Callable[..., RawCaller]


class ScriptedEngine:
    """Answers every request with these pieces; an exception among them is raised."""

    def __init__(self) -> None:
        self.pieces: list[bytes | Exception] = [BEGIN, END]
        self.headers = STREAM
        self.hold: asyncio.Event | None = None

    async def request(self, *_: Any, **__: Any) -> Any:
        pieces = iter(self.pieces)

        async def chunk() -> bytes:
            piece = next(pieces, None)
            if isinstance(piece, Exception):
                raise piece
            if piece is None and self.hold is not None:
                await self.hold.wait()
            return piece or b""

        return SimpleNamespace(status=200, headers=self.headers, chunk=chunk, close=lambda: None)


@pytest.fixture
def engine() -> ScriptedEngine:
    return ScriptedEngine()


@pytest.fixture
def parts(make_parts: Callable[..., Parts], engine: ScriptedEngine) -> Parts:
    made = dataclasses.replace(make_parts(), client=cast(Any, engine))
    for one in made.pool.engines:
        one.observe(EngineState.HEALTHY)
    return made


@pytest.fixture
def call(parts: Parts) -> Call:
    app = front(parts, messages.routes(parts))
    return lambda path, body=ASKED: RawCaller(app, "POST", path, body=body, headers=AUTH)


def tokens(parts: Parts) -> tuple[float, float, int]:
    """As Prometheus and `/v1/usage` would say it: prompt, completion, requests."""
    caller = parts.keys.check([(b"authorization", AUTH["authorization"].encode())])
    prompt, completion = (
        parts.metrics.registry.get_sample_value(
            "gateway_tokens_total", {"direction": direction, "key_id": caller.id}
        )
        for direction in ("prompt", "completion")
    )
    requests = sum(counts["requests"] for counts in parts.usage._unwritten.values())
    return prompt or 0.0, completion or 0.0, requests


@pytest.mark.parametrize("path", messages.ANSWERS)
async def test_an_answer_is_passed_on_and_its_tokens_are_counted(
    call: Call, parts: Parts, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "gateway.access")
    async with call(path) as one:
        await one.finished()
    assert (one.status, one.raw, one.ended) == (200, BEGIN + END, True)
    assert one.headers["content-type"] == STREAM["content-type"]
    assert tokens(parts) == (7, 3, 1)
    (line,) = [vars(record)["fields"] for record in caplog.records]
    assert (line["prompt_tokens"], line["completion_tokens"]) == (7, 3)


async def test_counting_of_tokens_is_no_use_of_them(
    call: Call, parts: Parts, engine: ScriptedEngine
) -> None:
    engine.pieces = [b'{"count": 3, "usage": {"input_tokens": 5, "output_tokens": 5}}']
    engine.headers = {"content-type": "application/json"}
    async with call("/tokenize") as one:
        await one.finished()
    assert one.json["count"] == 3
    assert tokens(parts) == (0, 0, 0)


async def test_a_stream_that_breaks_says_so_and_counts_what_it_told(
    call: Call, parts: Parts, engine: ScriptedEngine
) -> None:
    engine.pieces = [BEGIN, EngineBroke("gone")]
    async with call("/v1/messages") as one:
        await one.finished()
    assert one.events[-1].event == "error" and one.ended
    assert tokens(parts) == (7, 0, 1)


async def test_who_leaves_has_used_what_was_told(
    call: Call, parts: Parts, engine: ScriptedEngine
) -> None:
    engine.pieces, engine.hold = [BEGIN], asyncio.Event()
    async with call("/v1/messages") as one:
        await one.until(lambda c: c.raw)
        one.leave()
        await one.finished()
    assert tokens(parts) == (7, 0, 1)
    assert [one.in_flight for one in parts.pool.engines] == [0, 0]


async def test_who_leaves_after_a_whole_document_has_used_it(
    call: Call, parts: Parts, engine: ScriptedEngine
) -> None:
    engine.pieces = [b'{"usage": {"input_tokens": 7, "output_tokens": 3}}']
    engine.hold = asyncio.Event()
    async with call("/v1/responses") as one:
        await one.until(lambda c: c.raw)
        one.leave()
        await one.finished()
    assert tokens(parts) == (7, 3, 1)


async def test_who_is_refused_has_used_nothing(
    call: Call, parts: Parts, engine: ScriptedEngine
) -> None:
    engine.pieces = [EngineBroke("gone")]
    async with call("/v1/messages") as one:
        await one.finished()
    assert one.status == 502
    assert tokens(parts) == (0, 0, 0)
