"""Starts one vLLM engine from a profile and answers for it as long as it lives.

Owns: the child process group, the count of failed starts, waiting for GPU memory, stopping.
Not here: when an engine counts as hung (watchdog.py), which engine gets work (the gateway).
Only the standard library: it runs as it is in vLLM's official image.

    python3 serve.py --profile profiles/qwen2.5-7b.yaml --name vllm-a [vLLM arguments…]
    python3 serve.py --check         exit 0 when the engine is healthy; else 1 and the reason

vLLM exits 0 when its engine dies, and Docker's back-off forgets after ten seconds. So this script
exits non-zero when the engine ended unasked, waits longer after each start that did not last, and
parks after five: it then stays up, says why, and starts nothing until it is stopped and started.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from parked import serve_parked
from process_group import Group, kill_leftovers
from start_count import StartCount
from watchdog import EngineHttp, Limits, Watchdog

# Defaults for the engine's environment; what is set already wins.
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",  # weights are local, and no look-up leaves the machine
    "TRANSFORMERS_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",  # tells nobody
    "DO_NOT_TRACK": "1",
    "VLLM_HTTP_TIMEOUT_KEEP_ALIVE": "75",  # longer than the gateway keeps an idle connection
    "VLLM_ENGINE_READY_TIMEOUT_S": "900",  # a first start compiles and captures graphs
}
PROFILE_ENV = re.compile(r"^#env ([A-Z][A-Z0-9_]*)=(\S*)\s*$", re.MULTILINE)
SHUTDOWN_TIMEOUT = re.compile(r"^shutdown-timeout:\s*(\d+)", re.MULTILINE)
AFTER_SHUTDOWN = 15.0
LOOK_SECONDS = 0.05


def say(text: str) -> None:
    """One line in the log."""
    print(f"serve: {text}", file=sys.stderr, flush=True)


def _number(name: str, default: float) -> float:
    raw = os.environ.get(name, "")
    try:
        return float(raw) if raw else default
    except ValueError:
        raise SystemExit(f"{name} is {raw!r}; expected a number, for example {default:g}") from None


@dataclass(frozen=True)
class Plan:
    """Everything decided before the start."""

    name: str
    profile: Path
    extra: tuple[str, ...]
    host: str = field(default_factory=lambda: os.environ.get("ENGINE_HOST", "0.0.0.0"))
    port: int = field(default_factory=lambda: int(_number("ENGINE_PORT", 8000)))
    model: str = field(default_factory=lambda: os.environ.get("MODEL_PATH", ""))
    module: str = field(
        default_factory=lambda: os.environ.get(
            "ENGINE_MODULE", "vllm.entrypoints.openai.api_server"
        )
    )
    settled: float = field(default_factory=lambda: _number("SETTLED_SECONDS", 60))
    gpu_free: float = field(default_factory=lambda: _number("GPU_FREE_SECONDS", 60))
    # Where engines share their cores: the callers of a dead one move before the next start,
    rest: float = field(default_factory=lambda: _number("REST_SECONDS", 0))
    # and what carries answers goes before what computes them (niceness.py).
    nice: int = field(default_factory=lambda: int(_number("ENGINE_NICE", 0)))

    def command(self) -> list[str]:
        """The engine's command line; -P keeps the working directory out of the imports."""
        model = ["--model", self.model] if self.model else []
        return [
            *(sys.executable, "-P", "-m", self.module),
            *("--config", str(self.profile), "--host", self.host, "--port", str(self.port)),
            *model,
            *self.extra,
        ]

    def environment(self) -> dict[str, str]:
        """The profile's `#env` lines and the defaults, under what is set already."""
        wanted = dict(PROFILE_ENV.findall(self.profile.read_text("utf-8")))
        return {**ENVIRONMENT, **wanted, **os.environ}

    def stop_seconds(self) -> float:
        """How long the engine may take to finish its answers, and a little more."""
        found = SHUTDOWN_TIMEOUT.search(self.profile.read_text("utf-8"))
        return _number("STOP_SECONDS", float(found[1]) + AFTER_SHUTDOWN if found else 30)


def limits() -> Limits:
    """The watchdog's patience, from the environment."""
    return Limits(
        frozen=_number("WATCHDOG_SECONDS", 45),
        interval=_number("WATCHDOG_INTERVAL_SECONDS", 3),
        timeout=_number("WATCHDOG_TIMEOUT_SECONDS", 5),
        idle_before_probe=_number("WATCHDOG_IDLE_SECONDS", 10),
        gpu_interval=_number("WATCHDOG_GPU_SECONDS", 15),
    )


