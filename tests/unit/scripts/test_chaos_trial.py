"""scripts/chaos/trial.py: whatever goes wrong with one fault becomes its row, and no more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from scripts.chaos import trial as subject
from scripts.chaos.faults import CannotInject, Fault
from scripts.chaos.instance import ENGINES, Instance
from scripts.chaos.load import Answer, Load, Service
from scripts.chaos.report import Row
from scripts.chaos.words import HEAD

WHERE = Service("http://service", "key", "", "model")


class FakeInstance(Instance):
    """Healthy, unless told that it is not for so many looks; answers run on the busy engines."""

    def __init__(self, sick: int = 0, busy: tuple[str, ...] = ENGINES) -> None:
        super().__init__("try")
        self.sick = sick
        self.busy = busy
        self.mended = 0

    def overview(self, gateway: str) -> dict[str, Any]:
        return {"engines": [{"name": name, "in_flight": name in self.busy} for name in ENGINES]}

    def pids(self, parts: tuple[str, ...]) -> dict[str, int]:
        return {}

    def wait_replaced(self, before: dict[str, int], seconds: float = 0.0) -> None:
        assert before == {}

    def wait_healthy(self, seconds: float = 0.0) -> float:
        self.sick -= 1
        if self.sick >= 0:
            raise RuntimeError("not healed: vllm-a is down")
        return 0.0

    def mend(self) -> None:
        self.mended += 1


class NoLoad(Load):
    """One whole answer, without a service."""

    async def start(self) -> None:
        return

    async def stop(self, deadline: float = 0.0) -> list[Answer]:
        return [Answer(1, 1, ids=[5], finish_reason="length", completion_tokens=1, finished=True)]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    async def none(where: Service, answers: list[Answer]) -> int:
        return 0

    monkeypatch.setattr(Service, "client", lambda self: None)
    monkeypatch.setattr(subject, "misspelt", none)
    for name in ("BEFORE_SECONDS", "BUSY_SECONDS", "AFTER_SECONDS", "HEALED_SECONDS"):
        monkeypatch.setattr(subject, name, 0.0)


async def tried(instance: Instance, inject: Callable[[Instance], None]) -> Row:
    fault = Fault("a-fault", "what is done", inject, load=NoLoad)
    return await subject.trial(instance, WHERE, fault, 1, 1)


async def test_a_healed_fault_is_ok() -> None:
    row = await tried(FakeInstance(), lambda instance: None)
    assert (row.verdict, row.streams, row.lost) == ("ok", 1, 0)


async def test_a_fault_that_cannot_be_injected_says_why() -> None:
    def inject(instance: Instance) -> None:
        raise CannotInject("no packet filter")

    row = await tried(FakeInstance(), inject)
    assert row.verdict == "not done"
    assert row.cells()[-1] == "not done: no packet filter" and len(row.cells()) == len(HEAD["en"])


async def test_a_tool_that_fails_is_a_lost_row_with_its_words() -> None:
    def inject(instance: Instance) -> None:
        raise RuntimeError("rollout.sh: not done within 600 s")

    row = await tried(FakeInstance(), inject)
    assert row.verdict == "LOST" and row.complaints[0] == "rollout.sh: not done within 600 s"
    assert row.streams == 1, "the answers of its callers count all the same"


async def test_a_fault_that_would_hit_nobody_is_not_injected() -> None:
    injected: list[Instance] = []
    row = await tried(FakeInstance(busy=("vllm-b",)), injected.append)
    assert row.verdict == "LOST" and row.complaints[0] == "no answers run on vllm-a"
    assert injected == []


async def test_what_does_not_heal_is_mended_before_the_next_fault() -> None:
    instance = FakeInstance(sick=1)
    assert (await tried(instance, lambda one: None)).verdict == "ok"
    assert instance.mended == 1


async def test_a_service_that_cannot_be_mended_is_a_row() -> None:
    row = await tried(FakeInstance(sick=2), lambda one: None)
    assert row.verdict == "LOST" and "was not healthy before it" in row.complaints[0]
