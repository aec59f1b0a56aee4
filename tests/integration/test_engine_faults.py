"""An engine dies, hangs or goes away under 64 running answers, and no caller loses a token.

The criterion is the same for each fault: of 64 streams 0 fail, 0 end early, 0 tokens are lost or
doubled (by token ids, by text and by usage), some of them did move to the other engine, and the
service heals by itself.
"""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from scripts.chaos import processes
from scripts.chaos.load import Answer, misspelt
from tests.integration.crowd import Crowd, crowd_question, is_sampled, read
from tests.integration.tandem_instance import ENGINES, GATEWAYS, Tandem, until

STREAMS = 64
TOKENS = 600
# The budget, p99. Other work may share the two cores with one small engine that carries 64 streams:
# it is so much more than the waits of those that stayed on it, a tenth of a second in peace.
# Readers that stand back behind the engines (nice, /proc/self/autogroup) measure their own wait.
DEATH_GAP = 1.0
# A hang is noticed by 6 s without a step, seen once a second; then as above.
HANG_GAP = 8.0 + DEATH_GAP
# Questions asked at a time in peace, to compare.
TOGETHER = 16
# float32 on both engines: what may differ is rounding in batches of another size.
SAME_SHARE = 0.95

pytestmark = pytest.mark.timeout(900)


async def check(tandem: Tandem, crowd: Crowd, answers: list[Answer], gap: float) -> None:
    assert [one.error for one in answers if one.failed] == []
    assert [one.number for one in answers if one.truncated] == []
    assert [one.number for one in answers if one.surplus or one.miscounted] == []
    assert await misspelt(tandem.service, answers) == 0
    gaps = crowd.gaps(answers)
    assert gaps, "nothing ran on the engine that was broken"
    p50, p99 = gaps[len(gaps) // 2], gaps[min(len(gaps) - 1, len(gaps) * 99 // 100)]
    others = crowd.gap_of_the_others(answers)
    longest = max(one.longest_gap for one in answers)
    print(
        f"{len(gaps)} of {len(answers)} moved; gap p50 {p50:.2f} s, p99 {p99:.2f} s, meanwhile of "
        f"those that stayed {others:.2f} s; longest of all, while an engine starts: {longest:.2f} s"
    )
    assert p99 <= gap + others


async def same_as_unbroken(
    tandem: Tandem, answers: list[Answer], peaceful: dict[int, list[int]]
) -> tuple[list[bool], list[bool]]:
    """For each moved answer, whether its ids are those of the same question asked in peace:
    of the greedy, of the sampled."""
    moved = [one for one in answers if one.failovers]
    turns = asyncio.Semaphore(TOGETHER)

    async def ask(one: Answer) -> None:
        async with turns:
            asked = crowd_question(one.number, tandem.model, one.wanted_tokens)
            again = await read(client, asked)
        assert not again.failed, again.error
        peaceful[one.number] = again.ids

    async with tandem.service.client() as client:
        await asyncio.gather(*(ask(one) for one in moved if one.number not in peaceful))
    same = [(is_sampled(one.number), one.ids == peaceful[one.number]) for one in moved]
    greedy = [alike for sampled, alike in same if not sampled]
    return greedy, [alike for sampled, alike in same if sampled]


@pytest.fixture(scope="module")
def peaceful() -> dict[int, list[int]]:
    """Answers of the undisturbed service, by number: each question is asked once."""
    return {}


@pytest.fixture
def crowd(tandem: Tandem) -> Crowd:
    return Crowd(tandem, STREAMS, TOKENS)


@pytest.mark.parametrize("wanted", [processes.WORKER, processes.ENGINE_CORE, processes.API_SERVER])
async def test_killed(
    tandem: Tandem, crowd: Crowd, wanted: str, peaceful: dict[int, list[int]]
) -> None:
    """kill -9 of the worker, of the engine core, of the API server."""

    def kill() -> None:
        victims = tandem.engine_pids(tandem.busiest_engine(), wanted)
        processes.send(victims[-1:], signal.SIGKILL)

    answers = await crowd.run(kill)
    await check(tandem, crowd, answers, DEATH_GAP)
    await asyncio.to_thread(tandem.wait_healthy)
    greedy, sampled = await same_as_unbroken(tandem, answers, peaceful)
    # A sampled answer goes on with a seed made for the seam, so other words follow.
    print(
        f"with the ids of the unbroken answer: {sum(greedy)} of {len(greedy)} greedy ones that "
        f"moved (float32), {sum(sampled)} of {len(sampled)} seeded ones"
    )
    assert sum(greedy) >= SAME_SHARE * len(greedy)
    assert greedy


async def test_hung_core(tandem: Tandem, crowd: Crowd) -> None:
    """SIGSTOP of the engine core: its health check still says 200, and its answers still move;
    the watchdog then ends it, and it comes back by itself."""
    stopped: dict[str, int] = {}

    def stop() -> None:
        engine = tandem.busiest_engine()
        core = tandem.engine_pids(engine, processes.ENGINE_CORE)
        stopped[engine] = tandem.pid(engine)
        processes.send(core, signal.SIGSTOP)

    answers = await crowd.run(stop)
    await check(tandem, crowd, answers, HANG_GAP)
    await asyncio.to_thread(tandem.wait_healthy)
    for engine, before in stopped.items():
        assert tandem.pid(engine) not in (0, before), "nobody restarted the hung engine"


async def test_stopped_in_good_order(tandem: Tandem) -> None:
    """SIGTERM to an engine: what it runs moves or is finished, nothing is cut."""
    pid = tandem.pid("vllm-a")
    answers = await Crowd(tandem, 16, TOKENS).run(lambda: os.kill(pid, signal.SIGTERM))
    assert [one.error for one in answers if one.failed] == []
    assert [one.number for one in answers if one.truncated or one.surplus] == []
    assert await misspelt(tandem.service, answers) == 0


async def test_both_down_then_back(tandem: Tandem) -> None:
    """Both engines killed: callers wait or are told 503 with Retry-After, the page stays up,
    and once an engine is back, questions are answered again."""
    for engine in ENGINES:
        processes.send(processes.descendants(tandem.pid(engine)), signal.SIGKILL)

    def seen() -> bool:
        return not any("healthy" in tandem.engine_states(one).values() for one in GATEWAYS)

    # A question that still reaches both as they die is told that it may have been the cause.
    await asyncio.to_thread(until, seen, 10, "both gateways see both engines gone")
    refused = await asyncio.to_thread(tandem.ask, "hello")
    assert refused.status_code in (200, 503), refused.text
    if refused.status_code == 503:
        assert refused.json()["error"]["code"] == "no_engine_available"
        assert int(refused.headers["retry-after"]) >= 1
    assert tandem.client.get("/").status_code == 200
    await asyncio.to_thread(tandem.wait_healthy)
    assert (await asyncio.to_thread(tandem.ask, "hello")).status_code == 200
