"""The fast way for ordinary events: takes token ids out of vLLM's bytes without reading JSON.

Owns: recognising an event that differs from the last one only in its text and its ids, exactly.
Not here: everything else, which goes the long way through exact_answer.py.

A JSON string has no bare quote inside. So when an event begins with a known head up to the
opening quote of the text, ends with a known tail from its closing quote, and has no `","` between
the two, then what lies between is the text and nothing but the text.
"""

from __future__ import annotations

from gateway.answer import Progress

IDS = b',"token_ids":['
END = b"]}]}"

CHAT_TEXT = b'"delta":{"content":"'
CHAT_TAIL = b'"},"logprobs":null,"finish_reason":null'
CHAT_END = b'"},"logprobs":null,"finish_reason":null}]}\n\n'
COMPLETION_TEXT = b'"text":"'
COMPLETION_TAIL = b'","logprobs":null,"finish_reason":null,"stop_reason":null'
COMPLETION_END = COMPLETION_TAIL + b"}]}\n\n"


class EventShape:
    """How the events of one engine for one answer look, and how the client's should."""

    __slots__ = ("_head", "_out_end", "_out_head", "_tail")

    def __init__(self, head: bytes, tail: bytes, out_head: bytes, out_end: bytes) -> None:
        self._head = head
        self._tail = tail
        self._out_head = out_head
        self._out_end = out_end

    def take(self, data: bytes, start: int, end: int, progress: Progress, out: list[bytes]) -> bool:
        """Handle the event data[start:end] (without its empty line); False: not of this shape."""
        at = data.rfind(IDS, start, end)
        head = self._head
        if at < 0 or not data.startswith(head, start) or not data.endswith(END, start, end):
            return False
        tail = self._tail
        text_start = start + len(head)
        text_end = at - len(tail)
        if not data.endswith(tail, text_start, at) or data.find(b'","', text_start, text_end) >= 0:
            return False
        numbers = data[at + len(IDS) : end - len(END)]
        ids = progress.ids
        before = len(ids)
        if numbers.isdigit():
            ids.append(int(numbers))
        elif numbers:
            ids.extend(map(int, numbers.split(b",")))
        if text_end > text_start:
            out += (self._out_head, data[text_start:text_end], self._out_end)
            progress.whole_high = after = len(ids)
            progress.whole_low = min(before + 1, after)
        return True


def learn(raw: bytes, *, chat_in: bool, chat_out: bool, out_head: bytes) -> EventShape | None:
    """The shape of an ordinary event that was read the long way; None: not ordinary."""
    marker = CHAT_TEXT if chat_in else COMPLETION_TEXT
    tail = CHAT_TAIL if chat_in else COMPLETION_TAIL
    text, ids = raw.find(marker), raw.rfind(IDS)
    if text < 0 or ids < 0 or not raw.endswith(END):
        return None
    if not chat_in and raw.endswith(b',"prompt_token_ids":null', 0, ids):
        tail += b',"prompt_token_ids":null'
    head = raw[: text + len(marker)]
    out_end = CHAT_END if chat_out else COMPLETION_END
    shape = EventShape(head, tail, out_head, out_end)
    return shape if shape.take(raw, 0, len(raw), Progress(), []) else None
