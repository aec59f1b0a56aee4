"""The command behind scripts/chaos.sh: faults under load, one table. See chaos.sh --help."""

from __future__ import annotations

import argparse
import asyncio
import datetime
import os
import signal
import sys
from collections.abc import Coroutine
from typing import Any

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


async def run(
    instance: Instance, where: Service, chosen: argparse.Namespace, faults: list[Fault]
) -> int:
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
    instance, where = Instance(os.environ.get("TANDEM_MODE", "try")), service()
    if chosen.soak:
        return interruptible(instance, soak(instance, where, chosen))
    faults = [by_name[name] for name in chosen.fault] or list(FAULTS)
    return interruptible(instance, run(instance, where, chosen, faults))


def interruptible(instance: Instance, work: Coroutine[Any, Any, int]) -> int:
    """The work's own code, or 130 when it was interrupted. asyncio.run waits for the thread that
    injects a fault, and that one undoes it: a second signal must not come between."""

    async def listening() -> int:
        task = asyncio.current_task()
        assert task is not None

        def interrupt() -> None:
            if not instance.ended.is_set():
                print("interrupted: the fault in hand is ended first", file=sys.stderr, flush=True)
                instance.ended.set()
                task.cancel()

        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, interrupt)
        return await work

    try:
        return asyncio.run(listening())
    except asyncio.CancelledError:
        return 130


if __name__ == "__main__":
    raise SystemExit(main())
