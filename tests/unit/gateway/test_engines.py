"""The pool's choice, and the ejection of engines that break requests."""

from __future__ import annotations

import pytest

from gateway.engines import EnginePool, EngineState, Outcome
from gateway.errors import NoEngine
from tests.fakes.pools import DOWN, HEALTHY, SUSPECT, URLS, Clock, broken, load, pair

# The choice --------------------------------------------------------------------------------


def test_addresses_come_from_the_urls(pool: EnginePool) -> None:
    assert [(e.host, e.port) for e in pool.engines] == [("vllm-a", 8000), ("vllm-b", 8001)]


def test_an_url_without_a_host_is_refused(clock: Clock) -> None:
    with pytest.raises(ValueError, match="vllm-a"):
        EnginePool({"vllm-a": "vllm-a"}, max_inflight=1, clock=clock)


def test_without_a_key_the_least_loaded_is_chosen(pool: EnginePool) -> None:
    a, b = pair(pool)
    load(a, 2)
    load(b, 1)
    assert pool.choose(None) is b


def test_without_a_key_ties_are_shared(pool: EnginePool) -> None:
    assert {pool.choose(None).name for _ in range(4)} == {"vllm-a", "vllm-b"}


def test_a_conversation_stays(pool: EnginePool) -> None:
    for n in range(50):
        first = pool.choose(f"c{n}")
        load(first, 1)
        assert pool.choose(f"c{n}") is first


def test_new_conversations_are_shared_out_evenly(pool: EnginePool) -> None:
    a, b = pair(pool)
    for n in range(64):
        pool.choose(f"conversation {n}").enter()
    assert abs(a.in_flight - b.in_flight) <= 2


@pytest.mark.parametrize("users", [8, 16, 40, 64])
def test_quiet_conversations_are_shared_out_too(clock: Clock, users: int) -> None:
    """Nothing runs when the next one comes, so only the number of homes can tell."""
    for start in range(20):
        pool = EnginePool(URLS, max_inflight=8, clock=clock)
        for engine in pool.engines:
            engine.observe(EngineState.HEALTHY)
        homes = [pool.choose(f"{start} {n}").name for n in range(users)]
        counts = sorted(homes.count(name) for name in URLS)
        assert counts[-1] <= 1.3 * counts[0], counts


def test_two_gateways_agree_on_the_home_of_a_quiet_conversation(clock: Clock) -> None:
    chosen = []
    for _ in range(2):
        pool = EnginePool(URLS, max_inflight=64, clock=clock)
        for engine in pool.engines:
            engine.observe(HEALTHY)
        chosen.append([pool.choose(f"c{n}").name for n in range(40)])
    assert chosen[0] == chosen[1] and len(set(chosen[0])) == 2


def test_a_home_that_is_far_above_the_mean_is_passed_over_for_now(pool: EnginePool) -> None:
    home = pool.choose("c")
    other = next(e for e in pool.engines if e is not home)
    load(home, 7)
    assert pool.choose("c") is home, "light load: stay"
    load(home, 33)
    assert pool.choose("c") is other
    home.in_flight = 0
    assert pool.choose("c") is home, "it was only passed over"


def test_a_full_engine_is_skipped_while_the_other_has_room(clock: Clock) -> None:
    pool = EnginePool(URLS, max_inflight=4, clock=clock)
    a, b = pair(pool)
    for engine in pool.engines:
        engine.observe(HEALTHY)
    home = pool.choose("c")
    other = b if home is a else a
    load(home, 4)
    load(other, 3)
    assert pool.choose("c") is other and pool.choose(None) is other
    load(other, 1)
    assert pool.choose("c") in (a, b), "all full: admission decides, not the choice"


def test_a_conversation_moves_when_its_home_goes_and_stays_there(pool: EnginePool) -> None:
    home = pool.choose("c")
    other = next(e for e in pool.engines if e is not home)
    home.observe(DOWN, "it refuses connections")
    assert pool.choose("c") is other
    home.observe(HEALTHY)
    assert pool.choose("c") is other


def test_exclusion(pool: EnginePool) -> None:
    b = pool.by_name["vllm-b"]
    for n in range(20):
        assert pool.choose(f"c{n}", exclude=frozenset({"vllm-a"})) is b
    with pytest.raises(NoEngine):
        pool.choose("c", exclude=frozenset(URLS))


