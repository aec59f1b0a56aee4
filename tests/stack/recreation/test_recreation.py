"""A part is recreated, with a new address: the others find it."""

from __future__ import annotations

import pytest

from tests.stack.appliance import Appliance
from tests.stack.docker_engine import poll
from tests.stack.streams import ask


def addresses(appliance: Appliance, service: str) -> set[str]:
    networks = appliance.inspect(service)["NetworkSettings"]["Networks"]
    return {network["IPAddress"] for network in networks.values()}


def move(appliance: Appliance, service: str, network: str) -> None:
    """Recreate a service while a stranger sits at its old address."""
    image = appliance.inspect("grafana")["Config"]["Image"]
    before = addresses(appliance, service)
    appliance.compose("rm", "--stop", "--force", service)
    appliance.engine.run(
        "run", "--detach", "--rm", "--name", "tandem-stack-stranger", "--network",
        f"tandem-stack_{network}", "--entrypoint", "sleep", image, "600",
    )  # fmt: skip
    try:
        appliance.compose("up", "--detach", "--no-deps", "--wait", service, timeout=240)
    finally:
        appliance.engine.run("rm", "--force", "tandem-stack-stranger")
    assert addresses(appliance, service) != before


@pytest.mark.parametrize("service", ["gateway-a", "gateway-b"])
def test_the_door_finds_a_gateway_at_its_new_address(appliance: Appliance, service: str) -> None:
    move(appliance, service, "edge")
    other = {"gateway-a": "gateway-b", "gateway-b": "gateway-a"}[service]
    appliance.compose("stop", "--timeout", "5", other)
    try:
        poll(lambda: appliance.client.get("/readyz").status_code == 200, 60, "the door found it")
        assert ask(appliance, 3, tokens=4).complete
    finally:
        appliance.compose("up", "--detach", "--no-deps", "--wait", other, timeout=120)


def test_the_gateways_find_an_engine_at_its_new_address(appliance: Appliance) -> None:
    move(appliance, "vllm-b", "inference")
    appliance.wait_whole()
    assert ask(appliance, 4, tokens=8).complete
