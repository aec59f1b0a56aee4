"""What a caller hands to the relay and what it can read back: Call, Progress, Answer.

Owns: the state of one answer that outlives an engine, and (as JSON) a gateway.
Not here: who produces it (relay.py), how it is continued (continuation.py).
"""

from __future__ import annotations

import base64
import json
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self

from gateway.errors import TandemError

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"

#: Four bytes a token; `I` is four bytes wide on every platform that Python 3.11 supports.
IDS = "I"


def _no_ids() -> array[int]:
    return array(IDS)


@dataclass(slots=True)
class Answer:
    """How an answer is going and, in the end, how it went. Readable at any time."""

    engine: str = ""
    failovers: int = 0
    #: stop, length, tool_calls or function_call once the model has finished; else None
    finish_reason: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    #: seconds from the call to its first token
    ttft: float | None = None
    #: running, ok, client_error, overloaded, upstream_error, stream_aborted or client_cancelled
    outcome: str = "running"
    #: what the client was told, when it was told of a failure
    error: TandemError | None = None

    @property
    def usage(self) -> dict[str, int]:
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
        }


@dataclass(slots=True)
class Progress:
    """Exactly what the client has of a streamed answer, so that another engine can go on.

    Between two items of Relay.stream() it describes all items given so far. No text is kept
    but `held`: the text of `ids` that may be the beginning of a stop string.
    """

    seed: int = 0
    id: str = ""
    created: int = 0
    model: str = ""
    role_sent: bool = False
    prompt_ids: array[int] = field(default_factory=_no_ids)
    ids: array[int] = field(default_factory=_no_ids)
    #: The text of ids[:n] is complete for an n in whole_low..whole_high: a letter can take
    #: several tokens, and an event with several tokens does not say where its text ends.
    whole_low: int = 0
    whole_high: int = 0
    held: str = ""
    #: the client has been told the end, only usage and [DONE] may be missing
    finish_reason: str | None = None

    @property
    def begun(self) -> bool:
        """True when an engine has answered, so that a continuation is possible."""
        return len(self.prompt_ids) > 0

    def to_json(self) -> str:
        fields = {name: getattr(self, name) for name in _PLAIN}
        ids = {name: _packed(getattr(self, name)) for name in _ARRAYS}
        return json.dumps(fields | ids, ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        stored: dict[str, Any] = json.loads(text)
        arrays: dict[str, Any] = {name: _unpacked(stored[name]) for name in _ARRAYS}
        fields: dict[str, Any] = {name: stored[name] for name in _PLAIN}
        return cls(**fields, **arrays)


_PLAIN = (
    "seed",
    "id",
    "created",
    "model",
    "role_sent",
    "whole_low",
    "whole_high",
    "held",
    "finish_reason",
)
_ARRAYS = ("prompt_ids", "ids")


def _packed(ids: array[int]) -> str:
    return base64.b64encode(ids.tobytes()).decode()


def _unpacked(text: str) -> array[int]:
    ids = _no_ids()
    ids.frombytes(base64.b64decode(text))
    return ids


@dataclass(slots=True)
class Call:
    """One request for an answer. `body` is the client's own, checked, and is not changed."""

    path: str
    body: dict[str, Any]
    request_id: str
    #: see engines.affinity_key
    affinity: str | None = None
    #: given by the caller: take an answer over from here. Else the relay sets it once begun.
    progress: Progress | None = None
    #: told the name of each engine that takes the answer, the first one included
    on_engine: Callable[[str], None] | None = None
    outcome: Answer = field(default_factory=Answer)
