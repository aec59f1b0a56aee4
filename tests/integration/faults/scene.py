"""One real gateway process between two fake engines, with a real Redis: what the fault tests break.

Owns starting and ending the processes, and the callers' clients. Not here: the engines' bytes
(tests/fakes), the faults and their numbers (the tests beside this file).
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from scripts.chaos.load import Answer, ask, question
from tests.fakes.engine import running
from tests.fakes.watched_engine import WatchedEngine
from tests.redis_server import RedisServer, free_port, start_redis

ROOT = Path(__file__).parents[3]
MODEL = "fake"
START_SECONDS = 60.0
END_SECONDS = 30.0
KEYS = {"caller": "sk-fault-caller", "greedy": "sk-fault-greedy"}


async def eventually(true: Callable[[], Awaitable[Any]], seconds: float, what: str) -> float:
    """Waits for it; how long that took. AssertionError when it does not come."""
    start = time.monotonic()
    while not await true():
        assert time.monotonic() < start + seconds, f"not within {seconds:g} s: {what}"
        await asyncio.sleep(0.1)
    return time.monotonic() - start


def pieces(count: int) -> list[bytes]:
    """Words with numbers: nothing can be lost or doubled unseen."""
    return [b" w%d" % n for n in range(count)]


@dataclass
class Gateway:
    port: int
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self, key: str = KEYS["caller"]) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            base_url=self.url,
            headers={"Authorization": f"Bearer {key}"},
            timeout=httpx.Timeout(60.0, connect=10.0),
            limits=httpx.Limits(max_connections=512),
        )

    def resident_bytes(self) -> int:
        pages = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def stop(self) -> None:
        """At once: an orderly end waits for a door, and there is none here."""
        self.process.kill()
        self.process.wait(END_SECONDS)


@dataclass
class Scene:
    gateway: Gateway
    redis: RedisServer
    a: WatchedEngine
    b: WatchedEngine
    client: httpx.AsyncClient

    async def overview(self) -> dict[str, Any]:
        return (await self.client.get("/internal/engines")).json()  # type: ignore[no-any-return]

    async def healthy(self) -> bool:
        """Both engines, as the gateway sees them."""
        return all(one["state"] == "healthy" for one in (await self.overview())["engines"])

    async def idle(self) -> bool:
        return not (await self.overview())["in_flight"]

    def ask(self, count: int, tokens: int) -> list[asyncio.Task[Answer]]:
        """So many streamed answers, begun at once."""
        asked = [question(number, MODEL, tokens) for number in range(count)]
        return [asyncio.create_task(ask(self.client, one)) for one in asked]

    def wrong(self, answers: list[Answer]) -> list[str]:
        """What is not whole: failed, cut off, doubled or misspelt. Empty when all is well."""
        found = []
        for one in answers:
            text = b"".join(self.a.pieces[: one.wanted_tokens]).decode()
            if one.failed:
                found.append(f"{one.number} failed: {one.error}")
            elif one.truncated or one.surplus or one.miscounted or one.text != text:
                found.append(f"{one.number}: {len(one.ids)} of {one.wanted_tokens} tokens")
        return found


def _environment(
    folder: Path, port: int, engines: tuple[WatchedEngine, ...], redis: RedisServer
) -> dict[str, str]:
    secrets = folder / "secrets"
    secrets.mkdir(exist_ok=True)
    lines = [f"{name} {hashlib.sha256(key.encode()).hexdigest()}\n" for name, key in KEYS.items()]
    (secrets / "api_keys").write_text("".join(lines))
    return {
        "PYTHONPATH": str(ROOT),
        "GATEWAY_NAME": f"gateway-{port}",
        "GATEWAY_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(port),
        "ENGINES": ",".join(f"{one.name}=http://127.0.0.1:{one.port}" for one in engines),
        "MODEL_NAME": MODEL,
        "REDIS_URL": redis.url,
        "SECRETS_DIR": str(secrets),
    }


def _start_gateway(environment: dict[str, str], log: Path) -> Gateway:
    with log.open("ab") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "gateway"],
            cwd=log.parent,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    return Gateway(int(environment["GATEWAY_PORT"]), process)


@contextlib.asynccontextmanager
async def scene(folder: Path, tokens: int, drip: float = 0.02, **env: str) -> AsyncIterator[Scene]:
    """The engines' answers have more than `tokens` tokens, one every `drip` seconds."""
    a, b = (WatchedEngine(pieces(tokens + 10), name=f"vllm-{n}", drip=drip) for n in "ab")
    store = start_redis(folder, "--appendonly", "yes")
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(store.stop)
        await stack.enter_async_context(running(a, b))
        environment = {**_environment(folder, free_port(), (a, b), store), **env}
        gateway = _start_gateway(environment, folder / "gateway.log")
        stack.callback(gateway.stop)
        client = await stack.enter_async_context(gateway.client())
        made = Scene(gateway, store, a, b, client)
        try:
            await eventually(lambda: _is_up(made), START_SECONDS, "the gateway sees both engines")
            yield made
        except BaseException:
            print((folder / "gateway.log").read_text()[-4000:])
            raise


async def _is_up(made: Scene) -> bool:
    assert made.gateway.process.poll() is None, "the gateway ended"
    with contextlib.suppress(httpx.HTTPError):
        return await made.healthy()
    return False
