"""Reading vLLM's metrics, and what each way of failing is called."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

import pytest

from gateway.engine_client import EngineBroke, EngineBusy, EngineTimeout, EngineUnreachable
from gateway.engine_probe import Answer, EngineProbe, Reading, parse_metrics
from gateway.engines import Engine
from gateway.loop_lag import LoopLag

METRICS = b"""\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="odd \\"} name"} 3.0
vllm:num_requests_waiting{engine="0",model_name="m"} 2.0
vllm:num_requests_waiting_by_reason{engine="0",model_name="m",reason="capacity"} 9.0
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.25
vllm:prefix_cache_queries_total{engine="0",model_name="m"} 40.0
vllm:iteration_tokens_total_bucket{engine="0",le="1.0",model_name="m"} 100.0
vllm:iteration_tokens_total_count{engine="0",model_name="m"} 1.234e+03
vllm:iteration_tokens_total_sum{engine="0",model_name="m"} 5000.0
python_gc_objects_collected_total{generation="0"} 1.0
"""


class Response:
    def __init__(self, status: int, body: bytes = b"") -> None:
        self.status = status
        self.body = body
        self.closed = False

    async def read(self, limit: int = 0) -> bytes:
        return self.body

    def close(self) -> None:
        self.closed = True


class Client:
    """Answers by path; an exception is raised, a callable is called."""

    def __init__(self, answers: dict[str, object]) -> None:
        self.answers = answers
        self.asked: list[tuple[str, str, bytes]] = []
        self.given: list[Response] = []

    async def request(
        self,
        engine: Engine,
        method: str,
        path: str,
        body: bytes = b"",
        *,
        timeout: float = 1.0,  # noqa: ASYNC109
    ) -> Response:
        self.asked.append((method, path, body))
        answer = self.answers[path]
        if isinstance(answer, BaseException):
            raise answer
        if answer == "silence":
            await asyncio.sleep(3600)
        assert isinstance(answer, Response)
        self.given.append(answer)
        return answer


def probe(answers: dict[str, object]) -> tuple[EngineProbe, Client, Engine]:
    clock: Callable[[], float] = lambda: 0.0  # noqa: E731
    client = Client(answers)
    return EngineProbe(client, "m", clock, LoopLag(clock)), client, Engine("a", "a", 1, clock)


def unreachable(cause: BaseException | None) -> EngineUnreachable:
    fault = EngineUnreachable("no")
    fault.__cause__ = cause
    return fault


def test_the_numbers_are_read() -> None:
    reading = parse_metrics(METRICS)
    assert reading is not None
    assert (reading.running, reading.waiting) == (3, 2)
    assert (reading.kv_cache, reading.steps) == (0.25, 1234)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"} 0.25", b"} 0.26"),
        (b"1.234e+03", b"1.235e+03"),
        (b"} 40.0", b"} 41.0"),
        (b'name"} 3.0', b'name"} 2.0'),
    ],
)
def test_everything_that_moves_is_a_sign_of_life(old: bytes, new: bytes) -> None:
    before, after = parse_metrics(METRICS), parse_metrics(METRICS.replace(old, new))
    assert before is not None and after is not None and before.signs != after.signs


def test_what_the_api_server_counts_alone_is_no_sign_of_life() -> None:
    after = parse_metrics(METRICS.replace(b'n="0"} 1.0', b'n="0"} 2.0'))
    before = parse_metrics(METRICS)
    assert before is not None and after is not None and before.signs == after.signs


@pytest.mark.parametrize("text", [b"", b"<html>", b"vllm:num_requests_running much", b"\xff\x00"])
def test_what_is_not_vllm_is_no_reading(text: bytes) -> None:
    assert parse_metrics(text) is None


async def test_a_good_look_carries_the_reading() -> None:
    questions, client, engine = probe(
        {"/health": Response(200), "/metrics": Response(200, METRICS)}
    )
    look = await questions.look(engine)
    assert look.answer is Answer.GOOD and isinstance(look.reading, Reading)
    assert [path for _, path, _ in client.asked] == ["/health", "/metrics"]
    assert all(response.closed for response in client.given)


@pytest.mark.parametrize("metrics", [Response(404), EngineBroke("x"), Response(200, b"junk")])
async def test_unreadable_metrics_leave_a_good_look(metrics: object) -> None:
    questions, _, engine = probe({"/health": Response(200), "/metrics": metrics})
    look = await questions.look(engine)
    assert look.answer is Answer.GOOD and look.reading is None


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (Response(500), Answer.BAD),
        (Response(503), Answer.BAD),
        (unreachable(ConnectionRefusedError()), Answer.REFUSED),
        (unreachable(None), Answer.LATE),
        (unreachable(OSError("name not known")), Answer.LATE),
        (EngineBroke("x"), Answer.BROKE),
        (EngineTimeout("x"), Answer.LATE),
        (EngineBusy("x"), Answer.BUSY),
        ("silence", Answer.LATE),
    ],
)
async def test_each_way_of_failing_has_its_name(answer: object, expected: Answer) -> None:
    questions, _, engine = probe({"/health": answer})
    assert (await questions.look(engine, seconds=0.05)).answer is expected


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (Response(200), Answer.GOOD),
        (Response(404), Answer.GOOD),
        (Response(500), Answer.BAD),
        (Response(503), Answer.BUSY),
        (Response(429), Answer.BUSY),
        (EngineTimeout("x"), Answer.LATE),
    ],
)
async def test_what_a_canary_proves(answer: object, expected: Answer) -> None:
    questions, client, engine = probe({"/v1/completions": answer})
    assert await questions.canary(engine, 1.0) is expected
    body = json.loads(client.asked[0][2])
    assert (body["model"], body["max_tokens"]) == ("m", 1)


def test_lateness_is_remembered_from_a_moment_on() -> None:
    now = 10.0
    lag = LoopLag(lambda: now)
    assert lag.worst_since(0) == 0
    lag._expected = 10.0
    now = 11.5
    assert lag.worst_since(0) == 1.5, "a tick that is overdue counts already"
    lag._note(now)
    lag._expected = None
    assert lag.worst_since(11.0) == 1.5 and lag.worst_since(12.0) == 0


async def test_a_blocked_loop_is_noticed() -> None:
    loop = asyncio.get_running_loop()
    lag = LoopLag(loop.time, tick=0.01)
    ticking = asyncio.create_task(lag.run())
    await asyncio.sleep(0.05)
    started = loop.time()
    while loop.time() - started < 0.3:
        pass
    try:
        assert lag.worst_since(started) >= 0.2
    finally:
        ticking.cancel()
        await asyncio.gather(ticking, return_exceptions=True)
