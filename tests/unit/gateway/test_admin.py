"""The operator's command: what it writes, what it prints, how it ends."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from gateway.admin import Plan, main

ENGINES = ("vllm-a", "vllm-b")
NOBODY = "http://127.0.0.1:9/internal/engines"
SEEN = {
    "gateway": "gateway-a",
    "engines": [
        {"name": "vllm-a", "state": "draining", "in_flight": 3, "running": 2, "waiting": 1},
        {"name": "vllm-b", "state": "down", "reason": "hung"},
    ],
}


class FakeRedis:
    def __init__(self) -> None:
        self.values: dict[str, tuple[str, int]] = {}
        self.away = False
        self.closed = 0

    async def mget(self, keys: list[str]) -> list[bytes | None]:
        if self.away:
            raise RedisConnectionError("redis:6379 refused")
        return [self.values[key][0].encode() if key in self.values else None for key in keys]

    async def set(self, key: str, value: str, ex: int) -> None:
        if self.away:
            raise RedisConnectionError("redis:6379 refused")
        self.values[key] = (value, ex)

    async def delete(self, key: str) -> int:
        return int(self.values.pop(key, None) is not None)

    async def aclose(self) -> None:
        self.closed += 1


@pytest.fixture
def redis() -> FakeRedis:
    return FakeRedis()


@pytest.fixture
def plan(redis: FakeRedis) -> Plan:
    return Plan(ENGINES, lambda: redis, NOBODY)


@pytest.fixture
def gateway_url() -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(SEEN).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *values: Any) -> None:
            return

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/internal/engines"
    server.shutdown()
    server.server_close()
    thread.join()


def test_drain_moves_and_undrain_takes_it_back(redis: FakeRedis, plan: Plan) -> None:
    assert main(["drain", "vllm-a"], plan) == 0
    assert redis.values == {"tandem:drain:vllm-a": ("move", 86_400)}
    assert main(["undrain", "vllm-a"], plan) == 0
    assert redis.values == {} and redis.closed == 2


def test_drain_wait_with_a_time(redis: FakeRedis, plan: Plan) -> None:
    assert main(["drain", "vllm-b", "--wait", "--ttl", "60"], plan) == 0
    assert redis.values == {"tandem:drain:vllm-b": ("wait", 60)}


def test_draining_the_last_one_warns(
    redis: FakeRedis, plan: Plan, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["drain", "vllm-a"], plan)
    assert capsys.readouterr().err == ""
    assert main(["drain", "vllm-b"], plan) == 0
    assert "every engine is drained" in capsys.readouterr().err


def test_an_unknown_engine_is_answered_with_the_names(
    redis: FakeRedis, plan: Plan, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["drain", "vllm-c"], plan) == 2
    assert "vllm-a, vllm-b" in capsys.readouterr().err and redis.values == {}


@pytest.mark.parametrize(
    "argv", [[], ["stop"], ["drain"], ["drain", "vllm-a", "--ttl", "0"], ["undrain", "a", "b"]]
)
def test_wrong_use_exits_with_2(argv: list[str], plan: Plan) -> None:
    with pytest.raises(SystemExit) as ended:
        main(argv, plan)
    assert ended.value.code == 2


@pytest.mark.parametrize("argv", [["drain", "vllm-a"], ["status"]])
def test_without_redis_it_says_so_and_names_no_host(
    redis: FakeRedis, plan: Plan, argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    redis.away = True
    assert main(argv, plan) == 1
    said = capsys.readouterr().err
    assert "Redis cannot be reached" in said and "6379" not in said
    assert redis.closed == 1


def test_a_wrong_setting_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GATEWAY_PORT", "many")
    assert main(["status"]) == 2
    assert "GATEWAY_PORT" in capsys.readouterr().err


def test_status_shows_drains_and_states(
    redis: FakeRedis, gateway_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = Plan(ENGINES, lambda: redis, gateway_url)
    main(["drain", "vllm-a"], plan)
    capsys.readouterr()
    assert main(["status"], plan) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows[1] == ["vllm-a", "move", "draining", "3", "2", "1"]
    assert rows[2] == ["vllm-b", "-", "down", "?", "?", "?", "hung"]


def test_status_for_scripts(
    redis: FakeRedis, gateway_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["status", "--json"], Plan(ENGINES, lambda: redis, gateway_url)) == 0
    said = json.loads(capsys.readouterr().out)
    assert said == {"drains": {"vllm-a": None, "vllm-b": None}, "gateway": SEEN}


def test_status_without_the_gateway_still_shows_the_drains(
    plan: Plan, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["status", "--json"], plan) == 0
    assert json.loads(capsys.readouterr().out)["gateway"] is None
    assert main(["status"], plan) == 0
    assert "does not answer" in capsys.readouterr().err
