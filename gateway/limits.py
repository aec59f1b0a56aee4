"""How much a caller may: requests a minute for each key.

GCRA, one Redis key for each caller holding its «theoretical arrival time», on Redis's own clock,
so that all gateways count together (as in Brandur Leach's redis-cell and rwz/redis-gcra). A clock
that was set back would lock callers out, so a stored time too far ahead is clamped. While Redis
is away each gateway counts for itself.

A caller that is far from its limit does not wait for Redis: its requests are counted here and told
to Redis together, a moment later. Two gateways that do so at once can let through half a burst too
much at worst, because neither goes beyond half a burst on knowledge older than FRESH_SECONDS.
Not here: how many may be inside at once (admission.py).
"""

from __future__ import annotations

import asyncio
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
# Up to this part of a burst is counted ahead, on what Redis said at most so long ago.
AHEAD_SHARE = 0.5
FRESH_SECONDS = 0.25
SETTLE_SECONDS = 0.05
CALLERS_AT_MOST = 10_000

GCRA = """
local now = redis.call('TIME')
now = now[1] + now[2] / 1000000
local interval, window = tonumber(ARGV[1]), tonumber(ARGV[2])
local counted, asked = tonumber(ARGV[3]), tonumber(ARGV[4])
local tat = math.max(tonumber(redis.call('GET', KEYS[1]) or '0'), now)
tat = math.min(tat, now + window) + counted * interval
local wait = tat + asked * interval - window - now
local allowed = asked == 0 or wait <= 0
if allowed then tat = tat + asked * interval end
if counted > 0 or (allowed and asked > 0) then
  redis.call('SET', KEYS[1], string.format('%.6f', tat), 'PX', math.ceil((tat - now) * 1000) + 1000)
end
return {allowed and 1 or 0, tostring(wait), tostring(tat - now)}
"""

AWAY = (RedisError, OSError, TimeoutError)


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


@dataclass(slots=True)
class _Account:
    """What is known of one caller. `ahead`: how far its theoretical arrival time lay in the
    future, in seconds, when Redis was asked; `uncounted`: let through since, not told yet;
    `telling`: on the way to Redis; `alone`: the arrival time by what this gateway has let through
    by its own judgement."""

    ahead: float = 0.0
    asked_at: float = -math.inf
    uncounted: int = 0
    telling: int = 0
    asking: asyncio.Task[bool] | None = None
    alone: float = -math.inf


class Limits:
    """`per_minute` 0 means that nothing is limited. `clock` gives monotonic seconds."""

    def __init__(self, redis: Any, per_minute: int, clock: Callable[[], float]) -> None:
        self._redis = redis
        self._per_minute = per_minute
        self._clock = clock
        self._burst = max(1, math.ceil(per_minute * BURST_SHARE))
        self._interval = 60 / per_minute if per_minute else 0.0
        self._window = self._interval * self._burst
        self._accounts: OrderedDict[str, _Account] = OrderedDict()
        self._unsettled: dict[str, _Account] = {}
        self._due = asyncio.Event()

    async def check(self, caller_id: str) -> Allowance | None:
        """Count one request. RateLimited when it is one too many; None when nothing is limited."""
        if not self._per_minute:
            return None
        account = self._account(caller_id)
        if not self._fresh(account) and not await self._learn(caller_id, account):
            return self._judged(*self._alone(account))
        ahead = self._ahead(account)
        if ahead + self._interval > self._window * AHEAD_SHARE:
            return self._judged(*await self._exactly(caller_id, account))
        account.uncounted += 1
        self._unsettled[caller_id] = account
        self._due.set()
        return self._allowance(ahead + self._interval)

    async def run(self) -> None:
        """Tell Redis what was counted ahead, until cancelled; then once more."""
        try:
            while True:
                await self._due.wait()
                await asyncio.sleep(SETTLE_SECONDS)
                await self.settle()
        finally:
            await self.settle()

    async def settle(self) -> None:
        unsettled, self._unsettled = self._unsettled, {}
        self._due.clear()
        for caller_id, account in unsettled.items():
            if account.uncounted:
                await self._learn(caller_id, account)

    # Asking Redis --------------------------------------------------------------------------

    async def _learn(self, caller_id: str, account: _Account) -> bool:
        """Look how far the caller is; many who ask at once ask once. False: Redis is away.

        In a task of its own: a caller who leaves takes nothing away from the others."""
        if account.asking is None:
            account.asking = asyncio.create_task(self._look(caller_id, account))
        return await asyncio.shield(account.asking)

    async def _look(self, caller_id: str, account: _Account) -> bool:
        try:
            await self._shared(caller_id, account, 0)
        except AWAY:
            return False
        finally:
            account.asking = None
        return True

    async def _exactly(self, caller_id: str, account: _Account) -> tuple[bool, float, float]:
        task = asyncio.create_task(self._shared(caller_id, account, 1))
        try:
            return await asyncio.shield(task)
        except AWAY:
            return self._alone(account)

    async def _shared(
        self, caller_id: str, account: _Account, asked: int
    ) -> tuple[bool, float, float]:
        key, counted = f"tandem:limit:{caller_id}", account.uncounted
        account.uncounted = 0
        account.telling += counted
        try:
            async with asyncio.timeout(REDIS_SECONDS):
                allowed, wait, ahead = await self._redis.eval(
                    GCRA, 1, key, self._interval, self._window, counted, asked
                )
        except BaseException:
            account.uncounted += counted
            raise
        finally:
            account.telling -= counted
        account.ahead, account.asked_at = float(ahead), self._clock()
        return bool(allowed), float(wait), float(ahead)

    # Within --------------------------------------------------------------------------------

    def _account(self, caller_id: str) -> _Account:
        account = self._accounts.get(caller_id)
        if account is None:
            account = self._accounts[caller_id] = _Account()
        self._accounts.move_to_end(caller_id)
        while len(self._accounts) > CALLERS_AT_MOST:
            self._accounts.popitem(last=False)
        return account

    def _fresh(self, account: _Account) -> bool:
        return self._clock() - account.asked_at <= FRESH_SECONDS

    def _ahead(self, account: _Account) -> float:
        """Where the caller is by what is known here, in seconds."""
        now = self._clock()
        return self._arrival(account, now) - now + self._untold(account)

    @staticmethod
    def _arrival(account: _Account, now: float) -> float:
        """The theoretical arrival time by what Redis said and by what was judged without it."""
        return max(account.alone, account.asked_at + account.ahead, now)

    def _untold(self, account: _Account) -> float:
        return (account.uncounted + account.telling) * self._interval

    def _alone(self, account: _Account) -> tuple[bool, float, float]:
        """As Redis would judge, with what this gateway has seen itself."""
        now = self._clock()
        tat = self._arrival(account, now)
        wait = tat + self._untold(account) + self._interval - self._window - now
        allowed = wait <= 0
        account.alone = tat + (self._interval if allowed else 0.0)
        return allowed, max(0.0, wait), account.alone - now + self._untold(account)

    def _judged(self, allowed: bool, wait: float, ahead: float) -> Allowance:
        if allowed:
            return self._allowance(ahead)
        raise RateLimited(
            f"This key may send {self._per_minute} requests a minute. "
            f"Wait {math.ceil(wait)} s and try again.",
            retry_after=wait,
        )

    def _allowance(self, ahead: float) -> Allowance:
        left = math.floor((self._window - ahead) / self._interval + 1e-9)
        return Allowance(self._per_minute, max(0, left), ahead)
