"""scripts/setup.sh: every problem at once, then everything once, and nothing twice."""

from __future__ import annotations

import socket
import ssl
import subprocess
from pathlib import Path

import pytest

from tests.unit.scripts.conftest import Machine
from tests.unit.scripts.weights_server import write_model

UUIDS = tuple(f"GPU-{number * 8}-aaaa" for number in "1234")

# What a good machine says; each line is what the test of its kind changes.
DOCKER = """
case "$*" in
  version*) echo "${FAKE_ENGINE:-29.0.1}" ;;
  "compose version"*) echo "${FAKE_COMPOSE:-2.40.3}" ;;
  info*) echo "${FAKE_RUNTIMES:-{\\"nvidia\\":{}\\}}" ;;
  "compose ps"*) ;;
  *) echo "$PWD: $*" >>"$DOCKER_LOG" ;;
esac
"""
NVIDIA = f"""
case "$*" in
  *uuid*) printf '%s\\n' {" ".join(UUIDS)} ;;
  *driver_version*) for _ in 1 2 3 4; do echo "${{FAKE_DRIVER:-580.65.06}}"; done ;;
  *memory*) for _ in 1 2 3 4; do echo "${{FAKE_MEMORY:-24564}}"; done ;;
  *name*) for _ in $(seq "${{FAKE_GPUS:-4}}"); do echo "NVIDIA GeForce RTX 4090 D"; done ;;
esac
"""


@pytest.fixture
def good(machine: Machine, tmp_path: Path) -> Machine:
    """A machine on which everything is well, and a folder with a model."""
    machine.program("docker", DOCKER)
    machine.program("nvidia-smi", NVIDIA)
    machine.program("df", "echo Avail; echo 500G")
    machine.variables["DOCKER_LOG"] = str(tmp_path / "docker.log")
    write_model(tmp_path / "weights")
    return machine


