"""How running streams are told to leave an engine; counting, progress, waiting."""

from __future__ import annotations

import asyncio

import pytest

from gateway.engines import EnginePool, EngineState
from gateway.errors import NoEngine
from tests.fakes.pools import DOWN, HEALTHY, SUSPECT, URLS, Clock, broken, pair

# Leaving -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("observed", "reason"), [("hung", "hung"), ("it refuses connections", "down")]
)
def test_streams_are_told_when_an_engine_goes_down(
    pool: EnginePool, observed: str, reason: str
) -> None:
    a, _ = pair(pool)
    told: list[str] = []
    a.watch_leave(told.append)
    a.observe(DOWN, observed)
    a.observe(DOWN, observed)
    assert told == [reason] and a.leave_reason == reason


def test_drain_move_sends_streams_away_and_wait_does_not(pool: EnginePool) -> None:
    a, _ = pair(pool)
    told: list[str] = []
    a.watch_leave(told.append)
    a.set_drain("wait")
    assert told == [] and a.leave_reason is None
    a.set_drain("move")
    assert told == ["draining"]


def test_a_waiting_drained_engine_that_dies_still_tells(pool: EnginePool) -> None:
    a, _ = pair(pool)
    told: list[str] = []
    a.watch_leave(told.append)
    a.set_drain("wait")
    a.observe(DOWN, "hung")
    assert told == ["hung"] and a.state is EngineState.DRAINING and not a.alive


def test_suspicion_and_ejection_do_not_send_streams_away(pool: EnginePool) -> None:
    a, _ = pair(pool)
    told: list[str] = []
    a.watch_leave(told.append)
    a.observe(SUSPECT, "slow")
    a.observe(HEALTHY)
    broken(a)
    assert told == []


def test_unsubscribed_is_not_told_and_twice_does_not_hurt(pool: EnginePool) -> None:
    a, _ = pair(pool)
    told: list[str] = []
    leave = a.watch_leave(told.append)
    leave()
    leave()
    a.observe(DOWN, "hung")
    assert told == []


def test_one_failing_callback_does_not_silence_the_others(
    pool: EnginePool, caplog: pytest.LogCaptureFixture
) -> None:
    a, _ = pair(pool)
    told: list[str] = []

    def fails(reason: str) -> None:
        raise RuntimeError(reason)

    a.watch_leave(fails)
    a.watch_leave(told.append)
    a.observe(DOWN, "hung")
    assert told == ["hung"] and "could not be told" in caplog.text


def test_undrained_it_needs_a_check_first(pool: EnginePool) -> None:
    a, _ = pair(pool)
    a.set_drain("wait")
    a.set_drain(None)
    assert a.state is EngineState.STARTING
    a.observe(HEALTHY)
    assert a.state is HEALTHY


def test_an_engine_that_died_while_drained_is_down_when_undrained(pool: EnginePool) -> None:
    a, _ = pair(pool)
    a.set_drain("wait")
    a.observe(DOWN, "it refuses connections")
    a.set_drain(None)
    assert a.state is DOWN


# Counting, progress, waiting ---------------------------------------------------------------


def test_leave_never_goes_below_zero(pool: EnginePool) -> None:
    a, _ = pair(pool)
    a.enter()
    a.leave()
    a.leave()
    assert a.in_flight == 0


def test_progress(pool: EnginePool, clock: Clock) -> None:
    a, _ = pair(pool)
    a.saw_progress(7)
    clock.now += 5
    assert a.progressing(within=5) and not a.progressing(within=4.9)
    assert a.steps == 7 and a.steps_at == 100.0


async def test_waiters_are_woken_by_a_change(pool: EnginePool) -> None:
    b = pool.by_name["vllm-b"]
    for engine in pool.engines:
        engine.observe(DOWN, "it refuses connections")
    waiting = [asyncio.create_task(pool.wait_usable(60)) for _ in range(3)]
    await asyncio.sleep(0)
    assert not any(task.done() for task in waiting)
    b.observe(HEALTHY)
    await asyncio.wait_for(asyncio.gather(*waiting), 30)


async def test_waiting_respects_exclusions_and_ends(pool: EnginePool) -> None:
    with pytest.raises(NoEngine):
        await pool.wait_usable(0.01, exclude=frozenset(URLS))
    await pool.wait_usable(0.01, exclude=frozenset({"vllm-a"}))


async def test_a_cancelled_waiter_leaves_nothing_behind(pool: EnginePool) -> None:
    for engine in pool.engines:
        engine.observe(DOWN, "it refuses connections")
    waiting = asyncio.create_task(pool.wait_usable(60))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert not pool._waiters


def test_listeners_hear_changes_once(pool: EnginePool) -> None:
    a, _ = pair(pool)
    heard: list[str] = []
    unsubscribe = pool.on_change(lambda e: heard.append(f"{e.name} {e.state}"))
    a.observe(SUSPECT, "slow")
    a.observe(SUSPECT, "slow")
    a.publish()
    unsubscribe()
    unsubscribe()
    a.observe(HEALTHY)
    assert heard == ["vllm-a suspect"]


def test_the_end_of_an_ejection_is_published_as_time_passes(pool: EnginePool, clock: Clock) -> None:
    a, _ = pair(pool)
    broken(a)
    heard: list[str] = []
    pool.on_change(lambda e: heard.append(e.reason))
    clock.now += 5
    a.publish()
    assert heard == ["half-open"]
