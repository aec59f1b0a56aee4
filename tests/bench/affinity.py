"""Does affinity pay? Growing conversations on two real engines, by each way to choose one.

Two vLLM engines on CPU with a tiny model (scripts/try.sh makes them); what is read afterwards are
the engines' own counters: how much of the prompts they had in their prefix caches, and how evenly
requests were spread. Run by ./scripts/bench.sh --affinity.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.bench.chat import Talk, converse
from tests.bench.contenders import (
    KEY,
    ROOT,
    SGLANG_ROUTER,
    VLLM_ROUTER,
    Running,
    free_port,
    gateway,
    rust_router,
    start_redis,
    stop,
)
from tests.bench.measure import percentile
from tests.bench.words import AFFINITY

MODEL = "tandem-tiny"
ROUNDS = 3
# The fifth and sixth port of a try instance (scripts/lib/try_parts.sh).
ENGINE_PORTS = (4, 5)
COUNTERS = re.compile(
    r"^vllm:(prefix_cache_hits|prefix_cache_queries|request_success)_total\{[^}]*\} (\S+)$", re.M
)
Start = Callable[[Path, list[int]], Running]
Row = dict[str, float]


def _ours(folder: Path, engines: list[int]) -> Running:
    redis_port, redis = start_redis(folder)
    running = gateway(folder, engines, redis_port, model=MODEL)
    running.beside.append(redis)
    return running


CHOICES: dict[str, Start] = {
    "tandem": _ours,
    "tandem, no affinity": _ours,
    "vllm-router cache_aware": rust_router("vllm-router", VLLM_ROUTER, "cache_aware"),
    "sglang-router cache_aware": rust_router("sglang-router", SGLANG_ROUTER, "cache_aware"),
}


def measured(quick: bool, folder: Path) -> dict[str, Row]:
    """All choices in turn, on the same two engines; medians of what was measured."""
    found: dict[str, list[Row]] = {name: [] for name in CHOICES}
    with engines(folder / "instance") as ports:
        for number in range(1 if quick else ROUNDS):
            for name in CHOICES:
                found[name].append(tried(name, number, quick, folder, ports))
                print(f"{name:26} {found[name][-1]}", file=sys.stderr, flush=True)
    return {
        name: {key: statistics.median(row[key] for row in rows) for key in rows[0]}
        for name, rows in found.items()
    }


def tried(name: str, number: int, quick: bool, folder: Path, ports: list[int]) -> Row:
    """One choice once, with texts that no other has."""
    turns, users = (3, 8) if quick else (6, 16)
    place = Path(tempfile.mkdtemp(dir=folder))
    running = CHOICES[name](place, ports)
    try:
        time.sleep(3.0)  # routers and gateways look at their engines first
        url, text = f"http://127.0.0.1:{running.ports[0]}", f"{list(CHOICES).index(name)}-{number}"
        strangers = "no affinity" in name
        return one(Talk(url, MODEL, text, KEY, users, turns, strangers=strangers), ports)
    finally:
        stop([*running.processes, *running.beside])


def one(talk: Talk, ports: list[int]) -> Row:
    """One crowd of users, and what the engines counted meanwhile."""
    before = [counters(port) for port in ports]
    heard = asyncio.run(converse(talk))
    after = [counters(port) for port in ports]
    grown = [
        {name: new[name] - old.get(name, 0.0) for name in new}
        for old, new in zip(before, after, strict=True)
    ]
    later = [seconds * 1e3 for turn, seconds in heard.first if turn > 0]
    requests = [max(1.0, one["request_success"]) for one in grown]
    queries = sum(one["prefix_cache_queries"] for one in grown)
    return {
        "hit_rate": sum(one["prefix_cache_hits"] for one in grown) / max(1.0, queries),
        "skew": max(requests) / min(requests),
        "first_p50": statistics.median(later) if later else float("nan"),
        "first_p95": percentile(later, 0.95),
        "errors": float(len(heard.errors)),
    }


def counters(port: int) -> dict[str, float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    found: dict[str, float] = {}
    for name, value in COUNTERS.findall(text):
        found[name] = found.get(name, 0.0) + float(value)
    return found


@contextlib.contextmanager
def engines(home: Path) -> Iterator[list[int]]:
    """The two engines of a try instance of our own."""
    base = next(port for port in iter(free_port, 0) if port < 60000)
    # vLLM's blocks are of 128 tokens on CPU and of 16 on GPUs; only whole ones are found again.
    few = "--block-size 32"
    env = {**os.environ, "TRY_DIR": str(home), "TRY_PORT_BASE": str(base), "TRY_ENGINE_ARGS": few}
    script = str(ROOT / "scripts" / "try.sh")
    subprocess.run([script, "--detach"], env=env, check=True, stdout=sys.stderr)
    try:
        yield [base + offset for offset in ENGINE_PORTS]
    finally:
        subprocess.run([script, "--stop"], env=env, check=True, stdout=sys.stderr)


def markdown(results: dict[str, Row], language: str) -> str:
    title, columns = AFFINITY[language]
    lines = [f"**{title}**\n", "| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for name, row in results.items():
        cells = [
            name,
            f"{row['hit_rate']:.1%}",
            f"{row['skew']:.2f}",
            f"{row['first_p50']:.0f}",
            f"{row['first_p95']:.0f}",
            f"{row['errors']:.0f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, ""])