def setup(machine: Machine, *more: str, **env: str) -> subprocess.CompletedProcess[str]:
    weights = str(machine.root.parent / "weights")
    ports = ("--https-port", str(free_port()), "--http-port", str(free_port()))
    return machine.run("scripts/setup.sh", "--weights", weights, *ports, *more, **env)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def settings(machine: Machine) -> dict[str, str]:
    lines = (machine.root / ".env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line and line[0] != "#")


def tree(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and ".locks" not in path.parts
    }


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_every_problem_is_listed_and_nothing_changed(good: Machine) -> None:
    before = tree(good.root)
    good.program("df", "echo Avail; echo 3G")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        said = good.run(
            "scripts/setup.sh", "--https-port", str(port), "--http-port", str(free_port()),
            FAKE_ENGINE="24.0.7", FAKE_COMPOSE="v2.20.0", FAKE_RUNTIMES="{}", FAKE_DRIVER="550.1",
            FAKE_MEMORY="16384", FAKE_GPUS="2",
        )  # fmt: skip
    assert said.returncode == 4
    for problem in (
        "Docker Engine 24.0.7", "Docker Compose v2.20.0", f"port {port}", "3 GB of disk", "2 GPUs",
        "driver 550.1", "16384 MiB", "NVIDIA runtime",
    ):  # fmt: skip
        assert problem in said.stderr, problem
    assert said.stderr.count("fix: ") == said.stderr.count("✗") == 8
    assert tree(good.root) == before


def test_a_driver_that_fails_is_a_problem_not_an_accident(good: Machine) -> None:
    good.program("nvidia-smi", "echo broken; exit 9")
    good.program("docker", "exit 1")
    said = setup(good)
    assert said.returncode == 4
    assert "Docker Engine does not answer" in said.stderr
    assert said.stderr.count("✗") >= 3


def test_weights_that_are_not_there_are_a_problem(good: Machine) -> None:
    said = good.run("scripts/setup.sh", "--weights", "/no/such/folder", "--no-start")
    assert said.returncode == 4
    assert "/no/such/folder" in said.stderr
    alone = good.run("scripts/setup.sh", "--cpu", "--no-start")
    assert alone.returncode == 4
    assert "no model" in alone.stderr


def test_a_dry_run_prints_the_plan(good: Machine) -> None:
    before = tree(good.root)
    said = setup(good, "--dry-run", "--host", "tandem.example")
    assert said.returncode == 0, said.stderr
    assert "plan:" in said.stdout and "tandem.example" in said.stdout
    assert tree(good.root) == before


def test_everything_is_written_with_its_rights(good: Machine) -> None:
    said = setup(good, "--host", "tandem.example", "--host", "192.0.2.7", "--no-start")
    assert said.returncode == 0, said.stderr
    values = settings(good)
    assert [values[f"VLLM_{e}_GPU_{n}"] for e in "AB" for n in "01"] == list(UUIDS)
    assert values["TANDEM_SETUP"]
    for folder in ("secrets", "certificates"):
        assert mode(good.root / folder) == 0o700
        for file in (good.root / folder).iterdir():
            assert mode(file) == 0o444, file
    made = {file.name for file in (good.root / "secrets").iterdir()}
    assert made == {
        "api_keys", "grafana_admin_password", "redis_password", "restic_password", "smtp_password",
    }  # fmt: skip
    assert " " not in (good.root / "secrets/redis_password").read_text().strip()
    key = said.stdout.partition("Key (shown once):")[2].split()[0]
    assert key.startswith("sk-tandem-")
    assert "https://tandem.example:" in said.stdout
    assert not (good.root.parent / "docker.log").exists()


def test_the_certificate_names_all_hosts(good: Machine) -> None:
    setup(good, "--host", "tandem.example", "--host", "192.0.2.7", "--no-start")
    folder = good.root / "certificates"
    ssl.create_default_context(cafile=folder / "tls.crt")
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(folder / "tls.crt", folder / "tls.key")
    shown = subprocess.run(
        ["openssl", "x509", "-in", folder / "tls.crt", "-noout", "-ext", "subjectAltName"],
        capture_output=True, text=True, timeout=30, check=True,
    )  # fmt: skip
    for name in ("DNS:tandem.example", "IP Address:192.0.2.7", "DNS:localhost"):
        assert name in shown.stdout


def test_a_second_run_keeps_what_is_there(good: Machine) -> None:
    assert setup(good, "--no-start").returncode == 0
    file = good.root / ".env"
    own = file.read_text().replace("MAX_INFLIGHT_PER_ENGINE=64", "MAX_INFLIGHT_PER_ENGINE=7")
    swapped = (
        own.replace(UUIDS[0], "x").replace(UUIDS[3], UUIDS[0]).replace("=x\n", f"={UUIDS[3]}\n")
    )
    file.write_text(swapped.replace("TANDEM_SETUP=20", "TANDEM_SETUP=19"))
    before = tree(good.root)
    again = good.run("scripts/setup.sh", "--no-start")
    assert again.returncode == 0, again.stderr
    assert "shown once" not in again.stdout
    assert tree(good.root) == before


def test_a_card_that_is_gone_is_replaced(good: Machine) -> None:
    assert setup(good, "--no-start").returncode == 0
    file = good.root / ".env"
    file.write_text(file.read_text().replace(UUIDS[2], "GPU-gone"))
    assert good.run("scripts/setup.sh", "--no-start").returncode == 0
    assert "GPU-gone" not in file.read_text()


def test_unfinished_is_marked_as_unfinished(good: Machine) -> None:
    """Compose refuses while TANDEM_SETUP is empty, so it is written when all the rest is there."""
    (good.root.parent / "weights" / "model-00002-of-00004.safetensors").write_bytes(b"broken")
    said = setup(good, "--no-start")
    assert said.returncode == 1
    assert settings(good)["TANDEM_SETUP"] == ""
    assert not (good.root / "models/Qwen2.5-7B-Instruct/.complete").exists()


def test_the_start_comes_last_and_from_its_own_folder(good: Machine) -> None:
    said = setup(good)
    assert said.returncode == 0, said.stderr
    lines = (good.root.parent / "docker.log").read_text().splitlines()
    assert [line.split()[2] for line in lines] == ["build", "up"]
    assert all(line.startswith(f"{good.root}: compose ") for line in lines)


def test_without_gpus_none_is_asked_for(good: Machine) -> None:
    good.program("nvidia-smi", "exit 9")
    good.program("nproc", "echo 7")
    assert setup(good, "--cpu", "--no-start").returncode == 0
    assert settings(good)["COMPOSE_FILE"] == "compose.yaml:vllm/compose.cpu.yaml"
    assert settings(good)["VLLM_CPUS"] == "3", "two engines share seven"
    again = good.run("scripts/setup.sh", "--no-start")
    assert again.returncode == 0, again.stderr
