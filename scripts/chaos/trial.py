"""One fault under load, from a healthy service to a healthy service, as one row of the table.

Whatever goes wrong becomes a row that says so: the faults after it still have their turn.
"""

from __future__ import annotations

import asyncio
import time

import httpx

from scripts.chaos import report
from scripts.chaos.faults import CannotInject, Fault
from scripts.chaos.instance import Instance
from scripts.chaos.load import Load, Service, misspelt

# Answers are well under way before the fault, and go on for a while after it.
BEFORE_SECONDS = 3.0
BUSY_SECONDS = 20.0
AFTER_SECONDS = 6.0
# While a dead part loads, and a moment longer, so many callers go on.
CALM_CALLERS = 2
CALM_PAUSE_SECONDS = 4.0
HEALED_SECONDS = 2.0
MEND_SECONDS = 120.0


async def trial(
    instance: Instance, where: Service, fault: Fault, streams: int, tokens: int
) -> report.Row:
    """Never raises for what the service or this machine does."""
    try:
        await asyncio.to_thread(_make_healthy, instance)
    except RuntimeError as error:
        return report.row(fault, [], 0, None, f"the service was not healthy before it: {error}")
    load = fault.load(where, min(streams, fault.callers), tokens)
    await load.start()
    healed: float | None = None
    trouble = ""
    try:
        healed = await _under(load, instance, fault)
    except CannotInject as error:
        await load.stop()
        return report.not_done(fault, str(error))
    except RuntimeError as error:
        trouble = str(error)
    answers = await load.stop()
    try:
        wrong = await misspelt(where, answers)
    except httpx.HTTPError as error:
        wrong, healed = 0, None
        trouble += f" the texts could not be checked: {type(error).__name__}"
    return report.row(fault, answers, wrong, healed, trouble.strip())


async def _under(load: Load, instance: Instance, fault: Fault) -> float:
    """Do it while callers read, and wait until all is well again; how long both took."""
    await asyncio.sleep(BEFORE_SECONDS)
    await asyncio.to_thread(instance.wait_busy, BUSY_SECONDS)
    before = await asyncio.to_thread(instance.pids, fault.renews)
    began = time.monotonic()
    await asyncio.to_thread(fault.inject, instance)
    await asyncio.sleep(AFTER_SECONDS)
    load.calm(CALM_CALLERS, CALM_PAUSE_SECONDS)
    await asyncio.to_thread(instance.wait_replaced, before)
    await asyncio.to_thread(instance.wait_healthy)
    healed = time.monotonic() - began
    await asyncio.sleep(HEALED_SECONDS)
    return healed


def _make_healthy(instance: Instance) -> None:
    """What an earlier fault left broken is started anew."""
    try:
        instance.wait_healthy(MEND_SECONDS)
    except RuntimeError:
        instance.mend()
        instance.wait_healthy()
