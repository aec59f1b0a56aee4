"""An operator's wish to take an engine out, as kept in Redis for all gateways to see.

Owns: the keys tandem:drain:{engine}, their values and their expiry.
Not here: what a drained engine means (engine.py), the command for people (admin.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gateway.engine import Drain

FLAG_TTL_SECONDS = 86_400


def key(engine: str) -> str:
    return f"tandem:drain:{engine}"


def meaning(value: object) -> Drain | None:
    """What a stored value asks for; a value nobody knows gets the gentler treatment."""
    if value is None:
        return None
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    return "move" if text == "move" else "wait"


async def read(redis: Any, engines: Iterable[str]) -> dict[str, Drain | None]:
    names = list(engines)
    values = await redis.mget([key(name) for name in names])
    return {name: meaning(value) for name, value in zip(names, values, strict=True)}


async def write(redis: Any, engine: str, drain: Drain, ttl: int = FLAG_TTL_SECONDS) -> None:
    await redis.set(key(engine), drain, ex=ttl)


async def clear(redis: Any, engine: str) -> bool:
    """Take the flag away; false when there was none."""
    return bool(await redis.delete(key(engine)))
