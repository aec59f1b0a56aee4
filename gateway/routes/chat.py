"""`POST /v1/chat` and what belongs to its turns: take a stream up again, stop one.

A caller that says `x-tandem-resume: on` may lose its connection and come back; without it, a turn
ends with its caller, and what it had read is saved. Not here: the turn itself (turn_run.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import orjson
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from gateway.auth import Caller
from gateway.body import read_body
from gateway.chat_turn import TurnRequest, stored_answer, stored_result
from gateway.client_watch import ClientGone, ClientWatch
from gateway.errors import BadRequest
from gateway.event_pump import pump
from gateway.logs import RequestLog
from gateway.parts import Parts
from gateway.schemas import ChatRequest, parse_json_object
from gateway.sessions import AlreadyAnswered
from gateway.turn_events import TurnEvent
from gateway.turn_run import TurnRun

# The reader learns the turn's id even when the first token takes long.
OPENING_SECONDS = 1.0
SAVE_SECONDS = 5.0
Headers = list[tuple[bytes, bytes]]


def routes(parts: Parts) -> list[BaseRoute]:
    return [
        Route("/v1/chat", Chat(parts), methods=["POST"]),
        Route("/v1/chat/{turn_id}/events", Events(parts), methods=["GET"]),
        Route("/v1/chat/{turn_id}/stop", Stop(parts), methods=["POST"]),
    ]


class Chat:
    """`POST /v1/chat`: one turn, streamed or not."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        line: RequestLog = scope["tandem.log"]
        caller = _enter(self._parts, scope, "chat")
        with self._parts.lifecycle.request():
            try:
                allowance = await self._parts.limits.check(caller.id)
                asked = ChatRequest.parse(parse_json_object(await read_body(receive)))
                headers = allowance.headers() if allowance is not None else []
                async with ClientWatch(receive):
                    await self._turn(scope, caller, asked, headers, send)
            except ClientGone:
                line.outcome = "client_cancelled"

    async def _turn(
        self, scope: Scope, caller: Caller, asked: ChatRequest, headers: Headers, send: Send
    ) -> None:
        request = self._request(scope, caller, asked)
        started = await self._parts.chat_turn.start(request)
        if isinstance(started, AlreadyAnswered):
            await _replay(started, asked.stream, send, headers)
            return
        try:
            if asked.stream:
                await self._stream(caller, started, send, headers)
            else:
                await _whole(started, send, headers)
        except asyncio.CancelledError:
            await self._left(started, request.resumable)
            raise
        finally:
            self._settle(scope["tandem.log"], caller, started)

    def _request(self, scope: Scope, caller: Caller, asked: ChatRequest) -> TurnRequest:
        default = self._parts.settings.default_max_tokens
        return TurnRequest(
            owner=caller.id,
            prompt=asked.prompt,
            request_id=scope["tandem.log"].request_id,
            session_id=asked.session_id,
            turn_id=asked.turn_id,
            system=asked.system,
            max_tokens=asked.max_tokens or default,
            max_tokens_given=asked.max_tokens is not None,
            resumable=asked.stream and _header(scope, b"x-tandem-resume").lower() == b"on",
            sampling=asked.sampling(),
        )

    async def _stream(self, caller: Caller, run: TurnRun, send: Send, headers: Headers) -> None:
        await run.begun(OPENING_SECONDS)
        if run.error is not None and run.answer.over and not run.answer.text:
            raise run.error
        await pump(self._events(caller, run), send, [*headers, *_engine(run)])

    async def _events(self, caller: Caller, run: TurnRun) -> AsyncGenerator[TurnEvent]:
        """From this gateway's memory; when another one took the turn over, from its log."""
        last = 0
        async with aclosing(run.answer.follow(0)) as here:
            async for event in here:
                last = event.id
                yield event
        if run.answer.moved:
            events = self._parts.chat_turn.events(caller.id, run.ref.turn_id, last)
            async with aclosing(events) as elsewhere:
                async for event in elsewhere:
                    yield event

    async def _left(self, run: TurnRun, resumable: bool) -> None:
        """The caller is gone: its turn ends and is saved, unless it may come back for it."""
        if resumable and not self._parts.lifecycle.out_of_time:
            return
        run.halt("cancelled")
        saved = asyncio.ensure_future(run.ended())
        await asyncio.wait({saved}, timeout=SAVE_SECONDS)
        saved.cancel()

    def _settle(self, line: RequestLog, caller: Caller, run: TurnRun) -> None:
        answer = run.call.outcome if run.call is not None else None
        if run.error is not None and not line.outcome:
            line.outcome = run.error.outcome
        if answer is None:
            return
        line.engine, line.failovers = answer.engine, answer.failovers
        line.prompt_tokens, line.completion_tokens = answer.prompt_tokens, answer.completion_tokens
        metrics = self._parts.metrics
        if answer.ttft is not None:
            line.ttft = answer.ttft
            metrics.ttft.observe(answer.ttft)
        self._parts.count_tokens(caller.id, answer.prompt_tokens, answer.completion_tokens)


