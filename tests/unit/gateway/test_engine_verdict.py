"""What checks and counters say of an engine: starting, refusals, hangs."""

from __future__ import annotations

import pytest

from gateway.engine_probe import Answer, Look
from gateway.engine_verdict import HANG_SECONDS, hang_seconds
from gateway.engines import Outcome
from tests.fakes.verdicts import DOWN, HEALTHY, STARTING, SUSPECT, Scene

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


def test_patience_follows_the_setting() -> None:
    assert [hang_seconds(stall) for stall in (4.0, 8.0, 30.0)] == [2.0, 6.0, 28.0]


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


def test_the_time_of_our_own_standstill_is_no_hang() -> None:
    """The machine slept for 30 s: the first look after it finds every engine where it was."""
    scene = Scene(running=1)
    scene.good(times=2)
    scene.now += 30
    scene.verdict.nobody_looked(30.0)
    scene.good()
    assert scene.state is HEALTHY and scene.told == []
    scene.good(times=int(HANG_SECONDS))
    assert scene.engine.reason == "hung", "only the standstill is forgiven"


def test_a_long_standstill_is_no_progress_in_times_to_come() -> None:
    scene = Scene(running=1)
    scene.good(times=2)
    scene.verdict.nobody_looked(3600.0)
    assert scene.engine.steps_at == scene.now


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
