"""What a conversation keeps of a text that is too long for its place."""

from __future__ import annotations

from gateway.history import Message
from gateway.sessions import MESSAGE_BYTES, capped, title_of


def test_an_answer_that_is_too_long_is_cut_at_a_letter_and_says_so() -> None:
    cut = capped(Message("assistant", "é" * MESSAGE_BYTES, 1, "t"))
    assert cut.truncated
    assert cut.content == "é" * (MESSAGE_BYTES // 2)
    whole = Message("assistant", "x" * MESSAGE_BYTES, 1, "t")
    assert capped(whole) is whole


def test_titles_are_one_short_line() -> None:
    assert title_of("  two\n\nlines  ") == "two lines"
    assert len(title_of("word " * 100)) == 60
    assert title_of("word " * 100).endswith("…")
