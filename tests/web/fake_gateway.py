"""A gateway that does what a test tells it: serves the built page and scripted answers.

Owns the wire as the page sees it: the contracts of /v1/chat, /v1/sessions and /v1/status, under
the same security headers as the door. Not here: any model. Ids of events are letters and digits
on purpose: the page has to send them back as they came.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

KEY = "tk-test-0123456789"
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; font-src 'self'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'"
)
ENGINES = ("vllm-a", "vllm-b")
TICK = 0.01


@dataclass
class Reply:
    """How the next question is answered."""

    pieces: list[str] = field(default_factory=lambda: ["好的，", "这是回答。"])
    hold_after: int | None = None  # so many pieces, then nothing until release()
    pace: float = 0.0
    finish: str = "stop"
    failovers: int = 0
    trimmed: int = 0
    saved: bool = True
    stream_error: dict[str, Any] | None = None
    status: int = 200  # anything else: refused with this status before the stream
    code: str | None = None
    message: str = "refused"
    retry_after: int | None = None


@dataclass
class FakeTurn:
    id: str
    session: str
    prompt: str
    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    text: str = ""
    over: bool = False
    stopped: bool = False

    def add(self, event: str, data: dict[str, Any]) -> None:
        self.events.append((event, data))
        self.over = event in ("done", "error")


class FakeGateway:
    def __init__(self, dist: Path) -> None:
        self.dist = dist
        self.turns: dict[str, FakeTurn] = {}
        self.reset()

    def reset(self) -> None:
        for turn in self.turns.values():
            turn.stopped = True
        self.replies: list[Reply] = []
        self.sessions: dict[str, dict[str, Any]] = {}
        self.turns = {}
        self.asked: list[dict[str, Any]] = []
        self.reattached: list[str | None] = []
        self.stops: list[str] = []
        self.refuse_events = 0
        self.refuse_stops = 0
        self.key = KEY
        self.status: dict[str, Any] = status()
        self.released = 0
        self.cuts = 0

    def release(self) -> None:
        self.released += 1

    def cut(self) -> None:
        """Every stream that is being read ends in the middle."""
        self.cuts += 1

    def add_session(self, title: str, *turns: tuple[str, str]) -> str:
        found = f"s{len(self.sessions) + 1:04d}"
        self.sessions[found] = {"title": title, "at": int(time.time()), "messages": []}
        for number, (question, answer) in enumerate(turns):
            self.save(found, f"old-{found}-{number}", question, answer, "stop")
        return found

    def save(self, session: str, turn: str, prompt: str, answer: str, finish: str) -> None:
        if session not in self.sessions:  # deleted meanwhile, or the test is over
            return
        at = int(time.time())
        said = self.sessions[session]["messages"]
        said.append({"role": "user", "content": prompt, "created_at": at, "turn_id": turn})
        said.append(
            {"role": "assistant", "content": answer, "created_at": at, "turn_id": turn,
             "finish_reason": finish, "engine": "vllm-a"}
        )  # fmt: skip
        self.sessions[session]["at"] = at

    # -- /v1/chat
    async def chat(self, request: Request) -> Response:
        body = await request.json()
        self.asked.append({**body, "resume": request.headers.get("x-tandem-resume")})
        reply = self.replies.pop(0) if self.replies else Reply()
        if reply.status != 200:
            return refusal(reply.status, reply.code, reply.message, reply.retry_after)
        session = body.get("session_id")
        if session is not None and session not in self.sessions:
            return refusal(404, "session_not_found", "There is no such session.")
        session = session or self.add_session(body["prompt"][:40])
        turn = FakeTurn(body["turn_id"], session, body["prompt"])
        self.turns[turn.id] = turn
        opening = {"turn_id": turn.id, "session_id": session, "trimmed_turns": reply.trimmed}
        turn.add("turn", opening)
        request.app.state.tasks.append(asyncio.create_task(self.answer(turn, reply)))
        return self.stream(turn, 0)

    async def answer(self, turn: FakeTurn, reply: Reply) -> None:
        released = self.released
        for number, piece in enumerate(reply.pieces):
            if reply.hold_after == number:
                await until(lambda: self.released > released or turn.stopped)
            if turn.stopped:
                break
            turn.text += piece
            turn.add("delta", {"text": piece})
            await asyncio.sleep(reply.pace)
        if reply.stream_error and not turn.stopped:
            return turn.add("error", {"error": reply.stream_error})
        finish = "stopped" if turn.stopped else reply.finish
        self.save(turn.session, turn.id, turn.prompt, turn.text, finish)
        usage = {"prompt_tokens": 12, "completion_tokens": max(1, len(turn.text))}
        turn.add(
            "done",
            {"turn_id": turn.id, "session_id": turn.session, "finish_reason": finish,
             "usage": usage, "failovers": reply.failovers, "saved": reply.saved},
        )  # fmt: skip

    def stream(self, turn: FakeTurn, first: int) -> StreamingResponse:
        return StreamingResponse(self.follow(turn, first), media_type="text/event-stream")

    async def follow(self, turn: FakeTurn, place: int) -> AsyncIterator[bytes]:
        cuts = self.cuts
        yield b": hello\n\n"
        while self.cuts == cuts:
            for event, data in turn.events[place:]:
                place += 1
                text = json.dumps(data, ensure_ascii=False)
                raw = f"id: e{place}x\nevent: {event}\ndata: {text}\n\n".encode()
                # Cut anywhere, also inside a Chinese character.
                half = len(raw) // 2
                yield raw[:half]
                await asyncio.sleep(0)
                yield raw[half:]
            if turn.over and place == len(turn.events):
                return
            await asyncio.sleep(TICK)

    async def events(self, request: Request) -> Response:
        last = request.headers.get("last-event-id")
        self.reattached.append(last)
        if self.refuse_events > 0:
            self.refuse_events -= 1
            return refusal(502, "upstream_error", "The gateway is restarting.")
        turn = self.turns.get(request.path_params["turn"])
        if turn is None:
            return refusal(404, "turn_not_found", "There is no such turn.")
        return self.stream(turn, int(last[1:-1]) if last else 0)

    async def stop(self, request: Request) -> Response:
        turn = self.turns.get(request.path_params["turn"])
        if turn is None or self.refuse_stops > 0:
            self.refuse_stops -= 1
            return refusal(404, "turn_not_found", "There is no such turn.")
        self.stops.append(turn.id)
        turn.stopped = True
        return JSONResponse({"turn_id": turn.id, "status": "stopping"})

    # -- /v1/sessions, /v1/status
    async def list_sessions(self, request: Request) -> Response:
        wanted = request.query_params.get("q", "")
        found = [
            {"id": key, "title": one["title"], "created_at": one["at"], "updated_at": one["at"],
             "turns": len(one["messages"]) // 2}
            for key, one in reversed(self.sessions.items())
            if wanted in one["title"]
        ]  # fmt: skip
        return JSONResponse({"data": found, "has_more": False, "next_cursor": None})

    async def one_session(self, request: Request) -> Response:
        key = request.path_params["session"]
        found = self.sessions.get(key)
        if found is None:
            return refusal(404, "session_not_found", "There is no such session.")
        if request.method == "DELETE":
            del self.sessions[key]
            return Response(status_code=204)
        if request.method == "PATCH":
            found["title"] = (await request.json())["title"]
        shown = {"id": key, "title": found["title"], "messages": found["messages"]}
        return JSONResponse(shown)

    async def export(self, request: Request) -> Response:
        found = self.sessions[request.path_params["session"]]
        return Response("\n\n".join(m["content"] for m in found["messages"]))

    async def show_status(self, request: Request) -> Response:
        return JSONResponse(self.status)

    def app(self) -> ASGIApp:
        routes = [
            Route("/v1/chat", self.chat, methods=["POST"]),
            Route("/v1/chat/{turn}/events", self.events),
            Route("/v1/chat/{turn}/stop", self.stop, methods=["POST"]),
            Route("/v1/sessions", self.list_sessions),
            Route("/v1/sessions/{session}", self.one_session, methods=["GET", "PATCH", "DELETE"]),
            Route("/v1/sessions/{session}/export", self.export),
            Route("/v1/status", self.show_status),
            Mount("/", StaticFiles(directory=self.dist, html=True)),
        ]
        app = Starlette(routes=routes)
        app.state.tasks = []
        return Door(app, self)


async def until(true: Callable[[], bool]) -> None:
    """Looks again and again: what it waits for happens in the test's thread."""
    while not true():  # noqa: ASYNC110
        await asyncio.sleep(TICK)


