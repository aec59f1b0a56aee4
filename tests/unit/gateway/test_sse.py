"""Any split of the bytes gives the same events."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import sse
from gateway.sse import Event, EventParser, encode

STREAM = (
    b"\xef\xbb\xbf: a comment\r\nid: 1\r\nevent: delta\r\ndata: \xe4\xbd\xa0\r\n\r\n"
    b"data: one\rdata: two\r\rdata\n\ndata: {}\n\n: last\n\ndata: [DONE]\n\n"
)
EVENTS = [
    Event("你".encode(), "delta", "1"),
    Event(b"one\ntwo", None, "1"),
    Event(b"", None, "1"),
    Event(b"{}", None, "1"),
    Event(b"[DONE]", None, "1"),
]


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_any_split_gives_the_same_events(cuts: list[int]) -> None:
    places = [0, *sorted(cuts), len(STREAM)]
    parser = EventParser()
    events: list[Event] = []
    for start, end in itertools.pairwise(places):
        events += parser.feed(STREAM[start:end])
    assert events == EVENTS
    assert not parser.pending


def test_byte_by_byte() -> None:
    parser = EventParser()
    assert [e for i in range(len(STREAM)) for e in parser.feed(STREAM[i : i + 1])] == EVENTS


@given(st.text(st.characters(exclude_characters="\r", exclude_categories=["Cs"])))
def test_what_is_encoded_is_read_back(text: str) -> None:
    assert EventParser().feed(encode(text, event="delta", id="7")) == [
        Event(text.encode(), "delta", "7")
    ]


def test_half_an_event_is_pending_and_never_given() -> None:
    parser = EventParser()
    assert parser.feed(b'data: {"cho') == []
    assert parser.pending


def test_an_endless_event_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "EVENT_BYTES_AT_MOST", 1000)
    parser = EventParser()
    with pytest.raises(ValueError, match="too large"):
        for _ in range(20):
            parser.feed(b"data: " + b"x" * 100 + b"\n")
