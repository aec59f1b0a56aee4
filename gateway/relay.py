"""One answer across engines: stream it, notice a failure, go on with it on the other engine.

Owns: the loop over engines, what the client is told when it cannot go on.
Not here: which engine comes next (journey.py), one try on one engine (attempt.py), what is asked
and how it is mapped (continuation.py, exact_answer.py, replay.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncGenerator, Callable
from typing import Any

import orjson

from gateway.answer import Answer, Call, Progress
from gateway.attempt import FAREWELL_SECONDS, Attempt, Break, Patience
from gateway.continuation import first_request, wish
from gateway.ejection import Outcome
from gateway.engine import Engine
from gateway.engine_client import EngineClient
from gateway.engine_events import MISMATCH, BadStream, chunk_of
from gateway.engines import EnginePool
from gateway.errors import BadRequest, TandemError
from gateway.exact_answer import ExactAnswer
from gateway.journey import AnswerInterrupted, Journey, RelayMetrics
from gateway.replay import ReplayedAnswer
from gateway.shortcut import Pen, shortcut
from gateway.sse import DONE

__all__ = ["Answer", "Call", "Progress", "Relay"]

JSON = "application/json"
#: Short requests: tokens of a text, the list of models.
FORWARD_SECONDS = 5.0
Whole = tuple[int, dict[str, str], bytes]
Streamed = ExactAnswer | ReplayedAnswer


class Relay:
    def __init__(
        self,
        pool: EnginePool,
        client: EngineClient,
        metrics: RelayMetrics,
        *,
        queue_seconds: float,
        stall_seconds: float,
        first_token_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pool = pool
        self._client = client
        self._metrics = metrics
        self._queue_seconds = queue_seconds
        self._patience = Patience(first_token_seconds, stall_seconds)
        self._clock = clock

    async def stream(self, call: Call, pen: Pen | None = None) -> AsyncGenerator[bytes, None]:
        """The answer as server-sent events, one or many an item, `[DONE]` last.

        TandemError before the first item; afterwards a failure is an error event and `[DONE]`.
        Close it (contextlib.aclosing): the engine then stops at once. With a pen, ordinary events
        are written with it between two items, while the next one is awaited.
        """
        journey = self._journey(call, self._queue_seconds)
        try:
            answer = _answer(call)
            while not answer.finished:
                attempt = await journey.next_attempt()
                try:
                    await _ask(answer, attempt, journey)
                    if pen is not None and isinstance(answer, ExactAnswer):
                        attempt.cut_short(shortcut(answer, attempt, pen))
                    while not answer.finished:
                        if out := _mapped(answer, attempt, await attempt.chunk()):
                            journey.delivered()
                            yield out
                    await _hear_out(answer, attempt)
                    attempt.end(Outcome.OK)
                except Break as fault:
                    attempt.end_with(fault)
                    if rest := answer.take():
                        journey.delivered()
                        yield rest
                    _go_on(answer, journey, fault)
            journey.delivered()
            call.outcome.outcome = "ok"
            yield answer.take() + answer.ending()
        except TandemError as error:
            told = journey.failed(error)
            if not journey.begun:
                raise told from None
            yield b"data: " + told.response_bytes() + b"\n\n" + DONE
        finally:
            journey.leave(Outcome.CLIENT_GONE)

    async def complete(self, call: Call) -> Whole:
        """The answer as one piece of JSON; run again from the start when an engine fails."""
        wanted = wish(call.path, call.body)
        body = _json(first_request(wanted, secrets.randbits(31), stream=False))
        journey = self._journey(call, self._queue_seconds)
        content, _ = await self._whole(call, journey, "POST", body, _finished)
        call.outcome.outcome = "ok"
        headers = {
            "content-type": JSON,
            "x-tandem-engine": call.outcome.engine,
            "x-tandem-failovers": str(call.outcome.failovers),
        }
        return 200, headers, content

    async def forward(self, method: str, path: str, body: bytes = b"") -> Whole:
        """A short request as it is, to any usable engine."""
        call = Call(path, {}, request_id="")
        journey = self._journey(call, min(self._queue_seconds, FORWARD_SECONDS))
        content, kind = await self._whole(call, journey, method, body, None, FORWARD_SECONDS)
        return 200, {"content-type": kind}, content

    async def _whole(
        self,
        call: Call,
        journey: Journey,
        method: str,
        body: bytes,
        check: Callable[[Call, bytes], None] | None,
        deadline: float | None = None,
    ) -> tuple[bytes, str]:
        try:
            while True:
                attempt = await journey.next_attempt()
                try:
                    kind = await attempt.open(call.path, body, method=method, deadline=deadline)
                    content = await attempt.read(deadline)
                    if check is not None:
                        check(call, content)
                    journey.arrived(ReplayedAnswer.how)
                    attempt.end(Outcome.OK)
                    return content, kind or JSON
                except Break as fault:
                    attempt.end_with(fault)
                    journey.broke(fault)
        except TandemError as error:
            raise journey.failed(error) from None
        finally:
            journey.leave(Outcome.CLIENT_GONE)

    def _journey(self, call: Call, queue_seconds: float) -> Journey:
        def try_on(engine: Engine) -> Attempt:
            return Attempt(engine, self._client, self._patience, call.request_id)

        return Journey(call, self._pool, self._metrics, try_on, queue_seconds, self._clock)


def _answer(call: Call) -> Streamed:
    wanted = wish(call.path, call.body)
    progress = call.progress
    if progress is None:
        progress = Progress(seed=_seed(call))
    if wanted.exact:
        call.progress = progress
        return ExactAnswer(wanted, progress, call.outcome)
    if progress.begun:
        raise AnswerInterrupted()
    return ReplayedAnswer(wanted, progress, call.outcome)


def _seed(call: Call) -> int:
    """The client's, or one that makes it possible to run the request again."""
    seed = call.body.get("seed")
    return seed if type(seed) is int else secrets.randbits(31)


