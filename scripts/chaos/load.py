"""Callers: continuous streamed answers whose tokens are counted and whose gaps are timed.

Every answer is asked for with its token ids and must have exactly the number of tokens it was
asked for, the text that these ids spell, and a usage that agrees. Not here: what happens to the
service meanwhile (faults.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx

# A caller that hears nothing for so long has lost its answer, whatever comes later.
SILENCE_SECONDS = 120.0
FAILOVERS = ": tandem failovers="


@dataclass
class Answer:
    """One streamed answer as its caller saw it. Times are monotonic seconds."""

    number: int
    wanted_tokens: int
    ids: list[int] = field(default_factory=list)
    text: str = ""
    finish_reason: str | None = None
    completion_tokens: int | None = None
    error: str | None = None
    longest_gap: float = 0.0
    failovers: int = 0
    begun: bool = False
    finished: bool = False
    started_at: float = 0.0
    ended_at: float = 0.0

    @property
    def failed(self) -> bool:
        return self.error is not None

    @property
    def truncated(self) -> bool:
        """It ended as if all were well, but something is missing."""
        if self.failed:
            return False
        return self.finish_reason != "length" or len(self.ids) < self.wanted_tokens

    @property
    def surplus(self) -> int:
        """Tokens beyond what was asked for, or beyond what the usage admits."""
        return max(0, len(self.ids) - self.wanted_tokens)

    @property
    def miscounted(self) -> bool:
        return not self.failed and self.completion_tokens != len(self.ids)


@dataclass(frozen=True)
class Service:
    """How callers reach the service."""

    url: str
    key: str
    ca: str
    model: str

    def client(self) -> httpx.AsyncClient:
        import ssl

        context = ssl.create_default_context(cafile=self.ca)
        return httpx.AsyncClient(
            base_url=self.url,
            verify=context,
            headers={"Authorization": f"Bearer {self.key}"},
            timeout=httpx.Timeout(SILENCE_SECONDS, connect=10.0),
            limits=httpx.Limits(max_connections=512, max_keepalive_connections=64),
        )


def question(number: int, model: str, tokens: int) -> dict[str, Any]:
    """A request whose answer has exactly `tokens` tokens, greedy, with ids and usage."""
    return {
        "model": model,
        "messages": [
            {"role": "user", "content": f"Question {number}: tell a long story. 讲个故事"}
        ],
        "max_tokens": tokens,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
        "return_token_ids": True,
        "seed": number,
    }


async def _data_lines(response: httpx.Response) -> AsyncIterator[str]:
    """Only at line feeds: httpx's own lines also end at characters that a token may hold."""
    rest = b""
    async for piece in response.aiter_bytes():
        *whole, rest = (rest + piece).split(b"\n")
        for line in whole:
            text = line.rstrip(b"\r").decode()
            if text.startswith("data: "):
                yield text[6:]
            elif text.startswith(FAILOVERS):
                yield text


def _take(answer: Answer, data: str) -> None:
    if data.startswith(FAILOVERS):
        answer.failovers = int(data.rpartition("=")[2])
        return
    if data == "[DONE]":
        answer.finished = True
        return
    event = json.loads(data)
    if "error" in event:
        answer.error = str(event["error"].get("message", "error event"))
        return
    if event.get("usage"):
        answer.completion_tokens = event["usage"]["completion_tokens"]
    for choice in event.get("choices", ()):
        answer.text += choice["delta"].get("content") or ""
        answer.ids.extend(choice.get("token_ids") or ())
        answer.finish_reason = choice.get("finish_reason") or answer.finish_reason


async def ask(client: httpx.AsyncClient, asked: dict[str, Any]) -> Answer:
    """Ask one question and read its answer to the end; never raises for what the service does."""
    answer = Answer(asked["seed"], asked["max_tokens"])
    await _ask(client, asked, answer)
    return answer


async def _ask(client: httpx.AsyncClient, asked: dict[str, Any], answer: Answer) -> None:
    with noted(answer):
        try:
            await _ask_once(client, asked, answer)
        except (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError):
            if answer.begun:
                raise
            # A connection kept from before may close just when it is used again, as Nginx does when
            # it reloads. Like every SDK, ask once more: nothing was answered yet.
            await _ask_once(client, asked, answer)


async def _ask_once(client: httpx.AsyncClient, asked: dict[str, Any], answer: Answer) -> None:
    async with client.stream("POST", "/v1/chat/completions", json=asked) as response:
        answer.begun = True
        if response.status_code != 200:
            body = (await response.aread()).decode(errors="replace")
            answer.error = f"HTTP {response.status_code}: {body[:200]}"
            return
        await _read(response, answer)


