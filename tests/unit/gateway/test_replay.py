"""Answers that can only be run again: the client has each part once, or is told honestly."""

from __future__ import annotations

import json
from collections import defaultdict, deque
from typing import Any

import pytest

from gateway.continuation import wish
from gateway.errors import TandemError
from gateway.relay import Call
from tests.fakes.engine import FakeEngine, Fault
from tests.fakes.relaying import CHAT, COMPLETIONS, bench, chat

TOOL = {"type": "function", "function": {"name": "weather", "parameters": {}}}


def chunk(name: str, index: int = 0, finish: str | None = None, **choice: Any) -> dict[str, Any]:
    choice = {"index": index, "logprobs": None, "finish_reason": finish, **choice}
    return {
        "id": f"{name}-id",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "m",
        "choices": [choice],
    }


def two_choices(name: str, size: int) -> list[dict[str, Any]]:
    texts = ["The first answer, 你好 🙂.", "Another one, longer than the first one."]
    chunks = [chunk(name, i, delta={"role": "assistant", "content": ""}) for i in (0, 1)]
    for at in range(0, 40, size):
        for i, text in enumerate(texts):
            if text[at : at + size]:
                chunks.append(chunk(name, i, delta={"content": text[at : at + size]}))
    return [*chunks, *(chunk(name, i, "stop", delta={}) for i in (0, 1))]


def tool_call(name: str, size: int) -> list[dict[str, Any]]:
    def part(**fields: Any) -> dict[str, Any]:
        return chunk(name, delta={"tool_calls": [{"index": 0, **fields}]})

    arguments = '{"city": "北京", "days": 3}'
    head = part(id=f"call-{name}-{size}", type="function", function={"name": "weather"})
    rest = [
        part(function={"arguments": arguments[at : at + size]})
        for at in range(0, len(arguments), size)
    ]
    role = chunk(name, delta={"role": "assistant", "content": ""})
    return [role, head, *rest, chunk(name, 0, "tool_calls", delta={})]


def logprobs(name: str, size: int) -> list[dict[str, Any]]:
    rows = [{"token": f"t{n}", "logprob": -n / 7 - size / 1000} for n in range(12)]
    chunks = [chunk(name, delta={"role": "assistant", "content": ""})]
    for at in range(0, 12, size):
        some = rows[at : at + size]
        text = "".join(row["token"] for row in some)
        chunks.append(chunk(name, delta={"content": text}, logprobs={"content": some}))
    return [*chunks, chunk(name, 0, "stop", delta={})]


def gathered(raw: bytes) -> dict[str, Any]:
    seen: dict[str, Any] = defaultdict(str)
    for block in raw.removesuffix(b"data: [DONE]\n\n").split(b"\n\n")[:-1]:
        part = json.loads(block[6:])
        seen["errors"] += part.get("error", {}).get("code", "")
        seen["ids"] = {*(seen["ids"] or ()), part.get("id")} - {None}
        for choice in part.get("choices", ()):
            i = choice["index"]
            seen[f"finish {i}"] += choice["finish_reason"] or ""
            for row in (choice.get("logprobs") or {}).get("content", ()):
                seen[f"tokens {i}"] += row["token"]
            delta = choice["delta"]
            seen[f"roles {i}"] += delta.get("role", "")
            seen[f"text {i}"] += delta.get("content") or ""
            for call in delta.get("tool_calls", ()):
                seen["calls"] += call.get("id", "")
                seen["name"] += call["function"].get("name", "")
                seen["arguments"] += call["function"].get("arguments", "")
    return seen


def engines(script: Any, faults: list[Fault], second: int = 3) -> list[FakeEngine]:
    """The engine that is asked second cuts its text differently: whichever that is."""
    queue = deque(faults)

    class Second(FakeEngine):
        def _stream(self, *args: Any) -> list[bytes]:
            self.script = script(self.name, 2 if len(self.all) == 0 else second)
            self.all.append(1)
            return super()._stream(*args)

    fakes = [Second([], name=name, faults=queue) for name in "ab"]
    shared: list[int] = []
    for fake in fakes:
        fake.all = shared  # type: ignore[attr-defined]
    return list(fakes)


