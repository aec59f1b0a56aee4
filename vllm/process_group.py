"""The engine's processes as one group: started, stopped and killed together.

Owns: that no worker outlives its engine, nor an engine the script that started it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import niceness

GONE_SECONDS = 10.0
# What vLLM calls the processes under its API server: the engine core and the workers.
PART = "VLLM::"
# The kernel's mark of a process on its way out (PF_EXITING, include/linux/sched.h). A large one
# first frees its memory, for a tenth of a second; then its sockets close; then it is a zombie.
EXITING = 0x4


def members(group: int) -> list[int]:
    """Living processes of the group, zombies left out."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            # After the name in brackets, which may hold anything: state, parent, group.
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except (OSError, ValueError):
            continue
        if len(fields) > 2 and int(fields[2]) == group and fields[0] not in "ZX":
            found.append(int(entry.name))
    return found


def kill_group(group: int) -> bool:
    """SIGKILL to all of it; whether it was gone in time."""
    end = time.monotonic() + GONE_SECONDS
    while True:
        try:
            # Before any look: a process whose main thread has ended looks like a zombie.
            os.killpg(group, signal.SIGKILL)
        except ProcessLookupError:
            return True
        if not members(group):
            return True
        if time.monotonic() > end:
            return False
        time.sleep(0.05)


def kill_leftovers(file: Path, say: Callable[[str], None]) -> None:
    """The group of an earlier life, whose starter was killed before it could clean up."""
    try:
        group, started = (int(part) for part in file.read_text().split())
    except (OSError, ValueError):
        return
    if any(_started(pid) >= started for pid in members(group)):
        say("an engine of an earlier start is still there and is killed")
        kill_group(group)
    file.unlink(missing_ok=True)


def _started(pid: int) -> int:
    """Clock ticks from boot to the start of a process; -1 when it is gone."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return -1


def _name(pid: int) -> str:
    """What the process calls itself (fifteen characters of it)."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def _is_dead(pid: int, started: int) -> bool:
    """Gone, on its way out, or another process under the same number."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError):
        return True
    return fields[0] in "ZX" or bool(int(fields[6]) & EXITING) or int(fields[19]) != started


class Group:
    """The API server and everything that it starts; `nice`, as niceness.py says."""

    def __init__(self, command: list[str], environment: dict[str, str], nice: int = 0) -> None:
        self._leader = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        self.pid = self._leader.pid
        self._nice = nice
        if nice:
            niceness.stand_back(self.pid, nice)
        self._began = _started(self.pid)
        self._mark = f"{self.pid} {self._began}"
        self._parts: dict[int, tuple[int, str]] = {}

    def remember(self, file: Path) -> None:
        """So that the next life finds what this one could not kill."""
        file.write_text(self._mark)

    def ended(self) -> int | None:
        """The leader's exit status once it ends; a signal's number is negative.

        Its callers learn of it when its sockets close, so nothing of the engine may then keep it
        from the processor: the rest is killed."""
        if self._leader.poll() is None and _is_dead(self.pid, self._began):
            self.kill()
        return self._leader.returncode

    def know_parts(self) -> None:
        """Remember the processes without which the engine is dead; to be called once it runs."""
        named = {pid: _name(pid) for pid in members(self.pid)}
        parts = {pid: name for pid, name in named.items() if name.startswith(PART)}
        self._parts = {pid: (_started(pid), name) for pid, name in parts.items()}

    def lost_part(self) -> str | None:
        """The name of one of them that has died since."""
        for pid, (started, name) in self._parts.items():
            if _is_dead(pid, started):
                return name
        return None

    def stop(self, patience: float) -> bool:
        """SIGTERM to the API server alone: it ends its engine itself. False when it did not."""
        self._leader.terminate()
        try:
            self._leader.wait(patience)
        except subprocess.TimeoutExpired:
            return False
        return True

    def kill(self) -> bool:
        """Whether nothing of the group is left; a process in a driver's call may not go in time."""
        if self._nice and self._leader.poll() is None:
            niceness.hurry(self.pid)
        gone = kill_group(self.pid)
        try:
            self._leader.wait(GONE_SECONDS)
        except subprocess.TimeoutExpired:
            return False
        return gone
