"""A relay before fake engines, and what a client reads of its answer."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, MutableMapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from gateway.client_stream import ClientStream
from gateway.engine import Engine, EngineState
from gateway.engine_client import EngineClient
from gateway.engines import EnginePool
from gateway.metrics import Metrics
from gateway.relay import Call, Relay
from tests.fakes.engine import FakeEngine, running

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"


@dataclass
class Read:
    """An answer as a client sees it."""

    text: str = ""
    ids: list[int] = field(default_factory=list)
    roles: int = 0
    finish: str | None = None
    stop_reason: Any = None
    usage: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    names: set[str] = field(default_factory=set)
    done: bool = False


def read(raw: bytes) -> Read:
    seen = Read()
    assert raw.endswith(b"\n\n")
    for block in raw.split(b"\n\n")[:-1]:
        assert not seen.done, "something came after [DONE]"
        assert block.startswith(b"data: ")
        if block == b"data: [DONE]":
            seen.done = True
            continue
        chunk = json.loads(block[6:])
        if "error" in chunk:
            seen.error = chunk["error"]
            continue
        seen.names.add(chunk["id"])
        seen.usage = chunk.get("usage", seen.usage)
        for choice in chunk["choices"]:
            _add(seen, choice)
    return seen


def _add(seen: Read, choice: dict[str, Any]) -> None:
    assert seen.finish is None, "something came after the finish"
    delta = choice.get("delta", {})
    seen.roles += "role" in delta
    seen.text += delta.get("content") or choice.get("text") or ""
    seen.ids += choice.get("token_ids") or []
    seen.finish = choice.get("finish_reason")
    seen.stop_reason = choice.get("stop_reason")


@dataclass
class Client:
    """Takes what a server would send, once the response has begun; does not, while it is told to be
    slow."""

    got: bytes = b""
    sends: int = 0
    begun: bool = False
    taking: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.taking.set()

    async def send(self, message: MutableMapping[str, Any]) -> None:
        if not self.begun:
            raise RuntimeError("Expected ASGI message 'http.response.start'")
        if not self.taking.is_set():
            await self.taking.wait()
        self.got += message["body"]
        self.sends += 1


@dataclass
class Bench:
    relay: Relay
    pool: EnginePool
    client: EngineClient
    metrics: Metrics
    fakes: tuple[FakeEngine, ...]

    @property
    def engines(self) -> tuple[Engine, ...]:
        return self.pool.engines

    def serving(self) -> FakeEngine:
        return next(f for f in self.fakes if f.generations)

    def failovers(self) -> dict[tuple[str, str], float]:
        """(reason, outcome) -> how often"""
        counted: dict[tuple[str, str], float] = {}
        for sample in next(iter(self.metrics.failovers.collect())).samples:
            if sample.name.endswith("_total"):
                key = (sample.labels["reason"], sample.labels["outcome"])
                counted[key] = counted.get(key, 0) + sample.value
        return counted

    async def ask(
        self,
        body: dict[str, Any],
        path: str = CHAT,
        each: Callable[[Call, bytes], None] | None = None,
        *,
        pen: bool = True,
    ) -> tuple[Read, Call]:
        """As a route does it: what is ordinary goes the short way, unless `pen` is False or
        somebody wants to look at each item."""
        call = Call(path, body, "request-1")
        client = Client()
        stream = ClientStream(client.send)
        with_pen = stream if pen and each is None else None
        async with aclosing(stream), aclosing(self.relay.stream(call, with_pen)) as items:
            async for item in items:
                client.begun = True
                await stream.send(item)
                if each is not None:
                    each(call, item)
        return read(client.got), call


@asynccontextmanager
async def bench(
    *fakes: FakeEngine, stall: float = 5.0, first: float = 20.0, queue: float = 5.0
) -> AsyncIterator[Bench]:
    async with running(*fakes):
        urls = {fake.name: f"http://127.0.0.1:{fake.port}" for fake in fakes}
        pool = EnginePool(urls, max_inflight=64, clock=time.monotonic)
        for engine in pool.engines:
            engine.observe(EngineState.HEALTHY)
        client, metrics = EngineClient(), Metrics()
        relay = Relay(
            pool,
            client,
            metrics,
            queue_seconds=queue,
            stall_seconds=stall,
            first_token_seconds=first,
        )
        try:
            yield Bench(relay, pool, client, metrics, fakes)
            assert [engine.in_flight for engine in pool.engines] == [0] * len(fakes)
        finally:
            await client.aclose()


async def until(true: Callable[[], object]) -> None:
    """Wait until it is so; generously, for busy machines."""
    async with asyncio.timeout(30):
        while not true():  # noqa: ASYNC110 - sockets tell nobody when the other side has noticed
            await asyncio.sleep(0.01)


def pair(pieces: Sequence[bytes], **kinds: Any) -> tuple[FakeEngine, FakeEngine]:
    return (
        FakeEngine(list(pieces), name="a", **kinds),
        FakeEngine(list(pieces), name="b", **kinds),
    )


def chat(**fields: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": True, **fields}
