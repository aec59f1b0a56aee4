"""`/v1/chat` as a caller meets it: whole, streamed, left, taken up again, stopped, refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
from redis.asyncio import Redis

from gateway import turn_follow
from gateway.errors import NoEngine, Overloaded
from gateway.front import front
from gateway.parts import Parts
from gateway.routes import chat, sessions
from tests.fakes.conversations import TEXT, Gateway, until
from tests.fakes.raw_caller import RawCaller
from tests.unit.conftest import KEY

AUTH = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
RESUME = {"x-tandem-resume": "on"}
Call = Callable[..., RawCaller]


def caller_of(parts: Parts, gateway: Gateway) -> Call:
    parts = dataclasses.replace(
        parts, sessions=gateway.sessions, chat_turn=gateway.chat_turn, counter=gateway.parts.counter
    )
    app = front(parts, [*chat.routes(parts), *sessions.routes(parts)])

    def call(method: str, path: str, body: Any = None, **headers: str) -> RawCaller:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return RawCaller(app, method, path, body=body, headers={**AUTH, **named})

    return call


@pytest.fixture
def call(parts: Parts, gateway: Gateway) -> Call:
    return caller_of(parts, gateway)


@pytest.fixture
def call_other(parts: Parts, other: Gateway) -> Call:
    return caller_of(parts, other)


async def said(caller: RawCaller) -> Any:
    async with caller:
        await caller.finished()
        return caller.json


async def test_the_whole_answer_at_once(call: Call, gateway: Gateway) -> None:
    gateway.model.release()
    async with call("POST", "/v1/chat", {"prompt": "hello", "max_tokens": 9}) as one:
        await one.finished()
    assert (one.status, one.json["status"], one.json["response"]) == (200, "success", TEXT)
    assert one.json["finish_reason"] == "stop"
    assert one.json["trimmed_turns"] == 0
    assert one.json["usage"]["completion_tokens"] == len(TEXT)
    assert one.headers["x-tandem-engine"] == "vllm-a"
    session = one.json["session_id"]
    read = await said(call("GET", f"/v1/sessions/{session}"))
    assert [m["content"] for m in read["messages"]] == ["hello", TEXT]
    assert read["messages"][1]["turn_id"] == one.json["turn_id"]
    again = {"prompt": "hello", "turn_id": one.json["turn_id"], "session_id": session}
    assert (await said(call("POST", "/v1/chat", again)))["response"] == TEXT
    assert len(gateway.model.calls) == 1


async def test_a_stream_has_a_turn_deltas_and_an_end_with_growing_ids(
    call: Call, gateway: Gateway
) -> None:
    async with call("POST", "/v1/chat", {"prompt": "hello", "stream": True}) as one:
        await one.until(lambda c: "turn" in c.names)
        assert set(one.opening) == {"turn_id", "session_id", "trimmed_turns"}
        gateway.model.release(3)
        await one.until(lambda c: c.text == TEXT[:3])
        gateway.model.release()
        await one.finished()
    assert one.headers["content-type"].startswith("text/event-stream")
    assert (one.text, one.names[0], one.names[-1], one.ended) == (TEXT, "turn", "done", True)
    ids = [int(event.id or 0) for event in one.events]
    assert ids == sorted(set(ids))
    assert one.ending["saved"] is True


async def test_who_leaves_stops_the_engine_and_finds_what_was_read(
    call: Call, gateway: Gateway
) -> None:
    async with call("POST", "/v1/chat", {"prompt": "hello", "stream": True}) as one:
        gateway.model.release(5)
        await one.until(lambda c: c.text == TEXT[:5])
        one.leave()
        await one.finished()
    assert gateway.model.streams == 0
    read = await said(call("GET", f"/v1/sessions/{one.opening['session_id']}"))
    assert read["messages"][1]["content"] == TEXT[:5]
    assert read["messages"][1]["finish_reason"] == "cancelled"


async def test_who_leaves_before_anything_was_sent_leaves_nothing(
    call: Call, gateway: Gateway, store: Redis
) -> None:
    async with call("POST", "/v1/chat", {"prompt": "hello"}) as one:
        gateway.model.release(5)
        await until(lambda: gateway.model.streams == 1)
        one.leave()
        await one.finished()
    assert gateway.model.streams == 0
    assert await store.keys("tandem:session:*") == []


@pytest.mark.parametrize("where", ["here", "there"])
async def test_a_lost_stream_is_taken_up_again_without_a_gap(
    call: Call, call_other: Call, gateway: Gateway, where: str
) -> None:
    body = {"prompt": "hello", "stream": True}
    async with call("POST", "/v1/chat", body, **RESUME) as one:
        gateway.model.release(5)
        await one.until(lambda c: c.text == TEXT[:5])
        one.leave()
        await one.finished()
    assert gateway.model.streams == 1
    await until(lambda: all(not r.answer.readers for r in gateway.chat_turn._runs.values()))
    path = f"/v1/chat/{one.opening['turn_id']}/events"
    again = call if where == "here" else call_other
    async with again("GET", path, last_event_id=str(one.last_id)) as two:
        gateway.model.release()
        await two.finished()
    assert (one.text + two.text, two.names[-1]) == (TEXT, "done")
    async with again("GET", f"{path}?last_event_id={one.last_id}") as three:
        await three.finished()
    assert three.text == two.text


async def test_stop_ends_the_stream_of_the_reader(
    call: Call, call_other: Call, gateway: Gateway
) -> None:
    body = {"prompt": "hello", "stream": True}
    async with call("POST", "/v1/chat", body, **RESUME) as one:
        gateway.model.release(5)
        await one.until(lambda c: c.text == TEXT[:5])
        told = await said(call_other("POST", f"/v1/chat/{one.opening['turn_id']}/stop"))
        await one.finished()
    assert told["turn_id"] == one.opening["turn_id"]
    assert (told["status"], told["saved"]) == ("stopped", True)
    assert one.ending["finish_reason"] == "cancelled"
    assert gateway.model.streams == 0


@pytest.mark.parametrize("stream", [False, True])
async def test_refusals_before_the_answer_are_plain_errors(
    call: Call, gateway: Gateway, stream: bool
) -> None:
    body = {"prompt": "hello", "stream": stream}
    gateway.model.refusal = NoEngine()
    async with call("POST", "/v1/chat", body) as one:
        await one.finished()
    assert (one.status, one.json["error"]["code"]) == (503, "no_engine_available")
    gateway.admission.refusal = Overloaded(retry_after=7)
    async with call("POST", "/v1/chat", body) as two:
        await two.finished()
    assert (two.status, two.headers["retry-after"]) == (503, "7")
    gateway.scripts.cut = True
    async with call("POST", "/v1/chat", body) as three:
        await three.finished()
    assert (three.status, three.json["error"]["code"]) == (503, "session_store_unavailable")
    assert int(three.headers["retry-after"]) >= 1


async def test_a_second_turn_at_once_gets_409(call: Call, gateway: Gateway) -> None:
    async with call("POST", "/v1/chat", {"prompt": "hello", "stream": True}) as one:
        await one.until(lambda c: "turn" in c.names)
        body = {"prompt": "me too", "session_id": one.opening["session_id"]}
        async with call("POST", "/v1/chat", body) as two:
            await two.finished()
        assert (two.status, two.json["error"]["code"]) == (409, "turn_in_progress")
        assert int(two.headers["retry-after"]) >= 1
        gateway.model.release()
        await one.finished()
    assert one.text == TEXT


async def test_an_answer_that_breaks_in_mid_stream_ends_with_an_error_event(
    call: Call, gateway: Gateway
) -> None:
    gateway.model.break_at = 4
    gateway.model.release()
    async with call("POST", "/v1/chat", {"prompt": "hello", "stream": True}) as one:
        await one.finished()
    assert (one.text, one.names[-1], one.ended) == (TEXT[:4], "error", True)
    assert one.ending["error"]["message"] == "broke"


@pytest.mark.parametrize("last", ["x", "-1", "1e9", "9" * 13])
async def test_a_last_event_id_that_is_none_is_refused(call: Call, last: str) -> None:
    async with call("GET", "/v1/chat/some_turn/events", last_event_id=last) as one:
        await one.finished()
    assert (one.status, one.json["error"]["param"]) == (400, "last_event_id")


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/v1/chat/no_turn/events"), ("POST", "/v1/chat/no_turn/stop")]
)
async def test_a_turn_that_is_not_there(call: Call, method: str, path: str) -> None:
    async with call(method, path) as one:
        await one.finished()
    assert (one.status, one.json["error"]["code"]) == (404, "turn_not_found")


async def test_a_store_that_goes_away_while_a_log_is_read_is_told_without_moving_the_reader(
    call: Call,
    call_other: Call,
    gateway: Gateway,
    other: Gateway,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(turn_follow, "STORE_PATIENCE_SECONDS", 0.1)
    async with call("POST", "/v1/chat", {"prompt": "x", "stream": True}, **RESUME) as one:
        gateway.model.release(5)
        await one.until(lambda c: c.text == TEXT[:5])
        async with call_other("GET", f"/v1/chat/{one.opening['turn_id']}/events") as two:
            await two.until(lambda c: c.text == TEXT[:5])
            other.scripts.cut = True
            await two.finished()
        gateway.model.release()
        await one.finished()
    assert (two.names[-1], two.ended) == ("error", True)
    assert two.ending["error"]["code"] == "session_store_unavailable"
    assert two.last_id == 1 + 5
