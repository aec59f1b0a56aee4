"""`POST /v1/chat/completions` and `/v1/completions`: the hot path, pure ASGI.

    parse -> auth -> limits -> admission -> relay -> one `finally` that leaves and counts

The place that entered is the place that leaves. Not here: the answer itself (relay.py).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, Literal

from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.answer import CHAT, COMPLETIONS, Call
from gateway.auth import Caller
from gateway.body import read_body
from gateway.client_stream import ClientStream
from gateway.client_watch import ClientGone, ClientWatch
from gateway.engines import affinity_key
from gateway.errors import Overloaded, TandemError
from gateway.limits import Allowance
from gateway.logs import RequestLog
from gateway.parts import Parts
from gateway.schemas import check_completion, parse_json_object
from gateway.sse import DONE

EVENT_STREAM = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]
LAST_WORDS_SECONDS = 2.0


def hot(parts: Parts) -> dict[str, ASGIApp]:
    """What answers a POST, by path."""
    return {path: Completions(parts, path) for path in (CHAT, COMPLETIONS)}


def routes(parts: Parts) -> list[BaseRoute]:
    """The same for the framework, which knows what to say to other methods."""
    return [Route(path, handler, methods=["POST"]) for path, handler in hot(parts).items()]


class Completions:
    """One instance a path; nothing of a request is kept in it."""

    def __init__(self, parts: Parts, path: str) -> None:
        self._parts = parts
        self._path = path
        self._route = path.removeprefix("/v1/").replace("/", "_")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        line: RequestLog = scope["tandem.log"]
        line.route = self._route
        parts = self._parts
        caller = parts.keys.check(scope["headers"])
        line.key = caller.name
        with parts.lifecycle.request():
            try:
                allowance = await parts.limits.check(caller.id)
                body = parse_json_object(await read_body(receive))
                check_completion(self._path, body, parts.settings.model_name)
                call = self._call(scope, body, line)
                async with ClientWatch(receive):
                    await self._admitted(call, caller, allowance, scope, send)
            except ClientGone:
                line.outcome = "client_cancelled"

    def _call(self, scope: Scope, body: dict[str, Any], line: RequestLog) -> Call:
        session = next((v for name, v in scope["headers"] if name == b"x-session-id"), b"")
        headers = {"x-session-id": session.decode("latin-1")} if session else {}
        return Call(self._path, body, line.request_id, affinity=affinity_key(headers, body))

    async def _admitted(
        self, call: Call, caller: Caller, allowance: Allowance | None, scope: Scope, send: Send
    ) -> None:
        line: RequestLog = scope["tandem.log"]
        headers = allowance.headers() if allowance is not None else []
        waited = time.monotonic() - line.started
        self._parts.metrics.overhead.observe(waited)
        try:
            async with self._parts.admission.enter(caller.id, _priority(scope)):
                waited = time.monotonic() - line.started
                if call.body.get("stream"):
                    stream = ClientStream(scope.get("tandem.server", send))
                    await self._stream(call, stream, headers, send)
                else:
                    await self._complete(call, line, headers, send)
        except TandemError as error:
            line.outcome = line.outcome or error.outcome
            raise
        finally:
            self._settle(call, caller, line, waited)

    async def _complete(
        self, call: Call, line: RequestLog, headers: list[tuple[bytes, bytes]], send: Send
    ) -> None:
        status, engine_headers, body = await self._parts.relay.complete(call)
        line.outcome = "ok"
        told = [(name.encode(), value.encode()) for name, value in engine_headers.items()]
        length = (b"content-length", str(len(body)).encode())
        start = {"type": "http.response.start", "status": status}
        await send({**start, "headers": [*told, length, *headers]})
        await send({"type": "http.response.body", "body": body})

    async def _stream(
        self, call: Call, stream: ClientStream, headers: list[tuple[bytes, bytes]], send: Send
    ) -> None:
        async with (
            aclosing(stream) as client,
            aclosing(self._parts.relay.stream(call, client)) as items,
        ):
            first = await anext(items)
            engine = [(b"x-tandem-engine", call.outcome.engine.encode())]
            start = {"type": "http.response.start", "status": 200}
            await send({**start, "headers": [*EVENT_STREAM, *engine, *headers]})
            try:
                await _send_all(call, first, items, client)
            except asyncio.CancelledError:
                if self._parts.lifecycle.out_of_time:
                    await _last_words(client)
                raise

    def _settle(self, call: Call, caller: Caller, line: RequestLog, waited: float) -> None:
        """Once for each request that was let in or refused, whatever happened to it."""
        answer, metrics = call.outcome, self._parts.metrics
        line.engine, line.failovers = answer.engine, answer.failovers
        line.prompt_tokens, line.completion_tokens = answer.prompt_tokens, answer.completion_tokens
        if not line.outcome:
            line.outcome = OUTCOMES.get(answer.outcome, answer.outcome)
        if line.outcome == "running":
            ended_here = self._parts.lifecycle.out_of_time
            line.outcome = "stream_aborted" if ended_here else "client_cancelled"
        if answer.ttft is not None:
            line.ttft = waited + answer.ttft
            metrics.ttft.observe(line.ttft)
        if answer.engine:
            self._parts.count_tokens(caller.id, answer.prompt_tokens, answer.completion_tokens)


async def _send_all(
    call: Call, first: bytes, items: AsyncIterator[bytes], client: ClientStream
) -> None:
    """The last item, and only it, ends with [DONE]: the response ends with it."""
    item: bytes | None = first
    while item is not None:
        more = not item.endswith(DONE)
        if call.outcome.failovers and not more:
            note = b": tandem failovers=%d\n\n" % call.outcome.failovers
            item = item[: -len(DONE)] + note + DONE
        await client.send(item, more=more)
        item = await anext(items, None)


# The relay's word for it -> the outcome that metrics and logs know.
OUTCOMES = {"overloaded": "rate_limited"}


def _priority(scope: Scope) -> Literal["interactive", "batch"]:
    for name, value in scope["headers"]:
        if name == b"x-priority" and value.strip().lower() == b"batch":
            return "batch"
    return "interactive"


async def _last_words(client: ClientStream) -> None:
    """The gateway must stop now: a stream that cannot be completed says so."""
    error = Overloaded(
        "The gateway had to stop before this answer was complete. Send the request again.",
        code="gateway_stopping",
    )
    task = asyncio.ensure_future(_say(client, b"data: " + error.response_bytes() + b"\n\n" + DONE))
    await asyncio.wait({task}, timeout=LAST_WORDS_SECONDS)
    task.cancel()


async def _say(client: ClientStream, words: bytes) -> None:
    await client.send(words)
    await client.send(b"", more=False)
