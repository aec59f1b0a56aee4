"""HTTP to engines: kept connections, the repeat on a stale one, deadlines, dropping."""

from __future__ import annotations

import asyncio
import json
import socket
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from gateway.connection_pool import ConnectionPool
from gateway.engine_client import (
    EngineBroke,
    EngineBusy,
    EngineClient,
    EngineTimeout,
    EngineUnreachable,
)
from tests.fakes.engine import FakeEngine, Fault, running
from tests.fakes.relaying import chat, until

BODY = json.dumps(chat()).encode()
PATH = "/v1/chat/completions"


@asynccontextmanager
async def speaking(fake: FakeEngine, **settings: float) -> AsyncIterator[EngineClient]:
    async with running(fake):
        client = EngineClient(**settings)
        try:
            yield client
        finally:
            await client.aclose()


async def test_a_connection_is_used_again_after_a_whole_answer() -> None:
    fake = FakeEngine([b"a", b"b"])
    async with speaking(fake) as client:
        for _ in range(5):
            response = await client.request(fake, "GET", "/v1/models")
            assert response.status == 200
            assert response.headers["content-type"] == "application/json"
            assert b"max_model_len" in await response.read()
        stream = await client.request(fake, "POST", PATH, BODY)
        assert b"".join([part async for part in stream]).endswith(b"[DONE]\n\n")
        assert (fake.accepted, client.connections(fake)) == (1, (1, 1))


async def test_closing_an_unread_answer_drops_its_connection() -> None:
    fake = FakeEngine([b"a"] * 50, drip=0.01)
    async with speaking(fake) as client:
        response = await client.request(fake, "POST", PATH, BODY)
        await response.chunk()
        response.close()
        assert client.connections(fake) == (0, 0)
        await until(lambda: fake.aborted)
        with pytest.raises(EngineBroke):
            await response.chunk()


async def test_a_kept_connection_that_the_engine_closed_costs_nothing() -> None:
    """The engine closes in the very moment in which the request is sent."""
    fake = FakeEngine([b"a"])
    async with speaking(fake) as client:
        await (await client.request(fake, "GET", "/v1/models")).read()
        fake.faults = deque([Fault("cut", -1)])
        response = await client.request(fake, "POST", PATH, BODY)
        assert (await response.read()).endswith(b"[DONE]\n\n")
        assert (fake.accepted, len(fake.generations)) == (2, 2)


async def test_a_new_connection_that_breaks_is_not_repeated() -> None:
    fake = FakeEngine([b"a"], faults=deque([Fault("cut", -1)]))
    async with speaking(fake) as client:
        with pytest.raises(EngineBroke):
            await client.request(fake, "POST", PATH, BODY)
        assert len(fake.generations) == 1


async def test_a_break_gives_what_came_before() -> None:
    fake = FakeEngine([b"a"] * 9, faults=deque([Fault("cut", 3)]))
    async with speaking(fake) as client:
        response = await client.request(fake, "POST", PATH, BODY)
        got = b""
        with pytest.raises(EngineBroke):
            while True:
                got += await response.chunk()
        assert got.count(b"\n\n") == 3


async def test_nobody_there_is_told_apart_from_breaking() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        fake = FakeEngine([], port=free.getsockname()[1])
        client = EngineClient()
        with pytest.raises(EngineUnreachable):
            await client.request(fake, "GET", "/v1/models")
        await client.aclose()


async def test_one_deadline_covers_the_wait_for_headers() -> None:
    fake = FakeEngine([], mute=True)
    async with speaking(fake) as client:
        with pytest.raises(EngineTimeout):
            await client.request(fake, "GET", "/health", timeout=0.05)
        assert client.connections(fake) == (0, 0)


async def test_a_body_is_bounded_and_what_is_no_http_is_refused() -> None:
    fake = FakeEngine([b"a"] * 50)
    async with speaking(fake) as client:
        response = await client.request(fake, "POST", PATH, BODY)
        with pytest.raises(EngineBroke):
            await response.read(limit=100)
        fake.faults = deque([Fault("not_http")])
        with pytest.raises(EngineBroke):
            await client.request(fake, "POST", PATH, BODY)


async def test_idle_connections_go_when_the_engine_changes_or_after_a_while() -> None:
    fake = FakeEngine([b"a"])
    async with speaking(fake, idle_seconds=0.1) as client:
        await (await client.request(fake, "GET", "/v1/models")).read()
        client.drop_idle(fake)
        assert client.connections(fake) == (0, 0)
        await (await client.request(fake, "GET", "/v1/models")).read()
        await until(lambda: client.connections(fake) == (0, 0))
        assert fake.accepted == 2


async def test_connections_are_bounded() -> None:
    fake = FakeEngine([b"a"])
    async with running(fake):
        pool = ConnectionPool(fake, asyncio.get_running_loop(), limit=1)
        await pool.connect()
        with pytest.raises(EngineBusy):
            await pool.connect()
        pool.close()
        assert pool.open == 0
        await asyncio.sleep(0)


async def test_a_header_is_one_line() -> None:
    client = EngineClient()
    with pytest.raises(ValueError):
        await client.request(FakeEngine([]), "GET", "/x", headers=[("a", "b\r\nc: d")])
    await client.aclose()
