"""Events are numbered by characters: whoever comes back gets exactly the rest."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from gateway.turn_events import Answer, Reader, TurnEvent
from tests.fakes.conversations import within


def finished(text: str) -> Answer:
    answer = Answer(text)
    answer.opening = {"turn_id": "t"}
    answer.close("done", {"finish_reason": "stop"})
    return answer


def read(answer: Answer, last: int) -> list[TurnEvent]:
    reader, seen = Reader(last), []
    while (event := answer.next_for(reader)) is not None:
        seen.append(event)
    return seen


@given(st.text(max_size=30), st.integers(0, 40))
def test_a_reader_who_has_so_many_characters_gets_the_others_once(text: str, last: int) -> None:
    events = read(finished(text), last)
    assert "".join(e.data["text"] for e in events if e.event == "delta") == text[max(0, last - 1) :]
    assert [e.id for e in events] == sorted({e.id for e in events})
    assert all(e.id > last for e in events)
    assert [e.event for e in events if e.last] == (["done"] if last < len(text) + 2 else [])
    assert ("turn" in [e.event for e in events]) is (last == 0)


async def test_a_slow_reader_gets_what_it_missed_in_one_piece() -> None:
    answer = Answer()
    events = answer.follow(0)
    answer.open({"turn_id": "t"})
    assert (await within(anext(events))).event == "turn"
    coming = asyncio.ensure_future(anext(events))
    for letter in "abc":
        answer.add(letter)
        answer.show(len(answer.text))
    event = await within(coming)
    assert (event.data, event.id) == ({"text": "abc"}, 4)
    assert answer.readers == 1
    await events.aclose()
    assert answer.readers == 0


async def test_what_is_not_visible_is_not_read() -> None:
    answer = Answer()
    answer.open({"turn_id": "t"})
    answer.add("abcdef")
    answer.show(2)
    assert [e.data.get("text") for e in read(answer, 1)] == ["ab"]
    assert answer.read == 2
    answer.close("error", {"error": {}})
    assert [(e.event, e.id) for e in read(answer, 3)] == [("delta", 7), ("error", 8)]
