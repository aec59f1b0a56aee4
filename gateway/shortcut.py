"""The short way of ordinary events: from the engine's bytes to the client's in one step.

The long way wakes the answer's task at each read, which costs more than all that is done with the
event. The short way is taken only while that task waits for bytes, and only for as long as the
client takes them at once; everything else is left to the task. So the order stays, and a slow
client still slows its engine down.
Not here: what an ordinary event is (event_shape.py), who reads otherwise (relay.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from gateway.attempt import Attempt
from gateway.exact_answer import ExactAnswer


class Pen(Protocol):
    """Writes to the client."""

    @property
    def ready(self) -> bool:
        """What is written now does not overtake anything."""
        ...

    def write(self, data: bytes) -> None: ...


def shortcut(answer: ExactAnswer, attempt: Attempt, pen: Pen) -> Callable[[bytes], bytes]:
    """Made once an engine; returns what it leaves to the reader."""

    def take(data: bytes) -> bytes:
        if not pen.ready:
            return data
        out, rest = answer.ordinary(data)
        if out or len(rest) < len(data):
            attempt.spoke()
        if out:
            pen.write(out)
        return rest

    return take
