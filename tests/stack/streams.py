"""Streams that run while a test breaks something, and what came of them."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from tests.stack.appliance import MODEL, Appliance

COMPLETIONS = "/v1/chat/completions"


@dataclass
class Answer:
    """What a client received on one stream."""

    text: str = ""
    finish_reason: str | None = None
    tokens: int | None = None
    done: bool = False
    error: str | None = None
    comments: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        return self.done and self.error is None and self.finish_reason in ("stop", "length")

    def take(self, line: str) -> None:
        if line.startswith(":"):
            self.comments.append(line)
        if not line.startswith("data: "):
            return
        if line == "data: [DONE]":
            self.done = True
            return
        event = json.loads(line[6:])
        if "error" in event:
            self.error = json.dumps(event["error"])
            return
        self.tokens = (event.get("usage") or {}).get("completion_tokens", self.tokens)
        for choice in event.get("choices", ()):
            self.text += choice["delta"].get("content") or ""
            self.finish_reason = choice.get("finish_reason") or self.finish_reason


def ask(
    appliance: Appliance, number: int, tokens: int, begun: Callable[[], object] | None = None
) -> Answer:
    """One streamed answer of exactly this many tokens; begun() is called at its first text."""
    answer = Answer()
    body = {
        "model": MODEL, "stream": True, "max_tokens": tokens, "temperature": 0,
        "ignore_eos": True, "stream_options": {"include_usage": True},
        "messages": [{"role": "user", "content": f"story number {number}"}],
    }  # fmt: skip
    with appliance.client.stream("POST", COMPLETIONS, json=body, timeout=180) as response:
        if response.status_code != 200:
            answer.error = response.read().decode()
            return answer
        for line in response.iter_lines():
            answer.take(line)
            if begun and answer.text:
                begun()
                begun = None
    return answer


class Streams:
    """Several streams at once; `break_under_them` runs when all have begun."""

    def __init__(self, appliance: Appliance, count: int, tokens: int) -> None:
        self._appliance = appliance
        self._count = count
        self._tokens = tokens

    def run(self, break_under_them: Callable[[], None]) -> list[Answer]:
        begun = threading.Semaphore(0)
        with ThreadPoolExecutor(self._count) as pool:
            futures: list[Future[Answer]] = [
                pool.submit(ask, self._appliance, number, self._tokens, begun.release)
                for number in range(self._count)
            ]
            for _ in futures:
                assert begun.acquire(timeout=120), "a stream did not begin"
            assert not any(future.done() for future in futures), "the streams were too short"
            break_under_them()
            return [future.result(timeout=240) for future in futures]
