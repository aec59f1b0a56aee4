"""The limit's own script in a real Redis, whose clock jumps: what is stored lies an hour away."""

from __future__ import annotations

import time

import pytest
from redis.asyncio import Redis

from gateway.errors import RateLimited
from gateway.limits import Limits

HOUR = 3600
PER_MINUTE = 240
BURST = 60
INTERVAL = 60 / PER_MINUTE


async def _passed(limits: Limits) -> int:
    """How many of two bursts get through at once."""
    passed = 0
    for _ in range(2 * BURST):
        try:
            await limits.check("alice")
            passed += 1
        except RateLimited as refused:
            assert refused.retry_after is not None
            assert refused.retry_after <= INTERVAL + 0.01
    return passed


async def _stored(store: Redis, seconds: float) -> None:
    """As if the caller had used up its burst before the clock jumped by so much."""
    window = BURST * INTERVAL
    await store.set("tandem:limit:alice", f"{time.time() + window + seconds:.6f}", px=HOUR * 1000)


async def test_a_clock_set_back_locks_nobody_out(store: Redis) -> None:
    """Set back by an hour: the next request is let through within an interval, not an hour."""
    await _stored(store, HOUR)
    limits = Limits(store, PER_MINUTE, time.monotonic)
    with pytest.raises(RateLimited) as refused:
        await limits.check("alice")
    assert refused.value.retry_after is not None
    assert refused.value.retry_after <= INTERVAL + 0.01


async def test_a_clock_set_forward_gives_one_burst(store: Redis) -> None:
    """Set forward by an hour: a whole burst, and no more than that."""
    await _stored(store, -HOUR)
    start = time.monotonic()
    passed = await _passed(Limits(store, PER_MINUTE, time.monotonic))
    assert BURST <= passed <= BURST + 2 + (time.monotonic() - start) / INTERVAL
