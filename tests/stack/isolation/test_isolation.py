"""Who can reach whom: an engine nobody outside, the door nothing behind the gateways."""

from __future__ import annotations

import socket

import pytest

from tests.stack.appliance import ENGINES, GATEWAYS, Appliance

CONNECT = (
    "import socket, sys\n"
    "try:\n"
    "    socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=3).close()\n"
    "except OSError as refused:\n"
    "    sys.exit(f'cut off: {refused}')\n"
    "print('reached')\n"
)


def reaches(appliance: Appliance, service: str, host: str, port: int) -> bool:
    """True when a connection opens from inside the container; every image here has a Python."""
    status, told = appliance.execute(service, "python3", "-c", CONNECT, host, str(port))
    assert ("reached" in told) if status == 0 else ("cut off" in told), told
    return status == 0


def address(appliance: Appliance, service: str, network: str) -> str:
    networks = appliance.inspect(service)["NetworkSettings"]["Networks"]
    return str(networks[f"tandem-stack_{network}"]["IPAddress"])


@pytest.fixture
def outside(appliance: Appliance) -> tuple[str, int]:
    """A listener on the host, at an address that the published network can reach."""
    gateway = appliance.inspect("nginx")["NetworkSettings"]["Networks"]["tandem-stack_public"]
    return str(gateway["Gateway"]), appliance.https_port


@pytest.mark.parametrize("service", [*ENGINES, *GATEWAYS, "redis", "prometheus", "grafana"])
def test_no_way_leads_out(appliance: Appliance, outside: tuple[str, int], service: str) -> None:
    with socket.create_connection(outside, timeout=10):
        pass  # the listener is there; what follows is not a dead address
    assert not reaches(appliance, service, *outside)
    assert not reaches(appliance, service, "example.com", 80)


def test_the_door_reaches_the_gateways_and_nothing_behind_them(appliance: Appliance) -> None:
    assert reaches(appliance, "nginx", "gateway-a", 8080)
    for name, port in (("vllm-a", 8000), ("vllm-b", 8000), ("redis", 6379), ("prometheus", 9090)):
        assert not reaches(appliance, "nginx", name, port)
    assert not reaches(appliance, "nginx", address(appliance, "vllm-a", "inference"), 8000)
    assert not reaches(appliance, "nginx", address(appliance, "redis", "data"), 6379)


def test_an_engine_reaches_neither_redis_nor_the_door(appliance: Appliance) -> None:
    for name, port in (("redis", 6379), ("nginx", 8443), ("grafana", 3000)):
        assert not reaches(appliance, "vllm-a", name, port)


def test_redis_asks_for_its_password(appliance: Appliance) -> None:
    _, told = appliance.execute("redis", "redis-cli", "KEYS", "*")
    assert "NOAUTH" in told


def test_an_engine_cannot_change_its_weights(appliance: Appliance) -> None:
    status, told = appliance.execute("vllm-a", "sh", "-c", "echo x > /models/current/config.json")
    assert status != 0 and "Read-only" in told


def test_only_the_door_publishes_ports(appliance: Appliance) -> None:
    for service in (*GATEWAYS, *ENGINES, "redis", "prometheus", "alertmanager", "grafana"):
        ports = appliance.inspect(service)["NetworkSettings"]["Ports"] or {}
        assert not any(ports.values()), service
