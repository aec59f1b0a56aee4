"""scripts/try.sh: heals itself, says what runs, ends everything it started and nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.chaos import processes
from tests.integration.conftest import free_base, instance_in, try_sh
from tests.integration.tandem_instance import ENGINES, GATEWAYS, Tandem, until

STATUS_SECONDS = 60
COME_BACK_SECONDS = 120


def instance_pids(folder: Path) -> list[int]:
    """Every live process whose environment, command line or folder is that instance's."""
    return [pid for pid in map(int, _numbers()) if _belongs(Path(f"/proc/{pid}"), folder)]


def _numbers() -> Iterator[str]:
    own = str(os.getpid())
    return (one.name for one in Path("/proc").iterdir() if one.name.isdigit() and one.name != own)


def _belongs(process: Path, folder: Path) -> bool:
    try:
        said = (process / "environ").read_bytes() + (process / "cmdline").read_bytes()
        said += os.readlink(process / "cwd").encode()
    except OSError:
        return False
    return str(folder).encode() in said and not processes.is_zombie(int(process.name))


def on(tandem: Tandem, *arguments: str) -> subprocess.CompletedProcess[str]:
    return try_sh(tandem.folder, tandem.ports["door"], *arguments, seconds=STATUS_SECONDS)


@pytest.mark.timeout(600)
def test_an_engine_whose_processes_are_all_killed_comes_back(tandem: Tandem) -> None:
    before = tandem.engine_pids("vllm-b")
    processes.send(before, signal.SIGKILL)
    until(lambda: tandem.pid("vllm-b") not in (0, before[0]), COME_BACK_SECONDS, "another process")
    tandem.wait_healthy()
    assert not set(before) & set(tandem.engine_pids("vllm-b"))


@pytest.mark.parametrize("program", ["gateway-b", "nginx", "redis"])
def test_a_part_that_is_killed_comes_back(tandem: Tandem, program: str) -> None:
    before = tandem.kill(program)
    until(lambda: tandem.pid(program) not in (0, before), COME_BACK_SECONDS, "another process")
    until(lambda: _stays(tandem, program), COME_BACK_SECONDS, "a process that stays up")
    tandem.wait_healthy()
    assert tandem.ask("hello").status_code == 200


def _stays(tandem: Tandem, program: str) -> bool:
    """Up for five seconds: one that cannot have its port ends sooner, again and again."""
    state = tandem.supervisor("getProcessInfo", program)
    return bool(state["statename"] == "RUNNING" and state["now"] - state["start"] >= 5)


def test_a_second_start_says_that_it_runs(tandem: Tandem) -> None:
    parts = ("nginx", "redis", *GATEWAYS, *ENGINES)
    before = {name: tandem.pid(name) for name in parts}
    again = on(tandem, "--detach")
    assert again.returncode == 0, again.stderr
    assert f"already running: {tandem.url}" in again.stdout
    assert {name: tandem.pid(name) for name in parts} == before


def test_print_env_is_for_eval(tandem: Tandem) -> None:
    script = f'{on(tandem, "--print-env").stdout}\nprintf "%s\\n" "$TANDEM_URL" "$TANDEM_API_KEY"'
    values = subprocess.run(["bash", "-euc", script], capture_output=True, text=True, check=True)
    assert values.stdout.split() == [tandem.url, tandem.key]


def test_status_names_every_part(tandem: Tandem) -> None:
    lines = [line.split()[:2] for line in on(tandem, "--status").stdout.splitlines()]
    for part in ("nginx", "redis", *GATEWAYS, *ENGINES):
        assert [part, "RUNNING"] in lines


def test_the_page_is_served(tandem: Tandem) -> None:
    answer = tandem.client.get("/")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/html")
    assert "<script" in answer.text


@pytest.mark.timeout(1500)
def test_two_side_by_side_and_the_stop(tandem: Tandem, tmp_path: Path) -> None:
    """A second instance answers beside the first; its stop leaves 0 of its processes behind and
    all of the first one's."""
    folder, base = tmp_path / "second", free_base()
    firsts = {name: tandem.pid(name) for name in ("nginx", "gateway-a", "vllm-a", "redis")}
    try:
        started = try_sh(folder, base, "--detach")
        assert started.returncode == 0, started.stdout + started.stderr
        second = instance_in(folder, base)
        assert second.ask("hello").status_code == 200
        stranger = {"authorization": f"Bearer {tandem.key}"}
        assert second.client.get("/v1/models", headers=stranger).status_code == 401
        second.close()
        assert len(instance_pids(folder)) >= 12
    finally:
        stopped = try_sh(folder, base, "--stop")
    assert stopped.returncode == 0, stopped.stderr
    assert instance_pids(folder) == []
    assert try_sh(folder, base, "--print-env", seconds=STATUS_SECONDS).returncode == 5
    assert {name: tandem.pid(name) for name in firsts} == firsts


def test_secrets_stay_in_their_folder(tandem: Tandem) -> None:
    secrets = tandem.folder / "secrets"
    assert secrets.stat().st_mode & 0o077 == 0
    lines = b""
    for pid in instance_pids(tandem.folder):
        try:
            lines += Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue  # it has just ended
    for name in ("redis_password", "try.key", "supervisor_password"):
        assert (secrets / name).read_text().strip().encode() not in lines
