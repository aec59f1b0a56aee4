"""Clients that read slowly: the gateway holds little for them, and nobody else waits."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path

from tests.fakes.watched_engine import ENDLESS
from tests.integration.faults.scene import KEYS, MODEL, Gateway, Scene, eventually, scene

READERS = 16
# A reader takes so many bytes, ten times a second: 1 KB/s.
BITE = 100
SLOW_SECONDS = 8.0
TOKENS = 100
GROWTH = 32 * 1024 * 1024
GONE_SECONDS = 5.0


async def test_sixteen_slow_readers(tmp_path: Path) -> None:
    """16 clients take 1 KB/s of answers that have no end: the gateway grows by less than 32 MiB,
    0 of 8 other callers fail or wait for a second, and once the slow ones have left, nothing is
    in flight and both engines have been told."""
    async with scene(tmp_path, TOKENS) as it, contextlib.AsyncExitStack() as stack:
        assert it.wrong(await asyncio.gather(*it.ask(8, TOKENS))) == []  # everything is loaded
        before = it.gateway.resident_bytes()
        readers = [await stack.enter_async_context(_slow(it.gateway)) for _ in range(READERS)]
        most = before
        others = it.ask(8, TOKENS)
        for _ in range(int(SLOW_SECONDS * 10)):
            await asyncio.gather(*(one.read(BITE) for one in readers))
            await asyncio.sleep(0.1)
            most = max(most, it.gateway.resident_bytes())
        answers = await asyncio.gather(*others)
        assert it.a.running + it.b.running == READERS
        print(f"the gateway grew by {(most - before) / 2**20:.1f} MiB")
        assert most - before < GROWTH
        assert it.wrong(answers) == []
        assert max(one.longest_gap for one in answers) < 1.0
        await stack.aclose()
        await eventually(lambda: _all_gone(it), GONE_SECONDS, "nothing is in flight")
        assert it.a.aborted + it.b.aborted == READERS


async def _all_gone(it: Scene) -> bool:
    return await it.idle() and it.a.running + it.b.running == 0


@contextlib.asynccontextmanager
async def _slow(gateway: Gateway) -> AsyncIterator[asyncio.StreamReader]:
    """Its answer has begun. The kernel takes as little as it can on the reader's behalf."""
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        one.setblocking(False)
        await asyncio.get_running_loop().sock_connect(one, ("127.0.0.1", gateway.port))
        reader, writer = await asyncio.open_connection(sock=one, limit=4096)
        asked = {"model": MODEL, "messages": [{"role": "user", "content": "a long story"}]}
        body = json.dumps({**asked, "stream": True, "max_tokens": ENDLESS + 1}).encode()
        writer.write(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
            b"authorization: Bearer %s\r\n"
            % KEYS["caller"].encode()
            + b"content-length: %d\r\n\r\n" % len(body)
            + body
        )
        status = await reader.readline()
        assert b" 200 " in status, status + await reader.read(1000)
        try:
            yield reader
        finally:
            writer.transport.abort()