@contextlib.contextmanager
def noted(answer: Answer) -> Iterator[None]:
    """The time of an answer, and whatever goes wrong with it, are written into it."""
    answer.started_at = time.monotonic()
    try:
        yield
    except (httpx.HTTPError, ValueError, LookupError, TypeError, AttributeError) as error:
        answer.error = answer.error or f"{type(error).__name__}: {error}"[:200]
    except asyncio.CancelledError:
        answer.error = answer.error or "the answer did not end"
        raise
    finally:
        answer.ended_at = time.monotonic()


async def _read(response: httpx.Response, answer: Answer) -> None:
    last = answer.started_at
    async for data in _data_lines(response):
        now = time.monotonic()
        if answer.ids:
            answer.longest_gap = max(answer.longest_gap, now - last)
        last = now
        _take(answer, data)
    if not answer.finished and answer.error is None:
        answer.error = "the stream ended without [DONE]"


class Load:
    """`streams` callers that ask one question after the other until told to stop.

    `pause`: seconds between two questions, where engines share their cores with everything else.
    """

    def __init__(self, service: Service, streams: int, tokens: int, pause: float = 0.0) -> None:
        self._service = service
        self._streams = streams
        self._tokens = tokens
        self._pause = pause
        self._most = streams
        # Conversations that no load had before: those would go where the last fault left them, and
        # the next one might find nobody on the engine that it breaks.
        self._number = 1000 * secrets.randbelow(1_000_000)
        self._tasks: list[asyncio.Task[None]] = []
        self._client = service.client()
        self.answers: list[Answer] = []
        self.running = 0

    async def start(self) -> None:
        self._tasks = [asyncio.create_task(self._caller(place)) for place in range(self._streams)]

    def calm(self, most: int, pause: float = 0.0) -> None:
        """Only so many callers ask again, and not at once: what starts needs the cores."""
        self._most, self._pause = most, pause

    def question(self, number: int) -> dict[str, Any]:
        return question(number, self._service.model, self._tokens)

    def answer(self, number: int) -> Answer:
        """An empty one, to be filled."""
        return Answer(number, self._tokens)

    async def ask(self, asked: dict[str, Any], answer: Answer) -> None:
        """One question, whose answer is written into `answer` as it comes."""
        await _ask(self._client, asked, answer)

    async def _caller(self, place: int) -> None:
        while place < self._most:
            self._number += 1
            asked = self.question(self._number)
            answer = self.answer(self._number)
            self.running += 1
            try:
                await self.ask(asked, answer)
            finally:
                self.running -= 1
                self.answers.append(answer)  # one that never ended counts too
            # A caller that was refused does not hammer the door.
            await asyncio.sleep(max(self._pause, 0.5 if answer.failed else 0.0))

    async def stop(self, deadline: float = 180.0) -> list[Answer]:
        """Ask nothing new, wait for the answers that have begun, and return all of them."""
        self.calm(0)
        _, late = await asyncio.wait(self._tasks, timeout=deadline) if self._tasks else ((), ())
        for task in late:
            task.cancel()
        for task in self._tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await self._client.aclose()
        return self.answers


async def misspelt(service: Service, answers: list[Answer]) -> int:
    """How many answers have a text that is not what their ids spell; the first is printed."""
    wrong = 0
    async with service.client() as client:
        for answer in answers:
            if answer.failed or not answer.ids:
                continue
            spelt = await _spelt(client, service.model, answer.ids)
            if spelt != answer.text and not wrong:
                print(_difference(answer, spelt))
            wrong += spelt != answer.text
    return wrong


async def _spelt(client: httpx.AsyncClient, model: str, ids: list[int]) -> str:
    """What an engine says of these ids. It gives no text for a token that ends within a letter
    until the next one completes it: at the end of an answer that text is never given."""
    for end in range(len(ids), 0, -1):
        reply = await client.post("/detokenize", json={"model": model, "tokens": ids[:end]})
        reply.raise_for_status()
        spelt = str(reply.json()["prompt"])
        if not spelt.endswith("\ufffd"):
            return spelt
    return ""


def _difference(answer: Answer, spelt: str) -> str:
    pairs = enumerate(zip(spelt, answer.text, strict=False))
    same = next((at for at, (a, b) in pairs if a != b), min(len(spelt), len(answer.text)))
    around = slice(max(0, same - 20), same + 20)
    return (
        f"answer {answer.number}, {answer.failovers} failovers, {len(answer.ids)} ids: from letter "
        f"{same} on they spell {spelt[around]!r}, and it says {answer.text[around]!r}"
    )
