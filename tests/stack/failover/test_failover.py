"""kill -9 of an engine, or of a gateway, under running answers."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.stack.appliance import Appliance
from tests.stack.streams import Streams, ask

STREAMS = 6
# Long enough that none ends before the engine dies, on a fast machine too.
TOKENS = 2000


def processes_of(appliance: Appliance, service: str) -> dict[int, str]:
    """Pid on the host and name of each process in a container."""
    table = appliance.engine.run("top", appliance.container(service), "-o", "pid")
    pids = [int(line) for line in table.split()[1:]]
    return {pid: Path(f"/proc/{pid}/comm").read_text().strip() for pid in pids}


def kill_engine_core(appliance: Appliance) -> None:
    """The process that computes; the server before it stays and says HTTP 200 to its clients."""
    (core,) = (
        pid
        for pid, name in processes_of(appliance, "vllm-a").items()
        if name.startswith("VLLM::EngineCor")
    )
    os.kill(core, signal.SIGKILL)


def kill_container(appliance: Appliance) -> None:
    appliance.kill("vllm-a")


@pytest.mark.parametrize("death", [kill_container, kill_engine_core])
def test_no_answer_is_lost_when_an_engine_dies(appliance: Appliance, death: object) -> None:
    assert callable(death)
    answers = Streams(appliance, STREAMS, TOKENS).run(lambda: death(appliance))
    assert [answer for answer in answers if not answer.complete] == []
    assert {answer.tokens for answer in answers} == {TOKENS}
    # It really was the engine of some of them.
    assert any("failovers=1" in comment for answer in answers for comment in answer.comments)
    appliance.wait_whole()


def test_requests_go_on_while_a_gateway_is_away(appliance: Appliance) -> None:
    appliance.kill("gateway-a")
    answers = [ask(appliance, number, tokens=4) for number in range(6)]
    assert [answer for answer in answers if not answer.complete] == []
