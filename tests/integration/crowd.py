"""Many callers at once, and something that breaks once every one of them has begun to read.

Not here: what is broken (the tests), what an answer must be (scripts/chaos/load.py's Answer).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable

import httpx

from scripts.chaos.load import Answer, question
from tests.integration.tandem_instance import Tandem

BEGUN_SECONDS = 120.0
WHOLE_SECONDS = 400.0


class Crowd:
    """Greedy questions, `streams` of them, each with an answer of exactly `tokens` tokens."""

    def __init__(self, tandem: Tandem, streams: int, tokens: int) -> None:
        self._tandem = tandem
        self._asked = [question(number, tandem.model, tokens) for number in range(streams)]

    async def run(self, fault: Callable[[], object], more: int = 0) -> list[Answer]:
        """`more`: short answers asked for after the fault."""
        short = [question(1000 + number, self._tandem.model, 32) for number in range(more)]
        async with self._tandem.service.client() as client, asyncio.timeout(WHOLE_SECONDS):
            begun = [asyncio.Event() for _ in self._asked]
            tasks = [
                asyncio.create_task(read(client, one, event))
                for one, event in zip(self._asked, begun, strict=True)
            ]
            try:
                async with asyncio.timeout(BEGUN_SECONDS):
                    await asyncio.gather(*(event.wait() for event in begun))
                early = [task.result() for task in tasks if task.done()]
                assert [one.error for one in early if one.failed] == []
                # On a busy machine the first are through before the last has begun.
                running = len(tasks) - len(early)
                print(f"{running} of {len(tasks)} answers run when the fault comes")
                assert running >= len(tasks) // 8, "the answers were too short"
                await asyncio.to_thread(fault)
                tasks += [asyncio.create_task(read(client, one)) for one in short]
                return list(await asyncio.gather(*tasks))
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)


async def read(
    client: httpx.AsyncClient, asked: dict[str, object], begun: asyncio.Event | None = None
) -> Answer:
    """One answer to its end, or to its failure, which is told in it. Sets `begun` in any case."""
    answer = Answer(int(str(asked["seed"])), int(str(asked["max_tokens"])))
    begun = begun or asyncio.Event()
    try:
        async with client.stream("POST", "/v1/chat/completions", json=asked) as response:
            if response.status_code != 200:
                answer.error = f"HTTP {response.status_code}: {(await response.aread())[:300]!r}"
                return answer
            last = time.monotonic()
            async for line in response.aiter_lines():
                if _take(answer, line):
                    answer.longest_gap = max(answer.longest_gap, time.monotonic() - last)
                    last = time.monotonic()
                    begun.set()
        if not answer.finished and answer.error is None:
            answer.error = "the stream ended without [DONE]"
    except httpx.HTTPError as error:
        answer.error = f"{type(error).__name__}: {error}"
    finally:
        begun.set()
    return answer


def _take(answer: Answer, line: str) -> bool:
    """Whether the line brought tokens."""
    if line.startswith(": tandem failovers="):
        answer.failovers = int(line.rpartition("=")[2])
    if not line.startswith("data: "):
        return False
    if line == "data: [DONE]":
        answer.finished = True
        return False
    event = json.loads(line[6:])
    if "error" in event:
        answer.error = json.dumps(event["error"])
        return False
    with contextlib.suppress(TypeError, KeyError):
        answer.completion_tokens = event["usage"]["completion_tokens"]
    before = len(answer.ids)
    for choice in event["choices"]:
        answer.text += choice["delta"].get("content") or ""
        answer.ids.extend(choice.get("token_ids") or ())
        answer.finish_reason = choice.get("finish_reason") or answer.finish_reason
    return len(answer.ids) > before
