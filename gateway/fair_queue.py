"""A bounded waiting line, fair between keys and between two priorities. Pure: no clock, no I/O.

Owns: who is next, and who has to go when the line is full.
Not here: waiting itself and places (admission.py).
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Generic, Literal, TypeVar

Priority = Literal["interactive", "batch"]
BATCH_SHARE = 8

T = TypeVar("T")


class RoundRobin(Generic[T]):
    """One line a key; the keys take turns."""

    def __init__(self) -> None:
        self._lines: OrderedDict[str, deque[T]] = OrderedDict()
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def waiting(self, key: str) -> int:
        return len(self._lines.get(key, ()))

    def add(self, key: str, item: T) -> None:
        self._lines.setdefault(key, deque()).append(item)
        self._length += 1

    def next(self) -> T:
        """Take the oldest of the key whose turn it is; that key then goes to the back."""
        key, line = next(iter(self._lines.items()))
        item = line.popleft()
        self._took(key, line)
        if line:
            self._lines.move_to_end(key)
        return item

    def remove(self, key: str, item: T) -> bool:
        line = self._lines.get(key)
        if line is None or item not in line:
            return False
        line.remove(item)
        self._took(key, line)
        return True

    def longest(self) -> str:
        return max(self._lines, key=lambda key: len(self._lines[key]))

    def drop_newest(self, key: str) -> T:
        line = self._lines[key]
        item = line.pop()
        self._took(key, line)
        return item

    def _took(self, key: str, line: deque[T]) -> None:
        self._length -= 1
        if not line:
            del self._lines[key]


class FairQueue(Generic[T]):
    """Interactive before batch, but every eighth place goes to batch if somebody waits there."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._interactive: RoundRobin[T] = RoundRobin()
        self._batch: RoundRobin[T] = RoundRobin()
        self._since_batch = 0

    def __len__(self) -> int:
        return len(self._interactive) + len(self._batch)

    @property
    def full(self) -> bool:
        return len(self) >= self._limit

    def add(self, key: str, priority: Priority, item: T) -> None:
        self._line(priority).add(key, item)

    def remove(self, key: str, priority: Priority, item: T) -> bool:
        return self._line(priority).remove(key, item)

    def next(self) -> T | None:
        if not len(self):
            return None
        batch = self._batch_turn()
        self._since_batch = 0 if batch or not len(self._batch) else self._since_batch + 1
        return (self._batch if batch else self._interactive).next()

    def make_room(self, key: str, priority: Priority) -> T | None:
        """In a full line, the one to send away for a newcomer; None: the newcomer goes.

        Batch gives way to interactive; then the key with the longest line gives up its newest.
        """
        if priority == "interactive" and len(self._batch):
            return self._batch.drop_newest(self._batch.longest())
        line = self._line(priority)
        if not len(line):
            return None
        longest = line.longest()
        if line.waiting(longest) <= line.waiting(key) + 1:
            return None
        return line.drop_newest(longest)

    def _line(self, priority: Priority) -> RoundRobin[T]:
        return self._batch if priority == "batch" else self._interactive

    def _batch_turn(self) -> bool:
        if not len(self._batch):
            return False
        return not len(self._interactive) or self._since_batch >= BATCH_SHARE - 1
