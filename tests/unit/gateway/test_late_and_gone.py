"""Whose fault a silence is, what a cancelled step leaves behind, and what a dead engine takes."""

from __future__ import annotations

import asyncio
import datetime
import time
from contextlib import aclosing
from types import SimpleNamespace
from typing import Any, cast

import pytest

from gateway import app
from gateway.attempt import Attempt, Break, Patience
from gateway.connection import EngineConnection
from gateway.engine import Engine, EngineState
from gateway.engine_client import EngineBroke, EngineTimeout
from gateway.engines import EnginePool
from gateway.errors import EngineFailed
from gateway.journey import Journey, RequestBreaksEngines
from gateway.metrics import Metrics
from gateway.pass_through import Passed, PassThrough
from gateway.relay import Call
from gateway.settings import Settings
from gateway.usage import Usage


def two_engines() -> EnginePool:
    urls = {"vllm-a": "http://a:1", "vllm-b": "http://b:1"}
    pool = EnginePool(urls, max_inflight=8, clock=time.monotonic)
    for engine in pool.engines:
        engine.observe(EngineState.HEALTHY)
    return pool


async def test_a_loop_that_stood_still_blames_no_engine_and_a_hang_is_still_seen() -> None:
    failed = asyncio.Event()
    response = SimpleNamespace(waiting=True, fail=lambda _: failed.set(), close=lambda: None)
    engine = Engine("vllm-a", "a", 1, time.monotonic)
    attempt = Attempt(engine, cast(Any, None), Patience(60, 0.4), "")
    attempt._sent(cast(Any, response))
    attempt.spoke()
    time.sleep(1)  # noqa: ASYNC251 - the loop stands still
    for _ in range(5):
        await asyncio.sleep(0)
    assert not failed.is_set()
    async with asyncio.timeout(30):
        await failed.wait()
    attempt.end_with(Break("hung", "hung"))


async def test_a_drained_stream_may_go_back_to_an_engine_that_broke_and_returned() -> None:
    pool = two_engines()

    def try_on(engine: Engine) -> Attempt:
        return cast(Attempt, SimpleNamespace(engine=engine, end=lambda outcome: None))

    call = Call("/v1/completions", {}, "")
    journey = Journey(call, pool, Metrics(), try_on, 0.5, time.monotonic)
    first = (await journey.next_attempt()).engine
    journey.broke(Break("broke", "eof"))
    second = (await journey.next_attempt()).engine
    assert second is not first
    journey.arrived("continued")
    second.set_drain("move")
    journey.broke(Break("moved", "draining"))
    assert (await journey.next_attempt()).engine is first
    with pytest.raises(RequestBreaksEngines):
        journey.broke(Break("broke", "eof"))


async def test_a_cancelled_write_of_usage_loses_nothing() -> None:
    written: list[tuple[str, int]] = []
    asked, hangs = asyncio.Event(), True

    async def execute() -> None:
        asked.set()
        if hangs:
            await asyncio.Event().wait()

    def hincrby(key: str, field: str, value: int) -> None:
        if not hangs:
            written.append((field, value))

    pipeline = SimpleNamespace(hincrby=hincrby, expire=lambda *_: None, execute=execute)
    redis = SimpleNamespace(pipeline=lambda **_: pipeline)
    usage = Usage(redis, lambda: datetime.datetime.now(datetime.UTC))
    usage.count("someone", 3, 4)
    writing = asyncio.create_task(usage.write())
    await asked.wait()
    writing.cancel()
    await asyncio.wait({writing})
    hangs = False
    await usage.write()
    assert written == [("requests", 1), ("prompt_tokens", 3), ("completion_tokens", 4)]


async def test_connections_to_an_engine_that_went_down_are_let_go() -> None:
    dropped: list[str] = []
    client = SimpleNamespace(drop_idle=lambda engine: dropped.append(engine.name))
    settings = Settings.load({})
    store = app._redis(settings)
    parts = app._parts(settings, store, cast(Any, client))
    engine = parts.pool.by_name["vllm-a"]
    engine.observe(EngineState.HEALTHY)
    assert dropped == []
    engine.observe(EngineState.DOWN, "it refuses connections")
    assert dropped == ["vllm-a"]
    await store.aclose()


async def test_an_engine_that_works_on_is_not_blamed_for_a_long_document() -> None:
    async def late(*_: Any, **__: Any) -> None:
        raise EngineTimeout

    pool = two_engines()
    passing = PassThrough(pool, cast(Any, SimpleNamespace(request=late)), 1.0)
    for _ in range(4):
        with pytest.raises(EngineFailed):
            async with aclosing(passing.stream(Passed("/v1/messages", b"{}"))) as pieces:
                await anext(pieces)
    assert [engine.state for engine in pool.engines] == [EngineState.HEALTHY] * 2
    assert [engine.in_flight for engine in pool.engines] == [0, 0]


async def test_a_refusal_that_is_not_read_to_its_end_is_closed() -> None:
    reading, closed = asyncio.Event(), asyncio.Event()

    async def read(limit: int) -> bytes:
        reading.set()
        return await asyncio.Future[bytes]()

    async def refuse(*_: Any, **__: Any) -> Any:
        return SimpleNamespace(status=500, read=read, close=closed.set)

    passing = PassThrough(two_engines(), cast(Any, SimpleNamespace(request=refuse)), 1.0)

    async def ask() -> None:
        async with aclosing(passing.stream(Passed("/v1/messages", b"{}"))) as pieces:
            await anext(pieces)

    asking = asyncio.create_task(ask())
    await reading.wait()
    asking.cancel()
    await asyncio.wait({asking})
    assert closed.is_set()


async def test_a_document_is_asked_of_the_other_engine_when_the_first_one_hangs() -> None:
    pool = two_engines()
    silent: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    asked: list[Engine] = []

    async def request(engine: Engine, *_: Any, on_sent: Any, **__: Any) -> Any:
        asked.append(engine)
        if len(asked) > 1:
            raise EngineBroke("the second one was asked, that is all")
        on_sent(SimpleNamespace(fail=silent.set_exception))
        asyncio.get_running_loop().call_soon(engine.observe, EngineState.DOWN, "hung")
        await silent

    passing = PassThrough(pool, cast(Any, SimpleNamespace(request=request)), 60.0)
    with pytest.raises(EngineFailed):
        async with (
            asyncio.timeout(30),
            aclosing(passing.stream(Passed("/v1/messages", b"{}"))) as p,
        ):
            await anext(p)
    assert {engine.name for engine in asked} == {"vllm-a", "vllm-b"}
    assert not any(engine._leavers for engine in pool.engines)


async def test_a_connection_with_bytes_after_its_answer_is_not_used_again() -> None:
    transport = SimpleNamespace(
        write=lambda _: None, resume_reading=lambda: None, abort=lambda: None
    )
    connection = EngineConnection(asyncio.get_running_loop(), lambda _: None)
    connection.connection_made(cast(Any, transport))
    response = connection.send(b"GET / HTTP/1.1\r\n\r\n")
    reading = asyncio.create_task(response.read())
    await asyncio.sleep(0)
    connection.data_received(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokrubbish\r\n")
    async with asyncio.timeout(30):
        assert await reading == b"ok"
    assert not connection.usable
