"""Keys and rates, with a clock that is turned by hand."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
from pathlib import Path
from typing import Any

import pytest

from gateway.auth import KeyRing
from gateway.errors import AuthenticationFailed, RateLimited
from gateway.limits import Allowance, Limits


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def line(name: str, key: str) -> str:
    return f"{name} {hashlib.sha256(key.encode()).hexdigest()}\n"


def bearer(key: str) -> list[tuple[bytes, bytes]]:
    return [(b"authorization", b"Bearer " + key.encode())]


def test_keys_are_read_again_when_the_file_changes(tmp_path: Path) -> None:
    file, clock = tmp_path / "api_keys", Clock()
    file.write_text("# people\n\n" + line("alice", "a-key") + "not a line\n")
    ring = KeyRing(file, clock)
    assert ring.check(bearer("a-key")).name == "alice"
    with pytest.raises(AuthenticationFailed):
        ring.check(bearer("b-key"))
    file.write_text(line("bob", "b-key") + "# longer than before\n" * 9)
    os.utime(file, ns=(1, 1))
    clock.now += 3
    assert ring.check([(b"x-api-key", b"b-key")]).name == "bob"
    with pytest.raises(AuthenticationFailed):
        ring.check(bearer("a-key"))


def test_a_file_that_is_gone_locks_nobody_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file, clock = tmp_path / "api_keys", Clock()
    file.write_text(line("alice", "a-key"))
    ring = KeyRing(file, clock)
    ring.check(bearer("a-key"))
    file.unlink()
    clock.now += 3
    with caplog.at_level(logging.WARNING):
        assert ring.check(bearer("a-key")).name == "alice"
    assert "cannot be read" in caplog.text


class NoRedis:
    async def eval(self, *_: Any) -> None:
        raise ConnectionError


async def test_a_burst_then_one_at_a_time_without_redis() -> None:
    clock = Clock()
    limits = Limits(NoRedis(), 60, clock)
    left = [await limits.check("alice") for _ in range(15)]
    assert [a.remaining for a in left if a] == list(range(14, -1, -1))
    with pytest.raises(RateLimited) as refused:
        await limits.check("alice")
    assert refused.value.retry_after == pytest.approx(1.0)
    await limits.check("bob")
    clock.now += 1.0
    await limits.check("alice")
    with pytest.raises(RateLimited):
        await limits.check("alice")


async def test_no_limit() -> None:
    assert await Limits(NoRedis(), 0, Clock()).check("alice") is None


class FakeRedis:
    """GCRA as the script does it, on a clock of its own, and how often it was asked."""

    def __init__(self, clock: Clock) -> None:
        self.clock, self.tat, self.asked = clock, 0.0, 0
        self.held = asyncio.Event()
        self.held.set()

    async def eval(self, script: str, keys: int, key: str, *numbers: float) -> tuple[int, str, str]:
        interval, window, counted, asked = numbers
        self.asked += 1
        await self.held.wait()
        now = self.clock.now
        tat = min(max(self.tat, now), now + window) + counted * interval
        wait = tat + asked * interval - window - now
        allowed = asked == 0 or wait <= 0
        self.tat = tat + asked * interval if allowed else tat
        return int(allowed), str(wait), str(self.tat - now)


async def test_far_from_the_limit_nobody_waits_for_redis() -> None:
    clock = Clock()
    redis = FakeRedis(clock)
    limits = Limits(redis, 6000, clock)
    left = [await limits.check("alice") for _ in range(500)]
    assert [a.remaining for a in left if a] == list(range(1499, 999, -1))
    assert redis.asked == 1
    await limits.settle()
    assert redis.asked == 2
    assert redis.tat - clock.now == pytest.approx(5.0)


async def test_many_at_once_ask_once() -> None:
    clock = Clock()
    redis = FakeRedis(clock)
    limits = Limits(redis, 6000, clock)
    redis.held.clear()
    tasks = [asyncio.create_task(limits.check("alice")) for _ in range(64)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    await asyncio.sleep(0)
    redis.held.set()
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(ended[0], asyncio.CancelledError)
    assert not any(isinstance(one, BaseException) for one in ended[1:])
    assert redis.asked == 1


class ReadsOnly(FakeRedis):
    """Looks are answered; what would be written is refused, slowly."""

    async def eval(self, script: str, keys: int, key: str, *numbers: float) -> tuple[int, str, str]:
        if numbers[2] or numbers[3]:
            self.asked += 1
            await self.held.wait()
            raise ConnectionError
        return await super().eval(script, keys, key, *numbers)


@pytest.mark.parametrize("pause", [0.0, 0.1])
async def test_what_is_on_the_way_to_redis_counts(pause: float) -> None:
    """All that is asked while Redis is told, or refuses to be told, is still one burst."""
    for store in (FakeRedis, ReadsOnly):
        clock = Clock()
        redis = store(clock)
        limits = Limits(redis, 60, clock)
        passed = 0
        for _ in range(6):
            passed += sum(isinstance(one, Allowance) for one in await _some(limits))
            redis.held.clear()
            telling = asyncio.create_task(limits.settle())
            await asyncio.sleep(0)
            checks = asyncio.create_task(_some(limits))
            await asyncio.sleep(0)
            redis.held.set()
            passed += sum(isinstance(one, Allowance) for one in await checks)
            await telling
            clock.now += pause
        assert passed == 15, store


async def test_what_redis_was_not_told_is_told_later() -> None:
    """It fails while half a burst waits to be told, and comes back empty: one burst in all."""
    clock, redis = Clock(), ReadsOnly(Clock())
    redis.clock = clock
    limits = Limits(redis, 60, clock)
    passed = sum(isinstance(one, Allowance) for one in await _some(limits))
    await limits.settle()
    limits._redis = FakeRedis(clock)
    for _ in range(6):
        passed += sum(isinstance(one, Allowance) for one in await _some(limits))
    assert passed == 15


async def _some(limits: Limits) -> list[object]:
    checks = (limits.check("alice") for _ in range(5))
    return list(await asyncio.gather(*checks, return_exceptions=True))


async def test_no_more_than_the_limit_gets_through() -> None:
    clock = Clock()
    redis = FakeRedis(clock)
    gateways = [Limits(redis, 60, clock), Limits(redis, 60, clock)]
    passed = 0
    for number in range(60):
        try:
            await gateways[number % 2].check("alice")
            passed += 1
        except RateLimited as refused:
            assert refused.retry_after is not None and 0 < refused.retry_after <= 1.0
    assert passed == 15
