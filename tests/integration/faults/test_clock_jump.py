"""The gateway's wall clock jumps by an hour, as a clock does that is set right.

Redis keeps its own: its allocator and libfaketime cannot live in one process. What a jump of that
clock does to limits is in tests/unit/gateway/test_limit_clock.py.
"""

from __future__ import annotations

import asyncio
import datetime
import json
from pathlib import Path

import httpx
import pytest

from tests.integration.faults.scene import MODEL, Scene, eventually, scene

HOUR = 3600
STREAMS = 16
TOKENS = 200
# libfaketime shifts the wall clock alone: monotonic clocks do not jump.
LIBRARY = "/usr/$LIB/faketime/libfaketime.so.1"
LOOKS = "1"
SEEN_SECONDS = 5.0
PER_MINUTE = "240"


def _clock(file: Path) -> dict[str, str]:
    """For a process whose clock is shifted by what the file says, looked up once a second."""
    return {
        "LD_PRELOAD": LIBRARY,
        "FAKETIME_TIMESTAMP_FILE": str(file),
        "FAKETIME_CACHE_DURATION": LOOKS,
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "DONT_FAKE_MONOTONIC": "1",
    }


@pytest.mark.parametrize("jump", [HOUR, -HOUR])
async def test_the_clock_jumps(tmp_path: Path, jump: int) -> None:
    """0 of 16 answers fail, a turn that runs is finished and saved, the limit locks nobody out,
    and a conversation from before the jump is still there."""
    file = tmp_path / "clock"
    file.write_text("+0")
    log = tmp_path / "gateway.log"
    async with scene(tmp_path, TOKENS, RATE_LIMIT_RPM=PER_MINUTE, **_clock(file)) as it:
        before = (await _turn(it, 4)).json()
        assert abs(_offset(log)) < HOUR / 2
        tasks = it.ask(STREAMS, TOKENS)
        turn = asyncio.create_task(_turn(it, TOKENS))
        await eventually(lambda: _all_run(it), 10, "all answers run")
        file.write_text(f"{jump:+d}")
        await eventually(lambda: _jumped(it, log, jump), SEEN_SECONDS, "the clock has jumped")
        running = it.a.running + it.b.running
        print(f"{running} answers run when the clock has jumped by {jump} s")
        assert running > STREAMS
        assert it.wrong(await asyncio.gather(*tasks)) == []
        during = await turn
        assert during.status_code == 200, during.text
        assert during.json()["response"] == b"".join(it.a.pieces[:TOKENS]).decode()
        await _nobody_is_locked_out(it)
        for answered in (before, during.json()):
            saved = await it.client.get(f"/v1/sessions/{answered['session_id']}")
            assert saved.status_code == 200, saved.text
            assert saved.json()["messages"][1]["content"] == answered["response"]
        again = await _turn(it, 4, session_id=before["session_id"])
        assert again.status_code == 200, again.text
        found = (await it.client.get("/v1/sessions")).json()["data"]
        assert {one["id"] for one in found} >= {before["session_id"]}


async def _nobody_is_locked_out(it: Scene) -> None:
    """A caller within its limit of 4 requests a second never gets 429."""
    asked = {"model": MODEL, "messages": [{"role": "user", "content": "x"}], "max_tokens": 1}
    for _ in range(20):
        answer = await it.client.post("/v1/chat/completions", json={**asked, "stream": True})
        assert answer.status_code == 200, answer.text


async def _turn(it: Scene, tokens: int, **more: str) -> httpx.Response:
    body = {"prompt": "what is the time", "max_tokens": tokens, **more}
    return await it.client.post("/v1/chat", json=body)


async def _all_run(it: Scene) -> bool:
    return it.a.running + it.b.running > STREAMS


async def _jumped(it: Scene, log: Path, jump: int) -> bool:
    assert (await _turn(it, 1)).status_code == 200
    return abs(_offset(log) - jump) < HOUR / 2


def _offset(log: Path) -> float:
    """Seconds by which the gateway's clock is ahead of ours, by the last line of its log."""
    said = datetime.datetime.fromisoformat(json.loads(log.read_text().splitlines()[-1])["time"])
    return (said - datetime.datetime.now(datetime.UTC)).total_seconds()
