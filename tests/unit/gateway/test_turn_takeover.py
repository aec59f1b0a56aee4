"""A turn between two gateways: read from the other, stopped from the other, and continued there
when its own gateway is dead: by one gateway, without a letter lost or doubled."""

from __future__ import annotations

import asyncio

import pytest
from redis.asyncio import Redis

from gateway.errors import NotFound
from gateway.turn_run import TurnRun
from tests.fakes.conversations import OWNER, TEXT, Gateway, follow, text_of, until, within

GREEDY = {"temperature": 0}


async def begun(gateway: Gateway, letters: int, **more: object) -> TurnRun:
    """A resumable turn whose first letters are out and logged."""
    fields = {"resumable": True, "sampling": GREEDY, **more}
    run = await gateway.start(**fields)
    gateway.model.release(letters)
    await until(lambda: run.answer.visible == letters)
    return run


async def die(gateway: Gateway, run: TurnRun, store: Redis) -> None:
    """For everybody else the gateway is dead: it writes nothing and its lease has run out."""
    gateway.scripts.cut = True
    await store.delete(f"tandem:turn:{run.ref.turn_id}:lease")


async def test_a_turn_is_read_on_the_other_gateway_while_it_runs(
    gateway: Gateway, other: Gateway
) -> None:
    run = await begun(gateway, 5)
    reading = asyncio.ensure_future(follow(other, run.ref.turn_id, 1 + 3))
    gateway.model.release()
    events = await within(reading)
    assert text_of(events) == TEXT[3:]
    assert [event.id for event in events] == sorted({event.id for event in events})
    assert (events[-1].event, events[-1].data["saved"]) == ("done", True)
    assert other.model.calls == []


async def test_an_ended_turn_is_read_again_from_anywhere(gateway: Gateway, other: Gateway) -> None:
    run = await gateway.turn(resumable=True)
    await until(lambda: not gateway.chat_turn._runs)
    for reader in (gateway, other):
        events = await follow(reader, run.ref.turn_id)
        assert [events[0].event, text_of(events), events[-1].event] == ["turn", TEXT, "done"]
        last = await follow(reader, run.ref.turn_id, len(TEXT) + 1)
        assert [event.event for event in last] == ["done"]
        assert await follow(reader, run.ref.turn_id, len(TEXT) + 2) == []


async def test_nobody_else_reads_or_stops_a_turn(gateway: Gateway, other: Gateway) -> None:
    run = await begun(gateway, 3)
    for there in (gateway, other):
        with pytest.raises(NotFound):
            await follow(there, run.ref.turn_id, owner="mallory")
        with pytest.raises(NotFound):
            await there.chat_turn.stop("mallory", run.ref.turn_id)
    assert run.halted is None


@pytest.mark.parametrize("resumable", [True, False])
async def test_a_turn_is_stopped_from_the_other_gateway(
    gateway: Gateway, other: Gateway, resumable: bool
) -> None:
    run = await begun(gateway, 5, resumable=resumable)
    events = run.answer.follow(0)
    await within(anext(events))
    await within(anext(events))
    told = await within(other.chat_turn.stop(OWNER, run.ref.turn_id))
    await within(run.ended())
    await events.aclose()
    assert told["status"] in ("stopped", "stopping")
    assert run.halted == "stop"
    assert (await other.history(run.ref.session_id))[1] == ("assistant", TEXT[:5])


@pytest.mark.parametrize("letters", [1, 7, len(TEXT) - 1])
@pytest.mark.parametrize("has", [0, 1, 7])
async def test_a_dead_gateways_turn_goes_on_at_the_letter(
    gateway: Gateway, other: Gateway, store: Redis, letters: int, has: int
) -> None:
    run = await begun(gateway, letters)
    has = min(has, letters)
    await die(gateway, run, store)
    other.model.release()
    events = await follow(other, run.ref.turn_id, 1 + has if has else 0)
    assert TEXT[:has] + text_of(events) == TEXT
    assert [event.id for event in events] == sorted({event.id for event in events})
    assert (events[-1].event, events[-1].data["saved"]) == ("done", True)
    (call,) = other.model.calls
    assert call.progress is not None
    assert (call.progress.seed, list(call.progress.prompt_ids)) == (7, [1, 2, 3])
    assert await other.history(run.ref.session_id) == [("user", "hello"), ("assistant", TEXT)]
    assert other.resumed == ["taken_over", "live"]


