"""What is refused, and how: OpenAI's error shape on every path and status, through the door."""

from __future__ import annotations

import json

import httpx
import pytest

from tests.integration.events import error_of
from tests.integration.tandem_instance import Tandem

CHAT = "/v1/chat/completions"
MESSAGES = [{"role": "user", "content": "hello"}]

BAD_BODIES = [
    (b"", 400, None),
    (b"{", 400, None),
    (b"[]", 400, None),
    (b'{"model": "\xff"}', 400, None),
    (b'{"messages": [{"role": "user", "content": "x"}], "temperature": NaN}', 400, None),
    (b"[" * 100_000, 400, None),
    (json.dumps({"messages": "hello"}).encode(), 400, "messages"),
    (json.dumps({"messages": []}).encode(), 400, "messages"),
    (json.dumps({"messages": MESSAGES, "stream": "yes"}).encode(), 400, "stream"),
    (json.dumps({"messages": MESSAGES, "max_tokens": 0}).encode(), 400, "max_tokens"),
    (json.dumps({"messages": MESSAGES, "max_tokens": "9"}).encode(), 400, "max_tokens"),
    (json.dumps({"messages": MESSAGES, "n": 99}).encode(), 400, "n"),
    (json.dumps({"messages": MESSAGES, "chat_template": "x"}).encode(), 400, "chat_template"),
    (json.dumps({"messages": MESSAGES, "model": "gpt-4o"}).encode(), 404, "model"),
    (json.dumps({"messages": MESSAGES, "temperature": 99}).encode(), 400, None),
    (json.dumps({"messages": MESSAGES, "top_p": -1}).encode(), 400, None),
]


@pytest.mark.parametrize(("raw", "status", "param"), BAD_BODIES)
def test_a_bad_body(client: httpx.Client, raw: bytes, status: int, param: str | None) -> None:
    answer = client.post(CHAT, content=raw, headers={"content-type": "application/json"})
    assert answer.status_code == status, answer.text
    error = error_of(answer)
    assert error["type"] == "invalid_request_error"
    if param:
        assert error["param"] == param


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat"])
def test_a_missing_prompt(client: httpx.Client, path: str) -> None:
    answer = client.post(path, json={"max_tokens": 3})
    assert answer.status_code == 400
    assert error_of(answer)["param"] == "prompt"


def test_a_prompt_longer_than_the_context(tandem: Tandem, client: httpx.Client) -> None:
    for stream in (False, True):
        asked = {
            "model": tandem.model, "stream": stream,
            "messages": [{"role": "user", "content": "the river " * 9000}],
        }  # fmt: skip
        answer = client.post(CHAT, json=asked)
        assert answer.status_code == 400
        assert error_of(answer)["code"] == "context_length_exceeded"


@pytest.mark.parametrize("key", ["wrong", "sk-tandem-0", "ünïcode"])
@pytest.mark.parametrize("path", [CHAT, "/v1/chat"])
def test_a_wrong_key(tandem: Tandem, key: str, path: str) -> None:
    header = {"authorization": f"Bearer {key}".encode()}
    answer = tandem.client.post(path, json={"messages": MESSAGES, "prompt": "x"}, headers=header)
    assert answer.status_code == 401
    assert error_of(answer)["code"] == "invalid_api_key"


@pytest.mark.parametrize("path", ["/v1/models", "/v1/sessions", "/v1/status", "/v1/usage"])
def test_no_key_at_all(tandem: Tandem, path: str) -> None:
    with httpx.Client(base_url=tandem.url, verify=tandem.trust, timeout=60) as stranger:
        answer = stranger.get(path)
    assert answer.status_code == 401
    error_of(answer)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/nothing", 404),
        ("GET", "/metrics", 404),
        ("GET", "/internal/engines", 404),
        ("GET", "/docs", 404),
        ("GET", CHAT, 405),
        ("PUT", "/v1/chat", 405),
        ("DELETE", "/v1/models", 405),
        ("GET", "/v1/models/no-such-model", 404),
        ("GET", "/v1/sessions/no-such-session", 404),
    ],
)
def test_a_wrong_path_or_method(client: httpx.Client, method: str, path: str, status: int) -> None:
    answer = client.request(method, path)
    assert answer.status_code == status, answer.text
    error_of(answer)


def test_a_body_that_is_too_large(client: httpx.Client) -> None:
    answer = client.post(CHAT, content=b'{"x": "' + b"y" * (5 << 20) + b'"}')
    assert answer.status_code == 413
    error_of(answer)


def test_the_gateway_itself_refuses_a_large_body(tandem: Tandem) -> None:
    """Also when nobody says beforehand how large it is."""

    def pieces() -> object:
        for _ in range(80):
            yield b"x" * 65536

    with httpx.Client(base_url=tandem.address("gateway-a"), timeout=60) as direct:
        direct.headers["authorization"] = f"Bearer {tandem.key}"
        answer = direct.post(CHAT, content=pieces())  # type: ignore[arg-type]
    assert answer.status_code == 413
    error_of(answer)


def test_plain_http_leads_to_https(tandem: Tandem) -> None:
    answer = httpx.get(f"{tandem.address('redirect')}/v1/models", timeout=60)
    assert answer.status_code in (301, 307, 308)
    assert answer.headers["location"].startswith("https://")
