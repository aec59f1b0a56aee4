"""What a passed-on answer says of its tokens: the `usage` of Messages and Responses.

Both name it `input_tokens` and `output_tokens`; Messages leaves what came from a cache out of the
first and names it beside. A stream says it once or more, and what it says only grows.
Not here: completions, whose tokens are known one by one (relay.py); who used them (usage.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from gateway.sse import EventParser

# A document beyond this is passed on without being counted.
DOCUMENT_BYTES = 4 * 1024 * 1024
PROMPT = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
# Where it stands: in a document and at a Messages stream's end; at its beginning; in Responses'.
AROUND = (None, "message", "response")


class ToldUsage:
    """Feed it an answer's bytes as they pass; never raises, whatever an engine sends."""

    def __init__(self) -> None:
        self.prompt_tokens = 0
        self.completion_tokens = 0
        self._begun = False
        self._events: EventParser | None = None
        self._document: bytearray | None = None

    def feed(self, piece: bytes) -> None:
        """Only a document begins with a brace."""
        if piece and not self._begun:
            self._begun = True
            if piece.lstrip().startswith(b"{"):
                self._document = bytearray()
            else:
                self._events = EventParser()
        if self._events is not None:
            self._read_events(self._events, piece)
        elif self._document is not None:
            self._document += piece
            if len(self._document) > DOCUMENT_BYTES:
                self._document = None

    def end(self) -> None:
        """No more comes: a document can be read now, if it is whole."""
        if self._document is not None:
            self._take(bytes(self._document))
            self._document = None

    def _read_events(self, events: EventParser, piece: bytes) -> None:
        try:
            for event in events.feed(piece):
                if b'"usage"' in event.data:
                    self._take(event.data)
        except ValueError:
            self._events = None

    def _take(self, raw: bytes) -> None:
        try:
            told = orjson.loads(raw)
        except orjson.JSONDecodeError:
            return
        for name in AROUND:
            place = told if name is None else _within(told, name)
            usage = _within(place, "usage")
            prompt = sum(_count(usage, field) for field in PROMPT)
            self.prompt_tokens = max(self.prompt_tokens, prompt)
            self.completion_tokens = max(self.completion_tokens, _count(usage, "output_tokens"))


def _within(value: object, name: str) -> Any:
    return value.get(name) if isinstance(value, Mapping) else None


def _count(usage: object, field: str) -> int:
    value = _within(usage, field)
    return value if isinstance(value, int) and value > 0 else 0
