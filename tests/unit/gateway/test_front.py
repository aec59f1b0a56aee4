"""The completions' route and everything around it: what a caller gets, what is counted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from gateway.engine import EngineState
from gateway.errors import EngineFailed, NoEngine, Overloaded
from gateway.parts import Parts
from tests.unit.conftest import (
    KEY,
    MODEL,
    ScriptedRelay,
    application,
    counted,
    open_client,
    refused,
)

CHAT = "/v1/chat/completions"
MESSAGES = [{"role": "user", "content": "a secret question"}]


def asked(**fields: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": MESSAGES, **fields}


async def test_a_stream_comes_through_whole_and_is_counted(
    client: httpx.AsyncClient, parts: Parts
) -> None:
    got = await client.post(CHAT, json=asked(stream=True), headers={"x-request-id": "abcdefgh-1"})
    assert got.status_code == 200
    assert got.text == 'data: {"n": 1}\n\ndata: {"n": 2}\n\ndata: [DONE]\n\n'
    assert got.headers["content-type"].startswith("text/event-stream")
    assert got.headers["x-tandem-engine"] == "vllm-a"
    assert got.headers["x-request-id"] == "abcdefgh-1"
    assert counted(parts, "ok") == 1
    assert parts.admission.inside == 0 and parts.lifecycle.running == 0
    tokens = parts.metrics.registry.get_sample_value(
        "gateway_tokens_total", {"direction": "completion", "key_id": "alice"}
    )
    assert tokens == 2


async def test_failovers_are_told_before_the_end(
    client: httpx.AsyncClient, relay: ScriptedRelay
) -> None:
    relay.failovers = 1
    got = await client.post(CHAT, json=asked(stream=True))
    assert got.text.endswith(": tandem failovers=1\n\ndata: [DONE]\n\n")


async def test_a_whole_answer(client: httpx.AsyncClient, parts: Parts) -> None:
    got = await client.post(CHAT, json=asked(some_new_field=1))
    assert (got.status_code, got.content) == (200, b"{}")
    assert counted(parts, "ok") == 1


async def test_unknown_fields_go_to_the_engine(
    client: httpx.AsyncClient, relay: ScriptedRelay
) -> None:
    await client.post(CHAT, json=asked(some_new_field=[1]))
    assert relay.calls[0].body["some_new_field"] == [1]


@pytest.mark.parametrize(
    ("error", "status", "outcome"),
    [
        (NoEngine(), 503, "upstream_error"),
        (EngineFailed(), 502, "upstream_error"),
        (Overloaded(retry_after=3), 503, "rate_limited"),
        (RuntimeError("10.0.0.1 has a secret"), 500, "internal_error"),
    ],
)
@pytest.mark.parametrize("stream", [True, False])
async def test_failures_before_the_first_byte(
    client: httpx.AsyncClient,
    parts: Parts,
    relay: ScriptedRelay,
    error: Exception,
    status: int,
    outcome: str,
    stream: bool,
) -> None:
    relay.refusal = error
    got = await client.post(CHAT, json=asked(stream=stream))
    assert got.status_code == status
    assert "secret" not in refused(got)["message"]
    assert ("retry-after" in got.headers) == (status == 503)
    assert counted(parts, outcome) == 1
    assert parts.admission.inside == 0


@pytest.mark.parametrize(
    ("body", "status", "param", "code"),
    [
        (b"", 400, None, None),
        (b"{", 400, None, None),
        (b"[]", 400, None, None),
        (b'{"a": NaN}', 400, None, None),
        (b'{"a": "\xff"}', 400, None, None),
        (b'{"a": ' + b"[" * 40 + b"]" * 40 + b"}", 400, None, None),
        (b"[" * 100_000, 400, None, None),
        (b'{"messages": []}', 400, "messages", None),
        (b'{"messages": [3]}', 400, "messages[0]", None),
        (b'{"model": 3}', 400, "model", None),
        (b'{"model": "other"}', 404, "model", "model_not_found"),
        (b'{"max_tokens": "5"}', 400, "max_tokens", None),
        (b'{"stream": "yes"}', 400, "stream", None),
        (b'{"n": 10000}', 400, "n", None),
        (b'{"chat_template": "x"}', 400, "chat_template", None),
        (b'{"cache_salt": "x"}', 400, "cache_salt", None),
        (b'{"priority": 1}', 400, "priority", None),
        (b'{"kv_transfer_params": {}}', 400, "kv_transfer_params", None),
        (b'{"mm_processor_kwargs": {}}', 400, "mm_processor_kwargs", None),
    ],
)
async def test_bodies_that_are_refused(
    client: httpx.AsyncClient,
    parts: Parts,
    relay: ScriptedRelay,
    body: bytes,
    status: int,
    param: str | None,
    code: str | None,
) -> None:
    got = await client.post(CHAT, content=body)
    error = refused(got)
    assert (got.status_code, error["param"], error["code"]) == (status, param, code)
    assert not relay.calls
    assert counted(parts, "client_error") == 1


async def test_many_brackets_within_a_text_are_no_depth(client: httpx.AsyncClient) -> None:
    messages = [{"role": "user", "content": '\\"' + "[{" * 200}]
    assert (await client.post(CHAT, json={"messages": messages})).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [{"authorization": ""}, {"authorization": "Bearer wrong"}, {"authorization": f"Basic {KEY}"}],
)
async def test_without_a_known_key(client: httpx.AsyncClient, headers: dict[str, str]) -> None:
    got = await client.post(CHAT, json=asked(), headers=headers)
    assert got.status_code == 401
    assert KEY not in got.text and "wrong" not in refused(got)["message"]


async def test_the_other_way_to_send_a_key(client: httpx.AsyncClient) -> None:
    headers = {"authorization": "", "x-api-key": KEY}
    assert (await client.post(CHAT, json=asked(), headers=headers)).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nowhere", 404), ("GET", CHAT, 405), ("POST", "/v1/models", 405)],
)
async def test_the_frameworks_own_errors(
    client: httpx.AsyncClient, method: str, path: str, status: int
) -> None:
    got = await client.request(method, path)
    assert got.status_code == status
    refused(got)


async def test_a_body_that_is_too_large_is_not_read_to_its_end(
    make_parts: Callable[..., Parts],
) -> None:
    sent = 0

    async def pieces() -> Any:
        nonlocal sent
        for _ in range(1000):
            sent += 1
            yield b" " * 1024

    async with open_client(make_parts(MAX_BODY_BYTES="2048")) as client:
        assert refused(await client.post(CHAT, content=b" " * 3000))
        got = await client.post(CHAT, content=pieces())
    assert got.status_code == 413 and refused(got)
    assert sent < 10


async def test_encoded_bodies_are_refused(client: httpx.AsyncClient) -> None:
    got = await client.post(CHAT, content=b"x", headers={"content-encoding": "gzip"})
    assert got.status_code == 415 and refused(got)


async def test_requests_a_minute(make_parts: Callable[..., Parts]) -> None:
    parts = make_parts(RATE_LIMIT_RPM="4")  # a quarter of them at once
    async with open_client(parts) as client:
        first = await client.post(CHAT, json=asked())
        second = await client.post(CHAT, json=asked())
    assert first.headers["x-ratelimit-limit-requests"] == "4"
    assert second.status_code == 429 and refused(second)["code"] == "rate_limit_exceeded"
    assert 1 <= int(second.headers["retry-after"]) <= 15
    assert counted(parts, "rate_limited") == 1


async def test_a_full_house_says_when_to_come_again(
    client: httpx.AsyncClient, parts: Parts, relay: ScriptedRelay
) -> None:
    async with parts.admission.enter("x"), parts.admission.enter("y"):
        got = await client.post(CHAT, json=asked())
    assert got.status_code == 503 and refused(got)["code"] == "overloaded"
    assert int(got.headers["retry-after"]) >= 1
    assert not relay.calls


async def test_a_stopping_gateway_sends_requests_on(
    client: httpx.AsyncClient, parts: Parts, relay: ScriptedRelay
) -> None:
    parts.lifecycle.stop()
    got = await client.post(CHAT, json=asked())
    assert got.status_code == 503 and refused(got)["code"] == "gateway_stopping"
    assert got.headers["x-tandem-retry"] == "other-gateway"
    assert got.headers["x-accel-redirect"] == "@other_gateway"
    assert got.headers["connection"] == "close"
    assert (await client.get("/readyz")).status_code == 503
    assert (await client.get("/healthz")).status_code == 200
    assert not relay.calls


async def test_a_client_that_leaves_ends_the_work(parts: Parts, relay: ScriptedRelay) -> None:
    relay.hold = asyncio.Event()
    left = asyncio.Event()
    body = b'{"messages": [{"role": "user", "content": "x"}], "stream": true}'
    given = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def receive() -> Any:
        for message in given:
            return message
        await left.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if b'"n": 2' in message.get("body", b""):
            left.set()

    scope = {
        "type": "http", "method": "POST", "path": CHAT, "raw_path": CHAT.encode(),
        "query_string": b"", "root_path": "", "scheme": "http", "http_version": "1.1",
        "headers": [(b"authorization", b"Bearer " + KEY.encode())],
    }  # fmt: skip
    async with asyncio.timeout(30):
        await application(parts)(scope, receive, send)
    assert relay.closed.is_set()
    assert parts.admission.inside == 0 and parts.lifecycle.running == 0
    assert counted(parts, "client_cancelled") == 1


async def test_models_show_no_paths(client: httpx.AsyncClient) -> None:
    got = await client.get("/v1/models")
    assert got.json()["data"][0] == {"id": MODEL, "object": "model", "max_model_len": 4096}
    assert (await client.get(f"/v1/models/{MODEL}")).json()["id"] == MODEL
    missing = await client.get("/v1/models/other")
    assert missing.status_code == 404 and refused(missing)["code"] == "model_not_found"


async def test_readiness_follows_the_engines(client: httpx.AsyncClient, parts: Parts) -> None:
    got = await client.get("/readyz")
    assert got.status_code == 503 and refused(got)["code"] == "no_engine_available"
    parts.pool.engines[0].observe(EngineState.HEALTHY, "")
    assert (await client.get("/readyz")).status_code == 200
    status = (await client.get("/v1/status")).json()
    assert status["ready"] is True
    assert [engine["state"] for engine in status["engines"]] == ["healthy", "starting"]
    assert "http" not in str(status)


async def test_machines_questions_are_no_requests(client: httpx.AsyncClient, parts: Parts) -> None:
    await client.get("/readyz")
    assert "gateway_inflight" in (await client.get("/metrics")).text
    assert (await client.get("/internal/engines")).json()["gateway"] == "gateway-a"
    assert counted(parts, "upstream_error", "readyz") == 0
