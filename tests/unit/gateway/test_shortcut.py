"""Ordinary events take the short way, in order, and only as fast as the client reads."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from gateway.answer import COMPLETIONS
from gateway.client_stream import ClientStream
from gateway.relay import Call
from tests.fakes.engine import FakeEngine, Fault
from tests.fakes.relay_scene import TEXT, faulty
from tests.fakes.relaying import CHAT, Bench, Client, bench, chat, read, until

PIECES = [b"word%03d " % number for number in range(400)]


async def carry(b: Bench, client: Client, call: Call) -> int:
    """Pass an answer on as the route does; how many pieces came the long way."""
    stream, pieces = ClientStream(client.send), 0
    async with aclosing(stream), aclosing(b.relay.stream(call, stream)) as items:
        async for item in items:
            client.begun = True
            pieces += 1
            await stream.send(item)
    return pieces


async def test_most_events_do_not_wake_the_reader() -> None:
    client, call = Client(), Call(CHAT, chat(max_tokens=400), "request-1")
    async with bench(FakeEngine(PIECES, name="a", drip=0.001)) as b:
        long_way = await carry(b, client, call)
    assert read(client.got).text == b"".join(PIECES).decode()
    assert long_way <= 20
    assert client.sends > 5 * long_way
    assert call.outcome.completion_tokens == len(PIECES)


async def test_nothing_is_written_before_the_response_begins() -> None:
    """A letter of four tokens comes first: three events without text, and the shape is known."""
    pieces = [bytes([byte]) for byte in "🚣".encode()] + PIECES[:40]
    body = {"model": "m", "prompt": "hi", "stream": True, "max_tokens": len(pieces)}
    client, call = Client(), Call(COMPLETIONS, body, "request-1")
    async with bench(FakeEngine(pieces, name="a", drip=0.02)) as b:
        await carry(b, client, call)
    assert read(client.got).text == b"".join(pieces).decode()


async def test_a_slow_client_gets_everything_in_order() -> None:
    client, call = Client(), Call(CHAT, chat(max_tokens=400), "request-1")
    async with bench(FakeEngine(PIECES, name="a", drip=0.001)) as b:
        task = asyncio.create_task(carry(b, client, call))
        for stop in (20, 40, 80):
            await until(lambda stop=stop: client.sends >= stop)
            client.taking.clear()
            held = client.sends
            for _ in range(20):
                await asyncio.sleep(0.001)
            assert client.sends <= held + 1
            client.taking.set()
        await task
    assert read(client.got).text == b"".join(PIECES).decode()


async def test_a_client_that_leaves_while_it_is_slow_leaves_nothing_behind() -> None:
    client, call = Client(), Call(CHAT, chat(max_tokens=400), "request-1")
    async with bench(FakeEngine(PIECES, name="a", drip=0.001)) as b:
        task = asyncio.create_task(carry(b, client, call))
        await until(lambda: client.sends >= 20)
        client.taking.clear()
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        left = [task.get_coro().__qualname__ for task in asyncio.all_tasks()]  # type: ignore[union-attr]
        assert "_rest" not in left
        await until(lambda: b.engines[0].in_flight == 0)


async def test_a_failing_send_ends_the_answer() -> None:
    class Broken(Client):
        async def send(self, message: object) -> None:
            if self.sends >= 20:
                raise OSError("the client is gone")
            await super().send(message)  # type: ignore[arg-type]

    async with bench(FakeEngine(PIECES, name="a", drip=0.001)) as b:
        with pytest.raises(OSError, match="gone"):
            await carry(b, Broken(), Call(CHAT, chat(max_tokens=400), "request-1"))


async def test_a_break_on_the_short_way_is_continued() -> None:
    client, call = Client(), Call(CHAT, chat(max_tokens=50), "request-1")
    async with bench(*faulty(Fault("cut", 9))) as b:
        await carry(b, client, call)
    seen = read(client.got)
    assert (seen.text, call.outcome.failovers) == (TEXT, 1)


async def test_a_wait_that_fails_is_told_to_the_next_who_sends() -> None:
    """The server may wait for a slow client and then fail: its own handlers see that first."""
    ready, seen = asyncio.get_running_loop().create_future(), []

    async def send(_: object) -> None:
        try:
            await ready
        except ConnectionError as error:
            seen.append(error)
            raise

    stream = ClientStream(send)
    stream.write(b"piece")
    assert not stream.ready
    await asyncio.sleep(0)
    ready.set_exception(ConnectionResetError())
    with pytest.raises(ConnectionResetError):
        await stream.send(b"next")
    assert len(seen) == 1
