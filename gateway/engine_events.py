"""Cuts the bytes of an engine's stream into events, and reads what one says.

Owns: events over any split of the bytes, comments, CRLF and a BOM; which JSON means a failure.
Not here: what becomes of an event (exact_answer.py, replay.py).
"""

from __future__ import annotations

from typing import Any

import orjson

#: The reasons with which a model ends by itself. "abort", "error" and others are failures.
FINISHED = frozenset(("stop", "length", "tool_calls", "function_call"))
#: An answer that was run again came out differently: nobody's failure, but no answer either.
MISMATCH = "mismatch"
EVENT_LIMIT = 8 * 1024 * 1024
BOM = b"\xef\xbb\xbf"


class BadStream(Exception):
    """What came is not an answer. `reason` is a short label for the metrics."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class EventBuffer:
    """Keeps the unfinished end of what was read, so that only whole events are looked at."""

    __slots__ = ("_rest", "_start")

    def __init__(self) -> None:
        self._rest = b""
        self._start = True

    @property
    def pending(self) -> bool:
        """An event has begun and is not whole, or nothing was read yet."""
        return self._start or bool(self._rest)

    def feed(self, data: bytes) -> tuple[bytes, int]:
        """(bytes, end): bytes[:end] are whole events, each ending with an empty line."""
        if self._rest:
            data = self._rest + data
        if self._start and len(data) >= len(BOM):
            self._start = False
            data = data.removeprefix(BOM)
        if b"\r" in data:
            data = _unix(data)
        end = data.rfind(b"\n\n") + 2
        if end == 1:
            end = 0
        self._rest = data[end:]
        if len(self._rest) > EVENT_LIMIT:
            raise BadStream("garbage")
        return data, end


def _unix(data: bytes) -> bytes:
    """JSON has no bare CR, so every CR here belongs to a line end; the last may lack its LF."""
    tail = b"\r" if data.endswith(b"\r") else b""
    body = data[: len(data) - len(tail)]
    return body.replace(b"\r\n", b"\n").replace(b"\r", b"\n") + tail


def payload(event: bytes) -> bytes | None:
    """The data of an event; None for comments and other fields."""
    if event.startswith(b"data: ") and b"\n" not in event:
        return event[6:]
    lines = [line[5:].removeprefix(b" ") for line in event.split(b"\n") if line[:5] == b"data:"]
    return b"\n".join(lines) if lines else None


def chunk_of(data: bytes) -> dict[str, Any]:
    """The JSON object of an event. BadStream when it is none, or tells of a failure."""
    try:
        chunk = orjson.loads(data)
    except orjson.JSONDecodeError:
        raise BadStream("garbage") from None
    if not isinstance(chunk, dict):
        raise BadStream("garbage")
    if "error" in chunk:
        raise BadStream("error_event")
    if not isinstance(chunk.get("choices"), list):
        raise BadStream("garbage")
    for choice in chunk["choices"]:
        if not isinstance(choice, dict):
            raise BadStream("garbage")
        if choice.get("finish_reason") not in FINISHED and choice.get("finish_reason") is not None:
            raise BadStream("aborted")
    return chunk


def event(chunk: dict[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(chunk) + b"\n\n"
