"""One measured run: a plan against one contender, with the CPU its process tree spent.

CPU comes from /proc (user and system time of every process in the tree, 10 ms ticks), memory is
the tree's resident size at the end of the run.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tests.bench.contenders import ENGINE_CORE, KEY, ROOT, Running
from tests.bench.load import Plan

TICK_SECONDS = 1 / os.sysconf("SC_CLK_TCK")
PAGE_MIB = os.sysconf("SC_PAGE_SIZE") / 2**20


@dataclass(frozen=True)
class Scenario:
    """A plan and what the stand-in engine does meanwhile (seconds)."""

    name: str
    title: str
    plan: Plan
    ttft: float = 0.05
    interval: float = 0.02


def scenarios(quick: bool) -> list[Scenario]:
    share = 4 if quick else 1
    base = Plan(port=0, streams=64, requests=256 // share, tokens=128)
    crowd = replace(base, streams=1000, requests=1000, ramp_seconds=5.0, tokens=200 // share)
    burst = replace(base, streams=32, requests=2000 // share, tokens=16, stream=False)
    long = replace(base, streams=16, requests=160 // share, tokens=16, prompt_bytes=100 * 1024)
    cancels = replace(base, requests=512 // share, cancel_share=0.05)
    return [
        Scenario("streams", "64 streams × 128 tokens at 20 ms", base),
        Scenario("crowd", "1,000 streams at 20 tokens/s", crowd, ttft=0.2, interval=0.05),
        Scenario("burst", "short requests, not streamed, 32 at a time", burst),
        Scenario("long-prompts", "prompts of 100 KiB, 16 streams", long),
        Scenario("cancels", "64 streams, 5 % of the callers leave", cancels),
    ]


def process_tree(pids: list[int]) -> list[int]:
    """The processes and all their descendants."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                parents.setdefault(int(fields[1]), []).append(int(entry.name))
    found = list(pids)
    for one in found:
        found.extend(parents.get(one, ()))
    return found


def cpu_seconds(pids: list[int]) -> float:
    ticks = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += sum(int(value) for value in fields[11:15])
    return ticks * TICK_SECONDS


def resident_mib(pids: list[int]) -> float:
    pages = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            pages += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * PAGE_MIB


def percentile(values: list[float], share: float) -> float:
    if not values:
        return float("nan")
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def load(plan: Plan, timeout: float = 240.0) -> dict[str, Any]:
    """Run the load generator on the engine's core and read its result."""
    done = subprocess.run(
        [
            *["taskset", "-c", ENGINE_CORE, sys.executable, "-m", "tests.bench.load"],
            json.dumps(asdict(plan)),
        ],
        cwd=ROOT,
        capture_output=True,
        timeout=timeout,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"the load generator failed: {done.stderr.decode()[-2000:]}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def measure(contender: Running, plan: Plan) -> dict[str, float]:
    """The numbers of one run: milliseconds, microseconds a token, MiB, counts."""
    tree = process_tree([process.pid for process in contender.processes])
    before = cpu_seconds(tree)
    result = load(replace(plan, port=contender.port, key=KEY, tls=contender.tls))
    tree = process_tree([process.pid for process in contender.processes])
    spent = cpu_seconds(tree) - before
    asked = result["answers"] + result["cancelled"] + len(result["errors"])
    return {
        "first_p50": statistics.median(result["first"]) if result["first"] else float("nan"),
        "first_p99": percentile(result["first"], 0.99),
        "way_p50": percentile(result["ways"], 0.5),
        "way_p99": percentile(result["ways"], 0.99),
        "cpu_us_per_token": spent * 1e6 / result["tokens"] if result["tokens"] else float("nan"),
        "cpu_ms_per_request": spent * 1e3 / max(1, asked),
        "requests_per_second": asked / result["seconds"],
        "resident_mib": resident_mib(tree),
        "errors": float(len(result["errors"])),
    }
