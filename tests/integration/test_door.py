"""The door: a real Nginx in front of two scripted gateways."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tests.integration.door_gateways import (
    Asked,
    Door,
    FakeGateway,
    answer,
    until,
)

PUBLIC = [
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/completions"),
    ("POST", "/v1/messages"),
    ("POST", "/v1/responses"),
    ("POST", "/tokenize"),
    ("POST", "/detokenize"),
    ("GET", "/v1/models"),
    ("GET", "/v1/models/Qwen/Qwen2.5-7B-Instruct"),
    ("POST", "/v1/chat"),
    ("POST", "/v1/chat/turn_1-a/stop"),
    ("GET", "/v1/chat/turn_1-a/events"),
    ("GET", "/v1/sessions?q=rain"),
    ("GET", "/v1/sessions/s-1"),
    ("PATCH", "/v1/sessions/s-1"),
    ("DELETE", "/v1/sessions/s-1"),
    ("GET", "/v1/sessions/s-1/export?format=md"),
    ("GET", "/v1/status"),
    ("GET", "/v1/usage"),
    ("POST", "/v1/auth/login"),
    ("GET", "/healthz"),
    ("HEAD", "/readyz"),
]
CLOSED = [
    "/metrics", "/internal/engines", "/internal", "/admin", "/docs", "/openapi.json", "/redoc",
    "/v1", "/v1/", "/v1/load_lora_adapter", "/v1/chat/completions/x", "/v1/chat/t/other",
    "/v1/sessions/a/b/c", "/v1/embeddings", "/invocations", "/pause", "/collective_rpc", "/.env",
    "/v1/../metrics", "//metrics", "/%6detrics", "/v1/chat/completions/../../../metrics",
    "/healthz/../metrics", "/grafana/", "/server-status", "/assets/../../tls.key", "/nginx.conf",
]  # fmt: skip
COMPLETIONS = "/v1/chat/completions"


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    async with Door(tmp_path) as running:
        yield running


def error_of(response: httpx.Response) -> dict[str, object]:
    """The error of a response, which must have OpenAI's shape."""
    assert response.headers["content-type"].startswith("application/json")
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert isinstance(error["message"], str)
    return dict(error)


async def raw_exchange(door: Door, request: bytes) -> bytes:
    """Everything that comes back; a reset after the answer is the door's right."""
    reader, writer = await asyncio.open_connection("127.0.0.1", door.https_port, ssl=door.tls)
    received = b""
    try:
        writer.write(request)
        async with asyncio.timeout(30):
            while chunk := await reader.read(65536):
                received += chunk
    except ConnectionError:
        pass
    finally:
        writer.close()
    return received


