"""The loops: against a scripted Redis, and against a small real HTTP server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge

from gateway import drain_flags
from gateway.engine_client import EngineClient
from gateway.engine_verdict import HANG_SECONDS
from gateway.engines import Engine, EnginePool, EngineState
from gateway.health_watch import HealthWatch

PATIENCE = 60.0


class Metrics:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.engine_state = Gauge("state", "x", ["engine", "state"], registry=self.registry)
        self.engine_checks_failed = Counter("failed", "x", ["engine"], registry=self.registry)

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)


class FakeRedis:
    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}
        self.away = False

    async def mget(self, keys: list[str]) -> list[bytes | None]:
        if self.away:
            raise ConnectionError("away")
        return [self.values.get(key) for key in keys]

    async def set(self, key: str, value: str, ex: int) -> None:
        self.values[key] = value.encode()

    async def delete(self, key: str) -> int:
        return int(self.values.pop(key, None) is not None)


class Server:
    """As much of an engine as the watch sees."""

    def __init__(self) -> None:
        self.health = 200
        self.running = 0
        self.steps = 0
        self.moving = True
        self.canary_answers = True
        self.canaries = 0
        self.port = 0
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._clients:
            task.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._clients.add(task)
        try:
            while line := await reader.readline():
                await self._answer(line.split()[1].decode(), reader, writer)
        except (ConnectionError, asyncio.CancelledError, asyncio.IncompleteReadError):
            pass
        finally:
            self._clients.discard(task)
            writer.close()

    async def _answer(
        self, path: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        length = 0
        while (header := await reader.readline()) not in (b"\r\n", b""):
            if header.lower().startswith(b"content-length:"):
                length = int(header.split(b":")[1])
        await reader.readexactly(length)
        status, body = self.health, b""
        if path == "/metrics":
            self.steps += self.moving
            status = 200
            body = (
                f"vllm:num_requests_running {self.running}\n"
                f"vllm:num_requests_waiting 0\nvllm:iteration_tokens_total_count {self.steps}\n"
            ).encode()
        elif path == "/v1/completions":
            self.canaries += 1
            status = 200
            if not self.canary_answers:
                await asyncio.sleep(3600)
        writer.write(b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n\r\n" % (status, len(body)) + body)
        await writer.drain()


class Scene:
    def __init__(self, servers: list[Server], client: Any, clock: Callable[[], float]) -> None:
        self.servers = servers
        self.redis = FakeRedis()
        self.metrics = Metrics()
        urls = {
            f"vllm-{name}": f"http://127.0.0.1:{server.port}"
            for name, server in zip("ab", servers, strict=False)
        }
        self.pool = EnginePool(urls, max_inflight=64, clock=clock)
        self.watch = HealthWatch(
            self.pool, client, self.redis, 0.05, clock, self.metrics, model="m"
        )

    @property
    def a(self) -> Engine:
        return self.pool.by_name["vllm-a"]


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server = Server()
    await server.start()
    yield server
    await server.stop()


@asynccontextmanager
async def watching(server: Server) -> AsyncIterator[Scene]:
    client = EngineClient()
    scene = Scene([server], client, asyncio.get_running_loop().time)
    task = asyncio.create_task(scene.watch.run())
    try:
        yield scene
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await client.aclose()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - the state of a loop under test has no event
            await asyncio.sleep(0.01)


# Against a real server ---------------------------------------------------------------------


async def test_up_down_and_up_again(server: Server) -> None:
    async with watching(server) as scene:
        told: list[str] = []
        scene.a.watch_leave(told.append)
        await until(lambda: scene.a.state is EngineState.HEALTHY)
        await until(lambda: server.canaries > 0)
        await server.stop()
        await until(lambda: scene.a.state is EngineState.DOWN)
        assert told == ["down"]
        await server.start()
        await until(lambda: scene.a.state is EngineState.HEALTHY)
        assert scene.metrics.value("state", engine="vllm-a", state="healthy") == 1
        assert scene.metrics.value("state", engine="vllm-a", state="down") == 0
        failed = scene.metrics.value("failed_total", engine="vllm-a")
        assert failed is not None and failed >= 1


async def test_an_engine_that_reports_itself_dead(server: Server) -> None:
    async with watching(server) as scene:
        await until(lambda: scene.a.state is EngineState.HEALTHY)
        server.health = 503
        await until(lambda: scene.a.state is EngineState.DOWN)


async def test_the_numbers_arrive(server: Server) -> None:
    server.running = 7
    async with watching(server) as scene:
        await until(lambda: scene.a.running == 7 and scene.a.steps > 2)
        assert scene.a.progressing(within=PATIENCE)


async def test_a_doubt_is_looked_into_at_once(server: Server) -> None:
    async with watching(server) as scene:
        await until(lambda: scene.a.state is EngineState.HEALTHY)
        scene.a.observe(EngineState.SUSPECT, "slow")
        await until(lambda: scene.a.state is EngineState.HEALTHY)


# One step at a time ------------------------------------------------------------------------


@pytest.fixture
async def quiet(server: Server) -> AsyncIterator[Scene]:
    """A watch whose loops do not run; the clock is the test's."""
    client = EngineClient()
    now = [1000.0]
    scene = Scene([server, server], client, lambda: now[0])
    scene.now = now  # type: ignore[attr-defined]
    yield scene
    await client.aclose()


