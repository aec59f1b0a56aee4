"""A gateway that is told to stop, under a real server on a free port."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sys
from collections.abc import AsyncIterator

import httpx
import pytest
import uvicorn

from gateway import last_connections
from gateway.last_connections import Server
from gateway.parts import Parts
from tests.unit.conftest import KEY, ScriptedRelay, application

CHAT = "/v1/chat/completions"
BODY = {"messages": [{"role": "user", "content": "x"}], "stream": True}
HEADERS = {"authorization": f"Bearer {KEY}"}


class Running:
    def __init__(self, server: Server, task: asyncio.Task[None], url: str) -> None:
        self.server, self.task, self.url = server, task, url

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self.url, headers=HEADERS, timeout=30)


@contextlib.asynccontextmanager
async def running(parts: Parts, drain_seconds: float) -> AsyncIterator[Running]:
    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    config = uvicorn.Config(
        application(parts), http="httptools", ws="none", lifespan="on", log_config=None,
        access_log=False, timeout_keep_alive=75, timeout_graceful_shutdown=5,
    )  # fmt: skip
    server = Server(config, parts.lifecycle, drain_seconds)
    task = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        async with asyncio.timeout(30):
            while not server.started:  # noqa: ASYNC110 - uvicorn offers nothing to wait for
                await asyncio.sleep(0.01)
        yield Running(server, task, f"http://127.0.0.1:{port}")
    finally:
        server.should_exit = server.force_exit = True
        await asyncio.wait_for(task, 30)


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(last_connections, "LINGER_SECONDS", 0.2)


async def test_a_running_stream_is_finished_and_new_requests_are_sent_on(
    parts: Parts, relay: ScriptedRelay
) -> None:
    relay.hold = asyncio.Event()
    async with running(parts, 60) as gateway, gateway.client() as client:
        async with client.stream("POST", CHAT, json=BODY) as stream:
            pieces = stream.aiter_text()
            text = await anext(pieces)
            gateway.server.handle_exit(15, None)
            refused = await client.post(CHAT, json=BODY)
            assert refused.status_code == 503
            assert refused.headers["x-tandem-retry"] == "other-gateway"
            assert (await client.get("/readyz")).status_code == 503
            relay.hold.set()
            async for piece in pieces:
                text += piece
        assert text.endswith("data: [DONE]\n\n")
        await asyncio.wait_for(gateway.task, 30)


async def test_a_stream_that_takes_too_long_ends_with_an_error(
    parts: Parts, relay: ScriptedRelay
) -> None:
    relay.hold = asyncio.Event()
    async with running(parts, 0.1) as gateway, gateway.client() as client:
        async with client.stream("POST", CHAT, json=BODY) as stream:
            pieces = stream.aiter_text()
            text = await anext(pieces)
            gateway.server.handle_exit(15, None)
            async for piece in pieces:
                text += piece
        assert '"code":"gateway_stopping"' in text
        assert text.endswith("data: [DONE]\n\n")
        await asyncio.wait_for(gateway.task, 30)
    assert relay.closed.is_set() and parts.admission.inside == 0
    aborted = {"route": "chat_completions", "outcome": "stream_aborted"}
    assert parts.metrics.registry.get_sample_value("gateway_requests_total", aborted) == 1


async def test_a_request_that_still_waits_is_sent_on(parts: Parts, relay: ScriptedRelay) -> None:
    relay.items, relay.hold = [], asyncio.Event()
    async with running(parts, 0.1) as gateway, gateway.client() as client:
        asking = asyncio.create_task(client.post(CHAT, json=BODY))
        async with asyncio.timeout(30):
            while not relay.calls:  # noqa: ASYNC110 - the relay is a plain list of calls
                await asyncio.sleep(0.01)
            gateway.server.handle_exit(15, None)
            response = await asking
        assert response.status_code == 503
        assert response.json()["error"]["code"] == "gateway_stopping"
        assert response.headers["x-tandem-retry"] == "other-gateway"


async def test_a_client_that_vanishes_frees_its_engine(parts: Parts, relay: ScriptedRelay) -> None:
    relay.hold = asyncio.Event()
    async with running(parts, 1) as gateway:
        async with gateway.client() as client, client.stream("POST", CHAT, json=BODY) as stream:
            await anext(stream.aiter_text())
        await asyncio.wait_for(relay.closed.wait(), 30)


async def test_connections_queued_in_the_kernel_are_answered(
    parts: Parts,
) -> None:
    """The loop no longer accepts, the queue holds one more: it is answered, not reset."""
    async with running(parts, 1) as gateway:
        host, port = gateway.url.removeprefix("http://").split(":")
        spares = gateway.server._listening()
        for server in gateway.server.servers:
            server.close()
        late = socket.create_connection((host, int(port)))
        for spare in spares:
            await gateway.server._accept_queued(spare)
            spare.close()
        reader, writer = await asyncio.open_connection(sock=late)
        writer.write(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
        answer = await asyncio.wait_for(reader.readuntil(b"\r\n"), 30)
        assert answer == b"HTTP/1.1 200 OK\r\n"
        writer.close()
        await writer.wait_closed()


SERVED_ALONE = """
import socket, uvicorn, uvloop
from gateway.last_connections import Server
from gateway.lifecycle import Lifecycle
import gateway.last_connections, time
gateway.last_connections.LINGER_SECONDS = 0.1
async def app(scope, receive, send):
    assert scope["type"] == "lifespan"
    while True:
        kind = (await receive())["type"]
        await send({"type": kind + ".complete"})
        if kind == "lifespan.shutdown":
            return
        print("ready", flush=True)
listening = socket.create_server(("127.0.0.1", 0))
config = uvicorn.Config(app, http="httptools", ws="none", lifespan="on", log_config=None)
uvloop.run(Server(config, Lifecycle(time.monotonic), 5).serve(sockets=[listening]))
print("ended", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_the_process_with_exit_code_0(number: signal.Signals) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SERVED_ALONE, stdout=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(60):
            assert process.stdout is not None
            assert await process.stdout.readline() == b"ready\n"
            process.send_signal(number)
            assert await process.stdout.readline() == b"ended\n"
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
