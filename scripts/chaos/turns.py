"""Callers of /v1/chat: when their connection breaks, they take the turn up where they were.

So also a gateway may die under them. The number of an event says how many characters its reader has
(gateway/turn_events.py): characters that come twice count as doubled, those left out as truncated.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx

from scripts.chaos.load import Answer, Load, noted

# So often does a caller come back; a gateway's restart takes some seconds.
COMES_BACK = 60
COMES_BACK_SECONDS = 0.5
NOT_KNOWN = 404


@dataclass
class TurnAnswer(Answer):
    """What a caller holds of one turn, over as many connections as it needed."""

    turn_id: str = ""
    last_id: int = 0
    last_at: float = 0.0
    missing: int = 0
    repeated: int = 0
    fault: str = ""

    @property
    def truncated(self) -> bool:
        if self.failed:
            return False
        whole = self.finish_reason == "length" and self.completion_tokens == self.wanted_tokens
        return not whole or self.missing > 0

    @property
    def surplus(self) -> int:
        return self.repeated

    @property
    def miscounted(self) -> bool:
        return False

    def take(self, number: int, name: str, data: dict[str, Any]) -> None:
        """One event, as it arrives."""
        now = time.monotonic()
        if self.last_id:
            self.longest_gap = max(self.longest_gap, now - self.last_at)
        expected = self.last_id + (len(data["text"]) if name == "delta" else 1)
        self.repeated += max(0, expected - number)
        self.missing += max(0, number - expected)
        self.last_id, self.last_at = number, now
        if name == "delta":
            self.text += data["text"]
        elif name == "error":
            self.error = str(data["error"]["message"])
        elif name == "done":
            self.finished = True
            self.finish_reason = data["finish_reason"]
            self.completion_tokens = data["usage"]["completion_tokens"]
            self.failovers = data["failovers"]


class TurnLoad(Load):
    """Each question opens a conversation of its own."""

    def question(self, number: int) -> dict[str, Any]:
        return {
            "prompt": f"Question {number}: tell a long story. 讲个故事",
            "turn_id": f"turn_{secrets.token_hex(12)}",
            "max_tokens": self._tokens,
            "temperature": 0,
            "ignore_eos": True,
            "stream": True,
        }

    def answer(self, number: int) -> Answer:
        return TurnAnswer(number, self._tokens)

    async def ask(self, asked: dict[str, Any], answer: Answer) -> None:
        """Asks with an id of its own, so that asking again is never a second turn."""
        assert isinstance(answer, TurnAnswer)
        answer.turn_id = asked["turn_id"]
        with noted(answer):
            known = await self._begin(asked, answer)
            for _ in range(COMES_BACK):
                if answer.finished or answer.failed:
                    return
                await asyncio.sleep(COMES_BACK_SECONDS)
                known = await (self._resume(answer) if known else self._begin(asked, answer))
            answer.error = answer.fault or "the turn did not end"

    async def _begin(self, asked: dict[str, Any], answer: TurnAnswer) -> bool:
        return await self._read(
            answer, "POST", "/v1/chat", json=asked, headers={"x-tandem-resume": "on"}
        )

    async def _resume(self, answer: TurnAnswer) -> bool:
        last = {"last-event-id": str(answer.last_id)}
        return await self._read(answer, "GET", f"/v1/chat/{answer.turn_id}/events", headers=last)

    async def _read(self, answer: TurnAnswer, method: str, path: str, **how: Any) -> bool:
        """One connection, to its end or its break; false when the service knows no such turn."""
        try:
            async with self._client.stream(method, path, **how) as response:
                if response.status_code != 200:
                    body = (await response.aread()).decode(errors="replace")
                    answer.fault = f"HTTP {response.status_code}: {body[:200]}"
                    return response.status_code != NOT_KNOWN
                async for number, name, data in _events(response):
                    answer.take(number, name, data)
        except httpx.HTTPError as error:
            answer.fault = f"{type(error).__name__}: {error}"[:200]
        return True


async def _events(response: httpx.Response) -> AsyncIterator[tuple[int, str, dict[str, Any]]]:
    """Only at line feeds: httpx's own lines also end at characters that a token may hold."""
    number, name, rest = 0, "", b""
    async for piece in response.aiter_bytes():
        *whole, rest = (rest + piece).split(b"\n")
        for line in whole:
            field, _, value = line.rstrip(b"\r").decode().partition(": ")
            if field == "id":
                number = int(value)
            elif field == "event":
                name = value
            elif field == "data":
                yield number, name, json.loads(value)
