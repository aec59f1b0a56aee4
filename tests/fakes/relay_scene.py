"""Two faulty engines, an answer with letters cut in half, and what an unbroken one looks like."""

from __future__ import annotations

from collections import deque
from typing import Any

from gateway.relay import Call
from tests.fakes.engine import FakeEngine, Fault
from tests.fakes.relaying import Read, pair

# Letters of one, two, three and four bytes; some are cut into several tokens.
PIECES = [b"He", b"llo ", b"\xe4\xbd", b"\xa0", b"\xe5\xa5\xbd", b" \xf0\x9f", b"\x99", b"\x82",
          b"!", b" \xc3", b"\xa9t", b"\xc3\xa9", b' "q\\n"', b" end"]  # fmt: skip
TEXT = b"".join(PIECES).decode()
KINDS = ["cut", "eof", "error_event", "abort", "done", "garbage", "half"]
ASKED = {"stream_options": {"include_usage": True}}


def faulty(*faults: Fault, **kinds: Any) -> tuple[FakeEngine, FakeEngine]:
    """Whichever engine is asked first has the first fault."""
    return pair(PIECES, faults=deque(faults), **kinds)


def assert_unbroken(seen: Read, call: Call, finish: str = "stop") -> None:
    assert seen.error is None
    assert seen.text == TEXT
    assert seen.finish == finish == call.outcome.finish_reason
    assert (seen.done, seen.roles, len(seen.names)) == (True, 1, 1)
    assert seen.usage == {"prompt_tokens": 3, "completion_tokens": 14, "total_tokens": 17}
    assert call.outcome.usage == seen.usage
    assert call.outcome.outcome == "ok"
