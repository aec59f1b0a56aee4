"""`POST /v1/messages`, `/v1/responses`, `/tokenize`, `/detokenize`: passed through to an engine.

Tried on another engine until the first byte has come; afterwards a failure ends the stream with
an error event. Not here: completions, which go on across engines (completions.py).
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
from gateway.client_watch import ClientGone, ClientWatch
from gateway.engines import affinity_key
from gateway.errors import TandemError
from gateway.logs import RequestLog
from gateway.parts import Parts
from gateway.pass_through import Passed, PassThrough
from gateway.schemas import check_passed, parse_json_object
from gateway.told_usage import ToldUsage

ANSWERS = ("/v1/messages", "/v1/responses")
COUNTS = ("/tokenize", "/detokenize")


def routes(parts: Parts) -> list[BaseRoute]:
    paths = [(path, path) for path in (*ANSWERS, *COUNTS)]
    paths += [("/v1" + path, path) for path in COUNTS]
    return [Route(at, Messages(parts, path), methods=["POST"]) for at, path in paths]


class Messages:
    """One instance a path; nothing of a request is kept in it."""

    def __init__(self, parts: Parts, path: str) -> None:
        self._parts = parts
        self._path = path
        self._through = PassThrough(parts.pool, parts.client, parts.settings.first_token_seconds)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        line, parts = scope["tandem.log"], self._parts
        line.route = self._path.removeprefix("/v1").removeprefix("/")
        caller = parts.keys.check(scope["headers"])
        line.key = caller.name
        with parts.lifecycle.request():
            try:
                allowance = await parts.limits.check(caller.id)
                body = parse_json_object(await read_body(receive))
                check_passed(body, parts.settings.model_name)
                headers = allowance.headers() if allowance is not None else []
                async with ClientWatch(receive):
                    await self._answer(scope, body, caller, headers, send)
            except ClientGone:
                line.outcome = "client_cancelled"

    async def _answer(
        self,
        scope: Scope,
        body: dict[str, Any],
        caller: Caller,
        headers: list[tuple[bytes, bytes]],
        send: Send,
    ) -> None:
        named = {k.decode("latin-1"): v.decode("latin-1") for k, v in scope["headers"]}
        passed = Passed(self._path, orjson.dumps(body), affinity_key(named, body))
        if self._path in COUNTS:
            await self._pass(scope, passed, None, headers, send)
            return
        told = ToldUsage()
        try:
            async with self._parts.admission.enter(caller.id):
                await self._pass(scope, passed, told, headers, send)
        finally:
            self._settle(scope["tandem.log"], caller, passed, told)

    async def _pass(
        self,
        scope: Scope,
        passed: Passed,
        told: ToldUsage | None,
        headers: list[tuple[bytes, bytes]],
        send: Send,
    ) -> None:
        line: RequestLog = scope["tandem.log"]
        async with aclosing(_read(self._through.stream(passed), told)) as pieces:
            first = await anext(pieces, b"")
            line.engine = passed.engine
            start = {"type": "http.response.start", "status": passed.status}
            await send({**start, "headers": [*_named(passed), *headers]})
            await send({"type": "http.response.body", "body": first, "more_body": True})
            try:
                async for piece in pieces:
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
            except TandemError as error:
                line.outcome = "stream_aborted"
                await _last_words(passed, error, send)
                return
            except asyncio.CancelledError:
                line.outcome = "stream_aborted" if self._parts.lifecycle.out_of_time else ""
                raise
        await send({"type": "http.response.body", "body": b""})

    def _settle(self, line: RequestLog, caller: Caller, passed: Passed, told: ToldUsage) -> None:
        """Once for each request that an engine answered, to its end or not."""
        if passed.engine:
            told.end()
            line.prompt_tokens, line.completion_tokens = told.prompt_tokens, told.completion_tokens
            self._parts.count_tokens(caller.id, told.prompt_tokens, told.completion_tokens)


def _named(passed: Passed) -> list[tuple[bytes, bytes]]:
    return [
        (b"content-type", passed.content_type.encode("latin-1")),
        (b"x-tandem-engine", passed.engine.encode()),
    ]


async def _read(pieces: AsyncGenerator[bytes], told: ToldUsage | None) -> AsyncGenerator[bytes]:
    """The same pieces; what they say of tokens is noted."""
    async with aclosing(pieces):
        async for piece in pieces:
            if told is not None:
                told.feed(piece)
            yield piece


async def _last_words(passed: Passed, error: TandemError, send: Send) -> None:
    """A stream says that it broke; a document is cut off, so that none takes it as whole."""
    if not passed.content_type.startswith("text/event-stream"):
        raise RuntimeError("an engine broke off within a document") from error
    words = b"\n\nevent: error\ndata: " + error.response_bytes() + b"\n\n"
    await send({"type": "http.response.body", "body": words, "more_body": True})
    await send({"type": "http.response.body", "body": b""})
