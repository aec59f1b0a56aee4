"""Redis is slow, full, read-only or gone, and comes back: what goes on, and what is kept."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from tests.integration.faults.scene import KEYS, MODEL, Scene, eventually, scene
from tests.redis_server import RedisServer, start_redis

CALLS = 20
TOKENS = 40
# A burst is a quarter of it: 60 requests at once, and 4 a second.
PER_MINUTE = 240
GREEDY = 200
BURST = 60
# A gateway by itself lets through half a burst too much at worst, as gateway/limits.py says.
BURST_AT_MOST = 90
# Longer than all that is asked meanwhile takes, on a busy machine too.
PAUSE_MILLISECONDS = 8000
BACK_SECONDS = 20.0
# What only reads works where only writing fails.
READS = {"slow": 503, "full": 200, "read-only": 200, "stopped": 503}


@contextlib.contextmanager
def _broken(fault: str, it: Scene, folder: Path) -> Iterator[None]:
    with redis.Redis(port=it.redis.port) as store:
        if fault == "slow":
            store.client_pause(PAUSE_MILLISECONDS, all=True)
            yield
        elif fault == "full":
            store.config_set("maxmemory-policy", "noeviction")
            store.config_set("maxmemory", "1mb")
            yield
            store.config_set("maxmemory", 0)
        elif fault == "read-only":
            store.replicaof("127.0.0.1", 1)
            yield
            store.replicaof("NO", "ONE")
        else:
            it.redis.stop()
            yield
            it.redis.process = _again(it.redis, folder).process


def _again(server: RedisServer, folder: Path) -> RedisServer:
    return start_redis(folder, "--appendonly", "yes", port=server.port)


@pytest.mark.parametrize("fault", list(READS))
async def test_redis_fault(tmp_path: Path, fault: str) -> None:
    """0 of 20 answers fail, a key that is not known stays unknown, limits are kept by the gateway
    alone, sessions say 503; afterwards everything that was acknowledged is there."""
    async with scene(tmp_path, 400, RATE_LIMIT_RPM=str(PER_MINUTE)) as it:
        before = await _turn(it, "keep this")
        long = asyncio.create_task(_streamed_turn(it))
        await eventually(lambda: _runs(it), 10, "a turn runs")
        with _broken(fault, it, tmp_path):
            tasks = it.ask(CALLS, TOKENS)
            await asyncio.gather(_strangers(it), _sessions(it, READS[fault]), _greedy(it))
            assert it.wrong(await asyncio.gather(*tasks)) == []
        took = await eventually(lambda: _goes_on(it, before), BACK_SECONDS, "turns work again")
        end = await long
        print(f"{fault}: turns again after {took:.1f} s; the running turn: {end['event']}")
        assert len(await _messages(it, before["session_id"])) == 4
        assert end["event"] == "done"
        # An end that came while nothing could be written says `saved: false`, and is saved late.
        await eventually(lambda: _has(it, end["session_id"], 2), BACK_SECONDS, "the turn is saved")
        saved = await _messages(it, end["session_id"])
        assert saved[1]["content"] == end["text"] == b"".join(it.a.pieces[:200]).decode()


async def _runs(it: Scene) -> bool:
    return it.a.running + it.b.running > 0


async def _turn(it: Scene, prompt: str) -> dict[str, Any]:
    body = {"prompt": prompt, "max_tokens": 4}
    answer = await it.client.post("/v1/chat", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()  # type: ignore[no-any-return]


async def _streamed_turn(it: Scene) -> dict[str, Any]:
    """Its text, its session, and the event that ended it."""
    seen: dict[str, Any] = {"text": "", "event": None}
    body = {"prompt": "a long one", "max_tokens": 200, "stream": True}
    event = ""
    async with it.client.stream("POST", "/v1/chat", json=body) as answer:
        async for line in answer.aiter_lines():
            name, _, value = line.partition(": ")
            event = value if name == "event" else event
            if name == "data":
                data = json.loads(value)
                seen["session_id"] = data.get("session_id", seen.get("session_id"))
                seen["text"] += data["text"] if event == "delta" else ""
                seen["event"] = event
    return seen


async def _messages(it: Scene, session: str) -> list[dict[str, str]]:
    answer = await it.client.get(f"/v1/sessions/{session}")
    assert answer.status_code == 200, answer.text
    return answer.json()["messages"]  # type: ignore[no-any-return]


async def _has(it: Scene, session: str, messages: int) -> bool:
    return len(await _messages(it, session)) == messages


async def _strangers(it: Scene) -> None:
    async with it.gateway.client("sk-nobody") as stranger:
        for path in ("/v1/chat/completions", "/v1/chat"):
            assert (await stranger.post(path, json={})).status_code == 401


async def _sessions(it: Scene, reads: int) -> None:
    body = {"prompt": "hello", "max_tokens": 4}
    read, turn = await asyncio.gather(
        it.client.get("/v1/sessions"), it.client.post("/v1/chat", json=body)
    )
    _says(read, reads)
    _says(turn, 503)


def _says(answer: httpx.Response, status: int) -> None:
    assert answer.status_code == status, answer.text
    if status == 503:
        assert answer.json()["error"]["code"] == "session_store_unavailable"
        assert int(answer.headers["retry-after"]) >= 1


async def _greedy(it: Scene) -> None:
    """A caller far beyond its limit gets its burst, and 429 from then on."""
    asked = {"model": MODEL, "messages": [{"role": "user", "content": "x"}], "max_tokens": 1}
    start = time.monotonic()
    async with it.gateway.client(KEYS["greedy"]) as greedy:
        calls = [
            greedy.post("/v1/chat/completions", json={**asked, "stream": True})
            for _ in range(GREEDY)
        ]
        answers = await asyncio.gather(*calls)
    refused = [one for one in answers if one.status_code == 429]
    served = [one for one in answers if one.status_code == 200]
    print(f"greedy: {len(served)} served, {len(refused)} refused")
    assert len(served) + len(refused) == GREEDY
    more = (time.monotonic() - start) * PER_MINUTE / 60
    assert BURST <= len(served) <= BURST_AT_MOST + more
    assert all(int(one.headers["retry-after"]) >= 1 for one in refused)


async def _goes_on(it: Scene, before: dict[str, Any]) -> bool:
    body = {"prompt": "and on", "session_id": before["session_id"], "max_tokens": 4}
    answer = await it.client.post("/v1/chat", json=body)
    assert answer.status_code in (200, 503), answer.text
    return answer.status_code == 200
