"""gateway/told_usage.py: tokens of an answer by its own words, however its bytes come."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway import told_usage as subject
from gateway.sse import encode
from gateway.told_usage import ToldUsage

MESSAGE = {
    "type": "message",
    "content": [{"type": "text", "text": 'It says {"usage": {"output_tokens": 900}}.'}],
    "usage": {"input_tokens": 10, "output_tokens": 5, "cache_read_input_tokens": 32},
}
RESPONSE = {"object": "response", "usage": {"input_tokens": 42, "output_tokens": 5}}


def event(name: str, **data: Any) -> bytes:
    return encode(json.dumps({"type": name, **data}), event=name)


MESSAGE_STREAM = (
    event("message_start", message={"usage": {"input_tokens": 42, "output_tokens": 0}})
    + event("content_block_delta", delta={"text": "the usage"})
    + event("message_delta", usage={"input_tokens": 42, "output_tokens": 5})
    + event("message_stop")
)
RESPONSE_STREAM = (
    event("response.created", response={"usage": None})
    + event("response.output_text.delta", delta="Hello")
    + event("response.completed", response=RESPONSE)
)
WHOLE = [json.dumps(MESSAGE).encode(), json.dumps(RESPONSE).encode()]


def told(*pieces: bytes) -> tuple[int, int]:
    usage = ToldUsage()
    for piece in pieces:
        usage.feed(piece)
    usage.end()
    return usage.prompt_tokens, usage.completion_tokens


@pytest.mark.parametrize("answer", [*WHOLE, MESSAGE_STREAM, RESPONSE_STREAM])
@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_each_kind_in_pieces_of_any_size(answer: bytes, size: int) -> None:
    pieces = [answer[at : at + size] for at in range(0, len(answer), size)]
    assert told(*pieces) == (42, 5)


def test_a_stream_that_broke_has_told_its_beginning() -> None:
    assert told(MESSAGE_STREAM[: MESSAGE_STREAM.index(b"event: message_delta")]) == (42, 0)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"{",
        b"[1]",
        b"no json",
        b'{"usage": 3}',
        b'{"usage": {"input_tokens": "many", "output_tokens": -4}}',
        b'data: {"usage": \n\n',
        b'data: ["usage"]\n\n',
        b'data: {"message": [], "usage": null}\n\n',
    ],
)
def test_what_makes_no_sense_counts_nothing(answer: bytes) -> None:
    assert told(answer) == (0, 0)


def test_a_document_is_kept_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "DOCUMENT_BYTES", len(WHOLE[1]))
    assert told(WHOLE[1]) == (42, 5)
    usage = ToldUsage()
    usage.feed(WHOLE[1] + b" ")
    assert usage._document is None


def test_an_event_without_end_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.sse.EVENT_BYTES_AT_MOST", 64)
    assert told(MESSAGE_STREAM[:10], b"data: " + b"x" * 100, RESPONSE_STREAM) == (0, 0)
