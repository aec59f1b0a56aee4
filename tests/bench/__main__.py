"""The benchmark: every contender, every scenario, interleaved rounds, one table, one JSON.

Run by ./scripts/bench.sh. Results lie in bench-results/ (not in the repository).
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path

from tests.bench import report
from tests.bench.contenders import (
    CONTENDERS,
    ENGINE_CORE,
    PEERS,
    ROOT,
    free_port,
    launch,
    peer_python,
    running,
    stop,
    wait_port,
)
from tests.bench.measure import Scenario, measure, scenarios

# Above this load at the start of a run other processes take the cores that are measured.
QUIET_LOAD = 0.7


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.sh", description=__doc__)
    parser.add_argument("scenario", nargs="*", help="only these scenarios")
    parser.add_argument("--quick", action="store_true", help="a quarter of the work, 2 rounds")
    parser.add_argument("--rounds", type=int, help="interleaved rounds (default 5)")
    parser.add_argument("--only", action="append", help="only this contender (repeatable)")
    parser.add_argument("--write-readme", action="store_true", help="put the tables in the READMEs")
    return parser.parse_args()


def machine() -> dict[str, object]:
    model = "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "cores": os.cpu_count(),
        "processor": model,
        "memory_gib": round(memory),
        "python": platform.python_version(),
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
    }


def run_scenario(
    scenario: Scenario, names: list[str], rounds: int, folder: Path
) -> dict[str, list[dict[str, float]]]:
    """All rounds of one scenario; the contenders take turns, so that drifts meet all alike."""
    ports = [free_port(), free_port()]
    log = folder / "standin.log"
    engines = [
        launch(
            [
                *[sys.executable, "-m", "tests.bench.standin", "--port", str(port)],
                *["--ttft", str(scenario.ttft), "--interval", str(scenario.interval)],
            ],
            ENGINE_CORE,
            log,
        )
        for port in ports
    ]
    results: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    try:
        for port, engine in zip(ports, engines, strict=True):
            wait_port(port, engine)
        for number in range(rounds):
            for name in names:
                with running(name, folder / f"{scenario.name}-{name}-{number}", ports) as contender:
                    time.sleep(2.0)  # routers look at their workers before they take requests
                    results[name].append(measure(contender, scenario.plan))
                    say(scenario.name, name, number, results[name][-1])
    finally:
        stop(engines)
    return results


def say(scenario: str, name: str, number: int, numbers: dict[str, float]) -> None:
    print(
        f"{scenario:13} round {number + 1} {name:14} {numbers['cpu_us_per_token']:7.1f} µs/token "
        f"{numbers['cpu_ms_per_request']:7.2f} ms/request  TTFT p99 {numbers['first_p99']:7.1f} ms "
        f"way p99 {numbers['way_p99']:6.1f} ms  errors {numbers['errors']:.0f}",
        file=sys.stderr,
        flush=True,
    )


def main() -> int:
    chosen = options()
    rounds = chosen.rounds or (2 if chosen.quick else 5)
    names = ["direct", *(chosen.only or [name for name in CONTENDERS if name != "direct"])]
    wanted = [
        s for s in scenarios(chosen.quick) if not chosen.scenario or s.name in chosen.scenario
    ]
    for name in names:
        if name in PEERS:
            peer_python(name)
    load_before = os.getloadavg()[0]
    if load_before > QUIET_LOAD:
        print(f"the machine is busy (load {load_before:.1f}): numbers will be off", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="tandem-bench-") as scratch:
        results = {s.name: run_scenario(s, names, rounds, Path(scratch)) for s in wanted}
    titles = {s.name: s.title for s in wanted}
    about = machine()
    folder = ROOT / "bench-results"
    folder.mkdir(exist_ok=True)
    stamp = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%SZ")
    (folder / f"{stamp}.json").write_text(json.dumps(report.as_json(results, about), indent=1))
    table = report.markdown(results, titles)
    (folder / f"{stamp}.md").write_text(table)
    print(table)
    if chosen.write_readme:
        return write_readmes(chosen, load_before, table, about)
    return 0


def write_readmes(
    chosen: argparse.Namespace, load: float, table: str, about: dict[str, object]
) -> int:
    """Only a full run on a quiet machine may speak in the READMEs."""
    if chosen.quick or chosen.only or chosen.scenario or (chosen.rounds or 5) < 5:
        print("READMEs left alone: --write-readme needs a full run", file=sys.stderr)
        return 3
    if load > QUIET_LOAD:
        print("READMEs left alone: other work was running", file=sys.stderr)
        return 3
    line = (
        f"`./scripts/bench.sh --write-readme`, {about['date']}, {about['cores']} cores "
        f"({about['processor']}), {about['memory_gib']} GiB; medians of 5 interleaved rounds "
        f"(least–most).\n\n"
    )
    for name in ("README.md", "README.zh-CN.md"):
        report.write_block(ROOT / name, "peers", line + table)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
