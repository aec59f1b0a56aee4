"""The breaker: which outcomes count, how long an engine is out, how it comes back."""

from __future__ import annotations

import pytest

from gateway.ejection import BASE_SECONDS, CAP_SECONDS, TRIAL_SECONDS, Ejection, Outcome


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_three_broken_in_a_row_are_due(clock: Clock) -> None:
    ejection = Ejection(clock)
    assert [ejection.record(Outcome.BROKEN) for _ in range(3)] == [False, False, True]


def test_an_ok_between_breaks_the_row(clock: Clock) -> None:
    ejection = Ejection(clock)
    outcomes = [Outcome.BROKEN, Outcome.BROKEN, Outcome.OK, Outcome.BROKEN, Outcome.OK]
    assert not any(ejection.record(outcome) for outcome in outcomes)


def test_half_of_six_within_the_window_is_due(clock: Clock) -> None:
    ejection = Ejection(clock)
    for _ in range(2):
        assert not ejection.record(Outcome.BROKEN)
        assert not ejection.record(Outcome.OK)
    assert not ejection.record(Outcome.OK)
    assert ejection.record(Outcome.BROKEN)


def test_what_left_the_window_does_not_count(clock: Clock) -> None:
    ejection = Ejection(clock)
    for outcome in (Outcome.BROKEN, Outcome.OK, Outcome.BROKEN, Outcome.OK, Outcome.OK):
        ejection.record(outcome)
    clock.now += 31
    assert not ejection.record(Outcome.BROKEN)


@pytest.mark.parametrize("outcome", [Outcome.BUSY, Outcome.CLIENT_ERROR, Outcome.CLIENT_GONE])
def test_some_outcomes_never_count(clock: Clock, outcome: Outcome) -> None:
    ejection = Ejection(clock)
    ejection.record(Outcome.BROKEN)
    ejection.record(Outcome.BROKEN)
    assert not any(ejection.record(outcome) for _ in range(100))
    assert ejection.record(Outcome.BROKEN), "they do not end the row of broken ones either"


def test_each_ejection_lasts_twice_as_long_up_to_a_cap(clock: Clock) -> None:
    ejection = Ejection(clock)
    lengths = []
    for _ in range(6):
        lengths.append(ejection.eject())
        clock.now += lengths[-1]
    assert lengths == [BASE_SECONDS, 10.0, 20.0, 40.0, CAP_SECONDS, CAP_SECONDS]


def test_a_long_good_time_is_forgiving(clock: Clock) -> None:
    ejection = Ejection(clock)
    ejection.eject()
    clock.now += 6
    ejection.close()
    assert ejection.eject() == 10.0
    clock.now += 10
    ejection.close()
    clock.now += 121
    assert ejection.eject() == BASE_SECONDS


def test_half_open_lets_one_request_through(clock: Clock) -> None:
    ejection = Ejection(clock)
    assert not ejection.claim_trial()
    ejection.eject()
    assert ejection.ejected and not ejection.half_open
    assert not ejection.claim_trial()
    clock.now += BASE_SECONDS
    assert ejection.half_open and not ejection.ejected
    assert ejection.claim_trial()
    assert not ejection.claim_trial()


def test_a_good_trial_closes(clock: Clock) -> None:
    ejection = Ejection(clock)
    ejection.eject()
    clock.now += BASE_SECONDS
    assert ejection.claim_trial()
    assert not ejection.record(Outcome.OK)
    assert not ejection.half_open and not ejection.ejected


def test_a_broken_trial_is_due_at_once(clock: Clock) -> None:
    ejection = Ejection(clock)
    ejection.eject()
    clock.now += BASE_SECONDS
    assert ejection.claim_trial()
    assert ejection.record(Outcome.BROKEN)


def test_a_trial_whose_client_left_is_given_to_the_next(clock: Clock) -> None:
    ejection = Ejection(clock)
    ejection.eject()
    clock.now += BASE_SECONDS
    assert ejection.claim_trial()
    ejection.record(Outcome.CLIENT_GONE)
    assert ejection.claim_trial()


def test_a_trial_nobody_reports_on_expires(clock: Clock) -> None:
    ejection = Ejection(clock)
    ejection.eject()
    clock.now += BASE_SECONDS
    assert ejection.claim_trial()
    clock.now += TRIAL_SECONDS
    assert ejection.claim_trial()


def test_breaks_reported_late_do_not_lengthen_an_ejection(clock: Clock) -> None:
    ejection = Ejection(clock)
    ejection.eject()
    assert not any(ejection.record(Outcome.BROKEN) for _ in range(10))
    assert ejection.seconds_left == BASE_SECONDS
