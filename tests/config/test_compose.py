"""compose.yaml keeps its own rules: every service bounded, checked, pinned, and shut in."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
ENGINES = ("vllm-a", "vllm-b")
# The engines compile kernels at start; DCGM writes beside its program. Both are shut in otherwise.
WRITABLE = {*ENGINES, "dcgm-exporter"}
TEXT = (ROOT / "compose.yaml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]

every_service = pytest.mark.parametrize("name", SERVICES)


def seconds(text: str) -> int:
    found = re.fullmatch(r"(?:(\d+)m)?(?:(\d+)s)?", text)
    assert found, text
    return int(found[1] or 0) * 60 + int(found[2] or 0)


def test_services_stand_in_the_order_of_a_request() -> None:
    assert list(SERVICES) == [
        "nginx", "gateway-a", "gateway-b", "redis", "vllm-a", "vllm-b",
        "prometheus", "alertmanager", "grafana", "dcgm-exporter",
    ]  # fmt: skip


@every_service
def test_a_service_has_limits(name: str) -> None:
    limits = SERVICES[name]["deploy"]["resources"]["limits"]
    assert set(limits) == {"cpus", "memory", "pids"}


@every_service
def test_a_service_has_a_health_check_that_ends_the_wait_early(name: str) -> None:
    check = SERVICES[name]["healthcheck"]
    assert {"test", "interval", "timeout", "retries", "start_period", "start_interval"} <= set(
        check
    )


@every_service
def test_an_image_is_pinned(name: str) -> None:
    image = re.sub(r"\$\{[A-Z_]+:-(.*?)\}", r"\1", SERVICES[name]["image"])
    _, _, tag = image.rpartition(":")
    assert re.search(r"\d+\.\d+\.\d+", tag), image


def test_base_images_are_pinned() -> None:
    for dockerfile in ("gateway/Dockerfile", "nginx/Dockerfile"):
        arguments = re.findall(r"^ARG \w+_IMAGE=(.*)$", (ROOT / dockerfile).read_text(), re.M)
        assert arguments
        assert all(re.search(r":\d+\.\d+\.\d+", image) for image in arguments)


@every_service
def test_a_log_is_capped(name: str) -> None:
    logging = SERVICES[name]["logging"]
    assert logging["driver"] == "json-file"
    assert {"max-size", "max-file"} <= set(logging["options"])


@every_service
def test_a_service_restarts_whatever_its_exit_status(name: str) -> None:
    assert SERVICES[name]["restart"] == "unless-stopped"


@every_service
def test_a_service_is_shut_in(name: str) -> None:
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"] and "cap_add" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["init"] is True
    assert service.get("read_only", False) is (name not in WRITABLE)
    for forbidden in ("privileged", "container_name", "network_mode", "pid", "ipc", "env_file"):
        assert forbidden not in service


def test_nothing_holds_the_docker_socket() -> None:
    assert not re.search(r"^[^#]*docker\.sock", TEXT, re.M)


@every_service
def test_binds_of_the_repository_are_read_only(name: str) -> None:
    for volume in SERVICES[name].get("volumes", ()):
        if isinstance(volume, dict):
            assert volume["read_only"] is True
            assert volume["bind"]["create_host_path"] is False
        elif volume.startswith((".", "$")):
            assert volume.endswith(":ro"), volume


@every_service
def test_no_secret_is_in_the_environment(name: str) -> None:
    for variable, value in SERVICES[name].get("environment", {}).items():
        secret = re.search(r"PASSWORD|SECRET|TOKEN$|API_KEY", variable)
        assert not secret or str(value).startswith("/run/secrets"), variable


def test_only_the_door_publishes_ports() -> None:
    assert [name for name, service in SERVICES.items() if "ports" in service] == ["nginx"]


def test_networks_keep_the_parts_apart() -> None:
    def inside(network: str) -> set[str]:
        return {name for name, one in SERVICES.items() if network in one["networks"]}

    open_networks = {name for name, one in COMPOSE["networks"].items() if not one.get("internal")}
    assert open_networks == {"public", "egress"}
    assert inside("public") == {"nginx"}
    assert inside("egress") == {"alertmanager"}
    assert inside("edge") == {"nginx", "gateway-a", "gateway-b", "grafana"}
    assert inside("data") == {"gateway-a", "gateway-b", "redis"}
    assert inside("inference") == {"gateway-a", "gateway-b", "vllm-a", "vllm-b", "prometheus"}


def test_the_gateways_wait_for_redis_and_never_for_an_engine() -> None:
    for name in ("gateway-a", "gateway-b"):
        assert list(SERVICES[name]["depends_on"]) == ["redis"]
    assert not any(set(one.get("depends_on", ())) & {*ENGINES} for one in SERVICES.values())


def test_grace_periods_grow_outward() -> None:
    grace = {name: seconds(service["stop_grace_period"]) for name, service in SERVICES.items()}
    drain = re.search(r"DRAIN_SECONDS: \$\{DRAIN_SECONDS:-(\d+)\}", TEXT)
    assert drain
    assert int(drain[1]) < grace["vllm-a"] <= grace["gateway-a"] < grace["nginx"]
    assert grace["gateway-a"] == grace["gateway-b"] and grace["vllm-a"] == grace["vllm-b"]
    profile = (ROOT / "vllm/profiles/qwen2.5-7b.yaml").read_text()
    shutdown = re.search(r"^shutdown-timeout: (\d+)", profile, re.M)
    assert shutdown and int(shutdown[1]) + 15 < grace["vllm-a"]


def test_twins_differ_in_nothing_but_their_names_and_cards() -> None:
    for a, b in (("gateway-a", "gateway-b"), ("vllm-a", "vllm-b")):
        one = yaml.safe_dump(SERVICES[a])
        for old, new in ((a, b), ("vllm_a", "vllm_b"), ("VLLM_A_GPU", "VLLM_B_GPU")):
            one = one.replace(old, new)
        one = one.replace("GPU_0:-0", "GPU_0:-2").replace("GPU_1:-1", "GPU_1:-3")
        assert one == yaml.safe_dump(SERVICES[b])


def test_without_set_up_compose_says_what_to_run() -> None:
    required = re.findall(r"\$\{([A-Z_]+):\?([^}]*)\}", TEXT)
    assert [name for name, _ in required] == ["TANDEM_SETUP"]
    assert "./scripts/setup.sh" in required[0][1]


def on_cpu() -> dict[str, Any]:
    text = (ROOT / "vllm/compose.cpu.yaml").read_text().replace("!reset ", "")
    services: dict[str, Any] = yaml.safe_load(text)["services"]
    return services


def test_an_engine_on_a_cpu_has_as_many_threads_as_cores_and_none_spins() -> None:
    """Two engines with a thread for each core of the machine are several times slower."""
    for engine in ENGINES:
        cores = SERVICES[engine]["deploy"]["resources"]["limits"]["cpus"]
        environment = on_cpu()[engine]["environment"]
        assert environment["OMP_NUM_THREADS"] == cores
        assert environment["PYTHONPATH"].split(":")[1] == "/opt/tandem/vllm/shared_cores"
        assert (ROOT / "vllm/shared_cores/sitecustomize.py").is_file()


def test_engines_on_a_cpu_have_the_plugin_for_it() -> None:
    """Without it vLLM dies there of a prompt that is read in steps and has a seed, as all have."""
    for engine in ENGINES:
        place = Path(on_cpu()[engine]["environment"]["PYTHONPATH"].split(":")[0])
        folder = ROOT / place.relative_to("/opt/tandem")
        (plugin,) = metadata.distributions(path=[str(folder)])
        (entry,) = plugin.entry_points
        assert entry.group == "vllm.general_plugins"
        code = (folder / f"{entry.module}.py").read_text()
        assert f"def {entry.attr}() -> None:" in code
