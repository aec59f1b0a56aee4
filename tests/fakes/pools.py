"""Two engines in a pool, and what tests of it do to them."""

from __future__ import annotations

import pytest

from gateway.engines import Engine, EnginePool, EngineState, Outcome

HEALTHY, SUSPECT, DOWN = EngineState.HEALTHY, EngineState.SUSPECT, EngineState.DOWN
URLS = {"vllm-a": "http://vllm-a:8000", "vllm-b": "http://vllm-b:8001"}


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def pool(clock: Clock) -> EnginePool:
    pool = EnginePool(URLS, max_inflight=64, clock=clock)
    for engine in pool.engines:
        engine.observe(HEALTHY)
    return pool


def pair(pool: EnginePool) -> tuple[Engine, Engine]:
    return pool.by_name["vllm-a"], pool.by_name["vllm-b"]


def load(engine: Engine, requests: int) -> None:
    for _ in range(requests):
        engine.enter()


def broken(engine: Engine, times: int = 3) -> None:
    for _ in range(times):
        engine.report(Outcome.BROKEN)
