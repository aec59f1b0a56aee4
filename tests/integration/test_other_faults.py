"""Redis, a gateway or the door fails under running answers."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable

import httpx
import pytest

from tests.integration.crowd import Crowd
from tests.integration.events import Turn, error_of, turn_events
from tests.integration.tandem_instance import Tandem, until

STREAMS = 8
TOKENS = 1200
# A turn is taken up again: it must still run when its gateway is killed.
TURN_TOKENS = 3000

pytestmark = pytest.mark.timeout(600)


def test_without_redis(tandem: Tandem, client: httpx.Client) -> None:
    """Completions go on; what needs the session store says 503 and when to come back."""
    tandem.stop("redis")
    try:
        for number in range(6):
            assert tandem.ask(f"without redis {number}").status_code == 200
        answer = client.post("/v1/chat", json={"prompt": "hello", "max_tokens": 4})
        assert answer.status_code == 503
        assert error_of(answer)["code"] == "session_store_unavailable"
        assert int(answer.headers["retry-after"]) >= 1
        assert client.get("/readyz").status_code == 200
    finally:
        tandem.start("redis")
    tandem.wait_healthy()
    answer = client.post("/v1/chat", json={"prompt": "hello", "max_tokens": 4})
    assert answer.status_code == 200, answer.text


async def test_redis_dies_under_answers(tandem: Tandem) -> None:
    """kill -9 of Redis: 0 of 16 fail."""
    await _none_is_lost(tandem, lambda: tandem.kill("redis"))


async def test_the_door_reloads_under_answers(tandem: Tandem) -> None:
    """Running answers are finished by the old workers, new ones taken by the new: 0 of 16 fail."""
    await _none_is_lost(tandem, lambda: tandem.kill("nginx", signal.SIGHUP))


async def test_a_gateway_stops_in_good_order(tandem: Tandem) -> None:
    """Its answers are finished, new ones go to the other gateway: 0 of 16 fail."""
    await _none_is_lost(tandem, lambda: tandem.kill("gateway-a", signal.SIGTERM))


async def _none_is_lost(tandem: Tandem, fault: Callable[[], object]) -> None:
    answers = await Crowd(tandem, STREAMS, TOKENS).run(fault, more=STREAMS)
    assert [one.error for one in answers if one.failed] == []
    assert [one.number for one in answers if one.truncated or one.surplus] == []


class Client(threading.Thread):
    """Asks for a turn through the door and, when its connection breaks, takes it up again."""

    def __init__(self, tandem: Tandem, number: int) -> None:
        super().__init__(daemon=True)
        self._tandem = tandem
        self._number = number
        self.turn = Turn()
        self.breaks = 0
        self.fault: BaseException | None = None

    def run(self) -> None:
        try:
            with self._tandem.client_of(self._tandem.key) as client:
                self._ask(client)
                for _ in range(40):
                    if self.turn.end is not None:
                        return
                    self._resume(client)
        except BaseException as fault:
            self.fault = fault

    def _ask(self, client: httpx.Client) -> None:
        body = {
            "prompt": f"a long story, number {self._number}", "stream": True,
            "max_tokens": TURN_TOKENS, "temperature": 0, "ignore_eos": True,
        }  # fmt: skip
        self._read(lambda: client.stream(
            "POST", "/v1/chat", json=body, headers={"x-tandem-resume": "on"}
        ))  # fmt: skip

    def _resume(self, client: httpx.Client) -> None:
        assert self.turn.turn_id, "the connection broke before the turn had a name"
        self.breaks += 1
        self._read(lambda: client.stream(
            "GET", f"/v1/chat/{self.turn.turn_id}/events",
            headers={"last-event-id": str(self.turn.last_id)},
        ))  # fmt: skip

    def _read(self, connect: Callable[[], object]) -> None:
        try:
            with connect() as response:  # type: ignore[attr-defined]
                if response.status_code == 200:
                    for event in turn_events(response):
                        self.turn.take(event)
                else:
                    threading.Event().wait(0.5)
        except httpx.TransportError:
            threading.Event().wait(0.2)


def test_a_gateway_is_killed_under_turns(tandem: Tandem, client: httpx.Client) -> None:
    """kill -9 of a gateway under 8 turns: every client that comes back with Last-Event-ID gets
    the rest, 0 characters lost or doubled, and what is saved is what it saw."""
    callers = [Client(tandem, number) for number in range(STREAMS)]
    for caller in callers:
        caller.start()
    until(lambda: all(c.turn.text or c.fault for c in callers), 120, "all turns have begun")
    running = [caller for caller in callers if caller.turn.end is None]
    assert running, "the answers were too short"
    # The door may have sent all of them to one gateway: one that runs a turn is killed.
    with tandem.redis() as store:
        runner = store.hget(f"tandem:turn:{running[0].turn.turn_id}", "gateway")
    assert isinstance(runner, str)
    tandem.kill(runner)
    for caller in callers:
        caller.join(240)
    assert [caller.fault for caller in callers if caller.fault] == []
    assert any(caller.breaks for caller in callers), "no turn ran on the killed gateway"
    for caller in callers:
        end = caller.turn.end
        assert end is not None and end.name == "done", end
        assert end.data["finish_reason"] == "length"
        assert end.data["usage"]["completion_tokens"] == TURN_TOKENS
        saved = client.get(f"/v1/sessions/{caller.turn.session_id}").json()["messages"]
        assert [one["role"] for one in saved] == ["user", "assistant"]
        assert saved[1]["content"] == caller.turn.text
