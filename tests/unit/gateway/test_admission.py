"""Places: never too many, never lost, handed on fairly, and an honest refusal."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Gauge, Histogram

from gateway.admission import Admission
from gateway.errors import NoEngine, Overloaded

PATIENCE = 60.0


class Metrics:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.queue_depth = Gauge("depth", "x", registry=self.registry)
        self.queue_seconds = Histogram("seconds", "x", registry=self.registry)
        self.inflight = Gauge("inside", "x", registry=self.registry)

    def value(self, name: str) -> float | None:
        return self.registry.get_sample_value(name)


class Scene:
    def __init__(self, places: int, length: int = 100, seconds: float = 3600.0) -> None:
        self.places = places
        self.now = 1000.0
        self.metrics = Metrics()
        self.admission = Admission(
            lambda: self.places, length, seconds, self.metrics, lambda: self.now
        )
        self.order: list[str] = []
        self.doors: dict[str, asyncio.Event] = {}

    def send(self, name: str, priority: str = "interactive") -> asyncio.Task[None]:
        """A request of key name[0] that stays inside until its door opens."""
        self.doors[name] = asyncio.Event()
        return asyncio.create_task(self._request(name, priority))

    async def _request(self, name: str, priority: str) -> None:
        which = "batch" if priority == "batch" else "interactive"
        async with self.admission.enter(name[0], which):
            self.order.append(name)
            await self.doors[name].wait()

    async def empty(self, *tasks: asyncio.Task[None]) -> None:
        for door in self.doors.values():
            door.set()
        await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), PATIENCE)
        assert (self.admission.inside, self.admission.queued) == (0, 0)
        assert (self.metrics.value("inside"), self.metrics.value("depth")) == (0, 0)


async def settle() -> None:
    """Let everything that can run now run."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_places_are_bounded_and_the_rest_waits() -> None:
    scene = Scene(places=2)
    tasks = [scene.send(f"a{n}") for n in range(5)]
    await settle()
    assert (scene.admission.inside, scene.admission.queued) == (2, 3)
    assert (scene.metrics.value("inside"), scene.metrics.value("depth")) == (2, 3)
    scene.doors["a0"].set()
    await settle()
    assert scene.order == ["a0", "a1", "a2"]
    await scene.empty(*tasks)
    assert scene.metrics.value("seconds_count") == 5


async def test_keys_take_turns() -> None:
    scene = Scene(places=1)
    tasks = [scene.send(name) for name in ("a0", "a1", "a2", "a3", "b0")]
    await settle()
    await scene.empty(*tasks)
    assert scene.order.index("b0") == 2


async def test_interactive_before_batch() -> None:
    scene = Scene(places=1)
    tasks = [scene.send("a0"), scene.send("b0", "batch"), scene.send("a1")]
    await settle()
    await scene.empty(*tasks)
    assert scene.order == ["a0", "a1", "b0"]


async def test_nobody_overtakes_the_line() -> None:
    scene = Scene(places=1)
    tasks = [scene.send("a0"), scene.send("a1")]
    await settle()
    scene.doors["a0"].set()
    tasks.append(scene.send("c0"))
    await settle()
    assert scene.order == ["a0", "a1"]
    await scene.empty(*tasks)


async def test_a_full_line_refuses_with_an_honest_time() -> None:
    scene = Scene(places=1, length=1, seconds=25.0)
    tasks = [scene.send("a0"), scene.send("a1")]
    await settle()
    with pytest.raises(Overloaded) as refused:
        async with scene.admission.enter("a"):
            pytest.fail("there is no place")
    assert refused.value.retry_after == 25
    await scene.empty(*tasks)


async def test_retry_after_follows_the_pace() -> None:
    scene = Scene(places=1, seconds=30.0)
    for _ in range(11):
        scene.now += 2
        async with scene.admission.enter("a"):
            pass
    tasks = [scene.send(f"a{n}") for n in range(5)]
    await settle()
    assert scene.admission.queued == 4
    assert scene.admission.retry_after() == 9  # five to go, eleven in twenty seconds
    scene.now += 1000
    assert scene.admission.retry_after() == 30, "an old pace is no pace"
    await scene.empty(*tasks)


@pytest.mark.parametrize(("seconds", "expected"), [(0.001, 1), (5000.0, 60)])
async def test_retry_after_is_bounded(seconds: float, expected: int) -> None:
    assert Scene(places=1, seconds=seconds).admission.retry_after() == expected


