"""The log of a turn in a real Redis: numbered, fenced, complete after any late or lost reply."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from redis.asyncio import Redis

from gateway import turn_log as turn_log_module
from gateway.errors import NotFound
from gateway.sessions import Begun, Opening, TurnRef
from gateway.turn_log import TurnLog
from gateway.turns import Entry
from tests.fakes.conversations import OWNER, Gateway, until, within


@pytest.fixture
async def ref(gateway: Gateway) -> TurnRef:
    begun = await gateway.sessions.begin(Opening(OWNER, None, "t", "hello", None, True))
    assert isinstance(begun, Begun)
    return begun.ref


def entry(text: str) -> Entry:
    return Entry(text=text, ids=[ord(letter) for letter in text])


async def texts(gateway: Gateway, first: int = 0) -> list[str]:
    return [e.text for e in (await gateway.turns.read(OWNER, "t", first)).entries]


async def test_an_entry_is_written_once_however_often_it_is_repeated(
    gateway: Gateway, ref: TurnRef
) -> None:
    assert await gateway.turns.append(ref, 0, [entry("a"), entry("b")], {}) == "written"
    assert await gateway.turns.append(ref, 0, [entry("a"), entry("b")], {}) == "written"
    assert await gateway.turns.append(ref, 1, [entry("b"), entry("c")], {}) == "written"
    assert await texts(gateway) == ["a", "b", "c"]
    assert await texts(gateway, 2) == ["c"]


async def test_a_log_with_a_hole_is_never_made(gateway: Gateway, ref: TurnRef) -> None:
    assert await gateway.turns.append(ref, 1, [entry("b")], {}) == "gone"
    assert await texts(gateway) == []


async def test_a_turn_is_taken_over_once_and_only_when_its_gateway_is_silent(
    gateway: Gateway, other: Gateway, store: Redis, ref: TurnRef
) -> None:
    written = [entry("ab"), Entry(text="c", ids=[99], finish="stop")]
    await gateway.turns.append(ref, 0, written, {"request": '{"prompt":"hello"}'})
    assert await other.turns.take_over(OWNER, "t", ref.session_id) is None
    await store.delete("tandem:turn:t:lease")
    wanted = [other.turns.take_over(OWNER, "t", ref.session_id) for _ in range(10)]
    taken = [one for one in await asyncio.gather(*wanted) if one is not None]
    assert len(taken) == 1
    assert (taken[0].text, taken[0].ids, taken[0].finish) == ("abc", [97, 98, 99], "stop")
    assert taken[0].request == {"prompt": "hello"}
    assert await gateway.turns.append(ref, 2, [entry("late")], {}) == "fenced"
    assert (await gateway.turns.heartbeat(ref)).status == "fenced"
    assert await other.turns.append(taken[0].ref, 2, [entry("d")], {}) == "written"
    assert await texts(gateway) == ["ab", "c", "d"]


async def test_a_turn_whose_session_moved_on_is_not_taken_over(
    gateway: Gateway, other: Gateway, store: Redis, ref: TurnRef
) -> None:
    await store.delete("tandem:turn:t:lease", f"tandem:session:{ref.session_id}:turn")
    await store.hset(f"tandem:session:{ref.session_id}", "open", "newer")
    assert await other.turns.take_over(OWNER, "t", ref.session_id) is None
    assert (await other.turns.read(OWNER, "t")).state == "lost"


async def test_a_heartbeat_keeps_the_leases_and_brings_the_wish_to_stop(
    gateway: Gateway, store: Redis, ref: TurnRef
) -> None:
    leases = ["tandem:turn:t:lease", f"tandem:session:{ref.session_id}:turn"]
    for lease in leases:
        await store.pexpire(lease, 500_000)
    beat = await gateway.turns.heartbeat(ref)
    assert (beat.status, beat.watched) == ("running", False)
    assert [0 < await store.pttl(lease) <= 30_000 for lease in leases] == [True, True]
    await gateway.turns.read(OWNER, "t")
    await gateway.turns.ask_stop(OWNER, "t")
    beat = await gateway.turns.heartbeat(ref)
    assert (beat.status, beat.watched) == ("stop", True)
    assert await gateway.turns.append(ref, 0, [entry("a")], {}) == "stop"


async def test_somebody_else_sees_no_turn(gateway: Gateway, ref: TurnRef) -> None:
    for deed in (gateway.turns.read("mallory", "t"), gateway.turns.ask_stop("mallory", "t")):
        with pytest.raises(NotFound) as refusal:
            await deed
        assert refusal.value.code == "turn_not_found"
    assert await gateway.turns.take_over("mallory", "t", ref.session_id) is None
    assert (await gateway.turns.heartbeat(ref)).status == "running"


# The writer ----------------------------------------------------------------------------------


class Desk:
    """A log, and what it has let readers see."""

    def __init__(self, gateway: Gateway, ref: TurnRef) -> None:
        self.shown = 0
        self.signals: list[str] = []
        self.text = ""
        self.log = TurnLog(
            gateway.turns, ref, first=0, length=0, show=self._show, signal=self.signals.append
        )

    def _show(self, characters: int) -> None:
        self.shown = max(self.shown, characters)

    def say(self, text: str) -> None:
        self.text += text
        self.log.write(text, [ord(letter) for letter in text], None, {})


@asynccontextmanager
async def opened(gateway: Gateway, ref: TurnRef) -> AsyncIterator[Desk]:
    desk = Desk(gateway, ref)
    writing = asyncio.create_task(desk.log.run())
    try:
        yield desk
    finally:
        writing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await writing


async def test_a_piece_is_shown_when_it_is_logged(gateway: Gateway, ref: TurnRef) -> None:
    async with opened(gateway, ref) as desk:
        for letter in "hello":
            desk.say(letter)
        assert desk.shown == 0
        await until(lambda: desk.shown == 5)
        assert "".join(await texts(gateway)) == "hello"


async def test_pieces_are_written_in_batches(gateway: Gateway, ref: TurnRef) -> None:
    async with opened(gateway, ref) as desk:
        for _ in range(500):
            desk.say("x")
        assert await desk.log.flush(60)
        assert await texts(gateway) == ["x" * 500]
        assert desk.log.next_number == 1


async def test_a_store_that_is_away_does_not_hold_the_answer_and_gets_all_of_it_later(
    gateway: Gateway, ref: TurnRef
) -> None:
    async with opened(gateway, ref) as desk:
        desk.say("one ")
        await until(lambda: desk.shown == 4)
        gateway.scripts.cut = True
        desk.say("two ")
        await until(lambda: desk.shown == 8)
        desk.say("three")
        await until(lambda: desk.shown == 13)
        assert not await desk.log.flush(0.01)
        gateway.scripts.cut = False
        assert await desk.log.flush(60)
        assert "".join(await texts(gateway)) == desk.text == "one two three"


async def test_a_write_whose_reply_was_lost_is_repeated_without_a_double(
    gateway: Gateway, ref: TurnRef
) -> None:
    async with opened(gateway, ref) as desk:
        for number in range(6):
            gateway.scripts.lost_replies = number % 3
            desk.say(f"piece {number}; ")
            await within(desk.log.flush(60))
        assert "".join(await texts(gateway)) == desk.text


@pytest.mark.parametrize("fate", ["fenced", "emptied"])
async def test_a_log_that_is_lost_ends_the_logging(
    gateway: Gateway, other: Gateway, store: Redis, ref: TurnRef, fate: str
) -> None:
    async with opened(gateway, ref) as desk:
        desk.say("one ")
        assert await desk.log.flush(60)
        if fate == "fenced":
            await store.delete("tandem:turn:t:lease")
            assert await other.turns.take_over(OWNER, "t", ref.session_id)
        else:
            await store.flushall()
        desk.say("two ")
        await until(lambda: desk.log.over)
        assert desk.signals == (["fenced"] if fate == "fenced" else [])
        if fate == "emptied":
            desk.say("three")
            assert desk.shown == len(desk.text)
            assert not await desk.log.flush(60)


async def test_the_wish_to_stop_comes_with_the_next_write(gateway: Gateway, ref: TurnRef) -> None:
    async with opened(gateway, ref) as desk:
        await gateway.turns.ask_stop(OWNER, "t")
        desk.say("one")
        await until(lambda: desk.signals == ["stop"])


async def test_fields_go_with_their_entries(
    gateway: Gateway, store: Redis, ref: TurnRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turn_log_module, "PAUSE_SECONDS", 0.0)
    async with opened(gateway, ref) as desk:
        for number in range(20):
            desk.log.write(f"{number} ", [number], None, {"progress": str(number)})
            await asyncio.sleep(0)
        assert await desk.log.flush(60)
        assert await store.hget("tandem:turn:t", "progress") == b"19"
        view = await gateway.turns.read(OWNER, "t")
        assert [i for e in view.entries for i in e.ids] == list(range(20))
