"""Settings name what is wrong with them; a loop that stands still ends the process; log lines."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable
from typing import Any, cast

import pytest

from gateway import app
from gateway.errors import TandemError, engine_error
from gateway.health_watch import HealthWatch
from gateway.logs import JsonFormatter
from gateway.loop_watch import LoopWatch
from gateway.metrics import Metrics
from gateway.parts import Parts
from gateway.settings import DEFAULTS, PARSERS, Settings, SettingsError


async def test_the_health_watch_is_as_patient_as_the_setting(
    make_parts: Callable[..., Parts], monkeypatch: pytest.MonkeyPatch
) -> None:
    """STALL_SECONDS=30: 28 s without a step are a hang."""
    made: list[HealthWatch] = []

    def record(*given: Any, **named: Any) -> None:
        made.append(HealthWatch(*given, **named))
        raise InterruptedError

    monkeypatch.setattr(app, "HealthWatch", record)
    with pytest.raises(InterruptedError):
        async with app._life(make_parts(STALL_SECONDS="30"), None, cast(Any, None)):
            pass
    assert [verdict._hang_seconds for verdict in made[0]._verdicts.values()] == [28.0] * 2


def test_defaults_are_valid_and_complete() -> None:
    settings = Settings.load({})
    assert settings.gateway_port == 8080
    assert list(settings.engines) == ["vllm-a", "vllm-b"]
    assert set(DEFAULTS) == set(PARSERS)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("GATEWAY_PORT", "http"), ("GATEWAY_PORT", "70000"), ("ENGINES", "vllm-a"),
        ("ENGINES", "a=http://x:1,a=http://y:1"), ("QUEUE_SECONDS", "nan"), ("LOG_LEVEL", "LOUD"),
        ("STALL_SECONDS", "3"), ("RATE_LIMIT_RPM", "-1"),
    ],
)  # fmt: skip
def test_a_wrong_setting_is_named(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=name):
        Settings.load({name: value})


async def test_a_loop_that_stands_still_ends_the_process(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ended = threading.Event()
    watch = LoopWatch(0.2, ended.set)
    watch.start()
    deadline = time.monotonic() + 30
    while not ended.is_set() and time.monotonic() < deadline:
        time.sleep(0.05)  # noqa: ASYNC251 - the loop is held up on purpose
    watch.stop()
    assert ended.is_set()
    assert "stood still" in caplog.text


def test_a_log_line_is_one_json_object() -> None:
    record = logging.makeLogRecord({"msg": "two\nlines", "levelname": "INFO", "route": "chat"})
    line = JsonFormatter().format(record)
    assert "\n" not in line
    assert json.loads(line)["route"] == "chat"
    assert json.loads(line)["message"] == "two\nlines"


CONTRACT = {
    "gateway_requests_total": ("route", "outcome"),
    "gateway_http_responses_total": ("code",),
    "gateway_failovers_total": ("from", "to", "reason", "outcome"),
    "gateway_tokens_total": ("direction", "key_id"),
}


def test_metrics_have_their_names_and_labels() -> None:
    metrics = Metrics()
    metrics.requests.labels("r", "ok").inc()
    metrics.http_responses.labels("200").inc()
    metrics.failovers.labels("a", "b", "broken", "ok").inc()
    metrics.tokens.labels("prompt", "k").inc()
    samples = {s.name: s for family in metrics.registry.collect() for s in family.samples}
    for name, labels in CONTRACT.items():
        assert set(samples[name].labels) == set(labels)
    shown = metrics.exposition().decode()
    for name in ("ttft_seconds", "inflight", "queue_depth", "queue_seconds", "engine_state",
                 "overhead_seconds", "redis_up"):  # fmt: skip
        assert f"# TYPE gateway_{name} " in shown
    assert 'gateway_ttft_seconds_bucket{le="0.75"}' in shown


@pytest.mark.parametrize(
    ("status", "body", "check"),
    [
        (400, b'{"error": {"message": "maximum context length is 9", "param": "m"}}',
         lambda e: (e.status, e.code) == (400, "context_length_exceeded")),
        (422, b'{"detail": [{"loc": ["body", "n"], "msg": "too big", "input": "SECRET"}]}',
         lambda e: e.status == 400 and "n: too big" in e.message and "SECRET" not in e.message),
        (500, b'{"message": "at 10.0.0.1:8000 Traceback"}',
         lambda e: e.status == 502 and "10.0" not in e.message),
        (400, b'{"message": "see http://vllm-a:8000/x"}', lambda e: "vllm-a" not in e.message),
        (400, b'{"message": "[{\'msg\': \'no integer\', \'input\': \'SECRET\'}]"}',
         lambda e: "no integer" in e.message and "SECRET" not in e.message),
        (503, b"<html>", lambda e: e.status == 503 and e.retry_after is not None),
        (404, b"[]", lambda e: e.status == 404),
    ],
)  # fmt: skip
def test_an_engines_error_in_our_shape(
    status: int, body: bytes, check: Callable[[TandemError], bool]
) -> None:
    assert check(engine_error(status, body))
