"""Conversations in a real Redis: owned, listed, renamed, deleted, one turn at a time, bounded."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import pytest
from redis.asyncio import Redis

from gateway import sessions as sessions_module
from gateway.errors import BadRequest, Conflict, NotFound, SessionStoreUnavailable
from gateway.history import Message
from gateway.session_scripts import ScriptRunner
from gateway.sessions import (
    MESSAGE_BYTES,
    WITHOUT_LOG,
    AlreadyAnswered,
    Begun,
    Opening,
)
from tests.fakes.conversations import OWNER, Gateway
from tests.redis_server import RedisServer, start_redis

FIRST = Opening(OWNER, None, "turn-1", "hello there", None, False)


def opening(session_id: str | None, turn_id: str, **more: Any) -> Opening:
    return dataclasses.replace(FIRST, session_id=session_id, turn_id=turn_id, **more)


async def begun(gateway: Gateway, wanted: Opening = FIRST) -> Begun:
    found = await gateway.sessions.begin(wanted)
    assert isinstance(found, Begun)
    return found


def pair(turn_id: str, question: str = "q", answer: str = "a") -> tuple[Message, Message]:
    return Message("user", question, 1, turn_id), Message("assistant", answer, 1, turn_id, "stop")


async def committed(gateway: Gateway, wanted: Opening = FIRST, answer: str = "a") -> str:
    turn = await begun(gateway, wanted)
    messages = pair(wanted.turn_id, wanted.prompt, answer)
    assert await gateway.sessions.commit(turn.ref, messages, "", WITHOUT_LOG) == "saved"
    return turn.ref.session_id


async def test_a_turn_adds_both_messages_and_frees_the_session(
    gateway: Gateway, store: Redis
) -> None:
    session = await committed(gateway)
    assert await gateway.history(session) == [("user", "hello there"), ("assistant", "a")]
    found = await gateway.sessions.get(OWNER, session)
    assert (found.head.title, found.head.turns) == ("hello there", 1)
    assert await store.exists(f"tandem:session:{session}:turn") == 0
    second = await begun(gateway, opening(session, "turn-2"))
    assert [message.content for message in second.history] == ["hello there", "a"]


@pytest.mark.parametrize("deed", ["get", "rename", "delete", "begin"])
async def test_another_owner_finds_nothing(gateway: Gateway, deed: str) -> None:
    session = await committed(gateway)
    stranger: dict[str, Any] = {
        "get": lambda: gateway.sessions.get("mallory", session),
        "rename": lambda: gateway.sessions.rename("mallory", session, "mine"),
        "delete": lambda: gateway.sessions.delete("mallory", session),
        "begin": lambda: gateway.sessions.begin(opening(session, "turn-9", owner="mallory")),
    }
    with pytest.raises(NotFound) as refusal:
        await stranger[deed]()
    with pytest.raises(NotFound) as absent:
        await gateway.sessions.get(OWNER, "sess_that_never_was")
    assert refusal.value.body() == absent.value.body()
    assert (await gateway.sessions.get(OWNER, session)).head.title == "hello there"


async def test_of_many_turns_at_once_one_runs(gateway: Gateway) -> None:
    session = await committed(gateway)
    wanted = [gateway.sessions.begin(opening(session, f"turn-{n}x")) for n in range(20)]
    found = await asyncio.gather(*wanted, return_exceptions=True)
    refused = [one for one in found if isinstance(one, Conflict)]
    assert sum(isinstance(one, Begun) for one in found) == 1
    assert len(refused) == 19
    assert {one.code for one in refused} == {"turn_in_progress"}
    assert all((one.retry_after or 0) >= 1 for one in refused)


async def test_a_committed_turn_is_answered_again_without_a_session_id_too(
    gateway: Gateway,
) -> None:
    session = await committed(gateway)
    for wanted in (opening(session, "turn-1"), FIRST):
        again = await gateway.sessions.begin(wanted)
        assert isinstance(again, AlreadyAnswered)
        assert (again.session_id, again.answer.content) == (session, "a")


async def test_a_turn_id_of_somebody_else_is_refused(gateway: Gateway) -> None:
    await committed(gateway)
    with pytest.raises(BadRequest) as refusal:
        await gateway.sessions.begin(dataclasses.replace(FIRST, owner="mallory"))
    assert refusal.value.code == "turn_id_taken"


async def test_a_commit_may_be_repeated_and_adds_nothing(gateway: Gateway) -> None:
    turn = await begun(gateway)
    for _ in range(3):
        outcome = await gateway.sessions.commit(turn.ref, pair("turn-1"), "", WITHOUT_LOG)
        assert outcome == "saved"
    assert len(await gateway.history(turn.ref.session_id)) == 2


async def test_a_commit_by_whoever_lost_the_turn_changes_nothing(
    gateway: Gateway, store: Redis
) -> None:
    session = await committed(gateway)
    late = await begun(gateway, opening(session, "late"))
    await store.delete(f"tandem:session:{session}:turn", "tandem:turn:late")
    newer = await begun(gateway, opening(session, "newer"))
    assert await gateway.sessions.commit(late.ref, pair("late"), "", WITHOUT_LOG) == "fenced"
    assert await gateway.sessions.commit(newer.ref, pair("newer"), "", WITHOUT_LOG) == "saved"
    assert [m.turn_id for m in (await gateway.sessions.get(OWNER, session)).messages][2:] == [
        "newer", "newer",
    ]  # fmt: skip


async def test_a_deleted_session_is_not_brought_back_by_its_turn(
    gateway: Gateway, store: Redis
) -> None:
    turn = await begun(gateway)
    await gateway.sessions.delete(OWNER, turn.ref.session_id)
    assert await gateway.sessions.commit(turn.ref, pair("turn-1"), "", WITHOUT_LOG) == "gone"
    assert await store.keys("tandem:session:*") == []


async def test_a_released_first_turn_leaves_nothing(gateway: Gateway, store: Redis) -> None:
    turn = await begun(gateway)
    await gateway.sessions.release(turn.ref)
    assert await store.keys("*") == []
    assert isinstance(await gateway.sessions.begin(FIRST), Begun)


async def test_everything_expires_and_every_touch_moves_the_end(
    gateway: Gateway, store: Redis
) -> None:
    session = await committed(gateway)
    kept = [f"tandem:session:{session}", f"tandem:session:{session}:messages"]
    kept.append(f"tandem:owner:{OWNER}:sessions")
    touches: list[Any] = [
        lambda: gateway.sessions.get(OWNER, session),
        lambda: gateway.sessions.rename(OWNER, session, "new"),
        lambda: committed(gateway, opening(session, "turn-2")),
    ]
    for touch in touches:
        for key in kept:
            await store.expire(key, 1000)
        await touch()
        assert all([await store.ttl(key) > 3000 for key in kept])
    for key in await store.keys("*"):
        assert await store.ttl(key) > 0, key


async def test_caps_on_turns_and_bytes(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions_module, "TURNS_AT_MOST", 2)
    session = await committed(gateway)
    await committed(gateway, opening(session, "turn-2"))
    with pytest.raises(BadRequest) as refusal:
        await gateway.sessions.begin(opening(session, "turn-3"))
    assert refusal.value.code == "session_full"
    monkeypatch.setattr(sessions_module, "TURNS_AT_MOST", 200)
    monkeypatch.setattr(sessions_module, "SESSION_BYTES", 500)
    with pytest.raises(BadRequest) as too_big:
        await gateway.sessions.begin(opening(session, "turn-3", prompt="x" * 400))
    assert too_big.value.code == "session_full"
    with pytest.raises(BadRequest) as too_long:
        await gateway.sessions.begin(opening(None, "t", prompt="é" * (MESSAGE_BYTES // 2 + 1)))
    assert too_long.value.code == "message_too_long"
    assert isinstance(await gateway.sessions.begin(opening(session, "turn-3")), Begun)


async def test_the_list_is_newest_first_in_pages_without_gaps(
    gateway: Gateway, store: Redis
) -> None:
    made = [await committed(gateway, opening(None, f"t{n}")) for n in range(230)]
    for number in (3, 100, 101):
        await store.delete(f"tandem:session:{made[number]}")
    alive = [one for n, one in enumerate(made) if n not in (3, 100, 101)]
    for limit in (1, 7, 100):
        seen: list[str] = []
        cursor: str | None = None
        while True:
            page = await gateway.sessions.page(OWNER, limit=limit, cursor=cursor, query="")
            seen += [session.id for session in page.sessions]
            cursor = page.next_cursor
            if cursor is None or len(seen) > 20 * limit:
                break
            assert len(page.sessions) == limit
        assert seen == alive[::-1][: len(seen)]
        assert cursor is not None or len(seen) == len(alive)
    assert await store.zscore(f"tandem:owner:{OWNER}:sessions", made[101]) is None
    assert (await gateway.sessions.page("mallory", limit=9, cursor=None, query="")).sessions == []


async def test_the_list_is_searched_by_title_and_a_turn_moves_a_session_up(
    gateway: Gateway,
) -> None:
    old = await committed(gateway, opening(None, "t1", prompt="About Zebras and 斑马"))
    for n in range(120):
        await committed(gateway, opening(None, f"u{n}", prompt="about boats"))
    for query in ("zebras", "斑马"):
        page = await gateway.sessions.page(OWNER, limit=5, cursor=None, query=query)
        assert [session.id for session in page.sessions] == [old]
        assert page.public()["has_more"] is False
    await committed(gateway, opening(old, "t2"))
    newest = await gateway.sessions.page(OWNER, limit=1, cursor=None, query="")
    assert [session.id for session in newest.sessions] == [old]


@pytest.mark.parametrize("cursor", ["x", "!!", "bm90LWEtcGxhY2U", "é"])
async def test_a_cursor_that_was_never_given_is_refused(gateway: Gateway, cursor: str) -> None:
    with pytest.raises(BadRequest):
        await gateway.sessions.page(OWNER, limit=1, cursor=cursor, query="")


async def test_scripts_are_loaded_again_after_redis_forgot_them(
    gateway: Gateway, store: Redis
) -> None:
    session = await committed(gateway)
    await store.script_flush()
    await committed(gateway, opening(session, "turn-2"))
    assert len(await gateway.history(session)) == 4


async def test_a_frozen_store_is_told_in_time_and_is_well_again_afterwards(
    redis_server: RedisServer, gateway: Gateway
) -> None:
    session = await committed(gateway)
    gateway.scripts.deadline = 0.5
    redis_server.freeze()
    try:
        for deed in (gateway.sessions.begin(FIRST), gateway.sessions.get(OWNER, session)):
            with pytest.raises(SessionStoreUnavailable) as away:
                await deed
            assert away.value.code == "session_store_unavailable"
            assert (away.value.retry_after or 0) >= 1
    finally:
        redis_server.thaw()
    gateway.scripts.deadline = 60
    assert len(await gateway.history(session)) == 2


async def test_a_store_that_is_not_there(gateway: Gateway) -> None:
    nowhere = Redis(host="127.0.0.1", port=1)
    gateway.sessions._scripts = ScriptRunner(nowhere)
    with pytest.raises(SessionStoreUnavailable):
        await gateway.sessions.get(OWNER, "sess_x")
    await nowhere.aclose()


@pytest.mark.parametrize("trouble", ["full", "read-only"])
async def test_a_store_that_takes_no_writes_can_still_be_read(
    gateway: Gateway, tmp_path: Any, trouble: str
) -> None:
    server = start_redis(tmp_path, "--maxmemory-policy", "noeviction")
    client = Redis.from_url(server.url)
    try:
        scripts = ScriptRunner(client, deadline=60)
        gateway.sessions._scripts = gateway.sessions._index._scripts = scripts
        session = await committed(gateway)
        if trouble == "full":
            await client.config_set("maxmemory", "1")
        else:
            await client.replicaof("127.0.0.1", 1)
        for wanted in (opening(None, "t2"), opening(session, "t3")):
            with pytest.raises(SessionStoreUnavailable):
                await gateway.sessions.begin(wanted)
        assert len(await gateway.history(session)) == 2
        page = await gateway.sessions.page(OWNER, limit=5, cursor=None, query="")
        assert [one.id for one in page.sessions] == [session]
    finally:
        await client.aclose()
        server.stop()


async def test_the_index_of_a_caller_who_never_lists_stays_small(
    gateway: Gateway, store: Redis
) -> None:
    lost = await committed(gateway)
    await store.delete(f"tandem:session:{lost}")
    gateway.now += 4000
    await committed(gateway, opening(None, "turn-2"))
    index = f"tandem:owner:{OWNER}:sessions"
    assert await store.zcard(index) == 1
