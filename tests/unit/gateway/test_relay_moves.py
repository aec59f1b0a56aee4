"""Moves, budgets, stop strings, take-over and slow readers of a relayed answer."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

import pytest

from gateway.engine import EngineState
from gateway.relay import Call, Progress
from tests.fakes.engine import FakeEngine, Fault
from tests.fakes.relay_scene import ASKED, PIECES, assert_unbroken, faulty
from tests.fakes.relaying import CHAT, COMPLETIONS, Bench, bench, chat, pair, read, until

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
    body = chat(stop=stop, include_stop_str_in_output=include, return_token_ids=True, **ASKED)
    async with bench(*faulty()) as b:
        unbroken, _ = await b.ask(body)
        ids = b.fakes[0].ids()
    for groups in ([1], [2, 3]):
        for after in range(1, 15):
            async with bench(*faulty(Fault("cut", after), groups=groups)) as b:
                seen, _ = await b.ask(body)
                assert (seen.text, seen.finish) == (unbroken.text, unbroken.finish)
                assert seen.stop_reason == unbroken.stop_reason
                assert seen.usage is not None
                assert seen.ids == ids[: seen.usage["completion_tokens"]]
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
