"""From answers to states: one engine, a clock set by hand, no I/O."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from gateway.engine_probe import Answer, Look, Reading
from gateway.engine_verdict import CANARY_EVERY_SECONDS, HANG_SECONDS, Verdict
from gateway.engines import Engine, EnginePool, EngineState, Outcome

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


# Starting ----------------------------------------------------------------------------------


def test_the_first_good_check_suffices_at_the_start() -> None:
    scene = Scene()
    assert scene.state is STARTING
    scene.good()
    assert scene.state is HEALTHY


@pytest.mark.parametrize("answer", [Answer.REFUSED, Answer.LATE, Answer.BROKE, Answer.BAD])
def test_an_engine_never_seen_goes_on_starting(answer: Answer) -> None:
    scene = Scene()
    scene.bad(answer, 10, status=503)
    assert scene.state is STARTING and scene.told == []


# Refusals, errors, silence -----------------------------------------------------------------


def test_refused_with_nothing_running_is_down_at_once() -> None:
    scene = Scene().healthy()
    scene.bad(Answer.REFUSED)
    assert scene.state is DOWN and scene.told == ["down"]


def test_refused_with_streams_running_is_suspect_then_down() -> None:
    scene = Scene().healthy()
    scene.engine.enter()
    scene.bad(Answer.REFUSED)
    assert scene.state is SUSPECT and scene.told == []
    scene.bad(Answer.REFUSED)
    assert scene.state is DOWN and scene.told == ["down"]


@pytest.mark.parametrize("status", [500, 503])
def test_an_engine_that_calls_itself_dead_is_down_at_once(status: int) -> None:
    scene = Scene().healthy()
    scene.engine.enter()
    scene.bad(Answer.BAD, status=status)
    assert scene.state is DOWN and scene.told == ["down"]


@pytest.mark.parametrize("answer", [Answer.LATE, Answer.BROKE])
def test_three_missed_checks_are_down(answer: Answer) -> None:
    scene = Scene().healthy()
    scene.bad(answer)
    assert scene.state is HEALTHY
    scene.bad(answer)
    assert scene.state is SUSPECT
    scene.bad(answer)
    assert scene.state is DOWN and scene.told == ["down"]


def test_misses_must_be_in_a_row() -> None:
    scene = Scene().healthy()
    for _ in range(5):
        scene.bad(Answer.LATE, 2)
        scene.good()
    assert scene.state is HEALTHY


def test_our_own_lateness_is_forgiven_three_times_in_a_row() -> None:
    scene = Scene().healthy()
    scene.bad(Answer.LATE, 3, own=True)
    assert scene.state is HEALTHY
    scene.good()
    scene.bad(Answer.LATE, 3, own=True)
    assert scene.state is HEALTHY
    scene.bad(Answer.LATE, own=True)
    scene.bad(Answer.LATE, 2)
    assert scene.state is DOWN


def test_without_a_free_connection_nothing_is_learnt() -> None:
    scene = Scene().healthy()
    scene.bad(Answer.BUSY, 10)
    assert scene.state is HEALTHY


def test_a_doubt_ends_with_a_good_check() -> None:
    scene = Scene().healthy()
    scene.engine.report(Outcome.BROKEN, refused=True)
    assert scene.state is SUSPECT
    scene.good()
    assert scene.state is HEALTHY


# Hangs -------------------------------------------------------------------------------------


def test_work_that_stands_still_is_a_hang() -> None:
    scene = Scene(steps=10)
    scene.good()
    scene.running = 3
    scene.good(times=int(HANG_SECONDS))
    assert scene.state is HEALTHY
    scene.good(times=2)
    assert (scene.state, scene.engine.reason) == (DOWN, "hung")
    assert scene.told == ["hung"]


def test_requests_that_only_wait_can_stand_still_too() -> None:
    scene = Scene()
    scene.waiting = 2
    scene.good(times=int(HANG_SECONDS) + 2)
    assert scene.engine.reason == "hung"


def test_a_long_prefill_is_no_hang() -> None:
    scene = Scene().healthy()
    scene.running = 1
    for _ in range(60):
        scene.kv += 0.01  # the step counter stands still, the KV cache fills
        scene.good(2.0)
    assert scene.state is HEALTHY and scene.told == []


def test_slow_steps_and_a_full_cache_are_no_hang() -> None:
    scene = Scene(running=64, waiting=100, kv=1.0)
    for _ in range(20):
        scene.steps += 1
        scene.good(HANG_SECONDS - 1)
    assert scene.state is HEALTHY and scene.told == []


def test_idle_for_long_and_then_busy_is_no_hang() -> None:
    scene = Scene().healthy()
    scene.good(times=3600)
    scene.running = 1
    scene.good(times=3)
    assert scene.state is HEALTHY


def test_a_gap_in_our_own_looking_is_no_hang() -> None:
    scene = Scene(running=1)
    scene.good(times=2)
    scene.steps += 500
    scene.good(120.0)
    assert scene.state is HEALTHY


def test_a_hung_engine_that_moves_again_comes_back() -> None:
    scene = Scene(running=1)
    scene.good(times=12)
    assert scene.state is DOWN
    scene.steps += 1
    scene.good()
    scene.steps += 1
    scene.good()
    assert scene.state is HEALTHY


def test_unreadable_metrics_are_no_hang() -> None:
    scene = Scene(running=1)
    scene.good()
    for _ in range(30):
        scene.now += 1
        scene.verdict.look(Look(Answer.GOOD, None, 200))
    assert scene.state is HEALTHY


# Canaries ----------------------------------------------------------------------------------


def test_canaries_are_for_idle_engines_and_rare() -> None:
    scene = Scene()
    assert not scene.verdict.canary_due(), "not before the first good check"
    scene.healthy()
    scene.good(times=int(CANARY_EVERY_SECONDS) - 1)
    assert not scene.verdict.canary_due()
    scene.good()
    assert scene.verdict.canary_due()
    scene.running = 1
    scene.good()
    assert not scene.verdict.canary_due()


def test_an_idle_hang_is_found_by_two_canaries() -> None:
    scene = Scene().healthy()
    scene.good(times=10)
    scene.canary(Answer.LATE)
    assert scene.state is SUSPECT
    scene.good()
    assert scene.state is SUSPECT, "a good /health proves nothing here"
    scene.canary(Answer.LATE)
    assert scene.engine.reason == "hung" and scene.told == ["hung"]


def test_a_request_that_waits_as_long_as_the_canary_confirms_it() -> None:
    scene = Scene().healthy()
    scene.good(times=2)
    scene.engine.enter()
    scene.good()
    assert not scene.verdict.canary_due()
    scene.good(times=2)
    scene.canary(Answer.LATE)
    assert scene.engine.reason == "hung"
    assert scene.now - scene.engine.in_flight_since <= 10


def test_a_late_canary_on_an_engine_that_works_for_others_is_forgiven() -> None:
    scene = Scene().healthy()
    scene.good(times=10)
    scene.verdict.canary_sent()
    started = scene.now
    scene.steps += 5
    scene.good()
    scene.now += 4
    scene.verdict.canary(Answer.LATE, started)
    assert scene.state is HEALTHY


@pytest.mark.parametrize("own", [True, False])
def test_a_canary_that_was_late_by_our_own_fault_is_forgiven(own: bool) -> None:
    scene = Scene().healthy()
    scene.good(times=10)
    scene.canary(Answer.LATE, own=own)
    assert scene.state is (HEALTHY if own else SUSPECT)


def test_a_busy_canary_says_nothing() -> None:
    scene = Scene().healthy()
    scene.good(times=10)
    scene.canary(Answer.BUSY)
    assert scene.state is HEALTHY


def test_two_canaries_with_errors_are_down_not_hung() -> None:
    scene = Scene().healthy()
    scene.good(times=10)
    scene.canary(Answer.BAD, 0.1)
    assert scene.state is SUSPECT
    scene.good(times=2)
    scene.canary(Answer.BAD, 0.1)
    assert scene.state is DOWN and scene.told == ["down"]


def test_a_suspect_by_canary_is_cleared_by_a_canary() -> None:
    scene = Scene().healthy()
    scene.good(times=10)
    scene.canary(Answer.BAD, 0.1)
    scene.good(times=2)
    scene.canary(Answer.GOOD, 0.1)
    assert scene.state is HEALTHY


# Coming back -------------------------------------------------------------------------------


def test_back_takes_two_good_checks_and_a_canary() -> None:
    scene = Scene().healthy()
    scene.bad(Answer.REFUSED, 5)
    scene.good(times=5)
    assert scene.state is DOWN, "good checks alone do not suffice"
    scene.canary(Answer.GOOD, 0.1)
    scene.good()
    assert scene.state is HEALTHY


def test_a_canary_before_the_second_good_check_is_not_enough() -> None:
    scene = Scene().healthy()
    scene.bad(Answer.REFUSED, 5)
    scene.good()
    scene.canary(Answer.GOOD, 0.1)
    assert scene.state is DOWN
    scene.good()
    assert scene.state is HEALTHY


def test_an_old_proof_does_not_count() -> None:
    scene = Scene().healthy()
    scene.bad(Answer.BAD, status=500)
    scene.good(times=2)
    assert scene.state is DOWN


def test_a_drained_engine_is_watched_on() -> None:
    scene = Scene().healthy()
    scene.engine.set_drain("wait")
    scene.bad(Answer.REFUSED)
    assert scene.state is EngineState.DRAINING and not scene.engine.alive
    scene.good(times=2)
    scene.canary(Answer.GOOD, 0.1)
    scene.good()
    assert scene.state is EngineState.DRAINING and scene.engine.alive
    scene.engine.set_drain(None)
    assert scene.state is STARTING
    scene.good()
    assert scene.state is HEALTHY


def test_a_canary_closes_an_ejection_that_is_over() -> None:
    scene = Scene().healthy()
    for _ in range(3):
        scene.engine.report(Outcome.BROKEN)
    scene.good(times=5)
    assert scene.engine.reason == "half-open"
    scene.canary(Answer.GOOD, 0.1)
    assert scene.state is HEALTHY


def test_numbers_of_a_dead_engine_are_not_shown_on() -> None:
    scene = Scene(running=4, waiting=2, kv=0.5)
    scene.good()
    assert (scene.engine.running, scene.engine.waiting, scene.engine.kv_cache) == (4, 2, 0.5)
    scene.bad(Answer.BAD, status=503)
    assert (scene.engine.running, scene.engine.waiting, scene.engine.kv_cache) == (0, 0, 0.0)
