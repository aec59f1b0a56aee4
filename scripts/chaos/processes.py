"""The processes of a part: its main process and everything under it, from /proc (Linux).

Crashes are injected with signals from the host, since `docker kill` bypasses restart policies.
"""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

# What vLLM names its own processes.
ENGINE_CORE = "VLLM::EngineCor"  # the kernel keeps 15 characters of a name
WORKER = "VLLM::Worker"
API_SERVER = "api_server"


def children() -> dict[int, list[int]]:
    """Every process's children, as one look at /proc shows them."""
    tree: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            stat = (entry / "stat").read_text()
            parent = int(stat.rpartition(")")[2].split()[1])
            tree.setdefault(parent, []).append(int(entry.name))
    return tree


def descendants(pid: int) -> list[int]:
    """The process and all under it, parents first."""
    tree = children()
    found = [pid]
    for one in found:
        found.extend(tree.get(one, ()))
    return found


def name(pid: int) -> str:
    """What the process calls itself, or nothing when it is gone."""
    try:
        comm = Path(f"/proc/{pid}/comm").read_text().strip()
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""
    return comm if comm.startswith("VLLM::") else command


def is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def find(pid: int, wanted: str) -> list[int]:
    """The processes under `pid` whose name has `wanted` in it."""
    return [one for one in descendants(pid) if wanted in name(one)]


def send(pids: list[int], number: signal.Signals) -> None:
    """Signal each process; one that has just ended is no error."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