def state_dir() -> Path:
    """Where the count of failed starts lives; it must outlive a restart of the container."""
    folder = Path(os.environ.get("STATE_DIR", "/tmp/tandem-engine"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def gpu_memory_used() -> list[int] | None:
    """MiB in use on each visible card; None where nothing can be asked."""
    query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True)
        return [int(line) for line in answer.stdout.split()]
    except (OSError, ValueError, subprocess.SubprocessError):
        return None


class Service:
    """One life: wait, start, watch, end."""

    def __init__(self, plan: Plan, count: StartCount, folder: Path) -> None:
        self._plan = plan
        self._count = count
        self._group_file = folder / f"{plan.name}.group"
        self._stop = threading.Event()
        self._group: Group | None = None
        self._verdict = ""

    def ask_to_stop(self, *_: object) -> None:
        """SIGTERM and SIGINT arrive here."""
        self._stop.set()

    def run(self) -> int:
        """The exit status: 0 only when it was asked to stop."""
        kill_leftovers(self._group_file, say)
        if self._count.spent:
            return self._park()
        pause = self._count.pause
        if pause:
            say(f"{self._count.failed} start(s) did not last; the next one in {pause:g} s")
        if self._stop.wait(pause) or not self._wait_for_gpu_memory():
            return 0
        return self._live()

    def _park(self) -> int:
        reason = (
            f"{self._plan.name} is parked: {self._count.failed} starts in a row did not last. "
            "Read the log above, mend the cause, then restart this service."
        )
        say(reason)
        server = serve_parked(self._plan.host, self._plan.port, self._plan.name, reason)
        self._stop.wait()
        server.shutdown()
        self._count.reset()  # whoever stops a parked engine wants it to try again
        return 0

    def _wait_for_gpu_memory(self) -> bool:
        """The dead engine's memory must be free, or the new one refuses to start."""
        most = _number("GPU_FREE_MIB", 1024)
        end = time.monotonic() + self._plan.gpu_free
        while not self._stop.is_set():
            used = gpu_memory_used()
            if used is None or max(used, default=0) <= most:
                return True
            if time.monotonic() >= end:
                say(f"GPU memory is still in use ({used} MiB); starting all the same")
                return True
            self._stop.wait(1)
        return False

    def _live(self) -> int:
        before = self._count.failed
        self._count.began()
        group = self._group = Group(self._plan.command(), self._plan.environment(), self._plan.nice)
        group.remember(self._group_file)
        dog = Watchdog(EngineHttp(self._plan.port, limits().timeout), limits(), self._end_hung)
        dog.start()
        try:
            return self._wait(group, dog, before)
        finally:
            dog.stand_down()
            if group.kill():
                self._group_file.unlink(missing_ok=True)  # else the next life tries again
            self._stop.wait(self._plan.rest)

    def _wait(self, group: Group, dog: Watchdog, before: int) -> int:
        counted, told = True, False
        while not self._stop.wait(LOOK_SECONDS):
            status = group.ended()
            if status is not None:
                say(self._verdict or f"the engine ended by itself with status {status}")
                return status if 0 < status < 256 else 1
            if lost := group.lost_part():
                # vLLM takes seconds to tell its callers; a closed connection tells them at once.
                say(self._verdict or f"{lost} died; the rest of the engine is killed")
                return 1
            since = dog.healthy_since
            if since is not None and not told:
                group.know_parts()
                say("the engine is healthy")
                told = True
            if counted and since is not None and time.monotonic() - since >= self._plan.settled:
                self._count.reset()
                counted = False
        dog.stand_down()
        if counted:
            self._count.set(before)  # it did not fail, it was stopped
        say("asked to stop: the engine finishes its answers")
        if not group.stop(self._plan.stop_seconds()):
            say("the engine did not end in time and is killed")
        return 0

    def _end_hung(self, reason: str) -> None:
        self._verdict = f"watchdog: {reason}; the engine was killed"
        if self._group is not None:
            self._group.kill()


def check() -> int:
    """For the container's health check."""
    port = int(_number("ENGINE_PORT", 8000))
    try:
        status, body = EngineHttp(port, 5).ask("GET", "/health")
    except Exception as error:
        print(f"no answer yet ({type(error).__name__})")
        return 1
    if status != 200:
        print(body.decode("utf-8", "replace")[:500] or f"/health answered {status}")
    return 0 if status == 200 else 1


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Start one engine and answer for it.")
    parser.add_argument("--profile", type=Path, help="a vLLM --config file")
    parser.add_argument("--name", default="vllm", help="the engine's name in logs and files")
    parser.add_argument("--check", action="store_true", help="ask the running engine, then exit")
    known, extra = parser.parse_known_args(arguments)
    if known.check:
        return check()
    if known.profile is None or not known.profile.is_file():
        parser.error(f"--profile must name a file; {known.profile} is none")
    folder = state_dir()
    plan = Plan(known.name, known.profile.resolve(), tuple(extra))
    service = Service(plan, StartCount(folder / f"{plan.name}.starts"), folder)
    signal.signal(signal.SIGTERM, service.ask_to_stop)
    signal.signal(signal.SIGINT, service.ask_to_stop)
    return service.run()


if __name__ == "__main__":
    sys.exit(main())
