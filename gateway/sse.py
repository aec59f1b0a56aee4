"""Server-Sent Events: bytes to events and back. Pure; no I/O.

The parser follows the standard's own algorithm (WHATWG HTML, «event stream interpretation»): any
split of the bytes gives the same events. Not here: what is in the data (relay, turn_pieces).
"""

from __future__ import annotations

from dataclasses import dataclass

DONE = b"data: [DONE]\n\n"
# An event that grows beyond this is no event of an engine: stop rather than eat all memory.
EVENT_BYTES_AT_MOST = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Event:
    data: bytes
    event: str | None = None
    id: str | None = None


class EventParser:
    """Feed bytes as they come; get the events that are complete.

    Raises ValueError when a single event grows beyond EVENT_BYTES_AT_MOST.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._after_cr = False
        self._at_start = True
        self._data: list[bytes] = []
        self._size = 0
        self._event: str | None = None
        self._id: str | None = None

    def feed(self, chunk: bytes) -> list[Event]:
        events: list[Event] = []
        for line in self._lines(chunk):
            event = self._take(line)
            if event is not None:
                events.append(event)
        return events

    @property
    def pending(self) -> bool:
        """Something was begun that is not a complete event yet."""
        return bool(self._buffer or self._data)

    def _lines(self, chunk: bytes) -> list[bytes]:
        """Lines end with LF, CR or CRLF; a CRLF may come in two chunks."""
        if self._after_cr and chunk.startswith(b"\n"):
            chunk = chunk[1:]
            self._after_cr = False
        if chunk:
            self._after_cr = chunk.endswith(b"\r")
        self._buffer += chunk
        if len(self._buffer) + self._size > EVENT_BYTES_AT_MOST:
            raise ValueError("an event of this stream is too large")
        text = bytes(self._buffer).replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        whole, newline, rest = text.rpartition(b"\n")
        if not newline:
            return []
        self._buffer = bytearray(rest)
        return whole.split(b"\n")

    def _take(self, line: bytes) -> Event | None:
        if self._at_start:
            self._at_start = False
            line = line.removeprefix(b"\xef\xbb\xbf")
        if not line:
            return self._dispatch()
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data.append(value)
            self._size += len(value)
        elif name == b"event":
            self._event = value.decode(errors="replace")
        elif name == b"id" and b"\0" not in value:
            self._id = value.decode(errors="replace")
        return None

    def _dispatch(self) -> Event | None:
        data, kind = self._data, self._event
        self._data, self._event, self._size = [], None, 0
        if not data:
            return None
        return Event(b"\n".join(data), kind, self._id)


def encode(data: bytes | str, *, event: str | None = None, id: str | None = None) -> bytes:
    """One event. Line breaks within the data become lines of it, as the standard wants."""
    raw = data.encode() if isinstance(data, str) else data
    lines = raw.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    head = b""
    if id is not None:
        head += b"id: %s\n" % id.encode()
    if event is not None:
        head += b"event: %s\n" % event.encode()
    return head + b"".join(b"data: %s\n" % line for line in lines) + b"\n"