class Events:
    """`GET /v1/chat/{turn_id}/events`: everything after `Last-Event-ID`, then what comes."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        line: RequestLog = scope["tandem.log"]
        caller = _enter(self._parts, scope, "chat_events")
        turn_id = scope["path_params"]["turn_id"]
        last = last_event_id(scope)
        with self._parts.lifecycle.request():
            try:
                async with ClientWatch(receive):
                    events = self._parts.chat_turn.events(caller.id, turn_id, last)
                    await pump(events, send, [])
            except ClientGone:
                line.outcome = "client_cancelled"


class Stop:
    """`POST /v1/chat/{turn_id}/stop`: ends a turn, wherever it runs; what there is, is saved."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        caller = _enter(self._parts, scope, "chat_stop")
        stopped = await self._parts.chat_turn.stop(caller.id, scope["path_params"]["turn_id"])
        await _json(send, stopped, [])


# What they share ---------------------------------------------------------------------------


def _enter(parts: Parts, scope: Scope, route: str) -> Caller:
    line: RequestLog = scope["tandem.log"]
    line.route = route
    caller = parts.keys.check(scope["headers"])
    line.key = caller.name
    return caller


def last_event_id(scope: Scope) -> int:
    """From the header that browsers send, else from the query; nothing means the beginning."""
    given = _header(scope, b"last-event-id").decode("latin-1")
    if not given:
        query = dict(
            part.partition("=")[::2] for part in scope["query_string"].decode("latin-1").split("&")
        )
        given = query.get("last_event_id", "0")
    if not given.isdecimal() or len(given) > 12:
        raise BadRequest(
            "Last-Event-ID must be the id of the last event of this turn that you have.",
            param="last_event_id",
        )
    return int(given)


def _header(scope: Scope, wanted: bytes) -> bytes:
    for name, value in scope["headers"]:
        if name == wanted:
            return bytes(value.strip())
    return b""


def _engine(run: TurnRun) -> Headers:
    engine = run.call.outcome.engine if run.call is not None else ""
    return [(b"x-tandem-engine", engine.encode())] if engine else []


async def _whole(run: TurnRun, send: Send, headers: Headers) -> None:
    """The answer at once. It counts as read only when it goes out."""
    await run.ended()
    if run.error is not None:
        raise run.error
    end = run.answer.end
    result = end.data if end is not None else {}
    answer = {"response": run.answer.text, "status": "success", **result}
    await _json(send, answer, [*headers, *_engine(run)])


async def _replay(found: AlreadyAnswered, stream: bool, send: Send, headers: Headers) -> None:
    """A turn id that was answered before gets the same answer, and costs nothing."""
    answer = stored_answer(found)
    if stream:
        await pump(answer.follow(0), send, headers)
        return
    ids = {"session_id": found.session_id, "turn_id": found.answer.turn_id}
    body = {"response": answer.text, "status": "success", **ids, **stored_result(found)}
    await _json(send, body, headers)


async def _json(send: Send, body: dict[str, Any], headers: Headers) -> None:
    raw = orjson.dumps(body)
    own = [(b"content-type", b"application/json"), (b"content-length", str(len(raw)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": [*own, *headers]})
    await send({"type": "http.response.body", "body": raw})
