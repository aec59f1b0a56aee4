"""Where a conversation lives: affinity keys, and the map from key to engine.

Owns: finding the key of a request, the bounded memory of homes, the load bound.
Not here: engine states and the choice itself (engines.py).
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Mapping
from typing import Any

import orjson

HOMES_LIMIT = 50_000
HOME_TTL_SECONDS = 3600.0
LOAD_FACTOR = 1.25
LIGHT_LOAD = 8
#: Newly settled conversations looked at to judge whether an engine has more of them than its share.
RECENT = 64
#: What an engine may have over its share of them before a new one goes elsewhere.
SHARE_FACTOR = 1.125


def load_bound(total: int, engines: int) -> int:
    """The most in-flight requests at which an engine still takes its own conversations."""
    mean = (total + 1) / max(1, engines)
    return max(LIGHT_LOAD, math.ceil(LOAD_FACTOR * mean))


def rank(key: str, engine: str) -> int:
    """Rendezvous weight: every gateway prefers the same engine for the same key."""
    digest = hashlib.blake2b(f"{key}\0{engine}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big")


def most_homes(total: int, engines: int) -> int:
    """The most of `total` recent conversations that an engine may have: consistent hashing with
    bounded loads (Mirrokni, Thorup, Zadimoghaddam 2018), counted in conversations."""
    mean = total / max(1, engines)
    return max(math.ceil(mean), math.floor(mean * SHARE_FACTOR))


class Homes:
    """A bounded, expiring map from affinity key to engine name (least recently used goes first)."""

    def __init__(
        self,
        clock: Callable[[], float],
        *,
        limit: int = HOMES_LIMIT,
        ttl: float = HOME_TTL_SECONDS,
    ) -> None:
        self._clock = clock
        self._limit = limit
        self._ttl = ttl
        self._homes: OrderedDict[str, tuple[str, float]] = OrderedDict()
        self._new: deque[str] = deque()
        self._counts: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._homes)

    def find(self, key: str) -> str | None:
        """The home of a key, if it was used within the TTL; a use keeps it alive."""
        entry = self._homes.get(key)
        if entry is None:
            return None
        name, used_at = entry
        if self._clock() - used_at > self._ttl:
            del self._homes[key]
            return None
        self.settle(key, name)
        return name

    @property
    def recent(self) -> Counter[str]:
        """How many of the conversations that settled last did so on each engine."""
        return self._counts

    def settle(self, key: str, engine: str) -> None:
        """Make an engine the home of a key."""
        if self._homes.get(key, ("", 0.0))[0] != engine:
            self._note(engine)
        self._homes[key] = (engine, self._clock())
        self._homes.move_to_end(key)
        while len(self._homes) > self._limit:
            self._homes.popitem(last=False)

    def _note(self, engine: str) -> None:
        self._new.append(engine)
        self._counts[engine] += 1
        if len(self._new) > RECENT:
            self._counts[self._new.popleft()] -= 1


def affinity_key(headers: Mapping[str, str], body: Mapping[str, Any]) -> str | None:
    """The key of the conversation a request belongs to; None when it has no recognisable one.

    Named ids win over content. Ids are hashed: they come from callers and may be personal.
    """
    named = _named_id(headers, body)
    if named is not None:
        kind, value = named
        return _digest(f"{kind}\0{value}")
    messages = body.get("messages")
    if isinstance(messages, list) and messages:
        return _opening(messages)
    prompt = body.get("prompt")
    if isinstance(prompt, str) and prompt:
        return _digest("prompt\0" + prompt[:2048])
    return None


def _named_id(headers: Mapping[str, str], body: Mapping[str, Any]) -> tuple[str, str] | None:
    metadata = body.get("metadata")
    nested = metadata.get("session_id") if isinstance(metadata, Mapping) else None
    session = _header(headers, "x-session-id") or body.get("session_id") or nested
    for kind, value in (
        ("session", session),
        ("cache", body.get("prompt_cache_key")),
        ("user", body.get("user")),
    ):
        if isinstance(value, str) and value:
            return kind, value
    return None


def _header(headers: Mapping[str, str], name: str) -> str | None:
    value = headers.get(name)
    if value is not None:
        return value
    return next((found for key, found in headers.items() if key.lower() == name), None)


def _opening(messages: list[Any]) -> str:
    """Hash of the messages up to and including the first from the user.

    Later turns of the conversation begin with the same messages, so they share the key.
    """
    opening: list[Any] = []
    for message in messages:
        opening.append(message)
        if isinstance(message, Mapping) and message.get("role") == "user":
            break
    try:
        raw = orjson.dumps(opening, default=str, option=orjson.OPT_SORT_KEYS)
    except orjson.JSONEncodeError:  # nothing that came as JSON; any stable text will do
        raw = repr(opening).encode("utf-8", "backslashreplace")
    return _digest(b"messages\0" + raw)


def _digest(named: str | bytes) -> str:
    raw = named if isinstance(named, bytes) else named.encode("utf-8", "surrogatepass")
    return hashlib.blake2b(raw, digest_size=16).hexdigest()
