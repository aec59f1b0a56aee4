"""Who asks: API keys, known by their SHA-256 only.

The file has a line a key, `name sha256hex`; it is read again when it changes, so a key is added
or revoked without a restart. Keys are long and random, so a plain hash is enough.
Not here: how much a caller may (limits.py).
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from gateway.errors import AuthenticationFailed

LOOK_SECONDS = 2.0
_LINE = re.compile(r"([A-Za-z0-9_.@-]{1,64})\s+([0-9a-fA-F]{64})")

log = logging.getLogger("gateway.auth")


@dataclass(frozen=True, slots=True)
class Caller:
    """The name of the key, and the id that owns sessions: it outlives a change of the key."""

    name: str
    id: str


class KeyRing:
    """The keys of one file. `clock` gives monotonic seconds."""

    def __init__(self, path: Path, clock: Callable[[], float]) -> None:
        self._path = path
        self._clock = clock
        self._callers: dict[bytes, Caller] = {}
        self._seen: tuple[int, int] | None = None
        self._look_at = float("-inf")

    def check(self, headers: Iterable[tuple[bytes, bytes]]) -> Caller:
        """The caller that these header fields (lower-case names) prove, or AuthenticationFailed."""
        self._refresh()
        key = presented_key(headers)
        if key is None:
            raise AuthenticationFailed(code="missing_api_key")
        caller = self._callers.get(hashlib.sha256(key).digest())
        if caller is None:
            raise AuthenticationFailed(
                "The API key is not known here. Check it, or ask your operator for one."
            )
        return caller

    def _refresh(self) -> None:
        now = self._clock()
        if now < self._look_at:
            return
        self._look_at = now + LOOK_SECONDS
        try:
            stat = self._path.stat()
            seen = (stat.st_mtime_ns, stat.st_size)
            if seen != self._seen:
                self._callers = _parse(self._path.read_text())
                self._seen = seen
        except (OSError, UnicodeDecodeError):
            # A file that is being replaced, or a disk that is gone, locks nobody out.
            log.warning("the file of API keys cannot be read; the known keys stay valid")


def presented_key(headers: Iterable[tuple[bytes, bytes]]) -> bytes | None:
    """From `Authorization: Bearer` or `x-api-key`; None when there is neither."""
    for name, value in headers:
        if name == b"authorization":
            scheme, _, key = value.partition(b" ")
            if scheme.lower() == b"bearer" and key.strip():
                return key.strip()
        elif name == b"x-api-key" and value.strip():
            return value.strip()
    return None


def _parse(text: str) -> dict[bytes, Caller]:
    callers: dict[bytes, Caller] = {}
    for number, line in enumerate(text.splitlines(), 1):
        entry = line.partition("#")[0].strip()
        if not entry:
            continue
        match = _LINE.fullmatch(entry)
        if match is None:
            log.error("api_keys: a line is not «name sha256hex» and is left out: line %d", number)
            continue
        callers[bytes.fromhex(match[2])] = Caller(match[1], match[1])
    return callers
