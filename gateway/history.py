"""What a conversation remembers, and how much of it the model is shown.

Owns the shape of a saved message and the trimming of a history that is too long for the
context: oldest turns first, system prompt kept. Counting is the engine's (`count`), Redis is
sessions.py's.
"""

import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from gateway.errors import ContextLengthExceeded

# A byte-level tokenizer never makes more tokens than there are bytes; the chat template adds a
# few around each message, and some models a system prompt of their own.
TEMPLATE_TOKENS_PER_MESSAGE: Final = 16
TEMPLATE_TOKENS: Final = 96
# No natural text has more bytes to a token than this: what is longer need not be counted to be
# known as too long.
BYTES_PER_TOKEN_AT_MOST: Final = 16
# When a history is cut, an eighth of the context is left free: the next turns then keep the same
# beginning, and with it the engine's prefix cache.
SLACK_DIVISOR: Final = 8
COUNTS_AT_MOST: Final = 12

ChatMessage = dict[str, str]
Count = Callable[[list[ChatMessage]], Awaitable["Counted"]]


@dataclass(frozen=True)
class Counted:
    tokens: int
    context_length: int


@dataclass(frozen=True)
class Message:
    """One saved message. `tokens`, on an answer: prompt and answer together, as the engine
    counted them; `trimmed`: how many of the oldest turns that prompt left out."""

    role: str
    content: str
    created_at: int
    turn_id: str
    finish_reason: str | None = None
    engine: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    trimmed: int = 0
    truncated: bool = False

    def to_json(self) -> str:
        fields = {key: value for key, value in asdict(self).items() if value not in (None, False)}
        return json.dumps(fields, ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def from_json(cls, raw: str) -> "Message":
        fields: dict[str, Any] = json.loads(raw)
        return cls(**{key: fields[key] for key in fields if key in cls.__dataclass_fields__})

    def public(self) -> dict[str, Any]:
        shown = ("role", "content", "created_at", "turn_id", "finish_reason", "engine", "truncated")
        fields = asdict(self)
        return {key: fields[key] for key in shown if fields[key] not in (None, False)}


@dataclass(frozen=True)
class Fitted:
    messages: list[ChatMessage]
    trimmed_turns: int
    max_tokens: int


@dataclass(frozen=True)
class Question:
    """What is to fit: the saved turns, the new prompt, and the room that its answer needs.
    `max_tokens_given`: the caller named it, so it is not ours to lower."""

    system: str
    history: Sequence[Message]
    prompt: str
    max_tokens: int
    max_tokens_given: bool

    @property
    def turns(self) -> int:
        return len(self.history) // 2

    def messages(self, dropped: int) -> list[ChatMessage]:
        lead = [{"role": "system", "content": self.system}] if self.system else []
        kept = [{"role": m.role, "content": m.content} for m in self.history[2 * dropped :]]
        return [*lead, *kept, {"role": "user", "content": self.prompt}]


async def fit(question: Question, context_length: int | None, count: Count) -> Fitted:
    """`context_length`: as last seen, None before the first count. Where bytes alone show that
    everything fits, the engine is not asked."""
    dropped = _dropped_before(question)
    if context_length is not None:
        if _bound(question, dropped) + question.max_tokens <= context_length:
            return Fitted(question.messages(dropped), dropped, question.max_tokens)
        dropped = _drop_hopeless(question, dropped, context_length)
    for _ in range(COUNTS_AT_MOST):
        counted = await count(question.messages(dropped))
        excess = counted.tokens + question.max_tokens - counted.context_length
        if excess <= 0:
            return Fitted(question.messages(dropped), dropped, question.max_tokens)
        if dropped == question.turns:
            return _alone(question, counted)
        dropped = _drop(question, dropped, counted, excess)
    return await _last_resort(question, count)


async def _last_resort(question: Question, count: Count) -> Fitted:
    counted = await count(question.messages(question.turns))
    if counted.tokens + question.max_tokens > counted.context_length:
        return _alone(question, counted)
    return Fitted(question.messages(question.turns), question.turns, question.max_tokens)


def _dropped_before(question: Question) -> int:
    """A cut once made is kept, so that the prompt begins as it did on the turn before."""
    last = question.history[-1].trimmed if question.history else 0
    return min(last, question.turns)


def _bound(question: Question, dropped: int) -> int:
    """Never less than the prompt's tokens. The last answer's own count, where there is one, is
    far closer than bytes are."""
    messages = question.messages(dropped)
    every = sum(len(m["content"].encode()) for m in messages)
    bound = every + TEMPLATE_TOKENS_PER_MESSAGE * len(messages) + TEMPLATE_TOKENS
    last = question.history[-1] if question.history else None
    if last is None or last.prompt_tokens is None or last.completion_tokens is None:
        return bound
    fresh = len(question.prompt.encode()) + len(question.system.encode())
    near = last.prompt_tokens + last.completion_tokens + fresh + TEMPLATE_TOKENS
    return min(bound, near)


def _size(question: Question, turn: int) -> int:
    return sum(len(m.content.encode()) for m in question.history[2 * turn : 2 * turn + 2])


def _drop_hopeless(question: Question, dropped: int, context_length: int) -> int:
    total = sum(_size(question, turn) for turn in range(dropped, question.turns))
    while dropped < question.turns and total > context_length * BYTES_PER_TOKEN_AT_MOST:
        total -= _size(question, dropped)
        dropped += 1
    return dropped


def _drop(question: Question, dropped: int, counted: Counted, excess: int) -> int:
    """At least one turn more, and as many as hold the excess by their share of the bytes."""
    messages = question.messages(dropped)
    total = max(1, sum(len(m["content"].encode()) for m in messages))
    slack = counted.context_length // SLACK_DIVISOR
    shed = (excess + slack) * total / max(1, counted.tokens)
    while dropped < question.turns and shed > 0:
        shed -= _size(question, dropped) + 1
        dropped += 1
    return dropped


def _alone(question: Question, counted: Counted) -> Fitted:
    """No history is left to cut: a default of ours may give way, a caller's own figure not."""
    room = counted.context_length - counted.tokens
    if room >= 1 and not question.max_tokens_given:
        return Fitted(question.messages(question.turns), question.turns, room)
    raise ContextLengthExceeded(
        f"This model's context is {counted.context_length} tokens long; the prompt (with the "
        f"system prompt) has {counted.tokens} tokens and max_tokens asks for "
        f"{question.max_tokens} more. Shorten the prompt or lower max_tokens.",
        param="prompt",
    )
