"""Conversations over real Redis and both gateways: remembered, owned, one turn at a time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.integration.events import Turn, error_of, turn_events
from tests.integration.tandem_instance import ENGINES, Tandem, until

SHORT = {"max_tokens": 8, "temperature": 0}


def turn(client: httpx.Client, prompt: str, **more: object) -> dict[str, object]:
    answer = client.post("/v1/chat", json={"prompt": prompt, **SHORT, **more})
    assert answer.status_code == 200, answer.text
    said: dict[str, object] = answer.json()
    return said


def messages(client: httpx.Client, session_id: object) -> list[dict[str, str]]:
    answer = client.get(f"/v1/sessions/{session_id}")
    assert answer.status_code == 200, answer.text
    found: list[dict[str, str]] = answer.json()["messages"]
    return found


def test_a_conversation_is_remembered(client: httpx.Client) -> None:
    first = turn(client, "my name is Ming")
    assert first["status"] == "success"
    second = turn(client, "what is my name?", session_id=first["session_id"])
    assert second["session_id"] == first["session_id"]
    kept = messages(client, first["session_id"])
    assert [one["role"] for one in kept] == ["user", "assistant", "user", "assistant"]
    assert [kept[1]["content"], kept[3]["content"]] == [first["response"], second["response"]]
    # The second prompt holds the first turn: through the chat template it is longer.
    assert second["usage"]["prompt_tokens"] > first["usage"]["prompt_tokens"]  # type: ignore[index]


def test_a_streamed_turn(client: httpx.Client) -> None:
    seen = Turn()
    body = {"prompt": "tell me", "stream": True, **SHORT}
    with client.stream("POST", "/v1/chat", json=body) as response:
        assert response.status_code == 200
        names = []
        for event in turn_events(response):
            names.append(event.name)
            seen.take(event)
    assert names[0] == "turn"
    assert names[-1] == "done"
    assert set(names[1:-1]) <= {"delta"}
    assert messages(client, seen.session_id)[1]["content"] == seen.text


@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE", "TURN"])
def test_someone_elses_session_is_not_there(
    client: httpx.Client, second_client: httpx.Client, method: str
) -> None:
    mine = turn(client, "a secret")["session_id"]
    if method == "TURN":
        body = {"prompt": "tell me the secret", "session_id": mine, **SHORT}
        answer = second_client.post("/v1/chat", json=body)
    else:
        body = {"title": "taken"} if method == "PATCH" else {}
        answer = second_client.request(method, f"/v1/sessions/{mine}", json=body or None)
    assert answer.status_code == 404
    error_of(answer)
    assert mine not in [one["id"] for one in second_client.get("/v1/sessions").json()["data"]]
    assert len(messages(client, mine)) == 2


def test_rename_find_export_delete(client: httpx.Client) -> None:
    session = turn(client, "about boats")["session_id"]
    renamed = client.patch(f"/v1/sessions/{session}", json={"title": "zebra 斑马"})
    assert renamed.status_code == 200
    found = client.get("/v1/sessions", params={"q": "斑马"}).json()["data"]
    assert session in [one["id"] for one in found]
    text = client.get(f"/v1/sessions/{session}/export", params={"format": "md"})
    assert text.status_code == 200
    assert "about boats" in text.text
    assert client.delete(f"/v1/sessions/{session}").status_code in (200, 204)
    assert client.get(f"/v1/sessions/{session}").status_code == 404


def test_two_clients_one_session(tandem: Tandem, client: httpx.Client) -> None:
    """One turn at a time: of two at once one is answered, one gets 409 and when to come back."""
    session = turn(client, "hello")["session_id"]
    body = {
        "prompt": "both at once", "session_id": session, "max_tokens": 600, "temperature": 0,
        "ignore_eos": True,
    }  # fmt: skip
    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(client.post, "/v1/chat", json=body) for _ in range(2)]
        answers = sorted((one.result(timeout=240) for one in asked), key=lambda a: a.status_code)
    assert [one.status_code for one in answers] == [200, 409]
    error_of(answers[1])
    assert int(answers[1].headers["retry-after"]) >= 1
    assert len(messages(client, session)) == 4
    with tandem.redis() as store:
        assert store.exists(f"tandem:session:{session}:turn") == 0


def test_the_same_turn_twice_is_one_turn(client: httpx.Client) -> None:
    first = turn(client, "only once", turn_id="turn-only-once-1")
    again = turn(client, "only once", turn_id="turn-only-once-1", session_id=first["session_id"])
    assert again["response"] == first["response"]
    assert len(messages(client, first["session_id"])) == 2


def test_a_client_who_leaves_has_its_part_saved(tandem: Tandem, client: httpx.Client) -> None:
    seen = Turn()
    body = {
        "prompt": "a long story", "stream": True, "max_tokens": 3000, "temperature": 0,
        "ignore_eos": True,
    }  # fmt: skip
    with client.stream("POST", "/v1/chat", json=body) as response:
        for event in turn_events(response):
            seen.take(event)
            if len(seen.text) > 40:
                break
    until(lambda: sum(map(tandem.engine_running, ENGINES)) == 0, 5, "the engines are idle")
    kept = until(lambda: messages(client, seen.session_id), 15, "the turn is saved")
    assert kept[0]["content"] == "a long story"
    assert kept[1]["content"].startswith(seen.text)
    # And the session is free for the next turn.
    assert turn(client, "go on", session_id=seen.session_id)["status"] == "success"


def _written(state: dict[str, int]) -> bool:
    pending = ("aof_rewrite_scheduled", "aof_rewrite_in_progress", "aof_pending_bio_fsync")
    return not any(state[name] for name in pending)


def test_sessions_outlive_redis(tandem: Tandem, client: httpx.Client) -> None:
    """kill -9 of Redis: what was answered more than a second ago is there again."""
    session = turn(client, "keep this")["session_id"]
    with tandem.redis() as store:
        store.bgrewriteaof()
        until(lambda: _written(store.info("persistence")), 60, "Redis has written its log")
    tandem.kill("redis")
    tandem.wait_healthy()
    assert len(messages(client, session)) == 2
    assert turn(client, "and on", session_id=session)["status"] == "success"


def test_sessions_outlive_both_gateways(tandem: Tandem, client: httpx.Client) -> None:
    session = turn(client, "keep this too")["session_id"]
    for gateway in ("gateway-a", "gateway-b"):
        tandem.kill(gateway)
    tandem.wait_healthy()
    assert turn(client, "and on", session_id=session)["session_id"] == session
    assert len(messages(client, session)) == 4
