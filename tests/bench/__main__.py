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
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.bench import affinity, plot, report
from tests.bench.contenders import (
    CONTENDERS,
    ENGINE_CORE,
    KEY,
    ROOT,
    Running,
    free_port,
    launch,
    running,
    stop,
    wait_port,
)
from tests.bench.load import Plan
from tests.bench.measure import Scenario, load, measure, scenarios
from tests.bench.peers import PEERS, peer_python
from tests.bench.report import Rounds
from tests.bench.words import PICTURE


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.sh", description=__doc__)
    parser.add_argument("scenario", nargs="*", help="only these scenarios")
    parser.add_argument("--quick", action="store_true", help="half of the work, 1 round")
    parser.add_argument("--rounds", type=int, help="interleaved rounds (default 5)")
    parser.add_argument("--only", action="append", help="only this contender (repeatable)")
    parser.add_argument("--affinity", action="store_true", help="the engines' prefix caches only")
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


def run(
    wanted: list[Scenario], names: list[str], rounds: int, folder: Path
) -> dict[str, dict[str, list[dict[str, float]]]]:
    """All rounds: the contenders take turns, so that drifts meet all alike, and each is started
    once a round for all its scenarios."""
    ports = [free_port(), free_port()]
    log = folder / "standin.log"
    command = [sys.executable, "-m", "tests.bench.standin", "--port"]
    engines = [launch([*command, str(port)], ENGINE_CORE, log) for port in ports]
    pids = [engine.pid for engine in engines]
    results: Rounds = {s.name: {} for s in wanted}
    try:
        for port, engine in zip(ports, engines, strict=True):
            wait_port(port, engine)
        for number in range(rounds):
            for name in names:
                mine = [s for s in wanted if name in s.who]
                if not mine:
                    continue
                place = folder / f"{name.replace(' ', '')}-{number}"
                with running(name, place, ports) as contender:
                    warm_up(contender)
                    for scenario in mine:
                        one = measure(contender, scenario.plan_for(name), pids)
                        results[scenario.name].setdefault(name, []).append(one)
                        say(scenario.name, name, number, one)
    except KeyboardInterrupt:
        print("interrupted: what was measured so far follows", file=sys.stderr)
    finally:
        stop(engines)
    return results


def warm_up(contender: Running) -> None:
    """Routers look at their workers before they take requests; and nobody's first answers count."""
    time.sleep(1.5)
    plan = Plan(tuple(contender.ports), 8, 32, 8, ttft=0.01, interval=0.01)
    load(replace(plan, key=KEY, tls=contender.tls))


def say(scenario: str, name: str, number: int, numbers: dict[str, float]) -> None:
    print(
        f"{scenario:13} round {number + 1} {name:21} {numbers['cpu_us_per_token']:7.1f} µs/token "
        f"{numbers['cpu_ms_per_request']:7.2f} ms/request  TTFT p99 {numbers['first_p99']:7.1f} ms "
        f"way p99 {numbers['way_p99']:6.1f} ms  errors {numbers['errors']:.0f}  "
        f"left {numbers['left']:.0f}  others {numbers['disturbed']:.0%}",
        file=sys.stderr,
        flush=True,
    )


def chosen_names(only: list[str] | None) -> list[str]:
    """«direct» is always there: it is what is subtracted."""
    if unknown := set(only or ()) - set(CONTENDERS):
        sys.exit(f"no such contender: {', '.join(unknown)}; there are: {', '.join(CONTENDERS)}")
    return [
        "direct",
        *(name for name in CONTENDERS if name != "direct" and name in (only or CONTENDERS)),
    ]


def main() -> int:
    chosen = options()
    if chosen.affinity:
        return show_affinity(chosen.quick, chosen.write_readme)
    rounds = chosen.rounds or (1 if chosen.quick else 5)
    names = chosen_names(chosen.only)
    every = scenarios(chosen.quick)
    wanted = [s for s in every if not chosen.scenario or s.name.startswith(tuple(chosen.scenario))]
    if not wanted:
        sys.exit(f"no such scenario; there are: {', '.join(s.name for s in every)}")
    for name in PEERS:
        if any(name in one for one in names):
            peer_python(name)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="tandem-bench-") as scratch:
        results = run(wanted, names, rounds, Path(scratch))
    about = machine() | {"rounds": rounds, "minutes": round((time.monotonic() - began) / 60, 1)}
    text = store(results, about)
    print(text)
    if calm := report.calmness(results):
        print(calm, file=sys.stderr)
    if chosen.write_readme:
        fewest = min(len(one) for contenders in results.values() for one in contenders.values())
        whole = not (chosen.quick or chosen.only or chosen.scenario) and fewest >= 5
        return write_readmes(results, about, whole=whole, calm=not calm)
    return 0


def show_affinity(quick: bool, write: bool) -> int:
    with tempfile.TemporaryDirectory(prefix="tandem-bench-") as scratch:
        results = affinity.measured(quick, Path(scratch))
    print(affinity.markdown(results, "en"))
    if write and not quick:
        about = machine()
        for name, language in (("README.md", "en"), ("README.zh-CN.md", "zh")):
            text = report.heading(about, language, "affinity")
            report.write_block(ROOT / name, "affinity", text + affinity.markdown(results, language))
    return 0


def store(results: Rounds, about: dict[str, Any]) -> str:
    """Everything into bench-results/; returns the table."""
    folder = ROOT / "bench-results"
    folder.mkdir(exist_ok=True)
    stamp = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%SZ")
    (folder / f"{stamp}.json").write_text(json.dumps(report.as_json(results, about), indent=1))
    text = report.markdown(results, "en")
    (folder / f"{stamp}.md").write_text(text)
    if drawing := plot.scale(results):
        (folder / f"{stamp}.svg").write_text(drawing)
    return text


def write_readmes(results: Rounds, about: dict[str, Any], *, whole: bool, calm: bool) -> int:
    """Only a full run on a quiet machine may speak in the READMEs."""
    if not (whole and calm):
        why = "other work was running" if whole else "--write-readme needs a full run"
        print(f"READMEs left alone: {why}", file=sys.stderr)
        return 3
    for name, language in (("README.md", "en"), ("README.zh-CN.md", "zh")):
        text = report.heading(about, language) + report.markdown(results, language)
        report.write_block(ROOT / name, "peers", text + PICTURE[language])
    (ROOT / "tests/bench/scale.svg").write_text(plot.scale(results))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
