"""Many callers at once, and something that breaks once every one of them has begun to read.

What arrives is only noted with its time, and read after the last answer has ended: callers that
count tokens meanwhile would take the processor from the engines whose gaps they measure.
Not here: what is broken (the tests), what an answer must be (scripts/chaos/load.py's Answer).
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import httpx

from scripts.chaos.load import Answer, question
from tests.integration.tandem_instance import Tandem

BEGUN_SECONDS = 120.0
WHOLE_SECONDS = 400.0
# Readers are in full swing when the fault comes: the rush of the first prompts is over.
SETTLE_SECONDS = 3.0
# A fault whose silence has not begun by then is not its cause.
EFFECT_SECONDS = 1.0
SAMPLED_EACH = 4
TEMPERATURE = 0.8


@dataclass
class Tape:
    """What one caller received, and when."""

    asked: dict[str, object]
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    pieces: list[tuple[float, bytes]] = field(default_factory=list)
    error: str | None = None

    def answer(self) -> Answer:
        """The tape, read."""
        answer = Answer(int(str(self.asked["seed"])), int(str(self.asked["max_tokens"])))
        answer.error = self.error
        last: float | None = None
        for at, line in self._lines():
            if _take(answer, line):
                if last is not None:
                    answer.longest_gap = max(answer.longest_gap, at - last)
                last = at
        if not answer.finished and answer.error is None:
            answer.error = "the stream ended without [DONE]"
        return answer

    def gap_at(self, moment: float) -> float:
        """The silence that something done at that moment caused: the longest that was still going
        on then, or began soon after."""
        times = [at for at, _ in self.pieces]
        gaps = [
            after - before
            for before, after in itertools.pairwise(times)
            if after > moment and before < moment + EFFECT_SECONDS
        ]
        return max(gaps, default=0.0)

    def _lines(self) -> Iterator[tuple[float, str]]:
        """Each line with the time of its end."""
        rest = b""
        for at, piece in self.pieces:
            *whole, rest = (rest + piece).split(b"\n")
            for line in whole:
                yield at, line.rstrip(b"\r").decode()


def is_sampled(number: int) -> bool:
    return number % SAMPLED_EACH == SAMPLED_EACH - 1


def crowd_question(number: int, model: str, tokens: int) -> dict[str, object]:
    """Greedy, but for each fourth, which is sampled with a seed of its own."""
    asked = question(number, model, tokens)
    if is_sampled(number):
        # Random weights now and then say a special token; /detokenize spells it, too.
        asked |= {"temperature": TEMPERATURE, "skip_special_tokens": False}
    return asked


class Crowd:
    """`streams` questions, each with an answer of exactly `tokens` tokens."""

    def __init__(self, tandem: Tandem, streams: int, tokens: int) -> None:
        self._tandem = tandem
        asked = [crowd_question(number, tandem.model, tokens) for number in range(streams)]
        self._tapes = [Tape(one) for one in asked]
        self.fault_at = 0.0

    async def run(self, fault: Callable[[], object], more: int = 0) -> list[Answer]:
        """`more`: short answers asked for after the fault."""
        tapes = list(self._tapes)
        async with self._tandem.service.client() as client, asyncio.timeout(WHOLE_SECONDS):
            tasks = [asyncio.create_task(_record(client, tape)) for tape in tapes]
            try:
                async with asyncio.timeout(BEGUN_SECONDS):
                    await asyncio.gather(*(tape.begun.wait() for tape in tapes))
                await asyncio.sleep(SETTLE_SECONDS)
                pairs = zip(tapes, tasks, strict=True)
                self._look_at_the_early([tape for tape, task in pairs if task.done()])
                self.fault_at = time.monotonic()
                await asyncio.to_thread(fault)
                late = [Tape(question(1000 + n, self._tandem.model, 32)) for n in range(more)]
                tapes += late
                tasks += [asyncio.create_task(_record(client, tape)) for tape in late]
                await asyncio.gather(*tasks)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        return [tape.answer() for tape in tapes]

    def gaps(self, answers: list[Answer]) -> list[float]:
        """Of the answers that moved, shortest first: for how long each reader had nothing."""
        pairs = zip(self._tapes, answers, strict=False)
        return sorted(tape.gap_at(self.fault_at) for tape, one in pairs if one.failovers)

    def gap_of_the_others(self, answers: list[Answer]) -> float:
        """The longest of those that did not move: how busy the machine itself is."""
        pairs = zip(self._tapes, answers, strict=False)
        stayed = [tape.gap_at(self.fault_at) for tape, one in pairs if not one.failovers]
        return max(stayed, default=0.0)

    def _look_at_the_early(self, early: list[Tape]) -> None:
        """On a busy machine the first are through before the last has begun."""
        assert [tape.error for tape in early if tape.error] == []
        running = len(self._tapes) - len(early)
        print(f"{running} of {len(self._tapes)} answers run when the fault comes")
        assert running >= len(self._tapes) // 8, "the answers were too short"


async def read(client: httpx.AsyncClient, asked: dict[str, object]) -> Answer:
    """One answer to its end, or to its failure, which is told in it."""
    tape = Tape(asked)
    await _record(client, tape)
    return tape.answer()


async def _record(client: httpx.AsyncClient, tape: Tape) -> None:
    """Sets `begun` in any case."""
    try:
        async with client.stream("POST", "/v1/chat/completions", json=tape.asked) as response:
            if response.status_code != 200:
                tape.error = f"HTTP {response.status_code}: {(await response.aread())[:300]!r}"
                return
            async for piece in response.aiter_raw():
                tape.pieces.append((time.monotonic(), piece))
                if len(tape.pieces) > 1:  # the first has the role, before there is a token
                    tape.begun.set()
    except httpx.HTTPError as error:
        tape.error = f"{type(error).__name__}: {error}"
    finally:
        tape.begun.set()


def _take(answer: Answer, line: str) -> bool:
    """Whether the line brought tokens."""
    if line.startswith(": tandem failovers="):
        answer.failovers = int(line.rpartition("=")[2])
    if not line.startswith("data: "):
        return False
    if line == "data: [DONE]":
        answer.finished = True
        return False
    event = json.loads(line[6:])
    if "error" in event:
        answer.error = json.dumps(event["error"])
        return False
    with contextlib.suppress(TypeError, KeyError):
        answer.completion_tokens = event["usage"]["completion_tokens"]
    before = len(answer.ids)
    for choice in event["choices"]:
        answer.text += choice["delta"].get("content") or ""
        answer.ids.extend(choice.get("token_ids") or ())
        answer.finish_reason = choice.get("finish_reason") or answer.finish_reason
    return len(answer.ids) > before
