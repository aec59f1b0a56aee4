"""What canaries say of an idle engine, and how an engine comes back."""

from __future__ import annotations

import pytest

from gateway.engine_probe import Answer
from gateway.engine_verdict import CANARY_EVERY_SECONDS
from gateway.engines import EngineState, Outcome
from tests.fakes.verdicts import DOWN, HEALTHY, STARTING, SUSPECT, Scene

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
