"""`/v1/sessions` as a caller meets it."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator

import httpx
import pytest

from gateway.front import front
from gateway.parts import Parts
from gateway.routes import chat, sessions
from tests.fakes.conversations import TEXT, Gateway
from tests.unit.conftest import KEY, refused


@pytest.fixture
async def client(parts: Parts, gateway: Gateway) -> AsyncIterator[httpx.AsyncClient]:
    parts = dataclasses.replace(parts, sessions=gateway.sessions, chat_turn=gateway.chat_turn)
    app = front(parts, [*chat.routes(parts), *sessions.routes(parts)])
    gateway.model.release()
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app, raise_app_exceptions=False),
        base_url="http://gateway",
        headers={"authorization": f"Bearer {KEY}"},
        timeout=60,
    ) as opened:
        yield opened


async def made(client: httpx.AsyncClient, prompt: str = "about boats", **more: str) -> str:
    answer = await client.post("/v1/chat", json={"prompt": prompt, **more})
    assert answer.status_code == 200, answer.text
    session: str = answer.json()["session_id"]
    return session


async def test_a_session_from_its_making_to_its_end(client: httpx.AsyncClient) -> None:
    session = await made(client, system="be brief")
    read = (await client.get(f"/v1/sessions/{session}")).json()
    assert (read["id"], read["title"], read["system"]) == (session, "about boats", "be brief")
    assert [m["role"] for m in read["messages"]] == ["user", "assistant"]
    assert read["turns"] == 1
    assert read["updated_at"] >= read["created_at"] > 1_500_000_000
    renamed = await client.patch(f"/v1/sessions/{session}", json={"title": " zebra \n 斑马 "})
    assert renamed.json() == {"id": session, "title": "zebra 斑马"}
    (found,) = (await client.get("/v1/sessions", params={"q": "斑马"})).json()["data"]
    assert set(found) == {"id", "title", "created_at", "updated_at", "turns"}
    assert (await client.delete(f"/v1/sessions/{session}")).status_code == 200
    for answer in (
        await client.get(f"/v1/sessions/{session}"),
        await client.patch(f"/v1/sessions/{session}", json={"title": "x"}),
        await client.delete(f"/v1/sessions/{session}"),
        await client.get(f"/v1/sessions/{session}/export"),
        await client.post("/v1/chat", json={"prompt": "x", "session_id": session}),
    ):
        assert answer.status_code == 404
        assert refused(answer)["code"] == "session_not_found"


async def test_the_list_comes_in_pages(client: httpx.AsyncClient) -> None:
    all_of_them = [await made(client) for _ in range(5)][::-1]
    first = (await client.get("/v1/sessions", params={"limit": 3})).json()
    assert [one["id"] for one in first["data"]] == all_of_them[:3]
    assert first["has_more"] is True
    rest = {"limit": 3, "cursor": first["next_cursor"]}
    second = (await client.get("/v1/sessions", params=rest)).json()
    assert [one["id"] for one in second["data"]] == all_of_them[3:]
    assert second["has_more"] is False


async def test_exports(client: httpx.AsyncClient) -> None:
    session = await made(client, "Über 雨")
    as_json = await client.get(f"/v1/sessions/{session}/export")
    assert as_json.headers["content-type"] == "application/json"
    assert as_json.json() == (await client.get(f"/v1/sessions/{session}")).json()
    as_text = await client.get(f"/v1/sessions/{session}/export", params={"format": "md"})
    assert as_text.headers["content-type"].startswith("text/markdown")
    assert TEXT in as_text.text
    assert as_text.headers["content-disposition"].startswith("attachment; filename*=UTF-8''%C3%9C")


@pytest.mark.parametrize(
    ("method", "path", "body", "param"),
    [
        ("GET", "/v1/sessions?limit=0", None, "limit"),
        ("GET", "/v1/sessions?limit=101", None, "limit"),
        ("GET", "/v1/sessions?cursor=nonsense", None, "cursor"),
        ("GET", "/v1/sessions/{id}/export?format=pdf", None, "format"),
        ("PATCH", "/v1/sessions/{id}", {"title": "  "}, "title"),
        ("PATCH", "/v1/sessions/{id}", {"title": "x" * 201}, "title"),
        ("PATCH", "/v1/sessions/{id}", {"title": 3}, "title"),
    ],
)
async def test_what_is_wrong_is_named(
    client: httpx.AsyncClient, method: str, path: str, body: object, param: str
) -> None:
    session = await made(client)
    answer = await client.request(method, path.replace("{id}", session), json=body)
    assert answer.status_code == 400
    assert refused(answer)["param"] == param


async def test_without_the_store_there_is_a_clear_503(
    client: httpx.AsyncClient, gateway: Gateway
) -> None:
    session = await made(client)
    gateway.scripts.cut = True
    for path in ("/v1/sessions", f"/v1/sessions/{session}"):
        answer = await client.get(path)
        assert (answer.status_code, refused(answer)["code"]) == (503, "session_store_unavailable")
        assert int(answer.headers["retry-after"]) >= 1
