"""Answers bound to a JSON schema, and calls of a tool, through the death of a real engine.

They cannot be continued from token ids: they are run again, and what the client has is swallowed
while it is the same. Where it is not, one error event says so; nothing is cut off in silence.
"""

from __future__ import annotations

import asyncio
import json
import signal
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from scripts.chaos import processes
from tests.integration.tandem_instance import Tandem

STREAMS = 8
ITEMS = 150
# Characters: by then the client has some of the answer, and most of it is still to come.
BEGUN = 100
BEGUN_SECONDS = 60.0
END_SECONDS = 150.0
SCHEMA = {
    "type": "object",
    "properties": {
        "words": {
            "type": "array",
            "items": {"enum": ["alpha", "beta", "gamma", "delta"]},
            "minItems": ITEMS,
            "maxItems": ITEMS,
        }
    },
    "required": ["words"],
    "additionalProperties": False,
}
FORMAT = {"type": "json_schema", "json_schema": {"name": "words", "schema": SCHEMA}}
TOOL = {"name": "say", "description": "Say words.", "parameters": SCHEMA, "strict": True}
KINDS: dict[str, dict[str, Any]] = {
    "schema": {"response_format": FORMAT},
    "tool": {
        "tools": [{"type": "function", "function": TOOL}],
        "tool_choice": {"type": "function", "function": {"name": "say"}},
    },
}

pytestmark = pytest.mark.timeout(600)


@dataclass
class Seen:
    """What one client has of its answer: the JSON, how it ended, how often it moved."""

    kind: str
    text: str = ""
    finish: str | None = None
    errors: list[str] = field(default_factory=list)
    done: bool = False
    moved: int = 0
    begun: asyncio.Event = field(default_factory=asyncio.Event)

    def take(self, line: str) -> None:
        if line.startswith(": tandem failovers="):
            self.moved = int(line.rpartition("=")[2])
        if line == "data: [DONE]":
            self.done = True
        elif line.startswith("data: "):
            event = json.loads(line[6:])
            if "error" in event:
                self.errors.append(str(event["error"]["code"]))
            for choice in event.get("choices", ()):
                self._piece(choice)

    def _piece(self, choice: dict[str, Any]) -> None:
        assert not self.errors and not self.done, "a piece came after the end"
        self.finish = choice["finish_reason"] or self.finish
        if self.kind == "schema":
            self.text += choice["delta"].get("content") or ""
        for call in choice["delta"].get("tool_calls") or ():
            self.text += call["function"].get("arguments") or ""
        if len(self.text) > BEGUN:
            self.begun.set()

    @property
    def whole(self) -> bool:
        if self.errors or not self.done or self.finish not in ("stop", "tool_calls"):
            return False
        words = json.loads(self.text)["words"]
        return len(words) == ITEMS and not set(words) - {"alpha", "beta", "gamma", "delta"}

    @property
    def told(self) -> bool:
        """One honest error, and no sign of a good end."""
        return self.errors == ["answer_interrupted"] and self.finish is None


async def _read(client: httpx.AsyncClient, tandem: Tandem, number: int, seen: Seen) -> None:
    body = {
        "model": tandem.model,
        "messages": [{"role": "user", "content": f"Number {number}: many words"}],
        "max_tokens": 3000,
        "temperature": 0.8,
        "seed": number,
        "stream": True,
        **KINDS[seen.kind],
    }
    async with client.stream("POST", "/v1/chat/completions", json=body) as answer:
        assert answer.status_code == 200, (await answer.aread())[:500]
        async for line in answer.aiter_lines():
            seen.take(line)


@pytest.mark.parametrize("kind", list(KINDS))
async def test_a_worker_dies_under_them(tandem: Tandem, kind: str) -> None:
    """kill -9 of a worker under 8: each is whole, valid and has nothing twice, or ends with one
    error that says it was interrupted; 0 end in silence, and of the others all are whole."""
    all_seen = [Seen(kind) for _ in range(STREAMS)]
    async with tandem.service.client() as client, asyncio.timeout(END_SECONDS):
        tasks = [
            asyncio.create_task(_read(client, tandem, number, seen))
            for number, seen in enumerate(all_seen)
        ]
        async with asyncio.timeout(BEGUN_SECONDS):
            await asyncio.gather(*(one.begun.wait() for one in all_seen))
        engine = await asyncio.to_thread(tandem.busiest_engine)
        victims = await asyncio.to_thread(tandem.engine_pids, engine, processes.WORKER)
        running = sum(not task.done() for task in tasks)
        processes.send(victims[-1:], signal.SIGKILL)
        await asyncio.gather(*tasks)
    whole = [one for one in all_seen if one.whole]
    told = [one for one in all_seen if one.told]
    moved = [one for one in all_seen if one.moved]
    print(f"{kind}: {running} ran, {len(moved)} moved; {len(whole)} whole, {len(told)} told")
    assert len(whole) + len(told) == STREAMS
    assert all(one.whole for one in all_seen if not one.moved and not one.errors)
    assert len(moved) + len(told) > 0, "nothing ran on the engine that was killed"
