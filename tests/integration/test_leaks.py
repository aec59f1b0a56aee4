"""After thousands of short streams, many of them left half-way, nothing is left behind."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import httpx
import pytest

from scripts.chaos.load import question
from tests.integration.tandem_instance import ENGINES, GATEWAYS, Tandem, until

STREAMS = 2000
AT_ONCE = 32
TOKENS = 24
LEFT_SHARE = 0.4
# Some are turns of conversations, which hold leases; some of those may be taken up again.
TURN_SHARE, RESUMABLE_SHARE = 0.25, 0.5
# Once idle connections are closed (the pool's 30 s, and a look every so often), only those to Redis
# and for looking at the engines are left, and they come and go.
FILES_MORE = 8
FILES_SECONDS = 100.0
# Shorter than any lease lives: it is given back, it does not expire.
LEASE_SECONDS = 2.0
MEMORY_FACTOR = 1.10


def open_files(tandem: Tandem) -> dict[str, int]:
    return {name: len(list(Path(f"/proc/{tandem.pid(name)}/fd").iterdir())) for name in GATEWAYS}


def resident(tandem: Tandem) -> dict[str, int]:
    """Bytes, of each gateway."""
    found = {}
    for name in GATEWAYS:
        pages = Path(f"/proc/{tandem.pid(name)}/statm").read_text().split()[1]
        found[name] = int(pages) * 4096
    return found


def leases(tandem: Tandem) -> list[str]:
    with tandem.redis() as store:
        kinds = ("tandem:turn:*:lease", "tandem:session:*:turn")
        return [key for kind in kinds for key in store.scan_iter(kind, count=1000)]


def inside(tandem: Tandem) -> float:
    """Requests in the gateways, in their queues and on the engines."""
    seen = [tandem.overview(name) for name in GATEWAYS]
    if not all(seen):
        return 1  # one does not answer: not known
    counts = [one[name] for one in seen for name in ("in_flight", "queued", "running")]
    held = [engine["in_flight"] for one in seen for engine in one["engines"]]
    return sum(counts) + sum(held) + sum(map(tandem.engine_running, ENGINES))


class Crowd:
    """Streams of both kinds; the same dice every time."""

    def __init__(self, tandem: Tandem) -> None:
        self._tandem = tandem
        self._dice = random.Random(20261127)
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def run(self, count: int) -> list[int]:
        """Statuses of that many streams; a caller that leaves reads a few lines before."""
        async with self._tandem.service.client() as client:
            return list(await asyncio.gather(*(self._one(client, n) for n in range(count))))

    async def _one(self, client: httpx.AsyncClient, number: int) -> int:
        leaves = self._dice.randrange(6) if self._dice.random() < LEFT_SHARE else None
        asked = self._asked(number)
        async with self._turns, client.stream("POST", **asked) as got:
            seen = 0
            async for _ in got.aiter_lines():
                seen += 1
                if leaves is not None and seen > leaves:
                    break
            return got.status_code

    def _asked(self, number: int) -> dict[str, Any]:
        if self._dice.random() >= TURN_SHARE:
            body = question(number, self._tandem.model, TOKENS)
            return {"url": "/v1/chat/completions", "json": body}
        headers = {"x-tandem-resume": "on"} if self._dice.random() < RESUMABLE_SHARE else {}
        turn = {"prompt": f"Turn {number}", "stream": True, "max_tokens": TOKENS}
        return {"url": "/v1/chat", "json": turn, "headers": headers}


@pytest.mark.timeout(900)
async def test_nothing_is_left(tandem: Tandem) -> None:
    """2,000 streams, 40 % left half-way: every one answered 200, then 0 inside, queued, leased or
    running, no connection open that was not, and at most 10 % more memory for each gateway."""
    crowd = Crowd(tandem)
    files = open_files(tandem)
    assert set(await crowd.run(STREAMS // 4)) == {200}
    memory = resident(tandem)
    assert set(await crowd.run(STREAMS)) == {200}
    await asyncio.to_thread(until, lambda: not inside(tandem), 60, "nothing is inside any more")
    until(lambda: not leases(tandem), LEASE_SECONDS, "no lease is held")
    now = resident(tandem)
    print(
        {name: (memory[name] >> 20, now[name] >> 20) for name in GATEWAYS}, "MiB before and after"
    )
    await asyncio.to_thread(
        until,
        lambda: all(n <= files[name] + FILES_MORE for name, n in open_files(tandem).items()),
        FILES_SECONDS,
        f"connections are closed again; there were {files}",
    )
    for name in GATEWAYS:
        assert now[name] <= MEMORY_FACTOR * memory[name], f"{name}: {memory[name]} -> {now[name]}"
