"""Progress survives a journey through JSON; events are read the quick and the long way alike."""

from __future__ import annotations

import json
from array import array
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.answer import CHAT, COMPLETIONS, Answer, Progress
from gateway.continuation import wish
from gateway.engine_events import BadStream, EventBuffer, chunk_of, payload
from gateway.exact_answer import ExactAnswer
from tests.fakes.engine import FakeEngine
from tests.fakes.relaying import chat, read

ids = st.lists(st.integers(0, 2**32 - 1)).map(lambda values: array("I", values))


@given(ids, ids, st.text(), st.booleans())
def test_progress_as_json(prompt: array[int], done: array[int], held: str, role: bool) -> None:
    progress = Progress(5, "id", 9, "m", role, prompt, done, 1, len(done), held)
    assert Progress.from_json(progress.to_json()) == progress


async def mapped(fake: FakeEngine, size: int, body: dict[str, Any]) -> tuple[bytes, Progress]:
    path = COMPLETIONS if "prompt" in body else CHAT
    answer = ExactAnswer(wish(path, body), Progress(), Answer())
    request = await answer.request(None)  # type: ignore[arg-type]  # a first request asks nobody
    assert request is not None
    raw = b"".join(fake._stream(path, request[1], None))
    out = b"".join(answer.feed(raw[at : at + size]) for at in range(0, len(raw), size))
    return out + answer.ending(), answer.progress


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\ufffd"), min_size=1)


@given(TEXTS, st.integers(1, 300), st.lists(st.integers(1, 3), min_size=1), st.booleans())
async def test_any_text_cut_anywhere_comes_out_whole(
    text: str, size: int, groups: list[int], completion: bool
) -> None:
    raw = text.encode()
    pieces = [raw[at : at + 2] for at in range(0, len(raw), 2)]
    fake = FakeEngine(pieces, groups=groups)
    fields: dict[str, Any] = {"stream_options": {"include_usage": True}, "max_tokens": 999}
    body = {"prompt": "x", **fields} if completion else chat(**fields)
    out, progress = await mapped(fake, size, body)
    seen = read(out)
    assert (seen.text, seen.finish, list(progress.ids)) == (text, "stop", fake.ids())
    assert seen.usage is not None and seen.usage["completion_tokens"] == len(pieces)
    assert b"token_ids" not in out


async def test_half_a_letter_that_is_said_otherwise_is_no_mismatch() -> None:
    """A sampled answer goes on with other tokens, and the client was not given those it lost."""
    one = FakeEngine([b"a", b"\xe4\xbd", b"\xa0"], groups=[2])
    other = FakeEngine([b"a", b"a", b"b"])

    async def ask(method: str, where: str, body: dict[str, Any]) -> dict[str, Any]:
        return {"prompt": one._bytes(body["tokens"]).decode("utf-8", "replace")}

    body = chat(return_token_ids=True, max_tokens=9)
    answer = ExactAnswer(wish(CHAT, body), Progress(), Answer())
    first = await answer.request(ask)
    assert first is not None
    out = answer.feed(b"".join(one._stream(*first, None)[:2]))
    assert list(answer.progress.ids) == one.ids()[:2]
    second = await answer.request(ask)
    assert second is not None
    out += answer.feed(b"".join(other._stream(*second, None)))
    seen = read(out + answer.ending())
    assert (seen.text, seen.ids) == ("aab", other.ids())


LOOKALIKES = [
    '","',
    '"},"logprobs":null,"finish_reason":null',
    ',"token_ids":[1]',
    "\\",
    "\n\n",
    "data: [DONE]",
]


@pytest.mark.parametrize("text", LOOKALIKES)
async def test_text_that_looks_like_an_event_is_text(text: str) -> None:
    fake = FakeEngine([b"a", text.encode(), b"b"] * 3)
    out, _ = await mapped(fake, 10_000, chat())
    assert read(out).text == f"a{text}b" * 3


async def test_ordinary_events_take_the_quick_way(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bytes] = []
    slow = ExactAnswer._event
    monkeypatch.setattr(
        ExactAnswer, "_event", lambda self, raw: (seen.append(raw), slow(self, raw))[1]
    )
    for body in (chat(), {"prompt": "x", "max_tokens": 99}):
        seen.clear()
        await mapped(FakeEngine([b"a", b"b"] * 20), 10_000, body)
        # role, the first event or two to learn from, finish, usage, [DONE]
        assert len(seen) <= 6


def test_reasoning_is_passed_on_and_forbids_to_go_on_elsewhere() -> None:
    answer = ExactAnswer(wish(CHAT, chat()), Progress(prompt_ids=array("I", [1])), Answer())
    answer._meet(CHAT)
    chunk = {"choices": [{"index": 0, "delta": {"reasoning": "hm"}, "token_ids": [5]}]}
    out = answer.feed(b"data: " + json.dumps(chunk).encode() + b"\n\n")
    assert b'"reasoning":"hm"' in out and not answer.can_continue


@pytest.mark.parametrize(
    "data, reason",
    [
        (b"{", "garbage"),
        (b"[]", "garbage"),
        (b"{}", "garbage"),
        (b'{"choices":[1]}', "garbage"),
        (b'{"error":{"code":500}}', "error_event"),
        (b'{"choices":[{"finish_reason":"abort"}]}', "aborted"),
        (b'{"choices":[{"finish_reason":"error"}]}', "aborted"),
    ],
)
def test_what_is_a_failure(data: bytes, reason: str) -> None:
    with pytest.raises(BadStream) as told:
        chunk_of(data)
    assert told.value.reason == reason


def test_payloads() -> None:
    assert payload(b"data: x") == payload(b"event: y\ndata:x") == b"x"
    assert payload(b"data: a\ndata: b") == b"a\nb"
    assert payload(b": keep-alive") is None


def test_an_event_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.engine_events.EVENT_LIMIT", 100)
    buffer = EventBuffer()
    with pytest.raises(BadStream):
        for _ in range(20):
            buffer.feed(b"x" * 10)


@given(st.lists(st.integers(1, 4)))
def test_a_mark_at_the_beginning_and_windows_lines(sizes: list[int]) -> None:
    raw = b"\xef\xbb\xbfdata: 1\r\n\r\n: c\r\n\r\ndata: 2\r\n\r\n"
    buffer, out, at = EventBuffer(), b"", 0
    for size in [*sizes, 100]:
        data, end = buffer.feed(raw[at : at + size])
        out, at = out + data[:end], at + size
    assert out == b"data: 1\n\n: c\n\ndata: 2\n\n"
