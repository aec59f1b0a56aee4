"""serve.py in a process of its own, with a fake engine and time scaled down."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).parent
VLLM = HERE.parents[2] / "vllm"
PATIENCE = 60.0


def until(what: Callable[[], object], patience: float = PATIENCE) -> object:
    """The first true value of `what`; the test fails when there is none in time."""
    end = time.monotonic() + patience
    while True:
        value = what()
        if value:
            return value
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


class Serve:
    """One life of serve.py."""

    def __init__(self, folder: Path, port: int, **environment: str) -> None:
        self.port = port
        self.folder = folder
        self.state = folder / "state"
        self.orders = folder / "orders"
        self.log_file = folder / f"log-{time.monotonic_ns()}"
        profile = folder / "profile.yaml"
        profile.write_text("model: x\nshutdown-timeout: 5\n#env FAKE_FROM_PROFILE=yes\n")
        set_here = {
            "ENGINE_MODULE": "fake_engine",
            "ENGINE_HOST": "127.0.0.1",
            "ENGINE_PORT": str(port),
            "PYTHONPATH": str(HERE),
            "STATE_DIR": str(self.state),
            "FAKE_ORDERS": str(self.orders),
            "RETRY_SECONDS": "0.1,0.1,0.1,0.1,0.1",
            "SETTLED_SECONDS": "3600",
            "WATCHDOG_SECONDS": "2",
            "WATCHDOG_INTERVAL_SECONDS": "0.2",
            "WATCHDOG_TIMEOUT_SECONDS": "2",
            "WATCHDOG_IDLE_SECONDS": "0.5",
            **environment,
        }
        command = [sys.executable, str(VLLM / "serve.py"), "--profile", str(profile)]
        with self.log_file.open("wb") as log:
            self.process = subprocess.Popen(
                [*command, "--name", "vllm-a"],
                env={**os.environ, **set_here},
                stdout=log,
                stderr=log,
            )

    @property
    def log(self) -> str:
        return self.log_file.read_text()

    def starts(self) -> str:
        file = self.state / "vllm-a.starts"
        return file.read_text() if file.exists() else ""

    def worker(self) -> int:
        line = until(lambda: [x for x in self.log.splitlines() if x.startswith("worker ")])
        return int(line[0].split()[1])

    def leader(self) -> int:
        file = self.state / "vllm-a.group"
        return int(until(lambda: file.exists() and file.read_text()).split()[0])

    def get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as got:
                return got.status, got.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def wait_healthy(self) -> None:
        """Until the watchdog has seen it healthy: before that it forgives everything."""
        until(lambda: "the engine is healthy" in self.log)

    def ended(self) -> int:
        return self.process.wait(PATIENCE)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.ended()

    def clean_up(self) -> None:
        file = self.state / "vllm-a.group"
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(PATIENCE)
        if file.exists():
            try:
                os.killpg(int(file.read_text().split()[0]), signal.SIGKILL)
            except ProcessLookupError:
                pass


def as_json(text: str) -> dict:
    return dict(json.loads(text))
