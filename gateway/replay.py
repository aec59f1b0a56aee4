"""One streamed answer that cannot be continued, only run again: several choices, tools, a schema.

Owns: remembering what the client has, swallowing it when it comes again, saying when it differs.
Not here: answers that are continued token for token (exact_answer.py), which engine (relay.py).
"""

from __future__ import annotations

from typing import Any

from gateway.answer import Answer, Progress
from gateway.continuation import Ask, Wish, first_request
from gateway.engine_events import MISMATCH, BadStream, EventBuffer, chunk_of, event, payload
from gateway.sse import DONE

#: How much of an answer is remembered, in characters and list items. Beyond it cannot move.
MEMORY = 1024 * 1024

_IDENTITY = ("id", "created", "model", "object")


class Track:
    """One strand of an answer (the text of a choice, the arguments of a tool call)."""

    __slots__ = ("at", "sent")

    def __init__(self, empty: Any) -> None:
        self.sent = empty
        self.at = 0

    def take(self, new: Any) -> Any:
        """What of `new` the client does not have yet."""
        known = len(self.sent) - self.at
        if known > 0:
            if new[:known] != self.sent[self.at : self.at + len(new)]:
                raise BadStream(MISMATCH)
            self.at += min(known, len(new))
            new = new[known:]
        self.sent += new
        self.at += len(new)
        return new

    @property
    def behind(self) -> bool:
        return self.at < len(self.sent)


