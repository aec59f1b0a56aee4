"""Asking one engine how it is: /health, /metrics, and a canary of one token.

Owns: the questions, their deadlines, and reading vLLM's metrics.
Not here: what the answers mean (engine_verdict.py), when to ask (health_watch.py).

/health alone does not see a hang: it answers 200 while the engine's core stands still. The
metrics do, and for an engine without work only a canary does.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from gateway.engine import Engine
from gateway.engine_client import EngineBusy, EngineFault, EngineTimeout, EngineUnreachable
from gateway.loop_lag import LoopLag

CHECK_SECONDS = 2.0
STANDSTILL_SECONDS = 1.0
CANARY_SECONDS = 5.0
FIRST_CANARY_SECONDS = 20.0
METRICS_LIMIT = 4 * 1024 * 1024
ANSWER_LIMIT = 64 * 1024

RUNNING = "num_requests_running"
WAITING = "num_requests_waiting"
KV_CACHE = "kv_cache_usage_perc"
STEPS = "iteration_tokens_total_count"
# The step counter rises only in steps that give tokens out; during the prefill of a long prompt
# it stands still. The use of the KV cache and the scheduler's own counters move then.
SIGNS_OF_LIFE = (
    RUNNING,
    WAITING,
    KV_CACHE,
    STEPS,
    "prefix_cache_queries_total",
    "num_preemptions_total",
    "generation_tokens_total",
)
_SAMPLE = re.compile(
    rb"^vllm:(" + "|".join(SIGNS_OF_LIFE).encode() + rb")(?:\{.*\})? (\S+)", re.MULTILINE
)


class Answer(StrEnum):
    """What came back to a question."""

    GOOD = "good"
    BAD = "bad"
    BUSY = "busy"
    REFUSED = "refused"
    BROKE = "broke"
    LATE = "late"


@dataclass(frozen=True)
class Reading:
    """The numbers of one look at /metrics; `signs` changes whenever the engine does anything."""

    running: int
    waiting: int
    kv_cache: float
    steps: int
    signs: tuple[float, ...]


@dataclass(frozen=True)
class Look:
    """One check: what /health answered, and what the metrics said, if they could be read."""

    answer: Answer
    reading: Reading | None = None
    status: int = 0


class ProbeResponse(Protocol):
    @property
    def status(self) -> int: ...

    async def read(self, limit: int = ...) -> bytes: ...

    def close(self) -> None: ...


class ProbeClient(Protocol):
    async def request(
        self,
        engine: Engine,
        method: str,
        path: str,
        body: bytes = ...,
        *,
        timeout: float = ...,  # noqa: ASYNC109 - the client's own signature
    ) -> ProbeResponse: ...


def parse_metrics(text: bytes) -> Reading | None:
    """The numbers that matter, summed over vLLM's labels; None where it is not vLLM speaking."""
    sums: dict[str, float] = {}
    for name, value in _SAMPLE.findall(text):
        try:
            number = float(value)
        except ValueError:
            continue
        sums[name.decode()] = sums.get(name.decode(), 0.0) + number
    if RUNNING not in sums:
        return None
    return Reading(
        running=int(sums[RUNNING]),
        waiting=int(sums.get(WAITING, 0)),
        kv_cache=sums.get(KV_CACHE, 0.0),
        steps=int(sums.get(STEPS, 0)),
        signs=tuple(sums.get(name, -1.0) for name in SIGNS_OF_LIFE),
    )


class EngineProbe:
    """Puts the questions; every one has a deadline, and none raises."""

    def __init__(
        self, client: ProbeClient, model: str, clock: Callable[[], float], lag: LoopLag
    ) -> None:
        self._client = client
        self._clock = clock
        self._lag = lag
        self._canary = json.dumps(
            {"model": model, "prompt": "1", "max_tokens": 1, "temperature": 0}
        ).encode()

    async def look(self, engine: Engine, seconds: float = CHECK_SECONDS) -> Look:
        """GET /health, then /metrics; only the first decides whether the look is good."""
        answer, status, _ = await self._ask(engine, "GET", "/health", b"", seconds, ANSWER_LIMIT)
        if answer is not Answer.GOOD:
            return Look(Answer.BAD if status else answer, None, status)
        return Look(Answer.GOOD, await self._read_metrics(engine, seconds), status)

    async def _read_metrics(self, engine: Engine, seconds: float) -> Reading | None:
        answer, _, body = await self._ask(engine, "GET", "/metrics", b"", seconds, METRICS_LIMIT)
        return parse_metrics(body) if answer is Answer.GOOD else None

    async def canary(self, engine: Engine, seconds: float = CANARY_SECONDS) -> Answer:
        """One token, please. Only the health of the engine counts, not what it thinks of us."""
        answer, status, _ = await self._ask(
            engine, "POST", "/v1/completions", self._canary, seconds, ANSWER_LIMIT
        )
        if answer is Answer.BAD and 400 <= status < 500:
            return Answer.GOOD
        return answer

    async def _ask(
        self, engine: Engine, method: str, path: str, body: bytes, seconds: float, limit: int
    ) -> tuple[Answer, int, bytes]:
        try:
            async with asyncio.timeout(seconds):
                response = await self._client.request(engine, method, path, body, timeout=seconds)
                try:
                    content = await response.read(limit)
                finally:
                    response.close()
        except TimeoutError:
            return Answer.LATE, 0, b""
        except EngineFault as fault:
            return _fault(fault), 0, b""
        return _answer(response.status), response.status, content

    def own_fault(self, since: float, seconds: float) -> bool:
        """A check that ran out of time may have waited for our own loop, not for the engine."""
        return self._lag.worst_since(since) >= seconds / 2

    def stood_still(self, since: float) -> float:
        """Seconds of standstill of our own loop worth mentioning (a paused machine), else 0."""
        worst = self._lag.worst_since(since)
        return worst if worst >= STANDSTILL_SECONDS else 0.0


def _answer(status: int) -> Answer:
    if 200 <= status < 300:
        return Answer.GOOD
    return Answer.BUSY if status in (429, 503) else Answer.BAD


def _fault(fault: EngineFault) -> Answer:
    """Only a refused connection says that nobody listens; a slow one may have other reasons."""
    if isinstance(fault, EngineUnreachable):
        return Answer.REFUSED if isinstance(fault.__cause__, ConnectionError) else Answer.LATE
    if isinstance(fault, EngineTimeout):
        return Answer.LATE
    return Answer.BUSY if isinstance(fault, EngineBusy) else Answer.BROKE
