"""The command behind scripts/chaos.sh: faults under load, one table. See chaos.sh --help."""

from __future__ import annotations

import argparse
import asyncio
import datetime
import os
import sys

from scripts.chaos import report
from scripts.chaos.faults import FAULTS, Fault
from scripts.chaos.instance import ROOT, Instance
from scripts.chaos.load import Service
from scripts.chaos.soak import soak
from scripts.chaos.trial import trial


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="chaos.sh")
    parser.add_argument("fault", nargs="*")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--yes", action="store_true")
    parser.add_argument("--streams", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=300)
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


async def run(chosen: argparse.Namespace, faults: list[Fault]) -> int:
    instance, where = Instance(os.environ.get("TANDEM_MODE", "try")), service()
    rows = []
    for fault in faults:
        one = await trial(instance, where, fault, chosen.streams, chosen.tokens)
        rows.append(one)
        print(f"{one.verdict:8} " + " | ".join(one.cells()), flush=True)
        for complaint in one.complaints:
            print(f"         told: {complaint}", flush=True)
    print("\n" + report.table(rows))
    bad = [one.fault for one in rows if one.verdict == "LOST"]
    done = sum(not one.not_done for one in rows)
    if chosen.write_readme and not bad and done == len(FAULTS):
        date = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d")
        report.write_readmes(ROOT, rows, date, chosen.streams)
    elif chosen.write_readme:
        reason = f"not healthy or not whole: {', '.join(bad)}" if bad else "not all were done"
        print(f"the READMEs stay as they are: {reason}", file=sys.stderr)
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
    if not chosen.soak and not chosen.yes:
        print("error: this kills parts of the running instance; add --yes", file=sys.stderr)
        return 6
    try:
        return asyncio.run(work(chosen, [by_name[name] for name in chosen.fault] or list(FAULTS)))
    except KeyboardInterrupt:
        print("interrupted: the fault in hand was ended first", file=sys.stderr)
        return 130


async def work(chosen: argparse.Namespace, faults: list[Fault]) -> int:
    if chosen.soak:
        return await soak(Instance(os.environ.get("TANDEM_MODE", "try")), service(), chosen)
    return await run(chosen, faults)


if __name__ == "__main__":
    raise SystemExit(main())
