"""An answer from engine to engine: breaks, refusals, and what is told when none can go on."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

import pytest

from gateway.engine import EngineState
from gateway.errors import BadRequest, EngineFailed, NoEngine, Overloaded, TandemError
from gateway.relay import Call
from tests.fakes.engine import FakeEngine, Fault
from tests.fakes.relay_scene import ASKED, KINDS, PIECES, TEXT, assert_unbroken, faulty
from tests.fakes.relaying import CHAT, COMPLETIONS, bench, chat


async def test_an_answer_passes_unchanged_and_its_connection_is_kept() -> None:
    async with bench(*faulty()) as b:
        for _ in range(3):
            seen, call = await b.ask(chat(**ASKED))
            assert_unbroken(seen, call)
            assert (call.outcome.failovers, seen.ids) == (0, [])
        assert sum(fake.accepted for fake in b.fakes) <= 2


async def test_usage_and_ids_are_seen_only_by_those_who_asked() -> None:
    async with bench(*faulty()) as b:
        seen, _ = await b.ask(chat())
        assert seen.usage is None and seen.ids == []
        seen, _ = await b.ask(chat(return_token_ids=True))
        assert seen.ids == b.fakes[0].ids()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("groups", [[1], [3, 1, 2]])
@pytest.mark.parametrize("pen", [True, False])
async def test_a_break_after_any_event_is_not_noticed(
    kind: str, groups: list[int], pen: bool
) -> None:
    for after in range(15 if groups == [1] else 8):
        async with bench(*faulty(Fault(kind, after), groups=groups)) as b:
            seen, call = await b.ask(chat(**ASKED), pen=pen)
            assert_unbroken(seen, call)
            assert call.outcome.failovers == 1
            assert sum(b.failovers().values()) == 1


@pytest.mark.parametrize("groups", [[1], [2, 3]])
@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
async def test_a_break_at_any_byte_is_not_noticed(path: str, groups: list[int]) -> None:
    body = chat(**ASKED) if path == CHAT else {"prompt": "hi", "max_tokens": 50, **ASKED}
    for at in range(0, 3200, 7):
        async with bench(*faulty(Fault("bytes", at=at), groups=groups)) as b:
            seen, _ = await b.ask(body, path)
            assert (seen.text, seen.finish, seen.error) == (TEXT, "stop", None)
            assert seen.usage is not None and seen.usage["completion_tokens"] == 14


@pytest.mark.parametrize("look", [{"slices": 1}, {"comments": True}, {"crlf": True}])
async def test_how_the_bytes_are_cut_does_not_matter(look: dict[str, Any]) -> None:
    async with bench(*faulty(Fault("error_event", 5), **look)) as b:
        seen, call = await b.ask(chat(**ASKED))
        assert_unbroken(seen, call)


async def test_ids_across_the_seam_are_those_of_the_unbroken_answer() -> None:
    for after in range(1, 9):
        async with bench(*faulty(Fault("cut", after), groups=[1, 2])) as b:
            seen, call = await b.ask(chat(return_token_ids=True, **ASKED))
            assert_unbroken(seen, call)
            assert seen.ids == b.fakes[0].ids()


@pytest.mark.parametrize("status, reason", [(500, "http_500"), (503, "busy"), (429, "busy")])
async def test_a_refusal_before_the_first_byte_goes_to_the_other(status: int, reason: str) -> None:
    async with bench(*faulty(Fault("http", status=status))) as b:
        seen, call = await b.ask(chat(**ASKED))
        assert_unbroken(seen, call)
        assert b.failovers() == {(reason, "continued"): 1}


@pytest.mark.parametrize("kind", ["html", "not_http"])
async def test_what_is_no_answer_is_not_shown(kind: str) -> None:
    async with bench(*faulty(Fault(kind))) as b:
        seen, call = await b.ask(chat(**ASKED))
        assert_unbroken(seen, call)


async def test_a_dead_engine_is_passed_over() -> None:
    async with bench(*faulty()) as b:
        await b.fakes[0].stop()
        for _ in range(2):
            seen, call = await b.ask(chat(**ASKED))
            assert_unbroken(seen, call)
            assert call.outcome.engine == "b"


async def test_busy_everywhere_is_told_and_ejects_nobody() -> None:
    busy = [Fault("http", status=503) for _ in range(2)]
    async with bench(*faulty(*busy)) as b:
        with pytest.raises(Overloaded) as told:
            await b.ask(chat())
        assert told.value.retry_after and all(e.usable for e in b.engines)


async def test_500_everywhere_is_told_without_a_host() -> None:
    async with bench(*faulty(Fault("http"), Fault("http"))) as b:
        call = Call(CHAT, chat(), "r")
        with pytest.raises(EngineFailed) as told:
            await anext(b.relay.stream(call))
        assert "10.0.0.1" not in told.value.message
        assert call.outcome.outcome == "upstream_error"


async def test_a_client_error_is_the_clients_and_asked_once() -> None:
    async with bench(*faulty(Fault("http", status=400))) as b:
        call = Call(CHAT, chat(), "r")
        with pytest.raises(BadRequest):
            await anext(b.relay.stream(call))
        assert sum(len(f.generations) for f in b.fakes) == 1
        assert call.outcome.outcome == "client_error"


async def test_no_engine_is_waited_for_and_then_told() -> None:
    async with bench(*faulty(), queue=0.05) as b:
        for engine in b.engines:
            engine.observe(EngineState.DOWN, "died")
        with pytest.raises(NoEngine):
            await b.ask(chat())


async def test_a_request_that_breaks_two_engines_is_not_given_a_third() -> None:
    faults = deque([Fault("cut", after) for after in (3, 2, 2)])
    fakes = [FakeEngine(PIECES, name=name, faults=faults) for name in "abc"]
    async with bench(*fakes) as b:
        seen, call = await b.ask(chat())
        assert seen.error is not None and seen.error["code"] == "request_breaks_engines"
        assert seen.done and TEXT.startswith(seen.text)
        assert sum(len(f.generations) for f in fakes) == 2
        assert call.outcome.outcome == "stream_aborted"


async def test_breaking_two_engines_before_the_first_byte_is_an_error_of_its_own() -> None:
    async with bench(*faulty(Fault("cut", 0), Fault("cut", 0))) as b:
        with pytest.raises(TandemError) as told:
            await b.ask(chat())
        assert (told.value.status, told.value.code) == (503, "request_breaks_engines")
        assert (b"retry-after", b"30") in told.value.headers()


async def test_in_the_middle_of_an_answer_an_engine_is_waited_for() -> None:
    async with bench(*faulty(Fault("cut", 4))) as b:

        def others_down(call: Call, _: bytes) -> None:
            for engine in b.engines:
                if engine.name != call.outcome.engine and call.outcome.failovers == 0:
                    engine.observe(EngineState.DOWN, "died")
                    later = asyncio.get_running_loop().call_later
                    later(0.2, engine.observe, EngineState.HEALTHY)

        seen, call = await b.ask(chat(**ASKED), each=others_down)
        assert_unbroken(seen, call)
