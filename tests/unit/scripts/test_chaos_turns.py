"""scripts/chaos/turns.py: a caller whose connection breaks comes back and counts what it has."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest

from scripts.chaos import turns
from scripts.chaos.load import Service
from scripts.chaos.turns import TurnAnswer, TurnLoad

TOKENS = 3
Serve = Callable[[httpx.Request], httpx.Response]


def event(number: int, name: str, **data: Any) -> bytes:
    return f"id: {number}\nevent: {name}\ndata: {json.dumps(data)}\n\n".encode()


def done(number: int, tokens: int = TOKENS) -> bytes:
    usage = {"completion_tokens": tokens}
    return event(number, "done", finish_reason="length", usage=usage, failovers=1)


HEAD = event(1, "turn", turn_id="t", session_id="s")
FIRST, SECOND = event(5, "delta", text="one "), event(8, "delta", text="two")


class Broken(httpx.AsyncByteStream):
    def __init__(self, *items: bytes) -> None:
        self._items = items

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for item in self._items:
            yield item
        raise httpx.ReadError("the gateway is gone")


async def asked(monkeypatch: pytest.MonkeyPatch, serve: Serve) -> TurnAnswer:
    """One answer of a service that answers like this."""
    client = httpx.AsyncClient(transport=httpx.MockTransport(serve), base_url="http://service")
    monkeypatch.setattr(Service, "client", lambda self: client)
    monkeypatch.setattr(turns, "COMES_BACK_SECONDS", 0.0)
    load = TurnLoad(Service("http://service", "key", "", "model"), 1, TOKENS)
    answer = load.answer(1)
    assert isinstance(answer, TurnAnswer)
    await load.ask(load.question(1), answer)
    return answer


def verdict(answer: TurnAnswer) -> tuple[bool, bool, bool]:
    return answer.failed, answer.truncated, answer.surplus > 0


async def test_a_broken_turn_is_taken_up_after_the_last_event(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[str | None] = []

    def serve(request: httpx.Request) -> httpx.Response:
        if request.method == "POST":
            return httpx.Response(200, stream=Broken(HEAD, FIRST))
        seen.append(request.headers["last-event-id"])
        return httpx.Response(200, content=SECOND + done(9))

    answer = await asked(monkeypatch, serve)
    assert seen == ["5"]
    assert (answer.text, answer.failovers, verdict(answer)) == ("one two", 1, (False, False, False))


async def test_a_turn_that_nobody_knows_is_asked_for_again_by_its_own_id(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ids: list[str] = []

    def serve(request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            return httpx.Response(404, content=b"{}")
        ids.append(json.loads(request.content)["turn_id"])
        if len(ids) == 1:
            raise httpx.ConnectError("nobody is there")
        return httpx.Response(200, content=HEAD + FIRST + SECOND + done(9))

    answer = await asked(monkeypatch, serve)
    assert len(ids) == 2 and ids[0] == ids[1]
    assert verdict(answer) == (False, False, False)


@pytest.mark.parametrize(
    ("rest", "expected"),
    [
        (FIRST + SECOND + done(9), (False, False, True)),
        (event(9, "delta", text="two") + done(10), (False, True, False)),
        (SECOND + done(9, tokens=2), (False, True, False)),
        (event(6, "error", error={"message": "no engine"}), (True, False, False)),
    ],
    ids=["characters twice", "a character is missing", "too few tokens", "an error"],
)
async def test_what_is_wrong_is_counted(
    monkeypatch: pytest.MonkeyPatch, rest: bytes, expected: tuple[bool, bool, bool]
) -> None:
    def serve(request: httpx.Request) -> httpx.Response:
        if request.method == "POST":
            return httpx.Response(200, stream=Broken(HEAD, FIRST))
        return httpx.Response(200, content=rest)

    assert verdict(await asked(monkeypatch, serve)) == expected


async def test_a_turn_that_never_ends_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = await asked(monkeypatch, lambda request: httpx.Response(503, content=b"away"))
    assert answer.error is not None and "503" in answer.error
