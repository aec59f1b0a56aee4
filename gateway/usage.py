"""What callers used: requests and tokens, a day and key, in Redis for 32 days.

Counted in memory and written every few seconds, so that no request waits for it; while Redis is
away the counts wait (they are few numbers for each key). Not here: metrics (metrics.py).
"""

from __future__ import annotations

import asyncio
import datetime
import logging
from collections import Counter
from collections.abc import Callable
from typing import Any

from redis.exceptions import RedisError

from gateway.errors import SessionStoreUnavailable

WRITE_SECONDS = 2.0
REDIS_SECONDS = 1.0
KEPT_DAYS = 32
FIELDS = ("requests", "prompt_tokens", "completion_tokens")

log = logging.getLogger("gateway.usage")


class Usage:
    """`now` gives the time of day in UTC."""

    def __init__(self, redis: Any, now: Callable[[], datetime.datetime]) -> None:
        self._redis = redis
        self._now = now
        self._unwritten: dict[tuple[str, datetime.date], Counter[str]] = {}

    def count(self, caller_id: str, prompt_tokens: int, completion_tokens: int) -> None:
        """Count one answered request."""
        place = (caller_id, self._now().date())
        counts = self._unwritten.get(place)
        if counts is None:
            counts = self._unwritten[place] = Counter()
        for field, value in zip(FIELDS, (1, prompt_tokens, completion_tokens), strict=True):
            counts[field] += value

    async def run(self) -> None:
        """Write what was counted, until cancelled; then once more."""
        try:
            while True:
                await asyncio.sleep(WRITE_SECONDS)
                await self.write()
        finally:
            await self.write()

    async def write(self) -> None:
        counted, self._unwritten = self._unwritten, {}
        if not counted:
            return
        try:
            async with asyncio.timeout(REDIS_SECONDS):
                pipeline = self._redis.pipeline(transaction=True)
                for (caller_id, day), counts in counted.items():
                    key = _key(caller_id, day.isoformat())
                    for field, value in counts.items():
                        pipeline.hincrby(key, field, value)
                    pipeline.expire(key, KEPT_DAYS * 86_400)
                await pipeline.execute()
        except BaseException as error:
            for place, counts in counted.items():
                self._unwritten.setdefault(place, Counter()).update(counts)
            if not isinstance(error, (RedisError, OSError, TimeoutError)):
                raise  # a cancelled write is not a lost one

    async def read(self, caller_id: str, days: int) -> list[dict[str, Any]]:
        """The last days, newest first: `{date, requests, prompt_tokens, completion_tokens}`.

        Raises SessionStoreUnavailable while Redis is away.
        """
        today = self._now().date()
        dates = [(today - datetime.timedelta(days=n)).isoformat() for n in range(days)]
        try:
            async with asyncio.timeout(REDIS_SECONDS):
                await self.write()
                pipeline = self._redis.pipeline(transaction=False)
                for date in dates:
                    pipeline.hmget(_key(caller_id, date), *FIELDS)
                rows = await pipeline.execute()
        except (RedisError, OSError, TimeoutError) as error:
            raise SessionStoreUnavailable(
                "Usage cannot be read at the moment. Try again in a few seconds."
            ) from error
        return [
            {"date": date, **{f: int(v or 0) for f, v in zip(FIELDS, row, strict=True)}}
            for date, row in zip(dates, rows, strict=True)
        ]


def _key(caller_id: str, day: str) -> str:
    return f"tandem:usage:{caller_id}:{day}"