class Door:
    """The key, and the security headers of the real door."""

    def __init__(self, app: ASGIApp, gateway: FakeGateway) -> None:
        self.app = app
        self.gateway = gateway

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                extra = {"content-security-policy": CSP, "x-content-type-options": "nosniff",
                         "x-request-id": "7f3a21c0deadbeef"}  # fmt: skip
                message["headers"] += [(k.encode(), v.encode()) for k, v in extra.items()]
            await send(message)

        if scope["type"] == "http" and scope["path"].startswith("/v1/"):
            sent = dict(scope["headers"]).get(b"authorization", b"").decode()
            if sent != f"Bearer {self.gateway.key}":
                refused = refusal(401, "invalid_api_key", "The API key is not valid.")
                return await refused(scope, receive, guarded)
        await self.app(scope, receive, guarded)


def refusal(
    status_code: int, code: str | None, message: str, retry_after: int | None = None
) -> Response:
    error = {"message": message, "type": "refused", "param": None, "code": code}
    headers = {} if retry_after is None else {"retry-after": str(retry_after)}
    return JSONResponse({"error": error}, status_code=status_code, headers=headers)


def status(*states: str, ready: bool = True) -> dict[str, Any]:
    states = states or ("healthy", "healthy")
    engines = [
        {"name": name, "state": state, "running": 0, "waiting": 0, "kv_cache": 0.1}
        for name, state in zip(ENGINES, states, strict=True)
    ]
    return {"model": "qwen2.5-7b-instruct", "context_length": 32768, "ready": ready,
            "engines": engines, "queue_depth": 0, "ttft_p50_seconds": 0.58}  # fmt: skip