async def break_off(_: FakeGateway, __: Asked, writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


async def be_stopping(_: FakeGateway, __: Asked, writer: asyncio.StreamWriter) -> None:
    headers = ("x-tandem-retry: other-gateway", "x-accel-redirect: @other_gateway")
    writer.write(answer(503, b'{"error":{}}', *headers))


async def test_every_public_path_reaches_a_gateway(door: Door) -> None:
    for method, path in PUBLIC:
        response = await door.client.request(method, path)
        assert response.status_code == 200, (method, path)
    assert sorted((one.method, one.target) for one in door.asked) == sorted(PUBLIC)


async def test_everything_else_is_not_found_and_reaches_nobody(door: Door) -> None:
    for path in CLOSED:
        for method in ("GET", "POST"):
            request = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n"
            raw = await raw_exchange(door, f"{request}Connection: close\r\n\r\n".encode())
            head, _, body = raw.partition(b"\r\n\r\n")
            assert head.split()[1] in (b"400", b"404"), (method, path, head)
            assert json.loads(body)["error"]["type"] == "invalid_request_error", path
    assert door.asked == []


async def test_a_wrong_method_is_told_the_right_one(door: Door) -> None:
    response = await door.client.get(COMPLETIONS)
    assert response.status_code == 405
    assert response.headers["allow"] == "POST"
    assert error_of(response)["code"] == "method_not_allowed"
    assert (await door.client.put("/v1/sessions/s-1")).headers["allow"].startswith("GET")
    assert (await door.client.request("OPTIONS", "/v1/models")).status_code == 405
    assert door.asked == []


async def test_a_body_over_the_limit_is_refused_before_a_gateway_sees_it(door: Door) -> None:
    large = b"x" * (4 * 1024 * 1024 + 1)
    response = await door.client.post(COMPLETIONS, content=large)
    assert response.status_code == 413
    assert error_of(response)["code"] == "request_too_large"
    assert door.asked == []
    assert (await door.client.post(COMPLETIONS, content=large[:-1])).status_code == 200
    assert len(door.asked[0].body) == 4 * 1024 * 1024


async def test_what_is_not_http_gets_an_error_in_the_same_shape(door: Door) -> None:
    raw = await raw_exchange(door, b"GET / HTTP/1.1\r\n\r\n")
    assert raw.startswith(b"HTTP/1.1 400")
    assert json.loads(raw.partition(b"\r\n\r\n")[2])["error"]["code"] == "bad_request"


@pytest.mark.parametrize(
    "framing",
    [
        b"Transfer-Encoding: chunked\r\nContent-Length: 3",
        b"Content-Length: 3\r\nContent-Length: 4",
        b"Transfer-Encoding: xchunked",
        b"Content-Length: +3",
    ],
)
async def test_a_request_with_two_readings_reaches_no_gateway(door: Door, framing: bytes) -> None:
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n" + framing + b"\r\n\r\n"
    raw = await raw_exchange(door, head + b"0\r\n\r\nGET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    assert raw.startswith((b"HTTP/1.1 400", b"HTTP/1.1 501")) or raw == b""
    assert b"HTTP/1.1 200" not in raw
    assert door.asked == []


async def test_without_any_gateway_the_error_says_so_and_when_to_come_back(door: Door) -> None:
    await door.a.stop()
    await door.b.stop()
    response = await door.client.post(COMPLETIONS, json={})
    assert response.status_code == 502
    assert int(response.headers["retry-after"]) >= 1
    assert error_of(response)["code"] == "gateway_unavailable"
    assert "127.0.0.1" not in response.text


@pytest.mark.parametrize("status", [400, 401, 404, 409, 413, 422, 429, 500, 502, 503])
async def test_what_a_gateway_answers_passes_untouched_and_once(door: Door, status: int) -> None:
    body = b'{"error":{"message":"ours","type":"t","param":null,"code":"c"}}'

    async def refuse(_: FakeGateway, __: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(status, body, "Retry-After: 7", "X-Request-ID: abc"))

    door.script(refuse)
    response = await door.client.post(COMPLETIONS, json={})
    assert (response.status_code, response.content) == (status, body)
    assert response.headers["retry-after"] == "7"
    assert response.headers.get_list("x-request-id") == ["abc"]
    assert len(door.asked) == 1


async def test_an_answer_is_asked_again_when_its_gateway_dies_before_the_first_byte(
    door: Door,
) -> None:
    door.a.script = break_off
    for number in range(4):
        response = await door.client.post(COMPLETIONS, json={"number": number})
        assert response.json() == {"gateway": "b"}
    assert door.a.asked, "the first gateway was never asked"
    died = door.a.asked[0]
    again = [one for one in door.b.asked if one.body == died.body]
    assert [one.headers["x-request-id"] for one in again] == [died.headers["x-request-id"]]


async def test_a_gateway_that_refuses_connections_costs_no_request(door: Door) -> None:
    await door.a.stop()
    for _ in range(8):
        assert (await door.client.post(COMPLETIONS, json={})).json() == {"gateway": "b"}
        assert (await door.client.patch("/v1/sessions/s", json={})).json() == {"gateway": "b"}


async def test_a_change_is_not_sent_twice(door: Door) -> None:
    door.script(break_off)
    for method, path in (("PATCH", "/v1/sessions/s-1"), ("POST", "/v1/auth/login")):
        before = len(door.asked)
        response = await door.client.request(method, path, json={})
        assert response.status_code == 502
        assert len(door.asked) == before + 1


async def test_a_stopping_gateway_hands_the_whole_request_to_the_other(door: Door) -> None:
    door.a.script = be_stopping
    body = json.dumps({"text": "好" * 200_000}).encode()
    for _ in range(6):
        response = await door.client.post(COMPLETIONS, content=body)
        assert (response.status_code, response.json()) == (200, {"gateway": "b"})
    assert door.a.asked, "the stopping gateway was never asked"
    assert {(one.method, one.target) for one in door.b.asked} == {("POST", COMPLETIONS)}
    assert all(one.body == body for one in door.b.asked)


async def test_when_both_are_stopping_the_client_hears_503(door: Door) -> None:
    door.script(be_stopping)
    response = await door.client.post(COMPLETIONS, json={})
    assert response.status_code == 503
    assert "x-tandem-retry" not in response.headers


async def test_a_gateway_that_came_back_is_found_although_it_failed_before(door: Door) -> None:
    await door.a.stop()
    for _ in range(6):
        await door.client.get("/v1/models")
    await door.a.start()
    await door.b.stop()
    assert (await door.client.get("/v1/models")).json() == {"gateway": "a"}


async def test_what_a_client_claims_about_itself_goes_no_further(door: Door) -> None:
    claims = {"X-Forwarded-For": "6.6.6.6", "X-Request-ID": "mine", "X-Real-IP": "6.6.6.6"}
    await door.client.get("/v1/models", headers={**claims, "Forwarded": "for=6.6.6.6"})
    headers = door.asked[0].headers
    assert headers["x-forwarded-for"] == "127.0.0.1"
    assert headers["x-forwarded-proto"] == "https"
    assert len(headers["x-request-id"]) == 32
    assert "6.6.6.6" not in json.dumps(headers)


async def test_the_log_has_no_query_no_body_and_no_key(door: Door) -> None:
    canary = "canary-9f2"
    key = {"Authorization": f"Bearer {canary}"}
    await door.client.get(f"/v1/sessions?q={canary}", headers=key)
    await door.client.post(COMPLETIONS, json={"prompt": canary}, headers=key)
    await door.client.get(f"/nothing?q={canary}", headers={"Referer": canary, "User-Agent": canary})
    await until(lambda: len(door.log_lines()) == 3)
    assert canary not in (door.folder / "access.log").read_text()
    lines = door.log_lines()
    assert [line["path"] for line in lines] == ["/v1/sessions", COMPLETIONS, "/nothing"]
    assert [line["status"] for line in lines] == ["200", "200", "404"]
    assert lines[1]["request_id"] == door.asked[1].headers["x-request-id"]


async def test_the_page_comes_packed_and_with_its_guards(door: Door) -> None:
    page = door.folder / "page"
    (page / "index.html").write_text("<!doctype html>")
    (page / "assets" / "index-1a2b.js").write_text("plain")
    (page / "assets" / "index-1a2b.js.gz").write_bytes(gzip.compress(b"packed"))
    (page / "favicon.svg").write_text("<svg/>")
    response = await door.client.get("/")
    assert response.text == "<!doctype html>"
    assert response.headers["cache-control"] == "no-cache"
    policy = response.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'")
    assert "frame-ancestors 'none'" in policy
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["strict-transport-security"].startswith("max-age=")
    assert len(response.headers.get_list("content-security-policy")) == 1
    script = await door.client.get("/assets/index-1a2b.js")
    assert script.text == "packed"
    assert "immutable" in script.headers["cache-control"]
    assert script.headers["content-type"].startswith("text/javascript")
    assert (await door.client.get("/favicon.svg")).headers["content-type"] == "image/svg+xml"
    assert (await door.client.get("/assets/none.js")).status_code == 404
    assert "x-powered-by" not in response.headers
    assert response.headers["server"] == "nginx"


async def test_clear_text_is_sent_to_https(door: Door) -> None:
    async with httpx.AsyncClient(timeout=30) as client:
        response = await client.post(f"http://127.0.0.1:{door.http_port}/v1/chat?a=1", json={})
    assert response.status_code == 308
    assert response.headers["location"] == f"{door.url}/v1/chat?a=1"
    assert door.asked == []