async def test_many_who_come_back_at_once_get_one_answer_of_one_gateway(
    gateway: Gateway, other: Gateway, store: Redis
) -> None:
    run = await begun(gateway, 5)
    await die(gateway, run, store)
    other.model.release()
    readers = [follow(other, run.ref.turn_id, n) for n in range(6)]
    for last, events in enumerate(await asyncio.gather(*readers)):
        assert text_of(events) == TEXT[max(0, last - 1) :]
    assert len(other.model.calls) == 1


async def test_a_gateway_that_wakes_up_late_lets_go_and_its_reader_goes_on(
    gateway: Gateway, other: Gateway, store: Redis
) -> None:
    run = await begun(gateway, 5)
    held = asyncio.ensure_future(follow(gateway, run.ref.turn_id))
    await until(lambda: run.answer.readers == 1)
    await die(gateway, run, store)
    elsewhere = asyncio.ensure_future(follow(other, run.ref.turn_id, 1 + 5))
    await until(lambda: other.model.calls)
    gateway.scripts.cut = False
    await until(lambda: run.answer.moved)
    assert gateway.model.streams == 0
    other.model.release()
    assert text_of(await within(elsewhere)) == TEXT[5:]
    assert text_of(await within(held)) == TEXT
    assert await other.history(run.ref.session_id) == [("user", "hello"), ("assistant", TEXT)]
    assert gateway.saved == []


async def test_text_that_only_the_reader_has_is_not_sent_again(
    gateway: Gateway, other: Gateway, store: Redis
) -> None:
    """The store was away while the reader went on: the log is shorter than what was read."""
    run = await begun(gateway, 4)
    await die(gateway, run, store)
    gateway.model.release(6)
    await until(lambda: run.answer.visible == 10)
    other.model.release()
    events = await follow(other, run.ref.turn_id, 1 + 10)
    assert TEXT[:10] + text_of(events) == TEXT


async def test_a_sampled_tail_that_only_the_reader_has_is_told(
    gateway: Gateway, other: Gateway, store: Redis
) -> None:
    run = await begun(gateway, 4, sampling={"temperature": 1})
    await die(gateway, run, store)
    other.model.release()
    events = await follow(other, run.ref.turn_id, 1 + 10)
    assert [event.data["error"]["code"] for event in events] == ["answer_tail_lost"]
    await until(lambda: other.saved)
    assert (await other.history(run.ref.session_id))[1] == ("assistant", TEXT)


