"""Callers that go on while an operator works: every token counted, and the healthy engines."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import httpx

from scripts.chaos.load import Answer, Load, Service, misspelt
from tests.stack.appliance import MODEL, Appliance

STREAMS = 8
TOKENS = 150
# The engines share the cores with all else: without it, a new one would take minutes to load.
PAUSE_SECONDS = 5.0
LOOK_SECONDS = 0.5

Result = TypeVar("Result")


@dataclass
class Seen:
    """What the callers had of it."""

    answers: list[Answer] = field(default_factory=list)
    misspelt: int = 0
    healthy_engines: list[int] = field(default_factory=list)

    @property
    def longest_gap(self) -> float:
        return max(answer.longest_gap for answer in self.answers)

    def assert_none_lost(self) -> None:
        assert len(self.answers) >= STREAMS
        assert [one.error for one in self.answers if one.failed] == []
        cut = [one.number for one in self.answers if one.truncated or one.surplus or one.miscounted]
        assert cut == []
        assert self.misspelt == 0


def service_of(appliance: Appliance) -> Service:
    ca = str(appliance.folder / "certificates" / "tls.crt")
    return Service(appliance.url, appliance.key, ca, MODEL)


async def under_load(
    appliance: Appliance, work: Callable[[], Result], tokens: int = TOKENS
) -> tuple[Result, Seen]:
    """Do the work, in a thread, while the callers ask; they stop asking after it."""
    seen = Seen()
    service = service_of(appliance)
    load = Load(service, STREAMS, tokens, PAUSE_SECONDS)
    await load.start()
    watch = asyncio.create_task(_watch(service, seen))
    try:
        await asyncio.sleep(1)
        result = await asyncio.to_thread(work)
    finally:
        watch.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watch
        seen.answers = await load.stop()
    seen.misspelt = await misspelt(service, seen.answers)
    return result, seen


async def _watch(service: Service, seen: Seen) -> None:
    """How many engines are healthy, again and again, as the door's callers see it."""
    async with service.client() as client:
        while True:
            with contextlib.suppress(httpx.HTTPError, ValueError, LookupError):
                engines = (await client.get("/v1/status")).json()["engines"]
                seen.healthy_engines.append(sum(one["state"] == "healthy" for one in engines))
            await asyncio.sleep(LOOK_SECONDS)
