"""The load generator: streams that are read event by event, on one core beside the engine.

Every token's text carries the moment at which the engine wrote it, so the way of each sampled
token is known, not only the pauses between tokens. Run as `python -m tests.bench.load JSON`,
prints one JSON line.
"""

from __future__ import annotations

import asyncio
import gc
import json
import random
import sys
import time
from dataclasses import asdict, dataclass, field
from typing import Any

import httptools
import uvloop

# Every n-th token's way is measured: parsing all of them would make the reader the bottleneck.
SAMPLE_EVERY = 8


@dataclass(frozen=True)
class Plan:
    """One run. `streams` at a time, `requests` in all; prompt_bytes of padding; cancel share."""

    ports: tuple[int, ...]
    streams: int
    requests: int
    tokens: int
    prompt_bytes: int = 0
    cancel_share: float = 0.0
    stream: bool = True
    ramp_seconds: float = 0.5
    #: what the stand-in engine does: seconds to the first token, and between two
    ttft: float = 0.05
    interval: float = 0.02
    key: str = "bench"
    model: str = "standin"
    host: str = "127.0.0.1"
    tls: bool = False


@dataclass
class Result:
    """Milliseconds for all times; seconds only for the whole."""

    first: list[float] = field(default_factory=list)
    ways: list[float] = field(default_factory=list)
    tokens: int = 0
    answers: int = 0
    cancelled: int = 0
    errors: list[str] = field(default_factory=list)
    seconds: float = 0.0


class Stream(asyncio.Protocol):
    """One connection for one request after the other."""

    def __init__(self, plan: Plan, result: Result) -> None:
        self._plan, self._result = plan, result
        self._transport: Any = None
        self.done: asyncio.Future[bool] | None = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def ask(self, request: bytes, cancel_after: int) -> asyncio.Future[bool]:
        """Send one request; the future gives whether the connection may be used again."""
        self.done = asyncio.get_running_loop().create_future()
        self._parser = httptools.HttpResponseParser(self)
        self._seen, self._cancel_after, self._tail = 0, cancel_after, b""
        self._ended = False
        self._asked = time.monotonic_ns()
        self._transport.write(request)
        return self.done

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._finish(False, f"bad HTTP: {error}")

    def on_body(self, body: bytes) -> None:
        if not self._plan.stream:
            return
        self._tail = (self._tail + body)[-16:]
        tokens = body.count(b'"content":" @')
        if not tokens:
            return
        if self._seen == 0:
            self._result.first.append((time.monotonic_ns() - self._asked) / 1e6)
        if self._seen % SAMPLE_EVERY < tokens:
            at = body.rfind(b'"content":" @') + 13
            end = body.find(b'"', at)
            if end > 0:
                way = time.monotonic_ns() - int(body[at:end])
                self._result.ways.append(way / 1e6)
        self._seen += tokens
        if 0 < self._cancel_after <= self._seen:
            self._result.cancelled += 1
            self._transport.abort()
            self._finish(False, None)

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        if status != 200:
            self._finish(False, f"HTTP {status}")
        elif self._plan.stream and self._seen != self._plan.tokens:
            self._finish(False, f"{self._seen} of {self._plan.tokens} tokens")
        elif self._plan.stream and not self._tail.endswith(b"[DONE]\n\n"):
            self._finish(False, "no [DONE]")
        else:
            self._result.answers += 1
            self._finish(self._parser.should_keep_alive(), None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._finish(False, "connection lost")

    def _finish(self, reusable: bool, error: str | None) -> None:
        if self.done is None or self.done.done():
            return
        self._result.tokens += self._seen
        if error is not None:
            self._result.errors.append(error)
        self.done.set_result(reusable)

    def close(self) -> None:
        self._transport.close()


def _request(plan: Plan, number: int) -> bytes:
    question = f"{number} pace={plan.ttft}/{plan.interval} " + "padding " * (plan.prompt_bytes // 8)
    body = {
        "model": plan.model,
        "messages": [{"role": "user", "content": question}],
        "max_tokens": plan.tokens,
        "stream": plan.stream,
    }
    raw = json.dumps(body).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: bench\r\n"
        f"authorization: Bearer {plan.key}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(raw)}\r\n\r\n"
    )
    return head.encode() + raw


async def _caller(plan: Plan, result: Result, numbers: Any, delay: float) -> None:
    loop = asyncio.get_running_loop()
    context = None
    if plan.tls:
        import ssl

        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    await asyncio.sleep(delay)
    connection: Stream | None = None
    for number in numbers:
        if connection is None:
            _, connection = await loop.create_connection(
                lambda: Stream(plan, result),
                plan.host,
                plan.ports[number % len(plan.ports)],
                ssl=context,
            )
        cancels = random.Random(number).random() < plan.cancel_share
        after = random.Random(number + 1).randrange(1, plan.tokens) if cancels else 0
        if not await asyncio.wait_for(connection.ask(_request(plan, number), after), 120):
            connection.close()
            connection = None
    if connection is not None:
        connection.close()


async def run(plan: Plan) -> Result:
    """Run the plan to its end. Callers start spread over ramp_seconds, so that they interleave."""
    result = Result()
    numbers = iter(range(plan.requests))
    gc.freeze()
    gc.disable()
    started = time.monotonic()
    callers = [
        _caller(plan, result, numbers, plan.ramp_seconds * n / plan.streams)
        for n in range(plan.streams)
    ]
    await asyncio.gather(*callers)
    result.seconds = time.monotonic() - started
    return result


def main() -> None:
    plan = Plan(**json.loads(sys.argv[1]))
    result = json.dumps(asdict(uvloop.run(run(plan))))
    # An unbuffered sys.stdout (PYTHONUNBUFFERED) may write a part of it only.
    with open(1, "w", closefd=False) as out:
        out.write(result)


if __name__ == "__main__":
    main()
