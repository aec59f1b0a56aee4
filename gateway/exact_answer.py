"""One streamed answer that can be continued exactly: maps engines' bytes to the client's bytes.

Owns: Progress while it grows, one id and one role over all engines, stop strings, usage, the end.
Not here: whether it can be continued and with which request (continuation.py), which engine
(relay.py), recognising ordinary events quickly (event_shape.py).
"""

from __future__ import annotations

from typing import Any

from gateway.answer import CHAT, COMPLETIONS, Answer, Progress
from gateway.client_events import ClientEvents
from gateway.continuation import (
    Ask,
    Wish,
    cut_to_whole_text,
    first_request,
    next_request,
    tokens_left,
)
from gateway.engine_events import BadStream, EventBuffer, chunk_of, payload
from gateway.event_shape import EventShape, learn
from gateway.sse import DONE
from gateway.stop_strings import StopStrings

Request = tuple[str, dict[str, Any]]


class ExactAnswer:
    """feed() what engines send, forward what it returns. See `finished`."""

    how = "continued"

    def __init__(self, wanted: Wish, progress: Progress, answer: Answer) -> None:
        self._wish = wanted
        self.progress = progress
        self._answer = answer
        self._answer.prompt_tokens = len(progress.prompt_ids)
        self._answer.completion_tokens = len(progress.ids)
        self._client = ClientEvents(wanted, progress)
        #: the model has finished: nothing that happens to the engine now is a failure
        self.finished = progress.finish_reason is not None
        self._answer.finish_reason = progress.finish_reason
        #: the gateway ended it, the engine would go on: no need to hear it out
        self.cut_short = False
        self._usage: dict[str, Any] | None = None
        self._fingerprint: str | None = None
        self._moved = progress.begun
        self._exact = True
        #: how many ids the client has: never more than an engine that takes over is given. Who
        #: takes over a saved answer was not asked for ids (/v1/chat has none).
        self._shown = progress.whole_low
        self._stops: StopStrings | None = None
        if wanted.stops:
            self._stops = StopStrings(
                list(wanted.stops), include=wanted.include_stop, tail=progress.held
            )
        self._out: list[bytes] = []
        self._meet("")

    @property
    def can_continue(self) -> bool:
        return self._exact

    # Towards an engine ---------------------------------------------------------------------

    async def request(self, ask: Ask) -> Request | None:
        """What to send to the next engine; None: nothing is left to generate."""
        progress = self.progress
        if not progress.begun:
            self._meet(self._wish.path)
            return self._wish.path, first_request(self._wish, progress.seed)
        self._moved = True
        await cut_to_whole_text(progress, ask)
        self._meet(COMPLETIONS)
        left = await tokens_left(self._wish, progress, ask)
        if left <= 0:
            return None
        return COMPLETIONS, next_request(self._wish, progress, left)

    def _meet(self, path: str) -> None:
        """A new engine: its events have a new shape, and nothing of the old one's rest counts."""
        self._path = path
        self._buffer = EventBuffer()
        self._shape: EventShape | None = None

    # From an engine ------------------------------------------------------------------------

    def feed(self, data: bytes) -> bytes:
        """The client's events for these bytes. BadStream: the answer broke, after take()."""
        data, end = self._buffer.feed(data)
        start = 0
        shape, progress, out = self._shape, self.progress, self._out
        while start < end:
            stop = data.find(b"\n\n", start, end)
            if shape is None or not shape.take(data, start, stop, progress, out):
                self._event(data[start:stop])
                shape = self._shape
            start = stop + 2
        return self.take()

    def ordinary(self, data: bytes) -> tuple[bytes, bytes]:
        """(the client's events, what is left): takes the ordinary events that `data` begins with.

        Never fails: whatever is not ordinary is left to feed().
        """
        shape = self._shape
        if shape is None or self.finished or self._buffer.pending:
            return b"", data
        start, end = 0, len(data)
        progress, out = self.progress, self._out
        while start < end:
            stop = data.find(b"\n\n", start)
            if stop < 0 or not shape.take(data, start, stop, progress, out):
                break
            start = stop + 2
        return self.take(), data[start:]

    def take(self) -> bytes:
        """What is ready for the client, also when feed() raised half-way."""
        out, self._out = self._out, []
        self._answer.completion_tokens = len(self.progress.ids)
        return out[0] if len(out) == 1 else b"".join(out)

    def keep(self, out: bytes) -> None:
        """For the next take()."""
        self._out.append(out)

    def _event(self, raw: bytes) -> None:
        data = payload(raw)
        if data is None:
            return
        if data == b"[DONE]":
            self._done()
            return
        chunk = chunk_of(data)
        if self._path == CHAT and chunk.get("prompt_token_ids"):
            self._begin(chunk, chunk["prompt_token_ids"])
        if not chunk["choices"]:
            self._usage = chunk.get("usage") or self._usage
            self._fingerprint = chunk.get("system_fingerprint")
            return
        choice = chunk["choices"][0]
        if self._path == COMPLETIONS and choice.get("prompt_token_ids"):
            self._begin(chunk, choice["prompt_token_ids"])
        if not self.finished:
            self._choice(choice, raw)

    def _done(self) -> None:
        if not self.finished:
            raise BadStream("done_without_finish")

    def _begin(self, chunk: dict[str, Any], prompt_ids: list[int]) -> None:
        """The first words of the first engine: who this answer is."""
        progress = self.progress
        if progress.begun:
            return
        progress.id, progress.model = str(chunk.get("id")), str(chunk.get("model"))
        progress.created = int(chunk.get("created") or 0)
        progress.prompt_ids.extend(prompt_ids)
        self._answer.prompt_tokens = len(prompt_ids)

    def _choice(self, choice: dict[str, Any], raw: bytes) -> None:
        delta = choice.get("delta") or {}
        ids = choice.get("token_ids") or []
        finish = choice.get("finish_reason")
        if self._path == CHAT and not ids and finish is None and "role" in delta:
            self._out.append(self._client.role(delta["role"]))
            return
        if not self.progress.begun:
            raise BadStream("garbage")  # without the prompt's ids this engine cannot be left
        text = (delta.get("content") if self._path == CHAT else choice.get("text")) or ""
        others = {k: v for k, v in delta.items() if k not in ("content", "role") and v is not None}
        if others:
            self._exact = False
        self._grow(ids, text)
        self._pass_on(text, finish, choice.get("stop_reason"), others)
        if self._plain and not others and finish is None and self._shape is None:
            self._learn(raw)

    @property
    def _plain(self) -> bool:
        wanted = self._wish
        return not (wanted.stops or wanted.token_ids or wanted.continuous_usage)

    def _grow(self, ids: list[int], text: str) -> None:
        progress = self.progress
        before = len(progress.ids)
        progress.ids.extend(ids)
        if text:
            progress.whole_high = len(progress.ids)
            progress.whole_low = min(before + 1, progress.whole_high)

    def _learn(self, raw: bytes) -> None:
        self._shape = learn(
            raw,
            chat_in=self._path == CHAT,
            chat_out=self._wish.chat,
            out_head=self._client.head(),
        )

    # Towards the client --------------------------------------------------------------------

    def _pass_on(
        self,
        text: str,
        finish: str | None,
        stop_reason: Any,
        others: dict[str, Any],
    ) -> None:
        if self._stops is not None:
            text = self._stops.feed(text)
            if self._stops.matched is not None:
                # The engine does not know a stop string that began before it took over.
                self.cut_short = finish is None
                finish, stop_reason = "stop", self._stops.matched
            elif finish is not None:
                text += self._stops.flush()
            self.progress.held = self._stops.tail
        shown = self._shown_ids(hold=not text and finish is None, last=finish is not None)
        if text or others or shown or finish is not None:
            self._out.append(self._client.delta(text, shown, finish, stop_reason, others))
        if finish is not None:
            self._finish(finish)

    def _shown_ids(self, *, hold: bool, last: bool) -> list[int]:
        """Ids wait until no seam can drop them with half a letter: a sampled answer goes on
        with another one. Of an event with several tokens, all but the first come with the next.
        """
        if hold or not self._wish.token_ids:
            return []
        progress = self.progress
        before = self._shown
        self._shown = len(progress.ids) if last else progress.whole_low
        return progress.ids[before : self._shown].tolist()

    def _finish(self, reason: str) -> None:
        self.finished = True
        self._answer.finish_reason = self.progress.finish_reason = reason
        self._answer.completion_tokens = len(self.progress.ids)

    def conclude(self) -> None:
        """Nothing was left to generate when the last engine broke: the budget is used up."""
        if not self.finished:
            self._pass_on("", "length", None, {})

    def ending(self) -> bytes:
        """The last events: usage, if the client asked for it, and [DONE]."""
        if not self._wish.usage:
            return DONE
        return self._client.usage(self._total_usage(), self._fingerprint) + DONE

    def _total_usage(self) -> dict[str, Any]:
        return self._usage if self._usage and not self._moved else self._answer.usage