async def _ask(answer: Streamed, attempt: Attempt, journey: Journey) -> None:
    """Send what the engine has to do, unless nothing is left to do."""
    request = await answer.request(attempt.ask)
    if request is None:
        answer.conclude()
        return
    path, body = request
    await attempt.open(path, _json(body))
    journey.arrived(answer.how)


def _mapped(answer: Streamed, attempt: Attempt, data: bytes) -> bytes:
    """The engine's bytes as the client's. Anything but an answer is a Break."""
    if not data:
        raise Break("broke", "eof")
    try:
        out = answer.feed(data)
    except BadStream as fault:
        if fault.reason == MISMATCH:
            raise AnswerInterrupted() from None
        raise Break("broke", fault.reason) from None
    if out or b"data:" in data:
        attempt.spoke()
    if answer.finished and not attempt.speaking:
        answer.keep(out)  # it goes out with the end, which is here already
        return b""
    return out


async def _hear_out(answer: Streamed, attempt: Attempt) -> None:
    """A finished answer: usage and [DONE] may follow, but whatever happens now is no failure."""
    if not attempt.speaking:
        return
    with contextlib.suppress(Break, BadStream, TimeoutError):
        async with asyncio.timeout(FAREWELL_SECONDS):
            while attempt.speaking and not answer.cut_short and (data := await attempt.chunk()):
                answer.feed(data)


def _go_on(answer: Streamed, journey: Journey, fault: Break) -> None:
    """Nothing is lost by a break after the end; else there is another engine, or an error."""
    if answer.finished:
        return
    journey.broke(fault)
    if journey.begun and not answer.can_continue:
        raise AnswerInterrupted()


def _finished(call: Call, content: bytes) -> None:
    """Is it a whole answer? Its tokens are counted on the way."""
    try:
        whole = chunk_of(content)
    except BadStream as fault:
        raise Break("broke", fault.reason) from None
    reasons = [choice.get("finish_reason") for choice in whole["choices"]]
    if not reasons or None in reasons:
        raise Break("broke", "aborted")
    usage = whole.get("usage") or {}
    call.outcome.finish_reason = reasons[0]
    call.outcome.prompt_tokens = usage.get("prompt_tokens", 0)
    call.outcome.completion_tokens = usage.get("completion_tokens", 0)


def _json(body: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(body)
    except orjson.JSONEncodeError:
        raise BadRequest("A number in the request does not fit in 64 bits.") from None