async def test_a_stopped_counter_under_load_is_a_hang(quiet: Scene, server: Server) -> None:
    told: list[str] = []
    quiet.a.watch_leave(told.append)
    now: list[float] = quiet.now  # type: ignore[attr-defined]
    server.running = 1
    await quiet.watch.look_at(quiet.a)
    server.moving = False
    for _ in range(int(HANG_SECONDS)):
        now[0] += 1
        await quiet.watch.look_at(quiet.a)
    assert quiet.a.state is EngineState.HEALTHY
    now[0] += 1
    await quiet.watch.look_at(quiet.a)
    assert quiet.a.reason == "hung" and told == ["hung"]


async def test_after_a_standstill_of_the_machine_nobody_is_hung(
    quiet: Scene, server: Server
) -> None:
    """This process is stopped for 20 s under load, and the engines with it: 0 of 2 are hung."""
    now: list[float] = quiet.now  # type: ignore[attr-defined]
    server.running = 1
    for engine in quiet.pool.engines:
        await quiet.watch.look_at(engine)
    server.moving = False
    quiet.watch._lag._expected = now[0] + 0.1
    now[0] += 20
    for engine in quiet.pool.engines:
        await quiet.watch.look_at(engine)
    assert [engine.state for engine in quiet.pool.engines] == [EngineState.HEALTHY] * 2


async def test_a_canary_is_judged(quiet: Scene, server: Server) -> None:
    server.moving = False
    await quiet.watch.look_at(quiet.a)
    await quiet.watch.send_canary(quiet.a)
    assert server.canaries == 1 and quiet.a.state is EngineState.HEALTHY


async def test_drain_flags_are_followed_and_kept_while_redis_is_away(quiet: Scene) -> None:
    await quiet.watch.look_at(quiet.a)
    await drain_flags.write(quiet.redis, "vllm-a", "move")
    await quiet.watch.read_drains()
    assert quiet.a.state is EngineState.DRAINING and quiet.a.drain == "move"
    quiet.redis.away = True
    await quiet.watch.read_drains()
    assert quiet.a.state is EngineState.DRAINING
    quiet.redis.away = False
    assert await drain_flags.clear(quiet.redis, "vllm-a")
    assert not await drain_flags.clear(quiet.redis, "vllm-a")
    await quiet.watch.read_drains()
    assert quiet.a.state is EngineState.STARTING
    await quiet.watch.look_at(quiet.a)
    assert quiet.a.state is EngineState.HEALTHY


async def test_an_unknown_flag_value_drains_gently(quiet: Scene) -> None:
    quiet.redis.values["tandem:drain:vllm-a"] = b"strange"
    await quiet.watch.read_drains()
    assert quiet.a.drain == "wait"


async def test_whatever_a_step_runs_into_the_next_one_comes(
    quiet: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    steps = 0
    done = asyncio.Event()

    async def step() -> None:
        nonlocal steps
        steps += 1
        if steps < 3:
            raise RuntimeError("odd")
        done.set()
        await asyncio.sleep(3600)

    forever: Awaitable[None] = quiet.watch._forever(step)
    task = asyncio.ensure_future(forever)
    await asyncio.wait_for(done.wait(), PATIENCE)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert caplog.text.count("a step of the health watch failed") == 2
