"""The running instance as the faults see it: its parts' processes, start and stop, health.

How a part is reached is scripts/lib/instance.sh's knowledge; it is asked through parts.sh.
"""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Any

from scripts.chaos import processes

ROOT = Path(__file__).parents[2]
ENGINES = ("vllm-a", "vllm-b")
GATEWAYS = ("gateway-a", "gateway-b")
LOOK_SECONDS = 0.25


class Instance:
    """`mode`: try or compose. Every call has a deadline; a failing one raises RuntimeError."""

    def __init__(self, mode: str) -> None:
        self.mode = mode

    def call(self, *arguments: str, seconds: float = 60.0) -> str:
        """One function of the shell library; its standard output."""
        done = subprocess.run(
            [str(ROOT / "scripts/chaos/parts.sh"), *arguments],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(arguments)}: {done.stderr.strip()[-500:]}")
        return done.stdout.strip()

    def pid(self, part: str) -> int:
        """The part's main process; RuntimeError when it does not run."""
        return int(self.call("part_pid", part))

    def engine_processes(self, engine: str, wanted: str) -> list[int]:
        """The engine's processes of that name (see processes.py)."""
        found = processes.find(self.pid(engine), wanted)
        if not found:
            raise RuntimeError(f"{engine} has no process named {wanted}")
        return found

    def redis(self, *arguments: str) -> str:
        return self.call("redis", *arguments)

    def script(self, name: str, *arguments: str, seconds: float = 600.0) -> str:
        """One of the operator's own commands; chaos.sh holds the lock on its behalf."""
        done = subprocess.run(
            [str(ROOT / "scripts" / name), *arguments],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{name}: {(done.stderr or done.stdout).strip()[-800:]}")
        return done.stdout

    # Health ----------------------------------------------------------------------------------

    def overview(self, gateway: str) -> dict[str, Any]:
        """What one gateway sees."""
        said = self.call("in_gateway", gateway, "gateway.admin", "status", "--json")
        seen: dict[str, Any] = json.loads(said)["gateway"] or {}
        return seen

    def faults_seen(self) -> list[str]:
        """What is not healthy, as both gateways see it; empty when all is well."""
        bad = []
        for gateway in GATEWAYS:
            try:
                engines = self.overview(gateway).get("engines", [])
            except (RuntimeError, ValueError, subprocess.TimeoutExpired) as error:
                bad.append(f"{gateway}: {error}")
                continue
            if not engines:
                bad.append(f"{gateway} does not answer")
            bad += [
                f"{gateway} sees {one['name']} {one['state']} ({one['reason']})"
                for one in engines
                if one["state"] != "healthy"
            ]
        return bad

    def wait_healthy(self, seconds: float = 240.0) -> float:
        """Until all is well; returns how long that took. RuntimeError with what is not."""
        began = time.monotonic()
        while True:
            bad = self.faults_seen()
            if not bad:
                return time.monotonic() - began
            if time.monotonic() - began > seconds:
                raise RuntimeError("not healed: " + "; ".join(bad))
            time.sleep(LOOK_SECONDS)