async def test_an_answer_that_was_finished_but_not_saved_is_saved(
    gateway: Gateway, other: Gateway, store: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, over = await begun(gateway, 5), asyncio.Event()

    async def late(*_: object) -> str:
        await over.wait()
        return "fenced"

    monkeypatch.setattr(gateway.sessions, "commit", late)
    gateway.model.release()
    await until(lambda: run.answer.visible == len(TEXT))
    await until(lambda: run.finish == "stop")
    assert run._log is not None
    assert await run._log.flush(60)
    await die(gateway, run, store)
    events = await follow(other, run.ref.turn_id)
    assert (text_of(events), events[-1].data["finish_reason"]) == (TEXT, "stop")
    assert events[-1].data["usage"]["completion_tokens"] == len(TEXT)
    assert events[-1].data["usage"]["total_tokens"] == len(TEXT) + 3
    assert other.model.calls == []
    assert (await other.history(run.ref.session_id))[1] == ("assistant", TEXT)
    over.set()


@pytest.mark.parametrize("changed", [False, True])
async def test_an_answer_that_cannot_be_continued_is_made_again_and_compared(
    gateway: Gateway, other: Gateway, store: Redis, changed: bool
) -> None:
    gateway.model.exact = other.model.exact = False
    run = await begun(gateway, 6)
    await die(gateway, run, store)
    if changed:
        other.model.text = TEXT[:3] + "?" + TEXT[4:]
    other.model.release()
    events = await follow(other, run.ref.turn_id, 1 + 6)
    if changed:
        assert [event.event for event in events] == ["error"]
    else:
        assert text_of(events) == TEXT[6:]


async def test_a_gateway_that_died_before_the_first_letter(
    gateway: Gateway, other: Gateway, store: Redis
) -> None:
    run = await gateway.start(resumable=True)
    await until(lambda: gateway.model.streams == 1)
    assert run._log is not None
    assert await run._log.flush(60)
    await die(gateway, run, store)
    other.model.release()
    assert text_of(await follow(other, run.ref.turn_id)) == TEXT


@pytest.mark.parametrize("system", [None, "Be brief."])
async def test_a_gateway_that_died_before_it_logged_anything(
    gateway: Gateway, other: Gateway, store: Redis, system: str | None
) -> None:
    """The turn is begun anew with the conversation before it, as the caller asked for it."""
    session = (await gateway.turn(system="Be kind.")).ref.session_id
    gateway.model.hold()
    run = await gateway.start("go on", session_id=session, system=system, resumable=True)
    await die(gateway, run, store)
    other.model.release()
    events = await follow(other, run.ref.turn_id)
    assert [events[0].event, text_of(events), events[-1].event] == ["turn", TEXT, "done"]
    (call,) = other.model.calls
    sent = [message["content"] for message in call.body["messages"]]
    assert sent == [system or "Be kind.", "hello", TEXT, "go on"]
    said = [content for _, content in await other.history(session)]
    assert said == ["hello", TEXT, "go on", TEXT]


async def test_the_next_turn_saves_what_a_dead_gateway_had_said(
    gateway: Gateway, other: Gateway, store: Redis
) -> None:
    run = await begun(gateway, 5)
    await die(gateway, run, store)
    await other.turn("go on", session_id=run.ref.session_id)
    messages = (await other.sessions.get(OWNER, run.ref.session_id)).messages
    assert [(m.content, m.finish_reason) for m in messages] == [
        ("hello", None), (TEXT[:5], "interrupted"), ("go on", None), (TEXT, "stop"),
    ]  # fmt: skip


async def test_the_next_turn_passes_over_a_dead_turn_without_a_log(
    gateway: Gateway, other: Gateway, store: Redis
) -> None:
    first = await gateway.turn()
    run = await gateway.start("lost", session_id=first.ref.session_id)
    await die(gateway, run, store)
    await other.turn("go on", session_id=first.ref.session_id)
    said = [content for _, content in await other.history(first.ref.session_id)]
    assert said == ["hello", TEXT, "go on", TEXT]


async def test_a_reader_elsewhere_holds_off_the_end_of_grace(
    gateway: Gateway, other: Gateway
) -> None:
    run = await begun(gateway, 5)
    reading = asyncio.ensure_future(follow(other, run.ref.turn_id))
    before = run._watched_at
    await until(lambda: run._watched_at > before)
    assert run.answer.readers == 0
    gateway.model.release()
    assert text_of(await within(reading)) == TEXT


async def test_a_turn_that_is_not_to_be_resumed_has_no_events_elsewhere(
    gateway: Gateway, other: Gateway
) -> None:
    run = await gateway.start()
    await until(lambda: gateway.model.streams == 1)
    with pytest.raises(NotFound):
        await follow(other, run.ref.turn_id)


async def test_a_gateway_that_ends_hands_over_what_is_read_elsewhere(
    gateway: Gateway, other: Gateway
) -> None:
    """An orderly stop: no letter is lost or doubled, and the session gets the whole answer."""
    run = await begun(gateway, 5)
    reading = asyncio.ensure_future(follow(other, run.ref.turn_id))
    await until(lambda: run._followed_at > 0)
    await within(gateway.chat_turn.aclose(0.01))
    other.model.release()
    events = await within(reading)
    assert text_of(events) == TEXT
    assert (events[-1].event, events[-1].data["saved"]) == ("done", True)
    assert len(other.model.calls) == 1
    assert (await other.history(run.ref.session_id))[1] == ("assistant", TEXT)


async def test_what_was_handed_over_can_be_neither_written_nor_kept_alive(
    gateway: Gateway, store: Redis
) -> None:
    run = await begun(gateway, 5)
    turns = gateway.chat_turn._parts.turns
    assert await turns.let_go(run.ref)
    assert not await turns.let_go(run.ref)
    assert (await turns.heartbeat(run.ref)).status == "fenced"
    assert not await store.exists(f"tandem:turn:{run.ref.turn_id}:lease")
