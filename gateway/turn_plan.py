"""What a turn is to answer and what it uses: Plan, Resumption, TurnParts.

Owns the shape of these, and of what a take-over finds in the log. Not here: running a turn
(turn_run.py).
"""

import json
from array import array
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from gateway.answer import IDS, Call, Progress
from gateway.context_counter import ContextCounter, Forwarder
from gateway.history import Message, Question
from gateway.sessions import SessionStore
from gateway.turns import Taken, TurnStore


class Relaying(Forwarder, Protocol):
    def stream(self, call: Call) -> AsyncIterator[bytes]: ...


class Admitting(Protocol):
    def enter(self, key_id: str) -> AbstractAsyncContextManager[Any]: ...


@dataclass(frozen=True)
class TurnParts:
    """What every turn of this gateway uses. `saved(outcome)` counts."""

    sessions: SessionStore
    turns: TurnStore
    relay: Relaying
    admission: Admitting
    counter: ContextCounter
    monotonic: Callable[[], float]
    saved: Callable[[str], None]


@dataclass
class Plan:
    """What is to be answered. Its JSON is what a take-over needs beside the log."""

    prompt: str
    #: None only in a request that is not begun: the session's own
    system: str | None
    body: dict[str, Any]
    request_id: str
    resumable: bool = False
    max_tokens: int = 0
    max_tokens_given: bool = False
    trimmed_turns: int = 0
    history: list[Message] = field(default_factory=list)

    def to_json(self) -> str:
        fields = {name: value for name, value in vars(self).items() if name != "history"}
        return json.dumps(fields, ensure_ascii=False, separators=(",", ":"))

    def question(self) -> Question:
        return Question(
            self.system or "", self.history, self.prompt, self.max_tokens, self.max_tokens_given
        )


@dataclass
class Resumption:
    """Where a turn that was taken over stands."""

    entries: int = 0
    text: str = ""
    progress: Progress | None = None
    finish: str | None = None
    opening: dict[str, Any] | None = None

    @property
    def usage(self) -> dict[str, Any] | None:
        """Of an answer that had all its tokens; the engine's own count died with its gateway."""
        if self.progress is None or self.finish is None:
            return None
        prompt, completion = len(self.progress.prompt_ids), len(self.progress.ids)
        counts = {"prompt_tokens": prompt, "completion_tokens": completion}
        return {**counts, "total_tokens": prompt + completion}


def without_ids(progress: Progress) -> Progress:
    return replace(progress, prompt_ids=progress.prompt_ids[:0], ids=progress.ids[:0])


def plan_of(taken: Taken) -> Plan:
    if taken.request is None:
        raise ValueError("the turn was lost before its request was logged")
    plan = Plan(**taken.request, history=taken.history)
    plan.system = taken.system if plan.system is None else plan.system
    return plan


def resumption_of(taken: Taken) -> Resumption:
    opening = next((e.data for e in taken.entries if e.event == "turn"), None)
    progress = None
    if taken.progress and taken.prompt_ids:
        progress = Progress.from_json(taken.progress)
        progress.prompt_ids = array(IDS, taken.prompt_ids)
        progress.ids = array(IDS, taken.ids)
    return Resumption(len(taken.entries), taken.text, progress, taken.finish, opening)