class ReplayedAnswer:
    """The same face as ExactAnswer: request(), feed(), take(), ending()."""

    how = "replayed"

    def __init__(self, wanted: Wish, progress: Progress, answer: Answer) -> None:
        self._wish = wanted
        self.progress = progress
        self._answer = answer
        self.finished = False
        self.cut_short = False
        self._tracks: dict[tuple[Any, ...], Track] = {}
        self._identity: dict[str, Any] = {}
        self._said: set[tuple[Any, ...]] = set()
        self._done: set[int] = set()
        self._expected = _choices(wanted)
        self._usage: dict[str, Any] | None = None
        self._fingerprint: str | None = None
        self._out: list[bytes] = []
        self._buffer = EventBuffer()
        self._remembered = 0

    @property
    def can_continue(self) -> bool:
        return self._remembered <= MEMORY

    async def request(self, ask: Ask) -> tuple[str, dict[str, Any]] | None:
        self._buffer = EventBuffer()
        for track in self._tracks.values():
            track.at = 0
        return self._wish.path, first_request(self._wish, self.progress.seed)

    def feed(self, data: bytes) -> bytes:
        self._remembered += len(data)
        data, end = self._buffer.feed(data)
        for raw in data[:end].split(b"\n\n"):
            content = payload(raw)
            if content == b"[DONE]":
                if not self.finished:
                    raise BadStream("done_without_finish")
            elif content is not None:
                self._chunk(chunk_of(content))
        return self.take()

    def take(self) -> bytes:
        out, self._out = self._out, []
        return b"".join(out)

    def keep(self, out: bytes) -> None:
        """For the next take()."""
        self._out.append(out)

    def conclude(self) -> None:
        """Never: a replay always has something to ask."""

    def ending(self) -> bytes:
        if not self._wish.usage:
            return DONE
        chunk = self._identity | {"choices": [], "usage": self._usage or self._answer.usage}
        if self._fingerprint:
            chunk["system_fingerprint"] = self._fingerprint
        return event(chunk) + DONE

    # One chunk -----------------------------------------------------------------------------

    def _chunk(self, chunk: dict[str, Any]) -> None:
        if not self._identity:
            self._identity = {name: chunk.get(name) for name in _IDENTITY}
        chunk |= self._identity
        choices = chunk["choices"]
        if not choices:
            self._count(chunk)
            return
        chunk["choices"] = [new for choice in choices if (new := self._new(choice)) is not None]
        if "prompt_token_ids" in chunk and not self._once("prompt_token_ids"):
            del chunk["prompt_token_ids"]
        if chunk["choices"]:
            self._out.append(event(chunk))
        self.finished = len(self._done) >= self._expected

    def _count(self, chunk: dict[str, Any]) -> None:
        self._usage = usage = chunk.get("usage") or {}
        self._fingerprint = chunk.get("system_fingerprint")
        self._answer.prompt_tokens = usage.get("prompt_tokens", 0)
        self._answer.completion_tokens = usage.get("completion_tokens", 0)

    def _new(self, choice: dict[str, Any]) -> dict[str, Any] | None:
        """The choice without what the client has; None when nothing is left."""
        index = choice.get("index", 0)
        if index in self._done:
            return None
        news = [self._strand(index, choice, name) for name in ("text", "token_ids")]
        news.append(self._logprobs(index, choice))
        if isinstance(choice.get("delta"), dict):
            news.append(self._delta(index, choice["delta"]))
        finish = choice.get("finish_reason")
        if finish is not None:
            self._end(index, finish)
        return choice if any(news) or finish is not None else None

    def _end(self, index: int, finish: str) -> None:
        if any(track.behind for key, track in self._tracks.items() if key[0] == index):
            raise BadStream(MISMATCH)
        self._done.add(index)
        self._answer.finish_reason = finish

    def _delta(self, index: int, delta: dict[str, Any]) -> bool:
        news = False
        if "role" in delta:
            news = self._once(index, "role")
            if not news:
                del delta["role"]
        for name, value in list(delta.items()):
            if name != "role" and isinstance(value, str):
                news |= self._strand(index, delta, name)
        calls = delta.get("tool_calls")
        if calls:
            delta["tool_calls"] = [call for call in calls if self._tool_call(index, call)]
            news |= bool(delta["tool_calls"])
            if not delta["tool_calls"]:
                del delta["tool_calls"]
        return news

    def _tool_call(self, index: int, call: dict[str, Any]) -> bool:
        """Ids of tool calls are made up anew by each run: the client keeps the first one."""
        key = ("tool", call.get("index", 0))
        function = call.get("function") or {}
        news = False
        if function.get("name"):
            self._track((index, *key, "name"), "").take(function["name"])
            news = self._once(index, *key)
            if not news:
                function.pop("name")
                call.pop("id", None)
                call.pop("type", None)
        if function.get("arguments"):
            function["arguments"] = self._track((index, *key), "").take(function["arguments"])
            news |= bool(function["arguments"])
        return news

    def _logprobs(self, index: int, choice: dict[str, Any]) -> bool:
        """Compared by their tokens: the numbers differ a little from run to run."""
        logprobs = choice.get("logprobs")
        if not isinstance(logprobs, dict):
            return False
        rows = logprobs.get("content")
        tokens = [row.get("token") for row in rows] if rows else logprobs.get("tokens") or []
        left = len(self._track((index, "logprobs"), []).take(tokens))
        for name, values in logprobs.items():
            if isinstance(values, list):
                logprobs[name] = values[len(values) - left :]
        return left > 0

    def _strand(self, index: int, holder: dict[str, Any], name: str) -> bool:
        value = holder.get(name)
        if not value:
            return False
        track = self._track((index, name), "" if isinstance(value, str) else [])
        holder[name] = track.take(value)
        return bool(holder[name])

    def _track(self, key: tuple[Any, ...], empty: Any) -> Track:
        if key not in self._tracks:
            self._tracks[key] = Track(empty)
        return self._tracks[key]

    def _once(self, *key: Any) -> bool:
        new = key not in self._said
        self._said.add(key)
        return new


def _choices(wanted: Wish) -> int:
    """How many choices have to finish."""
    prompt = wanted.body.get("prompt")
    several = isinstance(prompt, list) and prompt and not isinstance(prompt[0], int)
    return (wanted.body.get("n") or 1) * (len(prompt) if several and prompt else 1)
