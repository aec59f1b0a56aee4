"""Turns on one gateway: answered, saved, cut short, refused, stopped, saved late, shut down."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from redis.asyncio import Redis

from gateway import turn_ending
from gateway.chat_turn import TurnRequest, stored_answer
from gateway.errors import Conflict, ContextLengthExceeded, NoEngine, Overloaded, TandemError
from gateway.sessions import AlreadyAnswered
from gateway.turn_run import GRACE_SECONDS, TurnRun
from tests.fakes.conversations import (
    CONTEXT,
    OWNER,
    TEXT,
    Gateway,
    follow,
    text_of,
    until,
    within,
)


def data_of(run: TurnRun) -> dict[str, Any]:
    assert run.answer.end is not None
    return run.answer.end.data


async def read_letters(run: TurnRun, letters: int) -> None:
    """A reader that takes so many letters and then is gone."""
    events = run.answer.follow(0)
    async with asyncio.timeout(60):
        async for event in events:
            if event.id > letters:
                break
    await events.aclose()


@pytest.mark.parametrize("resumable", [False, True])
async def test_a_turn_is_answered_and_remembered(gateway: Gateway, resumable: bool) -> None:
    run = await gateway.turn("my name is Ming", system="be brief", resumable=resumable)
    events = [event async for event in run.answer.follow(0)]
    assert text_of(events) == TEXT
    assert events[0].data == {
        "turn_id": run.ref.turn_id, "session_id": run.ref.session_id, "trimmed_turns": 0,
    }  # fmt: skip
    done = data_of(run)
    assert (done["finish_reason"], done["saved"], done["failovers"]) == ("stop", True, 0)
    assert done["usage"]["completion_tokens"] == len(TEXT)
    session = run.ref.session_id
    assert await gateway.history(session) == [("user", "my name is Ming"), ("assistant", TEXT)]
    await gateway.turn("and now?", session_id=session)
    assert [m["content"] for m in gateway.model.calls[1].body["messages"]] == [
        "be brief", "my name is Ming", TEXT, "and now?",
    ]  # fmt: skip
    assert gateway.saved == ["saved", "saved"]
    assert gateway.admission.inside == 0


async def test_sampling_fields_go_to_the_model_and_ours_win(gateway: Gateway) -> None:
    sampling = {"temperature": 0.5, "stop": ["x"], "stream": False, "model": "other"}
    await gateway.turn(sampling=sampling, max_tokens=9)
    body = gateway.model.calls[0].body
    assert (body["temperature"], body["stop"], body["max_tokens"]) == (0.5, ["x"], 9)
    assert (body["stream"], body["model"]) == (True, "some-model")


@pytest.mark.parametrize(("read", "kept"), [(0, None), (7, TEXT[:7])])
async def test_a_turn_whose_caller_left_keeps_what_was_read(
    gateway: Gateway, store: Redis, read: int, kept: str | None
) -> None:
    run = await gateway.start()
    gateway.model.release(12)
    await until(lambda: run.answer.visible == 12)
    if read:
        run.answer.text, run.answer.visible = TEXT[:7], 7
        await read_letters(run, read)
        run.answer.add(TEXT[7:12])
    run.halt("cancelled")
    await within(run.ended())
    assert gateway.model.streams == 0
    assert data_of(run)["finish_reason"] == "cancelled"
    if kept is None:
        assert await store.keys("tandem:*") == []
    else:
        messages = (await gateway.sessions.get(OWNER, run.ref.session_id)).messages
        assert (messages[1].content, messages[1].finish_reason) == (kept, "cancelled")


async def test_the_engine_is_left_at_once_and_the_session_is_free(gateway: Gateway) -> None:
    first = await gateway.turn()
    gateway.model.hold()
    run = await gateway.start("again", session_id=first.ref.session_id)
    await until(lambda: gateway.model.streams == 1)
    with pytest.raises(Conflict) as busy:
        await gateway.start("at once", session_id=first.ref.session_id)
    assert run.ref.turn_id in busy.value.message
    run.halt("cancelled")
    await within(run.ended())
    assert (gateway.model.streams, gateway.admission.inside) == (0, 0)
    await gateway.start("now", session_id=first.ref.session_id)


@pytest.mark.parametrize("where", ["admission", "relay"])
async def test_a_turn_that_is_refused_leaves_nothing(
    gateway: Gateway, store: Redis, where: str
) -> None:
    refusal: TandemError = Overloaded(retry_after=3) if where == "admission" else NoEngine()
    (gateway.admission if where == "admission" else gateway.model).refusal = refusal
    run = await gateway.start(turn_id="again")
    await within(run.begun(60))
    assert run.error is refusal
    await within(run.ended())
    assert await store.keys("tandem:*") == []
    gateway.admission.refusal = gateway.model.refusal = None
    assert data_of(await gateway.turn(turn_id="again"))["finish_reason"] == "stop"


async def test_a_prompt_that_does_not_fit_is_refused(gateway: Gateway, store: Redis) -> None:
    run = await gateway.start("word " * (CONTEXT + 1))
    await within(run.begun(60))
    assert isinstance(run.error, ContextLengthExceeded)
    await within(run.ended())
    assert await store.keys("tandem:*") == []
    assert gateway.model.calls == []


async def test_a_long_conversation_says_how_much_it_left_out(gateway: Gateway) -> None:
    gateway.model.text = "word " * 1500
    first = await gateway.turn("one", system="be brief")
    for prompt in ("two", "three", "four"):
        last = await gateway.turn(prompt, session_id=first.ref.session_id)
    assert data_of(last)["trimmed_turns"] > 0
    messages = gateway.model.calls[-1].body["messages"]
    assert messages[0] == {"role": "system", "content": "be brief"}
    assert messages[-1]["content"] == "four"
    assert sum(len(m["content"].split()) for m in messages) + 512 <= CONTEXT
    assert len(await gateway.history(first.ref.session_id)) == 8


async def test_an_answer_that_breaks_keeps_what_was_read_and_says_so(gateway: Gateway) -> None:
    gateway.model.break_at = 9
    run = await gateway.start(resumable=True)
    gateway.model.release()
    events = [event async for event in run.answer.follow(0)]
    assert (events[-1].event, events[-1].data["error"]["message"]) == ("error", "broke")
    messages = (await gateway.sessions.get(OWNER, run.ref.session_id)).messages
    assert (messages[1].content, messages[1].finish_reason) == (TEXT[:9], "error")


async def test_a_turn_id_that_was_answered_is_not_answered_again(gateway: Gateway) -> None:
    run = await gateway.turn(turn_id="mine")
    for session in (None, run.ref.session_id):
        request = TurnRequest(OWNER, "hello", "r", session_id=session, turn_id="mine")
        found = await gateway.chat_turn.start(request)
        assert isinstance(found, AlreadyAnswered)
        events = [event async for event in stored_answer(found).follow(0)]
        assert (text_of(events), events[-1].data["finish_reason"]) == (TEXT, "stop")
        assert events[-1].data["usage"] == data_of(run)["usage"]
    assert len(gateway.model.calls) == 1


async def test_stop_ends_a_turn_and_saves_its_part(gateway: Gateway) -> None:
    run = await gateway.start(resumable=True)
    gateway.model.release(5)
    await until(lambda: run.answer.visible == 5)
    told = await within(gateway.chat_turn.stop(OWNER, run.ref.turn_id))
    assert (told["status"], told["finish_reason"], told["saved"]) == ("stopped", "cancelled", True)
    assert gateway.model.streams == 0
    assert (await gateway.history(run.ref.session_id))[1] == ("assistant", TEXT[:5])
    events = await follow(gateway, run.ref.turn_id)
    assert (text_of(events), events[-1].data["finish_reason"]) == (TEXT[:5], "cancelled")


async def test_a_resumable_turn_outlives_its_reader_for_the_time_of_grace(
    gateway: Gateway,
) -> None:
    run = await gateway.start(resumable=True)
    gateway.model.release(4)
    await read_letters(run, 4)
    gateway.moment = GRACE_SECONDS - 10
    run._check_grace()
    assert run.halted is None
    gateway.moment = GRACE_SECONDS + 1
    await within(run.ended())
    assert run.halted == "abandoned"
    assert (await gateway.history(run.ref.session_id))[1] == ("assistant", TEXT[:4])


async def test_a_reader_holds_off_the_end_of_grace(gateway: Gateway) -> None:
    run = await gateway.start(resumable=True)
    reading = asyncio.ensure_future(follow(gateway, run.ref.turn_id))
    await until(lambda: run.answer.readers == 1)
    gateway.moment = GRACE_SECONDS + 100
    run._check_grace()
    assert run.halted is None
    gateway.model.release()
    assert text_of(await within(reading)) == TEXT


@pytest.mark.parametrize("resumable", [False, True])
async def test_an_answer_the_store_cannot_take_is_delivered_and_saved_later(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, resumable: bool
) -> None:
    monkeypatch.setattr(turn_ending, "SAVE_PAUSE_SECONDS", 0.01)
    run = await gateway.start(resumable=resumable)
    gateway.model.release(3)
    await until(lambda: run.answer.visible == 3)
    gateway.scripts.cut = True
    gateway.model.release()
    events = [event async for event in run.answer.follow(0)]
    assert text_of(events) == TEXT
    assert (events[-1].event, events[-1].data["saved"]) == ("done", False)
    assert gateway.saved == []
    gateway.scripts.cut = False
    await until(lambda: gateway.saved)
    assert gateway.saved == ["late"]
    assert (await gateway.history(run.ref.session_id))[1] == ("assistant", TEXT)
    if resumable:
        await until(lambda: not gateway.chat_turn._runs)
        assert text_of(await follow(gateway, run.ref.turn_id)) == TEXT


async def test_saving_later_ends_some_time(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turn_ending, "SAVE_PAUSE_SECONDS", 0.01)
    run = await gateway.start()
    await until(lambda: gateway.model.streams == 1)
    gateway.scripts.cut = True
    gateway.model.release()
    await within(run.ended())
    gateway.moment = turn_ending.SAVE_AGAIN_SECONDS + 1
    await until(lambda: gateway.saved)
    assert gateway.saved == ["lost"]


async def test_a_session_deleted_under_its_turn_stays_deleted(
    gateway: Gateway, store: Redis
) -> None:
    run = await gateway.start()
    await until(lambda: gateway.model.streams == 1)
    await gateway.sessions.delete(OWNER, run.ref.session_id)
    gateway.model.release()
    await within(run.ended())
    assert data_of(run)["saved"] is False
    assert await store.keys("tandem:session:*") == []


async def test_a_store_emptied_under_a_turn_does_not_break_its_answer(
    gateway: Gateway, store: Redis
) -> None:
    run = await gateway.start(resumable=True)
    gateway.model.release(3)
    await until(lambda: run.answer.visible == 3)
    await store.flushall()
    gateway.model.release()
    events = [event async for event in run.answer.follow(0)]
    assert (text_of(events), events[-1].data["saved"]) == (TEXT, False)


async def test_at_shutdown_a_turn_that_takes_too_long_is_saved_as_far_as_it_came(
    gateway: Gateway,
) -> None:
    run = await gateway.start(resumable=True)
    gateway.model.release(6)
    await until(lambda: run.answer.visible == 6)
    await within(gateway.chat_turn.aclose(0.01))
    assert (await gateway.history(run.ref.session_id))[1] == ("assistant", TEXT[:6])
    assert not gateway.chat_turn._tasks
