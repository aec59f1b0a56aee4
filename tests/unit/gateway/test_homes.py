"""Affinity keys, the memory of homes, and the load bound."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.homes import LIGHT_LOAD, Homes, affinity_key, load_bound, rank

SYSTEM = {"role": "system", "content": "You are brief."}
FIRST = {"role": "user", "content": "What is a tandem?"}
ANSWER = {"role": "assistant", "content": "A bicycle for two."}
SECOND = {"role": "user", "content": "And a triplet?"}


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_later_turns_share_the_key_of_the_first() -> None:
    first = affinity_key({}, {"messages": [SYSTEM, FIRST]})
    second = affinity_key({}, {"messages": [SYSTEM, FIRST, ANSWER, SECOND]})
    assert first is not None and first == second


def test_another_first_question_is_another_conversation() -> None:
    assert affinity_key({}, {"messages": [SYSTEM, FIRST]}) != affinity_key(
        {}, {"messages": [SYSTEM, SECOND]}
    )


def test_named_ids_come_in_the_order_of_the_contract() -> None:
    body: dict[str, Any] = {"messages": [FIRST]}
    seen = [affinity_key({}, body)]
    for field, value in (
        ("user", "u"),
        ("prompt_cache_key", "c"),
        ("metadata", {"session_id": "m"}),
        ("session_id", "s"),
    ):
        body[field] = value
        seen.append(affinity_key({}, body))
    seen.append(affinity_key({"X-Session-ID": "h"}, body))
    assert len(set(seen)) == 6, "each more important id takes over"


def test_the_same_session_is_the_same_key_wherever_it_is_named() -> None:
    keys = {
        affinity_key({"x-session-id": "abc"}, {}),
        affinity_key({"X-SESSION-ID": "abc"}, {}),
        affinity_key({}, {"session_id": "abc"}),
        affinity_key({}, {"metadata": {"session_id": "abc"}}),
    }
    assert len(keys) == 1 and None not in keys


def test_ids_do_not_show_in_the_key() -> None:
    key = affinity_key({}, {"user": "alice@example.org"})
    assert key is not None and "alice" not in key


def test_a_plain_prompt_has_a_key_too() -> None:
    assert affinity_key({}, {"prompt": "Once"}) == affinity_key({}, {"prompt": "Once"})


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"messages": []},
        {"messages": "hello"},
        {"session_id": 7},
        {"user": ""},
        {"metadata": "x"},
        {"prompt": [1, 2, 3]},
    ],
)
def test_nothing_recognisable_is_no_key(body: dict[str, Any]) -> None:
    assert affinity_key({}, body) is None


def test_odd_messages_do_not_break_the_key() -> None:
    assert affinity_key({}, {"messages": [None, 3, {"role": ["x"]}, "\ud800"]}) is not None


def test_homes_forget_after_the_ttl_and_use_keeps_alive() -> None:
    clock = Clock()
    homes = Homes(clock, ttl=10)
    homes.settle("k", "a")
    clock.now = 8
    assert homes.find("k") == "a"
    clock.now = 16
    assert homes.find("k") == "a"
    clock.now = 27
    assert homes.find("k") is None and len(homes) == 0


def test_homes_are_bounded_and_the_least_used_go_first() -> None:
    homes = Homes(Clock(), limit=2)
    homes.settle("one", "a")
    homes.settle("two", "b")
    homes.find("one")
    homes.settle("three", "a")
    assert homes.find("one") == "a" and homes.find("two") is None and len(homes) == 2


def test_the_bound_follows_the_mean_above_light_load() -> None:
    assert load_bound(0, 2) == LIGHT_LOAD
    assert load_bound(63, 2) == 40
    assert load_bound(0, 0) == LIGHT_LOAD


def test_rendezvous_shares_keys_about_evenly() -> None:
    first = sum(rank(f"k{n}", "vllm-a") > rank(f"k{n}", "vllm-b") for n in range(2000))
    assert 850 < first < 1150
