"""Stop strings across engines: finds them in the text of one answer, holds back what may be one.

Owns: the same rules as vLLM (earliest end wins, then the order of the list), but over a text that
came from several engines. Not here: stop tokens, which an engine sees by itself.
"""

from __future__ import annotations


class StopStrings:
    """Feed text, get the text that may go to the client. `tail` is all it remembers.

    Without `include`, the tail is held back from the client: it may begin a stop string.
    With `include`, the client has it already, and it only serves to find a stop string.
    """

    def __init__(self, stops: list[str], *, include: bool, tail: str = "") -> None:
        self._stops = stops
        self._include = include
        self._keep = max(len(stop) for stop in stops) - 1
        self.tail = tail
        #: the stop string that ended the text
        self.matched: str | None = None

    def feed(self, text: str) -> str:
        if self.matched is not None or not text:
            return ""
        known = len(self.tail)
        whole = self.tail + text
        start, end = self._find(whole)
        if end:
            self.tail = ""
            return whole[known:end] if self._include else whole[:start]
        split = max(0, len(whole) - self._keep)
        self.tail = whole[split:]
        return text if self._include else whole[:split]

    def flush(self) -> str:
        """The answer ended without a stop string: what was held back is plain text."""
        tail, self.tail = self.tail, ""
        return "" if self._include else tail

    def _find(self, whole: str) -> tuple[int, int]:
        """(start, end) of the stop string that is complete first; (0, 0) without one.

        A stop string can only end in the new part: the old part was searched before.
        """
        best = (0, 0)
        for stop in self._stops:
            start = whole.find(stop)
            end = start + len(stop)
            if start >= 0 and (best[1] == 0 or end < best[1]):
                best, self.matched = (start, end), stop
        return best
