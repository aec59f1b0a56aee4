"""The door and what runs through it for long: streams, reloads, clients that leave."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tests.integration.door_gateways import (
    Asked,
    Door,
    FakeGateway,
    say_who,
)

COMPLETIONS = "/v1/chat/completions"


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    async with Door(tmp_path) as running:
        yield running


async def stream_in_steps(steps: asyncio.Queue[bytes | None], writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n")
    writer.write(b"Transfer-Encoding: chunked\r\n\r\n")
    while (step := await steps.get()) is not None:
        writer.write(b"%x\r\n%s\r\n" % (len(step), step))
        await writer.drain()
    writer.write(b"0\r\n\r\n")


def streaming(door: Door) -> asyncio.Queue[bytes | None]:
    """Both gateways stream what is put into this queue; None ends the stream."""
    steps: asyncio.Queue[bytes | None] = asyncio.Queue()

    async def script(_: FakeGateway, __: Asked, writer: asyncio.StreamWriter) -> None:
        await stream_in_steps(steps, writer)

    door.script(script)
    return steps


async def test_each_event_passes_at_once(door: Door) -> None:
    steps = streaming(door)
    async with door.client.stream("POST", COMPLETIONS, json={}) as response:
        chunks = response.aiter_raw()
        for number in range(5):
            event = b"data: %d\n\n" % number
            steps.put_nowait(event)
            # The next one is made only after this one has arrived.
            assert await asyncio.wait_for(anext(chunks), 30) == event
        steps.put_nowait(None)
        assert [chunk async for chunk in chunks] == []


async def test_a_reload_leaves_running_answers_alone(door: Door) -> None:
    steps = streaming(door)
    async with door.client.stream("POST", COMPLETIONS, json={}) as response:
        chunks = response.aiter_raw()
        steps.put_nowait(b"data: before\n\n")
        assert await anext(chunks) == b"data: before\n\n"
        (door.folder / "page" / "index.html").write_text("new")
        door.process.send_signal(signal.SIGHUP)
        async with httpx.AsyncClient(base_url=door.url, verify=door.tls, timeout=30) as second:
            assert (await second.get("/")).text == "new"
        steps.put_nowait(b"data: after\n\n")
        steps.put_nowait(None)
        assert b"".join([chunk async for chunk in chunks]) == b"data: after\n\n"


async def test_a_client_that_leaves_is_noticed_by_the_gateway(door: Door) -> None:
    gone = asyncio.Event()

    async def endless(_: FakeGateway, __: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        try:
            while True:
                writer.write(b"data: x\n\n")
                await writer.drain()
                await asyncio.sleep(0.02)
        except ConnectionError:
            gone.set()
            raise

    door.script(endless)
    async with door.client.stream("POST", COMPLETIONS, json={}) as response:
        await anext(response.aiter_raw())
    await asyncio.wait_for(gone.wait(), 30)


async def test_one_address_cannot_take_every_connection(tmp_path: Path) -> None:
    async with Door(tmp_path, connections=2) as door:
        steps = streaming(door)
        async with (
            door.client.stream("POST", COMPLETIONS, json={}) as first,
            door.client.stream("POST", COMPLETIONS, json={}) as second,
        ):
            assert (first.status_code, second.status_code) == (200, 200)
            refused = await door.client.post(COMPLETIONS, json={})
            assert refused.status_code == 429
            assert refused.json()["error"]["type"] == "rate_limit_error"
            assert int(refused.headers["retry-after"]) >= 1
            steps.put_nowait(None)
            steps.put_nowait(None)
        door.script(say_who)
