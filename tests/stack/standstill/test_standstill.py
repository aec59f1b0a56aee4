"""An engine stands still (paused), or is stopped in good order, under running answers."""

from __future__ import annotations

import pytest

from tests.stack.appliance import ENGINES, GATEWAYS, Appliance
from tests.stack.docker_engine import poll
from tests.stack.load import under_load

# A paused engine refuses nothing and closes nothing: only its silence tells.
MOVED_WITHIN = 10.0
PAUSED_SECONDS = 15.0
SEEN_WITHIN = 10.0
PATIENCE = pytest.mark.timeout(480)


def out_of_service(appliance: Appliance, name: str) -> bool:
    return all(appliance.engines(gateway).get(name) != "healthy" for gateway in GATEWAYS)


@PATIENCE
async def test_a_paused_engine_loses_no_answer(appliance: Appliance) -> None:
    name = appliance.container("vllm-a")

    def pause() -> None:
        appliance.engine.run("pause", name)
        try:
            poll(lambda: out_of_service(appliance, "vllm-a"), PAUSED_SECONDS, "the pause is seen")
            # Answers that stood there go on elsewhere before it wakes up.
            appliance.execute("redis", "sleep", str(MOVED_WITHIN))
        finally:
            appliance.engine.run("unpause", name)

    _, seen = await under_load(appliance, pause, tokens=600)
    seen.assert_none_lost()
    assert any(answer.failovers for answer in seen.answers), "no answer ran there"
    assert seen.longest_gap <= MOVED_WITHIN
    appliance.wait_whole(60)


@PATIENCE
async def test_an_engine_stopped_in_good_order_loses_no_answer(appliance: Appliance) -> None:
    name = appliance.container("vllm-b")

    def stop() -> None:
        appliance.engine.run("stop", name)
        poll(lambda: out_of_service(appliance, "vllm-b"), SEEN_WITHIN, "the stop is seen")

    try:
        _, seen = await under_load(appliance, stop, tokens=600)
    finally:
        appliance.engine.run("start", name)
    seen.assert_none_lost()
    assert min(seen.healthy_engines) >= len(ENGINES) - 1
    assert appliance.inspect("vllm-b")["State"]["Running"]
