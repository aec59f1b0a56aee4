"""How much a caller may: requests a minute for each key.

GCRA, one Redis key for each caller holding its «theoretical arrival time», on Redis's own clock,
so that all gateways count together (as in Brandur Leach's redis-cell and rwz/redis-gcra). A clock
that was set back would lock callers out, so a stored time too far ahead is clamped. While Redis
is away each gateway counts for itself. Not here: how many may be inside at once (admission.py).
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from redis.exceptions import RedisError

from gateway.errors import RateLimited

REDIS_SECONDS = 0.25
# A caller may spend this part of its minute at once.
BURST_SHARE = 0.25
LOCAL_CALLERS_AT_MOST = 10_000

GCRA = """
local now = redis.call('TIME')
now = now[1] + now[2] / 1000000
local interval, window = tonumber(ARGV[1]), tonumber(ARGV[2])
local tat = math.max(tonumber(redis.call('GET', KEYS[1]) or '0'), now)
tat = math.min(tat, now + window)
local wait = tat + interval - window - now
if wait > 0 then return {0, tostring(wait), tostring(tat - now)} end
tat = tat + interval
redis.call('SET', KEYS[1], string.format('%.6f', tat), 'PX', math.ceil((tat - now) * 1000) + 1000)
return {1, '0', tostring(tat - now)}
"""

log = logging.getLogger("gateway.limits")


@dataclass(frozen=True, slots=True)
class Allowance:
    """What is left to a caller. `reset` in seconds until all of it is back."""

    limit: int
    remaining: int
    reset: float

    def headers(self) -> list[tuple[bytes, bytes]]:
        return [
            (b"x-ratelimit-limit-requests", b"%d" % self.limit),
            (b"x-ratelimit-remaining-requests", b"%d" % self.remaining),
            (b"x-ratelimit-reset-requests", b"%ds" % math.ceil(self.reset)),
        ]


class Limits:
    """`per_minute` 0 means that nothing is limited."""

    def __init__(self, redis: Any, per_minute: int, clock: Callable[[], float]) -> None:
        self._redis = redis
        self._per_minute = per_minute
        self._clock = clock
        self._burst = max(1, math.ceil(per_minute * BURST_SHARE))
        self._interval = 60 / per_minute if per_minute else 0.0
        self._local: OrderedDict[str, float] = OrderedDict()

    async def check(self, caller_id: str) -> Allowance | None:
        """Count one request. RateLimited when it is one too many; None when nothing is limited."""
        if not self._per_minute:
            return None
        try:
            async with asyncio.timeout(REDIS_SECONDS):
                allowed, wait, ahead = await self._shared(caller_id)
        except (RedisError, OSError, TimeoutError):
            allowed, wait, ahead = self._alone(caller_id)
        if not allowed:
            raise RateLimited(
                f"This key may send {self._per_minute} requests a minute. "
                f"Wait {math.ceil(wait)} s and try again.",
                retry_after=wait,
            )
        left = math.floor((self._interval * self._burst - ahead) / self._interval + 1e-9)
        return Allowance(self._per_minute, max(0, left), ahead)

    async def _shared(self, caller_id: str) -> tuple[bool, float, float]:
        window = self._interval * self._burst
        key = f"tandem:limit:{caller_id}"
        allowed, wait, ahead = await self._redis.eval(GCRA, 1, key, self._interval, window)
        return bool(allowed), float(wait), float(ahead)

    def _alone(self, caller_id: str) -> tuple[bool, float, float]:
        now, window = self._clock(), self._interval * self._burst
        tat = max(self._local.pop(caller_id, 0.0), now)
        wait = tat + self._interval - window - now
        allowed = wait <= 0
        tat += self._interval if allowed else 0.0
        self._local[caller_id] = tat
        while len(self._local) > LOCAL_CALLERS_AT_MOST:
            self._local.popitem(last=False)
        return allowed, max(0.0, wait), tat - now
