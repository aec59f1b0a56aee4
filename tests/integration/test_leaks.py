"""After thousands of short streams, many of them left half-way, nothing is left behind."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from scripts.chaos.load import question
from tests.integration.tandem_instance import ENGINES, GATEWAYS, Tandem, until

STREAMS = 2000
AT_ONCE = 32
TOKENS = 24
LEFT_SHARE = 0.4
# Connections to engines and Redis are kept, so a few more than at the start are right.
FILES_MORE = 48
# A leak of 2 KiB a stream would be as much as the allocator's own moods.
MEMORY_MORE = 60 * 2**20


def open_files(tandem: Tandem) -> dict[str, int]:
    return {name: len(list(Path(f"/proc/{tandem.pid(name)}/fd").iterdir())) for name in GATEWAYS}


def resident(tandem: Tandem) -> dict[str, int]:
    found = {}
    for name in GATEWAYS:
        pages = Path(f"/proc/{tandem.pid(name)}/statm").read_text().split()[1]
        found[name] = int(pages) * 4096
    return found


async def many(tandem: Tandem, count: int) -> list[int]:
    """Statuses of that many streams; a caller that leaves reads a few lines before."""
    dice = random.Random(20261127)
    turns = asyncio.Semaphore(AT_ONCE)
    leaves = [dice.randrange(6) if dice.random() < LEFT_SHARE else None for _ in range(count)]
    async with tandem.service.client() as client:

        async def one(number: int, lines: int | None) -> int:
            asked = question(number, tandem.model, TOKENS)
            async with turns, client.stream("POST", "/v1/chat/completions", json=asked) as got:
                seen = 0
                async for _ in got.aiter_lines():
                    seen += 1
                    if lines is not None and seen > lines:
                        break
                return got.status_code

        return list(await asyncio.gather(*(one(n, lines) for n, lines in enumerate(leaves))))


@pytest.mark.timeout(900)
async def test_nothing_is_left(tandem: Tandem) -> None:
    """2,000 streams, 40 % left half-way: every one answered 200, then 0 inside, 0 running,
    no file open that was not, and at most 60 MiB more memory for each gateway."""
    assert set(await many(tandem, 200)) == {200}
    files, memory = open_files(tandem), resident(tandem)
    assert set(await many(tandem, STREAMS)) == {200}

    def idle() -> bool:
        inside = sum(tandem.overview(name).get("in_flight", 1) for name in GATEWAYS)
        held = sum(
            engine["in_flight"] for name in GATEWAYS for engine in tandem.overview(name)["engines"]
        )
        return not inside and not held and not sum(map(tandem.engine_running, ENGINES))

    await asyncio.to_thread(until, idle, 60, "nothing is inside any more")
    await asyncio.to_thread(
        until,
        lambda: all(n <= files[name] + FILES_MORE for name, n in open_files(tandem).items()),
        60,
        f"files are closed again; there were {files}",
    )
    for name, now in resident(tandem).items():
        assert now - memory[name] <= MEMORY_MORE, f"{name}: {(now - memory[name]) >> 20} MiB more"
