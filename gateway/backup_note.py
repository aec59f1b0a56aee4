"""When the newest backup was made, as scripts/backup.sh notes it in Redis.

Owns: the key and its reading. Not here: what is made of its age (monitoring/prometheus/rules).
"""

from __future__ import annotations

from typing import Any

KEY = "tandem:backup:last"


async def read(redis: Any) -> float:
    """Seconds since the epoch; 0 when no backup was noted, or the note makes no sense."""
    noted = await redis.get(KEY)
    try:
        return float(noted or 0)
    except ValueError:
        return 0.0