async def test_a_greedy_key_cannot_keep_the_others_out_of_the_line() -> None:
    scene = Scene(places=1, length=3)
    greedy = [scene.send(f"g{n}") for n in range(4)]
    await settle()
    modest = scene.send("m0")
    await settle()
    assert isinstance(greedy[3].exception(), Overloaded)
    assert scene.admission.queued == 3
    await scene.empty(*greedy, modest)
    assert "m0" in scene.order


async def test_waiting_ends() -> None:
    scene = Scene(places=1, seconds=0.01)
    inside = scene.send("a0")
    await settle()
    with pytest.raises(Overloaded):
        async with scene.admission.enter("a"):
            pytest.fail("there is no place")
    await scene.empty(inside)


async def test_without_an_engine_waiting_ends_with_no_engine() -> None:
    scene = Scene(places=0, seconds=0.01)
    with pytest.raises(NoEngine):
        async with scene.admission.enter("a"):
            pytest.fail("there is no place")
    await scene.empty()


async def test_waiters_come_in_when_an_engine_comes_back() -> None:
    scene = Scene(places=0)
    tasks = [scene.send(f"a{n}") for n in range(3)]
    await settle()
    scene.places = 2
    scene.admission.wake()
    await settle()
    assert scene.order == ["a0", "a1"]
    await scene.empty(*tasks)


async def test_when_capacity_shrinks_nobody_new_comes_in_until_there_is_room() -> None:
    scene = Scene(places=2)
    tasks = [scene.send(f"a{n}") for n in range(3)]
    await settle()
    scene.places = 1
    scene.doors["a0"].set()
    await settle()
    assert scene.order == ["a0", "a1"]
    await scene.empty(*tasks)


async def test_a_failing_request_gives_its_place_back() -> None:
    scene = Scene(places=1)
    with pytest.raises(RuntimeError):
        async with scene.admission.enter("a"):
            raise RuntimeError("odd")
    await scene.empty()


async def test_a_cancelled_waiter_leaves_the_line() -> None:
    scene = Scene(places=1)
    tasks = [scene.send("a0"), scene.send("a1"), scene.send("a2")]
    await settle()
    tasks[1].cancel()
    await settle()
    assert scene.admission.queued == 1
    scene.doors["a0"].set()
    await settle()
    assert scene.order == ["a0", "a2"]
    await scene.empty(*tasks)


async def test_cancelled_after_the_grant_hands_the_place_on() -> None:
    scene = Scene(places=0)
    tasks = [scene.send("a0"), scene.send("a1")]
    await settle()
    scene.places = 1
    scene.admission.wake()  # a0 has the place now, but has not run yet
    assert scene.admission.inside == 1 and scene.order == []
    tasks[0].cancel()
    await settle()
    assert scene.order == ["a1"]
    await scene.empty(*tasks)


STEP = st.one_of(
    st.tuples(st.just("send"), st.sampled_from("abc"), st.sampled_from(["interactive", "batch"])),
    st.tuples(st.just("leave"), st.integers(0, 50), st.just("")),
    st.tuples(st.just("cancel"), st.integers(0, 50), st.just("")),
    st.tuples(st.just("capacity"), st.integers(0, 4), st.just("")),
    st.tuples(st.just("run"), st.integers(0, 3), st.just("")),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(STEP, max_size=60))
def test_any_schedule_keeps_the_places(steps: list[tuple[str, str | int, str]]) -> None:
    asyncio.run(_play(steps))


async def _play(steps: list[tuple[str, str | int, str]]) -> None:
    scene = Scene(places=2, length=6)
    tasks: list[asyncio.Task[None]] = []
    for kind, value, priority in steps:
        if kind == "send":
            tasks.append(scene.send(f"{value}{len(tasks)}", priority))
        elif kind == "capacity":
            scene.places = int(value)
            scene.admission.wake()
        elif kind == "run":
            for _ in range(int(value)):
                await asyncio.sleep(0)
        elif tasks:
            _disturb(scene, tasks, kind, int(value))
        assert scene.admission.inside >= 0 and scene.admission.queued <= 6
    await settle()
    if scene.admission.queued:
        assert scene.admission.inside >= scene.places, "a free place and a waiter: a lost wake-up"
    scene.places = 2
    scene.admission.wake()
    async with AsyncExitStack() as stack:
        stack.push_async_callback(scene.empty, *tasks)


def _disturb(scene: Scene, tasks: list[asyncio.Task[None]], kind: str, value: int) -> None:
    index = value % len(tasks)
    if kind == "cancel":
        tasks[index].cancel()
    else:
        list(scene.doors.values())[index].set()
