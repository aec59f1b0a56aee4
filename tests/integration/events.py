"""Reading streams in the tests: chat completion events, and the events of a session turn."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx


@dataclass
class Event:
    id: int
    name: str
    data: dict[str, Any]


def turn_events(response: httpx.Response) -> Iterator[Event]:
    """The events of `/v1/chat` with `stream: true`, as they arrive."""
    number, name = 0, ""
    for line in response.iter_lines():
        field_name, _, value = line.partition(": ")
        if field_name == "id":
            number = int(value)
        elif field_name == "event":
            name = value
        elif field_name == "data":
            yield Event(number, name, json.loads(value))


@dataclass
class Turn:
    """What a client holds of one turn, over as many connections as it needed."""

    text: str = ""
    last_id: int = 0
    turn_id: str = ""
    session_id: str = ""
    end: Event | None = None
    ids: list[int] = field(default_factory=list)

    def take(self, event: Event) -> None:
        assert event.id > self.last_id, "an event came twice, or out of order"
        self.last_id = event.id
        self.ids.append(event.id)
        if event.name == "turn":
            self.turn_id, self.session_id = event.data["turn_id"], event.data["session_id"]
        elif event.name == "delta":
            self.text += event.data["text"]
        elif event.name in ("done", "error"):
            self.end = event


def chunks(response: httpx.Response) -> list[dict[str, Any]]:
    """The chunks of a complete chat completion stream; its last event must be [DONE]."""
    data = [line[6:] for line in response.iter_lines() if line.startswith("data: ")]
    assert data[-1] == "[DONE]", data[-1:]
    return [json.loads(one) for one in data[:-1]]


def text_of(pieces: list[dict[str, Any]]) -> str:
    return "".join(
        choice["delta"].get("content") or "" for piece in pieces for choice in piece["choices"]
    )


def error_of(response: httpx.Response) -> dict[str, Any]:
    """The error in a response, after a check that it has OpenAI's shape and tells no address."""
    error: dict[str, Any] = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}, error
    assert error["message"] and error["type"]
    for secret in ("127.0.0.1", "Traceback", "http://", ".py"):
        assert secret not in response.text
    assert response.headers["x-request-id"]
    return error
