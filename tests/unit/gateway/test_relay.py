"""The relay before engines that fail in every way: the client sees one unbroken answer."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import aclosing
from typing import Any

import pytest

from gateway.engine import EngineState
from gateway.errors import BadRequest, EngineFailed, NoEngine, Overloaded, TandemError
from gateway.relay import Call, Progress
from tests.fakes.engine import FakeEngine, Fault
from tests.fakes.relaying import CHAT, COMPLETIONS, Bench, Read, bench, chat, pair, read, until

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
async def test_a_break_after_any_event_is_not_noticed(kind: str, groups: list[int]) -> None:
    for after in range(15 if groups == [1] else 8):
        async with bench(*faulty(Fault(kind, after), groups=groups)) as b:
            seen, call = await b.ask(chat(**ASKED))
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


# Moves -----------------------------------------------------------------------------------------


def drain_serving(b: Bench, times: int) -> Any:
    """Send the stream away from its engine, `times` times, and let the engine come back."""
    left = [times]

    def move(call: Call, _: bytes) -> None:
        if left[0]:
            left[0] -= 1
            engine = b.pool.by_name[call.outcome.engine]
            engine.set_drain("move")
            engine.set_drain(None)
            engine.observe(EngineState.HEALTHY)

    return move


async def test_a_drained_engine_is_left_and_may_be_come_back_to() -> None:
    fakes = pair(PIECES, drip=0.005)
    async with bench(*fakes) as b:
        seen, call = await b.ask(chat(**ASKED), each=drain_serving(b, 5))
        assert_unbroken(seen, call)
        assert call.outcome.failovers == 5
        assert b.failovers() == {("draining", "continued"): 5}


async def test_silence_while_the_engine_makes_no_steps_is_a_hang() -> None:
    for after in (0, 1, 4):
        async with bench(*faulty(Fault("silence", after)), stall=0.1, first=0.1) as b:
            seen, call = await b.ask(chat(**ASKED))
            assert_unbroken(seen, call)
            assert b.failovers() == {("hung", "continued"): 1}


async def test_comments_do_not_hide_a_hang_and_steps_excuse_silence() -> None:
    fakes = pair(PIECES, drip=0.15)
    async with bench(*fakes, stall=0.05, first=0.05) as b:
        for engine in b.engines:
            engine.progressing = lambda within: True  # type: ignore[method-assign]
        seen, call = await b.ask(chat(max_tokens=3, **ASKED))
        assert (seen.finish, call.outcome.failovers) == ("length", 0)


async def test_silence_after_the_finish_is_no_failure() -> None:
    async with bench(*faulty(Fault("silence", 15))) as b:
        seen, call = await b.ask(chat(**ASKED))
        assert_unbroken(seen, call)
        assert call.outcome.failovers == 0


async def test_closing_the_stream_stops_the_engine_and_leaves_it() -> None:
    fakes = pair(PIECES, drip=0.02)
    async with bench(*fakes) as b:
        call = Call(CHAT, chat(), "r")
        async with aclosing(b.relay.stream(call)) as items:
            await anext(items)
        assert [e.in_flight for e in b.engines] == [0, 0]
        await until(lambda: sum(f.aborted for f in fakes))
        assert all(e.usable for e in b.engines)


async def test_cancelling_the_reader_stops_the_engine() -> None:
    async with bench(*faulty(Fault("silence", 1))) as b:
        task = asyncio.create_task(b.ask(chat()))
        await until(lambda: sum(len(f.generations) for f in b.fakes))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: sum(f.aborted for f in b.fakes))
        assert [e.in_flight for e in b.engines] == [0, 0]


# Budgets, stop strings, take-over ----------------------------------------------------------------


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
async def test_the_budget_is_shared_by_the_engines(path: str) -> None:
    for after in range(1, 9):
        body = chat(max_tokens=9, **ASKED) if path == CHAT else {"prompt": "h", "max_tokens": 9}
        async with bench(*faulty(Fault("cut", after))) as b:
            seen, call = await b.ask(body, path)
            assert (seen.finish, call.outcome.completion_tokens) == ("length", 9)
            assert seen.text == "Hello 你好 🙂!"


async def test_a_budget_used_up_at_the_seam_ends_without_an_engine() -> None:
    script = FakeEngine(PIECES, name="a")
    await script.start()
    chunks = script._model(CHAT, {"max_tokens": 5, "return_token_ids": True})
    await script.stop()
    chunks[-1]["choices"][0]["finish_reason"] = None
    fakes = faulty(Fault("cut", 6))
    for fake in fakes:
        fake.script = chunks
    async with bench(*fakes) as b:
        seen, call = await b.ask(chat(max_tokens=5, **ASKED))
        assert (seen.text, seen.finish, call.outcome.completion_tokens) == (
            "Hello 你好",
            "length",
            5,
        )
        assert sum(len(f.generations) for f in fakes) == 1


@pytest.mark.parametrize("include", [False, True])
@pytest.mark.parametrize("stop", ["好 🙂!", "llo 你", ["zz", "é", "🙂"], " end", "nowhere"])
async def test_a_stop_string_across_the_seam(stop: str | list[str], include: bool) -> None:
    body = chat(stop=stop, include_stop_str_in_output=include, **ASKED)
    async with bench(*faulty()) as b:
        unbroken, _ = await b.ask(body)
    for groups in ([1], [2, 3]):
        for after in range(1, 15):
            async with bench(*faulty(Fault("cut", after), groups=groups)) as b:
                seen, _ = await b.ask(body)
                assert (seen.text, seen.finish) == (unbroken.text, unbroken.finish)
                assert seen.stop_reason == unbroken.stop_reason
                if groups == [1]:
                    assert seen.usage == unbroken.usage


async def test_the_fake_agrees_with_its_own_stop_strings() -> None:
    """What the gateway finds itself is what vLLM would have found."""
    fake = FakeEngine(PIECES, name="a")
    chunks = fake._model(CHAT, {"stop": ["好 🙂!"], "return_token_ids": True})
    text = "".join(chunk["choices"][0]["delta"]["content"] for chunk in chunks)
    async with bench(*faulty()) as b:
        seen, _ = await b.ask(chat(stop=["好 🙂!"]))
        assert seen.text == text == "Hello 你"


async def test_a_progress_is_taken_over_by_another_gateway() -> None:
    for items in range(1, 12):
        async with bench(*pair(PIECES, drip=0.003)) as b:
            call = Call(CHAT, chat(**ASKED), "r")
            raw = b""
            async with aclosing(b.relay.stream(call)) as stream:
                async for item in stream:
                    if item.endswith(b"[DONE]\n\n"):
                        break
                    raw += item
                    items -= 1
                    if not items:
                        break
            assert call.progress is not None
            progress = Progress.from_json(call.progress.to_json())
            assert progress == call.progress
            rest = Call(CHAT, chat(**ASKED), "r", progress=progress)
            async with aclosing(b.relay.stream(rest)) as stream:
                async for item in stream:
                    raw += item
            assert_unbroken(read(raw), rest)


async def test_a_slow_reader_slows_the_engine_down() -> None:
    fake = FakeEngine([b"x" * 16384] * 400, name="a")
    async with bench(fake) as b:
        call = Call(CHAT, chat(max_tokens=400), "r")
        sizes = []
        async with aclosing(b.relay.stream(call)) as items:
            async for item in items:
                sizes.append(len(item))
                await asyncio.sleep(0.002)
        assert sum(sizes) > 400 * 16384
        assert max(sizes) < 1024 * 1024
