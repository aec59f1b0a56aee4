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
import urllib.request
from collections import Counter
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tests.bench.contenders import ENGINE_CORE, KEY, ROOT, Running
from tests.bench.load import Plan
from tests.bench.words import SCALE

TICK_SECONDS = 1 / os.sysconf("SC_CLK_TCK")
PAGE_MIB = os.sysconf("SC_PAGE_SIZE") / 2**20


ROUTERS = ("vllm-router", "sglang-router")
ALONE = ("direct", "nginx", "tandem", "tandem-base", *ROUTERS)
DOORS = tuple(f"nginx + {name}" for name in ("tandem", *ROUTERS))
OURS = ("tandem", "two gateways")


@dataclass(frozen=True)
class Scenario:
    """A plan, and who takes part in it."""

    name: str
    plan: Plan
    who: tuple[str, ...] = ALONE

    def plan_for(self, name: str) -> Plan:
        """LiteLLM needs some twenty times as long for each token: less of the same is enough."""
        if name != "litellm":
            return self.plan
        return replace(self.plan, requests=max(self.plan.streams, self.plan.requests // 4))


def scenarios(quick: bool) -> list[Scenario]:
    share = 2 if quick else 1
    base = Plan(ports=(), streams=64, requests=128, tokens=128 // share)
    crowd = replace(
        base,
        streams=1000,
        requests=1000,
        ramp_seconds=3.0,
        tokens=120 // share,
        ttft=0.2,
        interval=0.05,
    )
    burst = replace(base, streams=32, requests=800 // share, tokens=16, stream=False)
    long = replace(base, streams=16, requests=96 // share, tokens=16, prompt_bytes=100 * 1024)
    cancels = replace(base, requests=64, cancel_share=0.05)
    few = replace(crowd, ramp_seconds=0.5, tokens=40)
    return [
        Scenario("streams", base, (*ALONE, "litellm")),
        Scenario("crowd", crowd),
        Scenario("burst", burst, (*ALONE, "litellm")),
        Scenario("long-prompts", long),
        Scenario("cancels", cancels),
        Scenario("deploy", base, DOORS),
        *[Scenario(f"scale-{n}", replace(few, streams=n, requests=n), OURS) for n in SCALE],
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
    for pid in dict.fromkeys(pids):
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


def busy_seconds() -> float:
    """What all cores have worked so far, and what the host has taken from them."""
    fields = Path("/proc/stat").read_text().splitlines()[0].split()[1:]
    working = [int(value) for number, value in enumerate(fields[:8]) if number not in (3, 4)]
    return sum(working) * TICK_SECONDS


def left_behind(contender: Running) -> float:
    """Requests that a gateway still counts after everybody has gone; NaN for others."""
    if contender.name not in OURS:
        return float("nan")
    names = ("gateway_inflight ", "gateway_queue_depth ")
    left = 0.0
    for port in contender.ports:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        left += sum(float(line.split()[1]) for line in lines if line.startswith(names))
    return left


def measure(contender: Running, plan: Plan, engines: list[int]) -> dict[str, float]:
    """The numbers of one run: milliseconds, microseconds a token, MiB, counts. `engines`: the
    process ids of what else belongs to the run."""
    own = [process.pid for process in contender.processes]
    beside = [*engines, *(process.pid for process in contender.beside), os.getpid()]
    tree = process_tree(own)
    before, others = cpu_seconds(tree), busy_seconds() - cpu_seconds(tree + process_tree(beside))
    result = load(replace(plan, ports=tuple(contender.ports), key=KEY, tls=contender.tls))
    tree = process_tree(own)
    spent = cpu_seconds(tree) - before
    others = busy_seconds() - cpu_seconds(tree + process_tree(beside)) - others
    asked = result["answers"] + result["cancelled"] + len(result["errors"])
    for error, times in Counter(result["errors"]).most_common(3):
        print(f"{contender.name}: {times} × {error}", file=sys.stderr)
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
        "left": left_behind(contender),
        "disturbed": max(0.0, others) / result["seconds"],
    }