def test_suspects_only_when_nothing_healthy_is_there(pool: EnginePool) -> None:
    a, b = pair(pool)
    a.observe(SUSPECT, "slow")
    assert {pool.choose(f"c{n}") for n in range(20)} == {b}
    assert (a.usable, b.usable) == (False, True)
    b.observe(DOWN, "it refuses connections")
    assert pool.choose("c") is a and a.usable


@pytest.mark.parametrize("drain", ["move", "wait"])
def test_a_draining_engine_gets_nothing(pool: EnginePool, drain: str) -> None:
    a, b = pair(pool)
    a.set_drain("move" if drain == "move" else "wait")
    assert {pool.choose(f"c{n}") for n in range(20)} == {b}
    b.observe(DOWN, "it refuses connections")
    with pytest.raises(NoEngine):
        pool.choose("c")


def test_starting_and_down_get_nothing(clock: Clock) -> None:
    pool = EnginePool(URLS, max_inflight=64, clock=clock)
    a, _ = pair(pool)
    assert a.state is EngineState.STARTING
    with pytest.raises(NoEngine):
        pool.choose(None)
    a.observe(DOWN, "hung")
    with pytest.raises(NoEngine):
        pool.choose(None)
    assert pool.capacity() == 0


def test_capacity_counts_usable_engines(pool: EnginePool) -> None:
    a, b = pair(pool)
    assert pool.capacity() == 128
    a.observe(SUSPECT, "slow")
    assert pool.capacity() == 64
    b.observe(SUSPECT, "slow")
    assert pool.capacity() == 128


# Ejection ----------------------------------------------------------------------------------


def test_three_broken_eject_and_the_other_works_on(pool: EnginePool) -> None:
    a, b = pair(pool)
    broken(a)
    assert (a.state, a.reason) == (DOWN, "ejected")
    assert pool.choose("c") is b


def test_busy_never_ejects(pool: EnginePool) -> None:
    a, _ = pair(pool)
    for outcome in (Outcome.BUSY, Outcome.CLIENT_ERROR, Outcome.CLIENT_GONE):
        for _ in range(20):
            a.report(outcome)
    assert a.state is HEALTHY


def test_the_last_usable_engine_is_never_ejected(pool: EnginePool) -> None:
    a, b = pair(pool)
    b.observe(DOWN, "it refuses connections")
    broken(a, 20)
    assert a.state is SUSPECT and pool.choose("c") is a


def test_an_ejected_engine_is_the_last_resort(pool: EnginePool) -> None:
    a, b = pair(pool)
    broken(a)
    b.observe(DOWN, "it refuses connections")
    assert pool.choose("c") is a and a.usable and pool.capacity() == 64


def test_after_its_time_an_ejected_engine_gets_one_trial(pool: EnginePool, clock: Clock) -> None:
    a, b = pair(pool)
    broken(a)
    a.observe(HEALTHY)
    clock.now += 5
    assert (a.state, a.reason) == (SUSPECT, "half-open")
    assert [pool.choose(None) for _ in range(3)] == [a, b, b]
    a.report(Outcome.OK)
    assert a.state is HEALTHY


def test_a_failed_trial_ejects_for_longer(pool: EnginePool, clock: Clock) -> None:
    a, b = pair(pool)
    broken(a)
    a.observe(HEALTHY)
    clock.now += 5
    assert pool.choose(None) is a
    a.report(Outcome.BROKEN)
    clock.now += 6
    assert a.state is DOWN and pool.choose(None) is b
    clock.now += 4
    assert a.reason == "half-open"


def test_a_half_open_engine_gets_no_trial_against_an_exclusion(
    pool: EnginePool, clock: Clock
) -> None:
    a, b = pair(pool)
    broken(a)
    clock.now += 5
    assert pool.choose(None, exclude=frozenset({"vllm-a"})) is b


def test_a_refused_connection_makes_suspect_and_wakes_the_watch(pool: EnginePool) -> None:
    a, b = pair(pool)
    woken: list[int] = []
    a.on_doubt(lambda: woken.append(1))
    a.report(Outcome.BROKEN, refused=True)
    assert a.state is SUSPECT and woken == [1]
    assert pool.choose("c") is b


def test_a_new_process_starts_with_a_clean_record(pool: EnginePool) -> None:
    a, _ = pair(pool)
    broken(a)
    a.observe(DOWN, "it refuses connections")
    a.observe(HEALTHY)
    assert a.state is HEALTHY