async def raw_of(fakes: list[FakeEngine], body: dict[str, Any]) -> bytes:
    async with bench(*fakes) as b:
        return b"".join([item async for item in b.relay.stream(Call(CHAT, body, "r"))])


@pytest.mark.parametrize("kind", ["cut", "error_event", "eof", "abort"])
@pytest.mark.parametrize(
    "script, fields",
    [
        (two_choices, {"n": 2}),
        (tool_call, {"tools": [TOOL]}),
        (logprobs, {"logprobs": True}),
    ],
)
async def test_each_part_comes_once(script: Any, fields: dict[str, Any], kind: str) -> None:
    body = chat(temperature=0, **fields)
    assert not wish(CHAT, body).exact
    unbroken = gathered(await raw_of(engines(script, []), body))
    assert unbroken["errors"] == ""
    for after in range(1, len(script("x", 2)) - 1):
        fakes = engines(script, [Fault(kind, after)])
        seen = gathered(await raw_of(fakes, body))
        assert len(seen["ids"]) == 1 and len(seen["calls"]) == len(unbroken["calls"])
        for name in unbroken:
            if name not in ("ids", "calls"):
                assert seen[name] == unbroken[name], (after, name)
        seeds = [request["seed"] for fake in fakes for _, request in fake.generations]
        assert len(seeds) == 2 and len(set(seeds)) == 1


async def test_another_answer_is_an_error_and_not_an_answer() -> None:
    def differs(name: str, size: int) -> list[dict[str, Any]]:
        word = "same same" if size == 2 else "same same but different"
        letters = [chunk(name, delta={"content": c}) for c in word.replace("same", str(size), 1)]
        return [*letters, chunk(name, 0, "stop", delta={})]

    raw = await raw_of(engines(differs, [Fault("cut", 4)]), chat(n=1, tools=[TOOL]))
    seen = gathered(raw)
    assert seen["errors"] == "answer_interrupted"
    assert raw.endswith(b"data: [DONE]\n\n") and seen["finish 0"] == ""


async def test_a_shorter_answer_is_an_error_too() -> None:
    def shorter(name: str, size: int) -> list[dict[str, Any]]:
        letters = [chunk(name, delta={"content": c}) for c in "abcdef"[: 6 if size == 2 else 2]]
        return [*letters, chunk(name, 0, "stop", delta={})]

    seen = gathered(await raw_of(engines(shorter, [Fault("cut", 4)]), chat(tools=[TOOL])))
    assert (seen["errors"], seen["finish 0"]) == ("answer_interrupted", "")


# Not streamed ----------------------------------------------------------------------------------

WHOLE = {
    "id": "x",
    "choices": [{"index": 0, "message": {"content": "hi"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
}


async def test_a_whole_answer_is_asked_for_again() -> None:
    for faults in ([], [Fault("http")], [Fault("cut", -1)], [Fault("html")], [Fault("not_http")]):
        queue = deque(faults)
        fakes = [FakeEngine([], name=name, whole=WHOLE, faults=queue) for name in "ab"]
        async with bench(*fakes) as b:
            call = Call(CHAT, {"messages": [], "stream": False}, "r")
            status, headers, body = await b.relay.complete(call)
            assert (status, json.loads(body)) == (200, WHOLE)
            assert headers["x-tandem-failovers"] == str(len(faults))
            assert (call.outcome.completion_tokens, call.outcome.outcome) == (2, "ok")


async def test_a_whole_answer_that_was_aborted_is_none() -> None:
    aborted = {**WHOLE, "choices": [{"index": 0, "finish_reason": "abort"}]}
    fakes = [FakeEngine([], name=name, whole=aborted) for name in "ab"]
    async with bench(*fakes) as b:
        with pytest.raises(TandemError) as told:
            await b.relay.complete(Call(COMPLETIONS, {"prompt": "x"}, "r"))
        assert told.value.code == "request_breaks_engines"


async def test_forwarding_passes_over_a_dead_engine() -> None:
    fakes = [FakeEngine([b"x"], name=name) for name in "ab"]
    async with bench(*fakes) as b:
        await fakes[0].stop()
        for _ in range(2):
            status, headers, body = await b.relay.forward("GET", "/v1/models")
            assert status == 200 and b"max_model_len" in body
            assert headers["content-type"] == "application/json"
