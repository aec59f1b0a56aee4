"""kill -9 of each container's main process, from the host: it comes back by itself."""

from __future__ import annotations

import pytest

from tests.stack.appliance import ENGINES, SERVICES, Appliance
from tests.stack.docker_engine import poll
from tests.stack.streams import ask


@pytest.mark.parametrize("service", [name for name in SERVICES if name not in ENGINES])
def test_a_killed_part_comes_back(appliance: Appliance, service: str) -> None:
    before = appliance.inspect(service)
    appliance.kill(service)

    def is_back() -> bool:
        now = appliance.inspect(service)
        again = now["RestartCount"] > before["RestartCount"]
        return again and now["Id"] == before["Id"] and appliance.healthy(service)

    poll(is_back, 90, f"{service} is back")
    appliance.wait_whole()
    assert ask(appliance, 7, tokens=8).complete


def test_what_redis_confirmed_survives_its_death(appliance: Appliance) -> None:
    session = appliance.chat("remember this", max_tokens=4).json()["session_id"]
    # everysec: what is older than a second is on disk.
    appliance.execute("redis", "sleep", "1.5")
    appliance.kill("redis")

    def is_there() -> bool:
        return appliance.client.get(f"/v1/sessions/{session}").status_code == 200

    poll(is_there, 90, "the conversation is there")
