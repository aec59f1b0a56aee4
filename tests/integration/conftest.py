"""The instance that the tests break and mend: TANDEM_DIR names it, or they start one."""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.integration.tandem_instance import PORTS, Tandem

ROOT = Path(__file__).parents[2]
TRY = str(ROOT / "scripts" / "try.sh")
# A first start makes the environments and builds the page.
START_SECONDS = 900
STOP_SECONDS = 180


def try_sh(
    folder: Path, base: int, *arguments: str, seconds: float = START_SECONDS
) -> subprocess.CompletedProcess[str]:
    """scripts/try.sh on the instance in that folder."""
    return subprocess.run(
        [TRY, *arguments],
        env={**os.environ, "TRY_DIR": str(folder), "TRY_PORT_BASE": str(base)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


def printed_variables(text: str) -> dict[str, str]:
    """`export NAME=value` lines as a dict."""
    pairs = [shlex.split(line)[1].partition("=") for line in text.splitlines()]
    return {name: value for name, _, value in pairs}


def instance_in(folder: Path, base: int) -> Tandem:
    printed = try_sh(folder, base, "--print-env", seconds=60)
    assert printed.returncode == 0, printed.stderr
    return Tandem(printed_variables(printed.stdout))


def free_base() -> int:
    """The first of as many ports in a row as an instance has, which nobody uses."""
    for base in range(20_000, 32_000, 20):
        if all(_is_free(base + number) for number in range(len(PORTS))):
            return base
    raise RuntimeError("not enough free ports in a row")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tandem]:
    given = os.environ.get("TANDEM_DIR")
    if given:
        instance = instance_in(Path(given), 8440)
        yield instance
        instance.close()
        return
    folder, base = tmp_path_factory.mktemp("try"), free_base()
    try:
        started = try_sh(folder, base, "--detach")
        assert started.returncode == 0, started.stdout + started.stderr
        instance = instance_in(folder, base)
        yield instance
        instance.close()
    finally:
        stopped = try_sh(folder, base, "--stop", seconds=STOP_SECONDS)
    assert stopped.returncode == 0, stopped.stderr


@pytest.fixture
def tandem(running: Tandem) -> Iterator[Tandem]:
    """The instance, whole before the test and mended after it."""
    running.wait_healthy()
    yield running
    running.wait_healthy()


@pytest.fixture
def client(tandem: Tandem) -> httpx.Client:
    return tandem.client


@pytest.fixture
def second_client(tandem: Tandem) -> Iterator[httpx.Client]:
    """A caller with a key of its own."""
    with tandem.client_of(tandem.other_key) as other:
        yield other
