"""One engine under a verdict, with a clock that tests move."""

from __future__ import annotations

from dataclasses import dataclass, field

from gateway.engine_probe import Answer, Look, Reading
from gateway.engine_verdict import Verdict
from gateway.engines import Engine, EnginePool, EngineState

STARTING, HEALTHY = EngineState.STARTING, EngineState.HEALTHY
SUSPECT, DOWN = EngineState.SUSPECT, EngineState.DOWN


@dataclass
class Scene:
    """One watched engine and its numbers."""

    now: float = 1000.0
    running: int = 0
    waiting: int = 0
    steps: int = 0
    kv: float = 0.0
    told: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        urls = {"vllm-a": "http://a:1", "vllm-b": "http://b:1"}
        self.pool = EnginePool(urls, max_inflight=64, clock=lambda: self.now)
        self.engine: Engine = self.pool.by_name["vllm-a"]
        self.pool.by_name["vllm-b"].observe(HEALTHY)
        self.engine.watch_leave(self.told.append)
        self.verdict = Verdict(self.engine, lambda: self.now)

    @property
    def state(self) -> EngineState:
        return self.engine.state

    def good(self, seconds: float = 1.0, times: int = 1) -> None:
        for _ in range(times):
            self.now += seconds
            signs = (float(self.running), float(self.waiting), self.kv, float(self.steps))
            reading = Reading(self.running, self.waiting, self.kv, self.steps, signs)
            self.verdict.look(Look(Answer.GOOD, reading, 200))

    def bad(self, answer: Answer, times: int = 1, *, status: int = 0, own: bool = False) -> None:
        for _ in range(times):
            self.now += 1
            self.verdict.look(Look(answer, None, status), own)

    def canary(self, answer: Answer, seconds: float = 5.0, *, own: bool = False) -> None:
        assert self.verdict.canary_due()
        self.verdict.canary_sent()
        started = self.now
        self.now += seconds
        self.verdict.canary(answer, started, own)

    def healthy(self) -> Scene:
        self.good()
        self.canary(Answer.GOOD, 0.1)
        return self
