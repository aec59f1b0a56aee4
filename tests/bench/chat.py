"""Conversations that grow: many users, round after round, the whole history sent each time."""

from __future__ import annotations

import asyncio
import json
import random
import time
from dataclasses import dataclass, field

import httpx

WORDS = (
    "engine stream token answer queue window morning river signal quiet harbour letter garden "
    "copper winter paper engine door stone bridge lamp number silver valley cloud table"
).split()
SYSTEM = "You are a patient assistant. Answer briefly and in whole sentences."
ANSWER_TOKENS = 32
ASK_SECONDS = 60.0


@dataclass(frozen=True)
class Talk:
    """`users` at a time, each with `rounds` questions of about `words` words."""

    url: str
    model: str
    #: makes the texts of one contender unlike those of another
    name: str
    key: str
    users: int = 16
    rounds: int = 6
    words: int = 60
    #: a session of its own for each request: what affinity knows is taken away
    strangers: bool = False


@dataclass
class Heard:
    """Seconds to the first token, by round; what went wrong."""

    first: list[tuple[int, float]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


async def converse(talk: Talk) -> Heard:
    heard = Heard()
    limits = httpx.Limits(max_connections=talk.users)
    async with httpx.AsyncClient(base_url=talk.url, timeout=ASK_SECONDS, limits=limits) as client:
        await asyncio.gather(*(_user(talk, client, heard, number) for number in range(talk.users)))
    return heard


async def _user(talk: Talk, client: httpx.AsyncClient, heard: Heard, number: int) -> None:
    dice = random.Random(number)
    messages = [{"role": "system", "content": SYSTEM}]
    await asyncio.sleep(0.1 * number)
    for turn in range(talk.rounds):
        words = " ".join(dice.choice(WORDS) for _ in range(talk.words))
        question = f"{talk.name} {number} asks for the {turn + 1}. time: {words}"
        messages.append({"role": "user", "content": question})
        try:
            answer, first = await _ask(talk, client, messages, dice)
        except (httpx.HTTPError, ValueError, KeyError) as error:
            heard.errors.append(repr(error)[:200])
            return
        heard.first.append((turn, first))
        messages.append({"role": "assistant", "content": answer})
        await asyncio.sleep(dice.uniform(0.05, 0.4))


async def _ask(
    talk: Talk, client: httpx.AsyncClient, messages: list[dict[str, str]], dice: random.Random
) -> tuple[str, float]:
    body = {
        "model": talk.model,
        "messages": messages,
        "max_tokens": ANSWER_TOKENS,
        "temperature": 0,
        "stream": True,
    }
    headers = {"authorization": f"Bearer {talk.key}"}
    if talk.strangers:
        headers["x-session-id"] = f"{dice.getrandbits(64):x}"
    text, first, began = "", 0.0, time.monotonic()
    async with client.stream("POST", "/v1/chat/completions", json=body, headers=headers) as got:
        if got.status_code != 200:
            raise ValueError(f"HTTP {got.status_code}: {(await got.aread())[:150]!r}")
        async for line in got.aiter_lines():
            if not line.startswith("data: {"):
                continue
            for choice in json.loads(line[6:])["choices"]:
                piece = choice["delta"].get("content") or ""
                first = first or (time.monotonic() - began if piece else 0.0)
                text += piece
    return text, first
