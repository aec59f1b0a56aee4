"""What one event of the relay means to a turn: text, token ids, the end, or a failure.

Pure. The events are chat-completion chunks with `return_token_ids`; nothing is known here of
engines, Redis or the caller.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from gateway.errors import EngineFailed
from gateway.sse import EventParser

DONE_MARK = b"[DONE]"


@dataclass
class Piece:
    text: str = ""
    ids: list[int] = field(default_factory=list)
    prompt_ids: list[int] | None = None
    finish: str | None = None
    usage: dict[str, Any] | None = None
    error: dict[str, Any] | None = None


class PieceReader:
    def __init__(self) -> None:
        self._parser = EventParser()

    def feed(self, item: bytes) -> Iterator[Piece]:
        for event in self._parser.feed(item):
            if event.data and event.data.strip() != DONE_MARK:
                yield _piece(json.loads(event.data))


def _piece(chunk: dict[str, Any]) -> Piece:
    if chunk.get("error") is not None:
        return Piece(error=chunk["error"])
    piece = Piece(usage=chunk.get("usage"), prompt_ids=chunk.get("prompt_token_ids"))
    for choice in chunk.get("choices") or ():
        piece.text += (choice.get("delta") or {}).get("content") or ""
        piece.ids.extend(choice.get("token_ids") or ())
        piece.finish = choice.get("finish_reason") or piece.finish
        piece.prompt_ids = piece.prompt_ids or choice.get("prompt_token_ids")
    return piece


def told(error: dict[str, Any]) -> EngineFailed:
    """The relay's error event has our own shape already."""
    failure = EngineFailed(str(error.get("message") or "The answer broke off."))
    failure.type = str(error.get("type") or failure.type)
    failure.code = error.get("code") or failure.code
    return failure
