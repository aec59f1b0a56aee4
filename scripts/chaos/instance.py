"""The running instance as the faults see it: its parts' processes, start and stop, health.

How a part is reached is scripts/lib/instance.sh's knowledge; it is asked through parts.sh.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

from scripts.chaos import processes

ROOT = Path(__file__).parents[2]
ENGINES = ("vllm-a", "vllm-b")
GATEWAYS = ("gateway-a", "gateway-b")
# Behind TRY_PORT_BASE, as scripts/lib/try_parts.sh gives them out.
GATEWAY_PORTS = {"gateway-a": 2, "gateway-b": 3}
ASK_SECONDS = 10.0
# On an appliance each look starts two programs: more often would slow the measured answers.
LOOK_SECONDS = 1.0
# The gateways look once a second: what they say of a part that has just ended may be old.
SEEN_SECONDS = 3.0


class Instance:
    """`mode`: try or compose. Every call has a deadline; a failing one raises RuntimeError."""

    def __init__(self, mode: str) -> None:
        self.mode = mode
        base = os.environ.get("TANDEM_PORT_BASE", "")
        self._base = int(base) if mode == "try" and base.isdigit() else None
        #: whoever set it wants nothing more done: waiting ends with a RuntimeError
        self.ended = threading.Event()

    def call(self, *arguments: str, seconds: float = 60.0) -> str:
        """One function of the shell library; its standard output."""
        return self._run("chaos/parts.sh", *arguments, seconds=seconds).strip()

    def script(self, name: str, *arguments: str, seconds: float = 600.0) -> str:
        """One of the operator's own commands; chaos.sh holds the lock on its behalf."""
        return self._run(name, *arguments, seconds=seconds)

    def _run(self, name: str, *arguments: str, seconds: float) -> str:
        said = " ".join((name, *arguments))
        try:
            done = subprocess.run(
                [str(ROOT / "scripts" / name), *arguments],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=seconds,
                check=False,
                # Ctrl-C is not for it: it may be what mends.
                start_new_session=True,
            )
        except subprocess.TimeoutExpired as late:
            raise RuntimeError(f"{said}: not done within {seconds:g} s") from late
        if done.returncode:
            raise RuntimeError(f"{said}: {(done.stderr or done.stdout).strip()[-800:]}")
        return done.stdout

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

    # Health ----------------------------------------------------------------------------------

    def overview(self, gateway: str) -> dict[str, Any]:
        """What one gateway sees. In try mode it is asked itself: no program is started for it."""
        try:
            if self._base is not None:
                return self._ask(self._base + GATEWAY_PORTS[gateway])
            said = self.call("in_gateway", gateway, "gateway.admin", "status", "--json")
            seen: dict[str, Any] = json.loads(said)["gateway"] or {}
        except (OSError, ValueError) as error:
            raise RuntimeError(f"no answer ({error})") from error
        return seen

    @staticmethod
    def _ask(port: int) -> dict[str, Any]:
        address = f"http://127.0.0.1:{port}/internal/engines"
        with urllib.request.urlopen(address, timeout=ASK_SECONDS) as answer:
            seen: dict[str, Any] = json.load(answer)
        return seen

    def faults_seen(self) -> list[str]:
        """What is not healthy, as both gateways see it; empty when all is well."""
        bad = []
        for gateway in GATEWAYS:
            try:
                engines = self.overview(gateway).get("engines", [])
            except RuntimeError as error:
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
            self._pause(LOOK_SECONDS)

    def wait_busy(self, seconds: float) -> None:
        """Until every engine carries answers: a fault that hits nobody proves nothing."""
        deadline = time.monotonic() + seconds
        while idle := self._idle_engines():
            if time.monotonic() > deadline:
                raise RuntimeError(f"no answers run on {', '.join(idle)}")
            self._pause(LOOK_SECONDS if self._base is None else 0.1)

    def _idle_engines(self) -> list[str]:
        seen = [one for name in GATEWAYS for one in self.overview(name).get("engines", [])]
        busy = {one["name"] for one in seen if one["in_flight"]}
        return [engine for engine in ENGINES if engine not in busy]

    def mend(self) -> None:
        """Start every part anew that a fault may have left behind; the door stays."""
        for part in ("redis", *ENGINES, *GATEWAYS):
            self._pause(0)
            with contextlib.suppress(RuntimeError):
                self.call("recreate", part, seconds=200)

    def pids(self, parts: tuple[str, ...]) -> dict[str, int]:
        return {part: self.pid(part) for part in parts}

    def wait_replaced(self, before: dict[str, int], seconds: float = 180.0) -> None:
        """Until each of these parts runs as another process, and the gateways have looked again."""
        began = time.monotonic()
        waiting = dict(before)
        while waiting:
            for part, old in list(waiting.items()):
                if not processes.is_zombie(old):  # gone counts as one, too
                    continue
                with contextlib.suppress(RuntimeError):
                    if self.pid(part) != old:
                        del waiting[part]
            if waiting and time.monotonic() - began > seconds:
                raise RuntimeError(f"not started anew within {seconds:g} s: {', '.join(waiting)}")
            self._pause(LOOK_SECONDS)
        self._pause(SEEN_SECONDS)

    def _pause(self, seconds: float) -> None:
        if self.ended.wait(seconds):
            raise RuntimeError("interrupted")
