"""The command behind scripts/chaos.sh: faults under load, one table. See chaos.sh --help."""

from __future__ import annotations

import argparse
import asyncio
import datetime
import os
import sys
import time

from scripts.chaos import report
from scripts.chaos.faults import FAULTS, Fault
from scripts.chaos.instance import ROOT, Instance
from scripts.chaos.load import Load, Service, misspelt
from scripts.chaos.soak import soak

# Answers are well under way before the fault, and go on for a while after it.
BEFORE_SECONDS = 3.0
AFTER_SECONDS = 6.0


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="chaos.sh")
    parser.add_argument("fault", nargs="*")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--yes", action="store_true")
    parser.add_argument("--streams", type=int, default=24)
    parser.add_argument("--tokens", type=int, default=400)
    parser.add_argument("--soak", type=float, metavar="MINUTES")
    parser.add_argument("--write-readme", action="store_true")
    return parser.parse_args()


def service() -> Service:
    """From what `try.sh --print-env` prints; for an appliance the variables are set by hand."""
    names = ("TANDEM_URL", "TANDEM_API_KEY", "TANDEM_CA", "TANDEM_MODEL")
    missing = [name for name in names if not os.environ.get(name)]
    if missing:
        raise SystemExit(
            f"{', '.join(missing)} must be set: "
            'eval "$(./scripts/try.sh --print-env)", or by hand for an appliance'
        )
    return Service(*(os.environ[name] for name in names))


async def trial(
    instance: Instance, where: Service, fault: Fault, streams: int, tokens: int
) -> report.Row:
    """One fault under load, until the service has healed and every answer has ended."""
    await asyncio.to_thread(instance.wait_healthy)
    load = Load(where, streams, tokens)
    await load.start()
    healed: float | None = None
    try:
        await asyncio.sleep(BEFORE_SECONDS)
        healed = await asyncio.to_thread(_inject, instance, fault)
        await asyncio.sleep(AFTER_SECONDS)
    except RuntimeError as error:
        print(f"{fault.name}: {error}", file=sys.stderr)
    finally:
        answers = await load.stop()
    wrong = await misspelt(where, answers)
    return report.row(fault, answers, wrong, healed)


def _inject(instance: Instance, fault: Fault) -> float:
    """Do it, and wait until all is well again; how long both took."""
    before = instance.pids(fault.renews)
    began = time.monotonic()
    fault.inject(instance)
    instance.wait_replaced(before)
    instance.wait_healthy()
    return time.monotonic() - began


async def run(chosen: argparse.Namespace, faults: list[Fault]) -> int:
    instance, where = Instance(os.environ.get("TANDEM_MODE", "try")), service()
    rows = []
    for fault in faults:
        one = await trial(instance, where, fault, chosen.streams, chosen.tokens)
        rows.append(one)
        verdict = "ok" if one.lost == 0 and one.healed is not None else "LOST"
        print(f"{verdict:5} " + " | ".join(one.cells()), flush=True)
        for complaint in one.complaints:
            print(f"      told: {complaint}", flush=True)
    table = report.table(rows)
    print("\n" + table)
    bad = any(one.lost or one.healed is None for one in rows)
    if chosen.write_readme and not bad and len(rows) == len(FAULTS):
        date = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d")
        head = f"`./scripts/chaos.sh --yes`, {date}, {chosen.streams} callers at a time.\n\n"
        report.write_readmes(ROOT, head + table)
    return 1 if bad else 0


def main() -> int:
    chosen = options()
    by_name = {fault.name: fault for fault in FAULTS}
    if chosen.list:
        for fault in FAULTS:
            print(f"{fault.name:18} {fault.what}")
        return 0
    unknown = [name for name in chosen.fault if name not in by_name]
    if unknown:
        print(f"error: no such fault: {', '.join(unknown)}; see --list", file=sys.stderr)
        return 2
    if chosen.soak:
        return asyncio.run(soak(Instance(os.environ.get("TANDEM_MODE", "try")), service(), chosen))
    if not chosen.yes:
        print("error: this kills parts of the running instance; add --yes", file=sys.stderr)
        return 6
    return asyncio.run(run(chosen, [by_name[name] for name in chosen.fault] or list(FAULTS)))


if __name__ == "__main__":
    raise SystemExit(main())
